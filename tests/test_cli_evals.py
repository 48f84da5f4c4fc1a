"""The commands about evals, on the real model: eval, evals, effects, and a whole validation."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import headscope

from headscope.catalog import evals, interventions

CHANGE = "ablate:heads=L18H6+L18H7,part=answer"


def test_every_eval_is_listed_with_source_and_licence() -> None:
    code, out, err = headscope("evals", "--json")
    assert code == 0, err
    rows = {row["eval"]: row for row in json.loads(out)}
    assert set(rows) == set(evals())
    for row in rows.values():
        assert all(row[key] for key in ("asks", "metric", "lengths", "source", "licence"))
    code, out, _ = headscope("evals")
    assert code == 0
    assert "needle" in out


def test_every_intervention_is_listed_with_what_it_declares() -> None:
    code, out, err = headscope("interventions", "--json")
    assert code == 0, err
    rows = {row["intervention"]: row for row in json.loads(out)}
    assert set(rows) == set(interventions())
    for row in rows.values():
        assert row["site"] in ("prompt", "attention", "cache", "logits")
        assert row["phase"] in ("prefill", "decode", "answer", "all")
        assert isinstance(row["causal"], bool)
        assert isinstance(row["stateful"], bool)
        assert row["does"]
        assert row["source"]
    code, out, _ = headscope("interventions")
    assert code == 0
    assert "attention_knockout" in out


@pytest.mark.model
def test_base_and_changed_on_the_same_questions(tmp_path: Path) -> None:
    args = ("eval", "smollm2", "--tasks", "needle,perplexity", "--lengths", 256, "--samples", 6)
    out = tmp_path / "e.json"
    code, printed, err = headscope(*args, "--with", CHANGE, "--out", out, "--json")
    assert code == 0, err
    found = json.loads(printed)
    assert found["saved"] == str(out)
    rows = {(row["task"], row["condition"]): row for row in found["table"]}
    assert rows["needle", "base"]["exact"] > 0.5
    assert rows["needle", CHANGE]["change"] < rows["perplexity", CHANGE]["change"]
    assert {row["length"] for row in found["by"]["length"]} == {256}
    assert len(found["claims"]) == 2
    before = out.read_bytes()
    code, printed, err = headscope(*args, "--with", CHANGE, "--out", out)  # goes on: nothing to do
    assert code == 0, err
    assert "needle" in printed
    assert out.read_bytes() == before
    code, _, err = headscope(*args, "--out", out)
    assert code == 2
    assert "another evaluation" in err


@pytest.mark.model
def test_heads_alone_and_a_validation_with_spared_evals(tmp_path: Path) -> None:
    few = ("--heads", "L18H6,L18H7,L2H0", "--samples", 6, "--lengths", 256, "--quiet")
    code, out, err = headscope("effects", "smollm2", *few, "--json", "--out", tmp_path / "f")
    assert code == 0, err
    rows = json.loads(out)["heads"]
    assert {row["name"] for row in rows} == {"L18H6", "L18H7", "L2H0"}
    assert rows[-1]["name"] == "L2H0"
    run = tmp_path / "run"
    args: tuple[Any, ...] = ("--probes", "retrieval", "--samples", 4, "--lengths", 256, "--quiet")
    assert headscope("scan", "smollm2", *args, "--out", run)[0] == 0
    code, out, err = headscope(
        "validate", run, "--k", 5, "--doses", "1,2", "--controls", 19, "--dose-controls", 2,
        "--kinds", "uniform,norm_matched", "--part", "answer", "--samples", 6, "--lengths", 256,
        "--spared", "closed_book", "--quiet", "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert [row["k"] for row in found["doses"]] == [1, 2, 5]
    needle, facts = found["specificity"]
    assert needle["verdict"] == "more than random heads"
    assert needle["change"] < facts["change"]
    assert len(found["claims"]) == 2
    assert headscope("report", run)[0] == 0


@pytest.mark.model
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--tasks", "nedle"), "no eval named 'nedle'. Did you mean needle"),
        (("--tasks", ","), "--tasks names no eval"),
        ((), "Name evals with --tasks"),
        (("--tasks", "needle", "--lengths", 9000), "do not fit"),
        (("--tasks", "needle", "--lengths", 40, "--samples", 6), "cannot be made"),
        (("--tasks", "ioi", "--samples", 3), "at least 6"),
        (("--tasks", "needle", "--with", "ablate:heads=L99H0"), "has no head L99H0"),
        (("--tasks", "needle", "--with", "melt"), "no intervention named 'melt'"),
        (("--prompts", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    args: tuple[Any, ...], message: str, tmp_path: Path
) -> None:
    code, out, err = headscope("eval", "smollm2", *args, "--quiet")
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
