"""Profiles in the formats of others: they come back, and others read out of them what is meant."""

import json
import math
import os
import re
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from export.consumers import duo_attention, headscope, kvpress, moa, rtp_llm
from export.expressible import LENGTH, a_model, expressed, rows_of, said
from hypothesis import given, settings
from hypothesis import strategies as st

from headscope import HeadscopeError
from headscope.catalog import profile_formats
from headscope.export.profiles.blocks import covered
from headscope.patterns import Full, Streaming
from headscope.patterns.base import Pattern
from headscope.patterns.selectors.vertical_slash import VerticalSlash
from headscope.sparsity import SparseProfile

NAMES = sorted(profile_formats())
MASKS = ("flashinfer", "flex_attention")


def test_the_help_names_every_format() -> None:
    run = [sys.executable, "-m", "headscope", "export", "--help"]
    wide = os.environ | {"COLUMNS": "1000", "TERM": "dumb", "NO_COLOR": "1"}
    help_ = subprocess.run(run, capture_output=True, text=True, check=True, env=wide).stdout
    told = dict(re.findall(r"(\w+) \(by (KV head|query head)\)", help_))
    assert {name: kind.granularity for name, kind in profile_formats().items()} == told
    assert "retrieval_head" in help_


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_what_is_written_comes_back(name: str, data: st.DataObject, tmp_path_factory) -> None:
    format_, profile = expressed(data, name)
    path = tmp_path_factory.mktemp("export") / "written"
    paths = format_.write(profile, path)
    assert all(one.is_file() for one in paths)
    assert (path.is_dir(), len(paths)) == (bool(format_.files), max(1, len(format_.files)))
    back = format_.read(path, profile.model)
    assert rows_of(back) == rows_of(profile)
    assert back.model == profile.model
    assert rows_of(format_.read(path, profile)) == rows_of(profile)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*MASKS, "headscope")])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_others_read_what_is_meant(name: str, data: st.DataObject, tmp_path_factory) -> None:
    format_, profile = expressed(data, name)
    path = tmp_path_factory.mktemp("export") / "written"
    format_.write(profile, path)
    found = import_module(f"export.consumers.{name}").loaded(path, profile.model)
    cut = min(LENGTH, 10**9) if name in ("minference", "qwen_1m") else 10**9
    wanted = [[_cut(said(rule), cut) for rule in row] for row in rows_of(profile)]
    assert found == wanted


def _cut(what: tuple[object, ...], most: int) -> tuple[object, ...]:
    """Lines as they are at a length; a sink and a window are looked up at any."""
    if what[0] != "lines":
        return what
    return ("lines", *(min(int(str(size)), most) for size in what[1:]))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_our_own_json_is_plain(data: st.DataObject, tmp_path_factory) -> None:
    format_, profile = expressed(data, "headscope")
    path = tmp_path_factory.mktemp("export") / "written"
    format_.write(profile, path)
    wanted = [[headscope.said(rule.to_dict()) for rule in row] for row in rows_of(profile)]
    assert headscope.loaded(path, profile.model) == wanted


