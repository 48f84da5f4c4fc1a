"""Profiles as data: made, saved, read, counted, and refused where they do not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import opened
from hypothesis import given, settings
from hypothesis import strategies as st

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.patterns import Full, Streaming
from headscope.patterns.rules import Rule
from headscope.sparsity import SparseProfile
from headscope.sparsity.profile import ProfiledModel

MODEL = ProfiledModel(name="made", layers=(0, 2), n_heads=4, n_kv_heads=2, d_head=8)
RULES: st.SearchStrategy[Rule] = st.one_of(
    st.just(Full()),
    st.builds(Streaming, st.integers(0, 9), st.integers(1, 30)),
    st.builds(
        Streaming, st.integers(0, 9), st.integers(-9, 9), st.floats(0.01, 1, allow_nan=False)
    ),
)
GRIDS = st.lists(st.lists(RULES, min_size=4, max_size=4), min_size=2, max_size=2)


@settings(deadline=None)
@given(GRIDS, st.integers(1, 40))
def test_a_profile_is_what_it_was_made_of(grid: list[list[Rule]], n: int) -> None:
    profile = SparseProfile.of(MODEL, grid)
    again = SparseProfile.model_validate_json(profile.model_dump_json())
    assert again == profile
    assert hash(again) == hash(profile)
    for at, layer in enumerate(MODEL.layers):
        assert list(profile.of_layer(layer)) == grid[at]
        for head in range(4):
            assert profile.rule((layer, head)) == grid[at][head]
    seen = [[sum(_seen(rule, q) for q in range(n)) for rule in row] for row in grid]
    np.testing.assert_allclose(profile.densities(n), np.array(seen) / (n * (n + 1) / 2))
    held = [[_held(row[kv : kv + 2], n) for kv in (0, 2)] for row in grid]
    np.testing.assert_array_equal(profile.held_keys(n), held)
    assert profile.kv_bytes(n, 4, 3) == np.sum(held) * 2 * 8 * 4 * 3


def _seen(rule: Rule, query: int) -> int:
    if isinstance(rule, Full):
        return query + 1
    assert isinstance(rule, Streaming)
    window = max(1, rule.window + int(rule.growth * (query + 1))) if rule.growth else rule.window
    return sum(key < rule.sink or query - key < window for key in range(query + 1))


def _held(rules: list[Rule], n: int) -> int:
    streams = [rule for rule in rules if isinstance(rule, Streaming) and not rule.growth]
    if len(streams) < len(rules):
        return n
    return min(n, max(r.sink for r in streams) + max(r.window for r in streams))


def test_windows_that_grow_stand_still_at_a_length() -> None:
    profile = SparseProfile.of(MODEL, {"L2H1": Streaming(4, -10, growth=0.25)})
    assert profile.at(100).rule("L2H1") == Streaming(4, 15)
    assert profile.at(8).rule("L2H1") == Streaming(4, 1)
    assert profile.rule("L0H0") == Full()


@pytest.mark.parametrize("n", [0, -3])
def test_a_text_has_a_token_at_least(n: int) -> None:
    profile = SparseProfile.of(MODEL, {})
    for asked in (profile.density, profile.held_keys, profile.kv_bytes):
        with pytest.raises(HeadscopeError, match="one token at least"):
            asked(n)
    assert profile.density(1) == 1
    assert profile.kv_bytes(1, 2) == 2 * 2 * 2 * 8 * 2


def test_a_map_gives_the_least_spoken_for_a_rule(duo_map: HeadMap) -> None:
    rule = Streaming(2, 7)
    profile = SparseProfile.from_map(duo_map, "duo_gate", 0.5, rule)
    gates = duo_map.kv_heads()["duo_gate"].to_numpy().reshape(2, 2)
    streams = np.array([profile.of_layer(layer)[::2] for layer in (0, 1)]) == rule
    assert streams.sum() == 2
    assert gates[streams].max() <= gates[~streams].min()
    for layer in (0, 1):  # a group is of one rule
        assert profile.of_layer(layer)[::2] == profile.of_layer(layer)[1::2]
    one = SparseProfile.from_map(duo_map, "duo_gate", 0.25, rule, by="head")
    assert sum(r == rule for layer in (0, 1) for r in one.of_layer(layer)) == 2
    for share in (-0.1, 1.5):
        with pytest.raises(HeadscopeError, match="between 0 and 1"):
            SparseProfile.from_map(duo_map, "duo_gate", share)
    with pytest.raises(HeadscopeError, match="no score 'gates'"):
        SparseProfile.from_map(duo_map, "gates")


def test_an_imported_map_does_not_know_how_wide_heads_are(duo_map: HeadMap) -> None:
    duo_map.info.model.d_head = None
    with pytest.raises(HeadscopeError, match="give d_head"):
        SparseProfile.from_map(duo_map, "duo_gate")
    assert SparseProfile.from_map(duo_map, "duo_gate", d_head=16).model.d_head == 16


@pytest.fixture
def duo_map() -> HeadMap:
    from headscope.runinfo import ModelInfo, RunInfo, ScoreInfo
    from headscope.scores import Scores

    shape = {"n_heads": 4, "n_kv_heads": 2, "d_head": 8, "layers": [0, 1]}
    facts = {"revision": None, "fingerprint": "f", "context_length": 64, "parameters": 1}
    info = RunInfo(
        model=ModelInfo(spec="made", name="made", **shape, **facts),
        backend="hf", dtype="float32", device="cpu", seed=0, probes={}, families={}, versions={},
        scores={"duo_gate": ScoreInfo(probe="duo_gate", kv_view="max")},
        command="", created="", state="complete",
    )  # fmt: skip
    values = np.array([[0.9, 0.9, 0.1, 0.1], [0.2, 0.2, 0.8, 0.8]], dtype=np.float32)
    return HeadMap(info, {"duo_gate": Scores(values[None], "max")})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "newer headscope"),
        ({"schema_version": 0}, "older headscope"),
        ({"kind": "slot_profile"}, "no sparseprofile"),
        ({"rules": [{"rule": "nonsense"}]}, "no rule named 'nonsense'"),
        ({"rules": [{"rule": "streaming", "window": 0}]}, "window >= 1"),
        ({"rules": [{"rule": "streaming", "windows": 1}]}, "no 'windows'"),
        ({"rules": [{"sink": 1}]}, "written as"),
        ({"heads": [[0, 0, 0, 0]]}, "not those of its model"),
        ({"heads": [[0] * 4, [0, 0, 0, 9]]}, "not listed"),
        ({"heads": [[0] * 4, [0, 0, 0, -1]]}, "not listed"),
        ({"extra": 1}, "extra"),
        ({"model": {"name": "m", "layers": [0, 0], "n_heads": 4, "n_kv_heads": 2, "d_head": 8}},
         "ascending"),
        ({"model": {"name": "m", "layers": [0, 2], "n_heads": 4, "n_kv_heads": 3, "d_head": 8}},
         "do not divide"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = SparseProfile.of(MODEL, {}).save(tmp_path / "profile.json")
    assert SparseProfile.load(path) == SparseProfile.of(MODEL, {})
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(HeadscopeError, match=said) as refused:
        SparseProfile.load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_files_of_something_else_are_refused(content: bytes, tmp_path: Path) -> None:
    (path := tmp_path / "profile.json").write_bytes(content)
    with pytest.raises(HeadscopeError, match="damaged or no sparseprofile"):
        SparseProfile.load(path)


def test_heads_that_there_are_not_are_refused() -> None:
    with pytest.raises(HeadscopeError, match="no head L1H0"):
        SparseProfile.of(MODEL, {"L1H0": Full()})
    with pytest.raises(HeadscopeError, match="2 rows of 4"):
        SparseProfile.of(MODEL, [[Full()] * 4])
    with pytest.raises(HeadscopeError, match="no layer 1"):
        SparseProfile.of(MODEL, {}).of_layer(1)


def test_it_is_for_one_model() -> None:
    llama = opened("llama")
    SparseProfile.of(llama, {}).check(llama)
    facts = ProfiledModel.of(llama)
    SparseProfile.of(facts.model_copy(update={"fingerprint": None}), {}).check(llama)
    with pytest.raises(HeadscopeError, match="other weights"):
        SparseProfile.of(facts.model_copy(update={"fingerprint": "f"}), {}).check(llama)
    for change in ({"d_head": 16}, {"n_kv_heads": 6}, {"n_heads": 2}, {"layers": (0, 1)}):
        other = SparseProfile.of(facts.model_copy(update=change), {})
        with pytest.raises(HeadscopeError, match="Plan one for this model"):
            other.check(llama)


def test_a_layer_is_a_line_of_the_file(tmp_path: Path) -> None:
    profile = SparseProfile.of(MODEL, {"L2H3": Full()}, notes={"why": "[\n 1,\n 2\n]"})
    text = profile.save(tmp_path / "profile.json").read_text()
    assert text.count("[ 0, 0, 0, 0 ]") == 2
    assert SparseProfile.load(tmp_path / "profile.json") == profile


def test_it_is_shown_as_a_table_and_a_line() -> None:
    profile = SparseProfile.of(MODEL, {"L2H3": Streaming(1, 2)})
    table = profile.to_pandas()
    assert table["kv_head"].tolist() == [0, 0, 1, 1] * 2
    assert table.iloc[-1][["name", "rule"]].tolist() == ["L2H3", "streaming(sink=1, window=2)"]
    assert str(profile) == "SparseProfile(made: 7 full, 1 streaming(sink=1, window=2))"
