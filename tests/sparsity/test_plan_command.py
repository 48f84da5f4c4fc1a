"""The commands plan and pareto, from a run folder to a profile that runs."""

import json
import sys
from pathlib import Path

import pytest
from tiny import tiny_model, tiny_tokenizer

import headscope
from headscope import cli
from headscope.sparsity import SparseProfile


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, a run of it, and prompts."""
    where = tmp_path_factory.mktemp("planning")
    tiny_model("llama").save_pretrained(where / "model")
    tiny_tokenizer().save_pretrained(where / "model")
    for name, shift in (("prompts", 0), ("questions", 40)):
        words = [
            " ".join(f"w{3 + (7 * i + 5 * j + shift) % 90}" for j in range(30)) for i in range(6)
        ]
        lines = [json.dumps({"text": text, "answer": f" w{i + 5}"}) for i, text in enumerate(words)]
        (where / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    headscope.scan(
        headscope.load(str(where / "model")), ["previous_token"], samples=1, lengths=[41],
        out=where / "run", command="headscope scan",
    )  # fmt: skip
    return where


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs a command; (exit code, stdout, stderr)."""

    def call(*args: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["headscope", *map(str, args), "--quiet"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return call


def test_a_run_becomes_a_profile(
    place: Path, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "profile.json"
    asked = ("plan", place / "run", "--prompts", place / "prompts.jsonl", "--out", out)
    code, printed, err = run(*asked, "--budget", "kv=0.6", "--json")
    assert (code, err) == (0, "")
    said = json.loads(printed)
    assert said["saved"] == str(out)
    assert said["taken"][0]["kv"] <= 0.6
    profile = SparseProfile.load(out)
    n = said["taken"][0]["n"]
    assert profile.kv_bytes(n) == said["taken"][0]["kv_bytes"]
    assert sum(rule["heads"] for rule in said["rules"]) == 18
    # A second budget measures nothing: the model is not even opened.
    monkeypatch.setattr("headscope.places.reopened", lambda *_: 1 / 0)
    code, printed, err = run(*asked, "--budget", "0.7")
    assert (code, err) == (0, "")
    assert "rules of heads" in printed
    assert f"Next: headscope eval {place / 'model'}" in printed.replace("\n", " ")
    assert SparseProfile.load(out).density(n) <= 0.7
    # The printed change is one that eval takes.
    change = printed.split("--with ")[1].split()[0]
    code, printed, err = run(
        "eval", place / "model", "--prompts", place / "questions.jsonl", "--with", change,
        "--out", tmp_path / "e.json",
    )  # fmt: skip
    assert (code, err) == (0, "")


def test_a_latency_budget_times_the_rules_once(place: Path, run) -> None:
    asked = ("plan", place / "run", "--prompts", place / "prompts.jsonl", "--budget", "latency=1")
    code, printed, err = run(*asked, "--json")
    assert (code, err) == (0, "")
    (kept,) = (place / "run" / "profiles").glob("costs-*.json")
    before = kept.read_bytes()
    code, again, _ = run(*asked, "--json")
    assert again == printed
    assert kept.read_bytes() == before
    assert (place / "run" / "profiles" / "latency-1-kv_head.json").exists()


def test_a_score_makes_a_profile_without_measuring(place: Path, run, tmp_path: Path) -> None:
    out = tmp_path / "by.json"
    code, printed, err = run(
        "plan", place / "run", "--by", "previous_token", "--budget", "0.5", "--lengths", "64",
        "--rules", "streaming:sink=2,window=8", "--granularity", "head", "--out", out,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "ranked by previous_token" in printed
    assert SparseProfile.load(out).density(64) <= 0.5


def test_profiles_are_compared(place: Path, run, tmp_path: Path) -> None:
    asked = (
        "pareto", place / "run", "--prompts", place / "prompts.jsonl", "--budgets", "0.6,0.8",
        "--task", "induction", "--questions", "6", "--score", "previous_token", "--randoms", "2",
        "--lengths", "41", "--out", tmp_path / "p.json",
    )  # fmt: skip
    code, _, err = run(*asked)
    assert code == 2
    assert "have lengths of their own" in err
    asked = tuple(each for each in asked if each not in ("--lengths", "41"))
    code, printed, err = run(*asked, "--figure", tmp_path / "f.svg", "--json")
    assert (code, err) == (0, "")
    said = json.loads(printed)
    assert len(said["claims"]) == 6
    assert (tmp_path / "f.svg").read_text().startswith("<svg")
    code, printed, err = run(*asked, "--figure", tmp_path / "f.html")
    assert (code, err) == (0, "")
    assert "planner less the others" in printed
    assert (tmp_path / "f.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("plan", "--budget", "kv=0.01"), "below the smallest"),
        (("plan", "--budget", "2"), "above 0 and at most 1"),
        (("plan", "--budget", "half"), "is no budget"),
        (("plan", "--budget", "kv=0.5", "--granularity", "head"), "granularity='kv_head'"),
        (("plan", "--rules", "stream"), "no rule named 'stream'"),
        (("plan", "--by", "duo_gate"), "duo_gate"),
        (("plan", "--by", "previous_token", "--rules", "streaming;streaming:sink=1"), "one rule"),
        (("plan", "--prompts", "nedle"), "no prompt family named 'nedle'"),
        (("plan", "--prompts", "nowhere.jsonl"), "nowhere.jsonl"),
        (("plan", "--samples", "0"), "--samples takes a whole number from 1 up"),
        (("pareto", "--budgets", "0.5,0.5"), "each once"),
        (("pareto", "--figure", "f.png"), ".svg or .html"),
        (("pareto", "--score", "duo_gate"), "duo_gate"),
        (("pareto", "--task", "nedle"), "nedle"),
        (("pareto", "--randoms", "-1"), "--randoms takes a whole number from 0 up"),
    ],
)
def test_mistakes_are_one_sentence(place: Path, run, args: tuple[str, ...], said: str) -> None:
    mine = ["--prompts", str(place / "prompts.jsonl")] if "--prompts" not in args else []
    code, out, err = run(args[0], place / "run", *mine, *args[1:])
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_no_run(run, tmp_path: Path) -> None:
    code, _, err = run("plan", tmp_path / "nowhere")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