@pytest.mark.parametrize("name", MASKS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_blocks_hold_the_pairs_of_the_rules(
    name: str, data: st.DataObject, tmp_path_factory
) -> None:
    format_, profile = expressed(data, name)
    path = tmp_path_factory.mktemp("export") / "written"
    format_.write(profile, path)
    found = import_module(f"export.consumers.{name}").loaded(path, profile.model)
    n, block = format_.length, format_.block
    query, key = torch.arange(n)[:, None], torch.arange(n)[None]
    for masks, rules in zip(found, rows_of(profile), strict=True):
        for mask, rule in zip(masks, rules, strict=True):
            assert isinstance(rule, Pattern)
            wanted = rule.mask(query, key) & (key <= query)
            if name == "flashinfer":  # whole blocks, and in each row's own no later tokens
                whole = covered(rule, n, block)[0].repeat_interleave(block, 0)
                whole = whole.repeat_interleave(block, 1)[:n, :n] & (key <= query)
                assert not (wanted & ~whole).any()
                wanted = whole
            assert torch.equal(mask, wanted)


@given(
    total=st.integers(1, 400),
    streaming=st.integers(0, 400),
    seed=st.integers(0, 10),
    slip=st.floats(-0.4, 0.4),
)
@settings(max_examples=60, deadline=None)
def test_any_sparsity_near_the_right_one_gives_the_same_heads(
    total: int, streaming: int, seed: int, slip: float, tmp_path_factory
) -> None:
    streaming = min(streaming, total)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    rules = [Streaming(4, 16) if place < streaming else Full() for place in order]
    profile = SparseProfile.of(a_model(1, total, 1), [rules])
    path = tmp_path_factory.mktemp("export") / "written"
    profile_formats()["duo_attention"]().write(profile, path)
    wanted = [[said(rule) for rule in rules]]
    assert duo_attention.loaded(path, profile.model, seed=seed) == wanted
    if 0 < streaming < total:  # half a head to either side of what the quantile can tell
        near = (streaming - 0.5 + slip) / (total - 1)
        assert duo_attention.loaded(path, profile.model, near, seed) == wanted


def test_scores_have_no_ties(tmp_path: Path) -> None:
    profile = SparseProfile.of(a_model(16, 16, 1), [[Full()] * 8 + [Streaming()] * 8] * 16)
    profile_formats()["duo_attention"]().write(profile, tmp_path / "duo")
    lines = (tmp_path / "duo" / "full_attention_heads.tsv").read_text().splitlines()
    values = sorted(float(cell) for line in lines for cell in line.split("\t"))
    assert min(b - a for a, b in pairwise(values)) > 1e-4


def test_a_press_hides_the_middle_of_the_context(tmp_path: Path) -> None:
    rules = [[Full()] * 3 + [Streaming(2, 5)] * 3, [Full()] * 6]
    profile = SparseProfile.of(a_model(2, 2, 3), rules)
    profile_formats()["kvpress"]().write(profile, tmp_path / "press")
    press = kvpress.press(tmp_path / "press", profile.model)
    hidden = press.hidden(0, kvpress.CONTEXT)
    assert hidden[0].sum() == 0
    assert hidden[1].nonzero().flatten().tolist() == list(range(2, kvpress.CONTEXT - 5))
    assert not press.hidden(1, kvpress.CONTEXT).any()
    assert not press.hidden(0, 6).any()
    with pytest.raises(ValueError, match="is for made-up, not for this model"):
        kvpress.press(tmp_path / "press", a_model(3, 2, 3))


@given(data=st.data(), tokens=st.integers(1, 50_000))
@settings(max_examples=40, deadline=None)
def test_bands_are_windows_in_blocks(data: st.DataObject, tokens: int, tmp_path_factory) -> None:
    format_, profile = expressed(data, "moa")
    path = tmp_path_factory.mktemp("export") / "written"
    format_.write(profile, path)
    total = tokens + moa.NEW
    for bands, rules in zip(moa.bands(path, tokens), rows_of(profile), strict=True):
        for band, rule in zip(bands, rules, strict=True):
            if isinstance(rule, Streaming):
                window = rule.window + math.floor(rule.growth * total)
                assert band == max(1, math.ceil(min(window, total - 64) / 64))
            else:
                assert band * 64 >= total - 64


def test_more_ranks_allow_other_counts(tmp_path: Path) -> None:
    rule = Streaming(4, 100)
    profile = SparseProfile.of(a_model(1, 2, 2), [[Full(), Full(), rule, Full()]])
    kind = profile_formats()["rtp_llm"]
    with pytest.raises(HeadscopeError, match=r"they have 2, 1\. .* ranks=2"):
        kind().write(profile, tmp_path / "a.json")
    with pytest.raises(AssertionError):
        rtp_llm.check_mapping([1, 1, 0, 1], profile.model, 1)
    kind(ranks=2).write(profile, tmp_path / "a.json")
    found = rtp_llm.loaded(tmp_path / "a.json", profile.model, ranks=2)
    assert found == [[("full",), ("full",), ("streaming", 4, 100), ("full",)]]
    with pytest.raises(HeadscopeError, match="do not divide over 3 ranks"):
        kind(ranks=3).refuse(profile)


def test_columns_that_engines_read_otherwise(tmp_path: Path) -> None:
    kind, path = profile_formats()["qwen_1m"], tmp_path / "sparse_attention_config.json"
    model = a_model(1, 1, 1)
    with pytest.raises(HeadscopeError, match="take 30 columns as 130"):
        kind().write(SparseProfile.of(model, [[VerticalSlash(30, 800)]]), path)
    path.write_text(json.dumps([{"0": ["vertical_and_slash", 30, 800, 0.9]}]))
    assert kind().read(path, model).rule("L0H0") == VerticalSlash(130, 800)
    assert profile_formats()["minference"]().read(path, model).rule("L0H0").vertical == 30


def test_notes_and_weights_stay_in_our_own_format(tmp_path: Path) -> None:
    model = a_model().model_copy(update={"fingerprint": "ab"})
    profile = SparseProfile.of(model, {"L0H1": Streaming()}, notes={"by": "hand"})
    profile_formats()["headscope"]().write(profile, tmp_path / "p.json")
    back = profile_formats()["headscope"]().read(tmp_path / "p.json", profile)
    assert back == profile
    assert SparseProfile.load(tmp_path / "p.json") == profile
    with pytest.raises(HeadscopeError, match="other weights"):
        profile_formats()["headscope"]().read(tmp_path / "p.json", a_model())
