"""What a format cannot say is refused before anything is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from export.expressible import a_model

from headscope import HeadscopeError
from headscope.catalog import patterns, profile_formats, selectors
from headscope.export.profiles.base import ProfileFormat
from headscope.patterns import Dilated, Full, Radial, Streaming, Strided
from headscope.patterns.rules import Rule
from headscope.patterns.selectors.block_top_k import BlockTopK
from headscope.patterns.selectors.vertical_slash import VerticalSlash
from headscope.sparsity import SparseProfile
from headscope.sparsity.profile import ProfiledModel

NAMES = sorted(profile_formats())
STREAMING = {"duo_attention", "kvpress", "minference", "moa", "razor_attention", "rtp_llm"}
LINES = {"minference", "qwen_1m"}
BLOCKS = {"flashinfer", "flex_attention"}


def a_format(name: str, **numbers: Any) -> ProfileFormat:
    """The format, with a length where it needs one."""
    return profile_formats()[name](
        **({"length": 64, "block": 8} if name in BLOCKS else {}) | numbers
    )


def all_of(rule: Rule, model: ProfiledModel | None = None) -> SparseProfile:
    return SparseProfile.of(a_model() if model is None else model, {}, rest=rule)


def refused(format_: ProfileFormat, profile: SparseProfile, words: str, where: Path) -> None:
    with pytest.raises(HeadscopeError) as caught:
        format_.write(profile, where / "out")
    message = str(caught.value)
    assert words in message
    assert message.isprintable()
    assert len(message) < 400
    assert list(where.iterdir()) == []


def _expressed(name: str, rule: Rule) -> bool:
    if name == "headscope" or isinstance(rule, Full):
        return True
    if name in BLOCKS:
        return rule.name in patterns()
    if isinstance(rule, Streaming):
        return name in STREAMING and (name != "moa" or rule.sink == 64)
    return isinstance(rule, VerticalSlash) and name in LINES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", sorted({**patterns(), **selectors()}))
def test_every_rule_is_written_or_refused(name: str, rule: str, tmp_path: Path) -> None:
    format_, kind = a_format(name), {**patterns(), **selectors()}[rule]()
    profile = all_of(kind)
    if not _expressed(name, kind):
        refused(format_, profile, f"{name} cannot express {kind} of L0H0", tmp_path)
        return
    format_.write(profile, tmp_path / "out")
    back = format_.read(tmp_path / "out", profile)
    assert {back.of_layer(layer) for layer in (0, 1)} == {(kind,) * 6}


ONE = {"duo_attention", "kvpress", "razor_attention", "rtp_llm"}
PARTICULAR: dict[str, tuple[str, Callable[[], Rule | list[list[Rule]]], str]] = {
    **{
        f"two windows for {name}": (
            name,
            lambda: [[Streaming(4, 8)] * 6, [Streaming(4, 9)] * 6],
            "one sink and window for all streaming heads",
        )
        for name in sorted(ONE)
    },
    **{
        f"growth for {name}": (name, lambda: Streaming(4, 8, 0.5), "does not grow; profile.at(n)")
        for name in sorted(ONE | {"minference"})
    },
    "no sink for rtp_llm": ("rtp_llm", lambda: Streaming(0, 8), "a sink of 1 at least"),
    "uneven for rtp_llm": (
        "rtp_llm",
        lambda: [[Full()] * 6, [Full(), *[Streaming(4, 8)] * 5]],
        "in layer 1 they have 1, 0",
    ),
    "a sink for moa": ("moa", lambda: Streaming(4, 8), "give it a sink of 64"),
    "all for moa": ("moa", lambda: Streaming(64, 8, 1.0), "leave it full"),
    "far for moa": ("moa", lambda: Streaming(64, 10**8), "10,000,000 tokens at most"),
    "other rows": ("minference", lambda: VerticalSlash(last_q=32), "last_q=64, sink=30"),
    "other blocks": ("qwen_1m", lambda: VerticalSlash(block=128), "last_q=64, sink=30"),
    "all lines": ("minference", lambda: VerticalSlash(2**21, 2**21), "leave it full"),
    "streaming for qwen_1m": ("qwen_1m", lambda: Streaming(), "full heads up to a length, and"),
    "blocks for minference": ("minference", lambda: BlockTopK(), "streaming heads, full heads"),
    "by content": ("flex_attention", lambda: BlockTopK(), "what it sees the text decides"),
}


@pytest.mark.parametrize("case", PARTICULAR)
def test_particular_limits(case: str, tmp_path: Path) -> None:
    name, rules, words = PARTICULAR[case]
    made = rules()
    rows = made if isinstance(made, list) else [[made] * 6] * 2
    refused(a_format(name), SparseProfile.of(a_model(), rows), words, tmp_path)


KV = sorted(name for name, kind in profile_formats().items() if kind.granularity == "KV head")


@pytest.mark.parametrize("name", KV)
def test_rules_are_merged_only_when_asked(name: str, tmp_path: Path) -> None:
    rule = Streaming(4, 8)
    profile = SparseProfile.of(a_model(), {"L1H4": Full()}, rest=rule)
    refused(a_format(name), profile, "the query heads L1H3 to L1H5", tmp_path)
    refused(a_format(name), profile, "--merge", tmp_path)
    a_format(name).write(profile, tmp_path / "out", merge=True)
    back = a_format(name).read(tmp_path / "out", profile)
    assert back.of_layer(0) == (rule,) * 6
    assert back.of_layer(1) == (rule,) * 3 + (Full(),) * 3


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(KV)))
def test_nothing_is_merged_where_every_query_head_has_a_rule(name: str, tmp_path: Path) -> None:
    with pytest.raises(HeadscopeError, match="do not merge"):
        a_format(name).write(all_of(Full()), tmp_path / "out", merge=True)


@pytest.mark.parametrize("name", NAMES)
def test_layers_without_attention(name: str, tmp_path: Path) -> None:
    gappy = a_model().model_copy(update={"layers": (1, 4)})
    profile = SparseProfile.of(gappy, {"L4H1": Full()})
    if not profile_formats()[name].gaps:
        refused(a_format(name), profile, "layers from 0 without gaps", tmp_path)
        return
    a_format(name).write(profile, tmp_path / "out")
    assert a_format(name).read(tmp_path / "out", profile).of_layer(4) == profile.of_layer(4)


@pytest.mark.parametrize("name", sorted(BLOCKS))
@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"length": None}, "give length= (--length on the command line)"),
        ({"length": 1}, "a length of 2 to"),
        ({"length": 0}, "a length of 2 to"),
        ({"block": 0}, "blocks of 1 token up to it"),
        ({"block": 65}, "blocks of 1 token up to it"),
        ({"length": 2**20, "block": 1}, "take larger blocks"),
    ],
)
def test_lengths_and_blocks(name: str, numbers: Any, words: str, tmp_path: Path) -> None:
    refused(a_format(name, **numbers), all_of(Full()), words, tmp_path)


def test_blocks_that_take_too_much_room(tmp_path: Path) -> None:
    format_ = a_format("flex_attention", length=2**14, block=1)
    refused(format_, all_of(Full()), "2.0 GiB at 16,384 tokens; take larger blocks", tmp_path)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("minference", {"length": 0}), ("qwen_1m", {"length": 10**12}), ("rtp_llm", {"ranks": 0}),
     ("rtp_llm", {"threshold": -1}), ("duo_attention", {"sparsity": 1.5})],
)  # fmt: skip
def test_numbers_of_formats(name: str, numbers: Any) -> None:
    with pytest.raises(HeadscopeError, match=r"needs|between"):
        profile_formats()[name](**numbers)


def test_a_row_block_that_does_not_see_itself(tmp_path: Path, monkeypatch) -> None:
    """No pattern hides a query's own key; one that does would be computed wrongly."""
    monkeypatch.setattr(Dilated, "mask", lambda self, query, key: query - key >= 16)
    monkeypatch.setattr(Dilated, "key_ranges", lambda self, first, last: [(0, last + 1)])
    rule = Dilated(0, 999, 999)
    refused(a_format("flashinfer"), all_of(rule), "causal=True needs last", tmp_path)
    a_format("flex_attention").write(all_of(rule), tmp_path / "out")


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "taken"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    with pytest.raises(HeadscopeError, match="not a new or empty folder"):
        a_format("duo_attention").write(all_of(Full()), place)
    assert [path.name for path in place.iterdir()] == ["mine.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    a_format("kvpress").write(all_of(Full()), empty)
    assert sorted(path.name for path in empty.iterdir()) == ["press.json", "profile_press.py"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "taken"]


def test_patterns_without_a_format_of_their_own_go_to_blocks(tmp_path: Path) -> None:
    rules = [[Strided(2, 3, 5)] * 3 + [Radial(1, 4)] * 3, [Dilated()] * 6]
    profile = SparseProfile.of(a_model(), rules)
    for name in sorted(BLOCKS):
        a_format(name).write(profile, tmp_path / name)
        assert a_format(name).read(tmp_path / name, profile) == profile
