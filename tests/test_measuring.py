"""What a scan measures and what it refuses to: rows, seeds, lengths, weights, numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from organisms import rope_organism
from tiny import tiny_model, tiny_tokenizer

import headscope
from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.model import HeadModel
from headscope.probes.induction import Induction
from headscope.probes.sink import Sink
from headscope.prompts import Repeated

FAMILY = Repeated(samples=4, block=20, times=3)


def measured(model: HeadModel, **options: Any) -> HeadMap:
    return headscope.scan(model, [Induction(prompts=FAMILY), Sink(prompts=FAMILY)], **options)


def test_a_probe_reads_the_same_whatever_is_measured_beside_it(tmp_path: Path) -> None:
    """Answers are other rows of other passes, and unanswered prompts count for other probes."""
    made = rope_organism(0)
    model = headscope.load(made.hf, made.tokenizer)
    lines = [
        {"text": " ".join(["w5 w6 w7 w8 w9"] * 4), "spans": {"needle": [0, 8], "answer": [3, 8]},
         "answer": answer}
        for answer in (" w5 w6", " w30 w31")
    ]  # fmt: skip
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    alone = headscope.scan(model, ["sink"], prompts=path)
    beside = headscope.scan(model, ["retrieval", "needle_mass", "sink"], prompts=path)
    (family,) = beside.info.families.values()
    assert family.accepted == [True, False]
    assert len(beside["retrieval"].values) == 1
    assert np.array_equal(alone["sink"].values, beside["sink"].values)


def test_what_cannot_be_one_scan_is_refused(llama: HeadModel, tmp_path: Path) -> None:
    twice = [Sink(prompts=FAMILY), Sink(prompts=FAMILY, epsilon=0.5)]
    with pytest.raises(HeadscopeError, match="there twice"):
        headscope.scan(llama, twice)
    once = headscope.scan(llama, ["sink", "sink"], prompts=FAMILY)
    assert list(once.scores) == ["sink", "sink_rate"]
    assert list(headscope.scan(llama, "sink", prompts=FAMILY).scores) == ["sink", "sink_rate"]
    with pytest.raises(HeadscopeError, match="seed is 0 or more"):
        headscope.scan(llama, ["sink"], prompts=FAMILY, seed=-1)
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "w5 w6 w5 w6"}')
    with pytest.raises(HeadscopeError, match="leave the lengths out"):
        headscope.scan(llama, ["sink"], prompts=path, lengths=[20])
    path.write_text('{"text": "w5 w6 w5 w6", "spans": {"needle": [0, 2]}}')
    with pytest.raises(HeadscopeError, match=r"Prompt 1 of jsonl: .* no 'answer'"):
        headscope.scan(llama, ["needle_mass"], prompts=path)
    path.write_text('{"text": "w5"}')
    with pytest.raises(HeadscopeError, match="Prompt 1 of jsonl: one token alone"):
        headscope.scan(llama, ["previous_token"], prompts=path)


def test_lengths_reach_repeated_tokens(llama: HeadModel) -> None:
    for length in (30, 33):
        head_map = headscope.scan(llama, ["induction"], lengths=[length], samples=2)
        ids = Repeated(lengths=(length,)).prompt(0, llama.tokenizer).token_ids
        assert len(ids) == length
        assert len(set(ids[1:9])) == 8
        assert ids[1:9] == ids[9:17] or length == 33
        (family,) = head_map.info.families.values()
        assert family.parameters["lengths"] == [length]


def test_a_family_keeps_its_own_seed(llama: HeadModel) -> None:
    mine = Repeated(samples=1, seed=7, block=9)
    kept = headscope.scan(llama, [Sink(prompts=mine)])
    assert next(iter(kept.info.families.values())).parameters["seed"] == 7
    changed = headscope.scan(llama, [Sink(prompts=mine)], seed=1)
    assert next(iter(changed.info.families.values())).parameters["seed"] == 1


def fresh() -> HeadModel:
    """A model to spoil: the others are shared between tests."""
    return headscope.load(tiny_model("llama"), tiny_tokenizer())


def test_changed_weights_are_another_model(tmp_path: Path) -> None:
    llama = fresh()
    measured(llama, out=tmp_path / "run")
    llama.hf.model.layers[0].self_attn.q_proj.weight.data.mul_(3)
    with pytest.raises(HeadscopeError, match=r"differs in: model"):
        measured(llama, out=tmp_path / "run")
    with (
        headscope.Ablate(["L0H0"])(llama),
        pytest.raises(HeadscopeError, match="close the interventions"),
    ):
        measured(llama, out=tmp_path / "other")


def test_numbers_that_are_none_name_their_head() -> None:
    llama = fresh()
    llama.hf.model.layers[1].self_attn.q_proj.weight.data[8:16] = float("nan")
    with pytest.raises(HeadscopeError, match=r"L1H1 has a .* that is no number"):
        measured(llama)


def test_a_kv_head_has_what_its_group_makes(llama: HeadModel) -> None:
    head_map = measured(llama)
    table = head_map.kv_heads()
    assert len(table) == llama.n_layers * llama.n_kv_heads
    group = head_map["sink"].mean().reshape(llama.n_layers, llama.n_kv_heads, -1)
    assert np.allclose(table["sink"], group.max(-1).ravel())
    table = head_map.compare(head_map).table
    assert set(table["note"]) <= {"", "constant in the first and the second"}
    assert table["overlap"].dropna().tolist() == [10] * (table["note"] == "").sum()
    assert table["note"].tolist()[:2] == ["", ""]
