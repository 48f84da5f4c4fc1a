"""The command `headscope prune`: mistakes, and a run of the real model."""

import json
from pathlib import Path

import pytest
from organisms import rope_organism
from test_cli import headscope as command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    organism = rope_organism(0)
    where = tmp_path_factory.mktemp("models") / "organism"
    organism.hf.save_pretrained(where)
    organism.tokenizer.save_pretrained(where)
    return str(where)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--order", "retrieval"), "'retrieval' is none of importance"),
        (("--order", ","), "Name at least one order"),
        (("--task", "nedle"), "no eval named 'nedle'"),
        (("--step", "0"), "0 < step <= until"),
        (("--randoms", "0"), "--randoms takes a whole number from 1 up"),
        (("--prompts", "nowhere.jsonl", "--lengths", "100"), "nowhere.jsonl"),
    ],
)
def test_the_command_says_mistakes(folder: str, args: tuple[str, ...], message: str) -> None:
    code, out, err = command("prune", folder, *args, "--quiet")
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.model
def test_the_command_prunes_a_run(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "p.json"
    few = ("--lengths", 256, "--quiet")
    code, _, err = command(
        "scan", "smollm2", "--probes", "retrieval", "--samples", 4, *few, "--out", run
    )
    assert code == 0, err
    args = (
        "prune", run, "--task", "needle", "--order", "importance_once,retrieval,random",
        "--randoms", 1, "--step", 0.2, "--until", 0.2, "--selection", 4, "--samples", 6, *few,
        "--out", out,
    )  # fmt: skip
    code, printed, err = command(*args, "--json")
    assert code == 0, err
    shown = json.loads(printed)
    assert len(shown["claims"]) == 3
    assert {row["order"] for row in shown["evals"][0]["areas"]} == {
        "importance_once", "retrieval", "random",
    }  # fmt: skip
    before = out.read_bytes()
    code, printed, err = command(*args)
    assert code == 0, err
    assert "importance_once" in printed
    assert out.read_bytes() == before
