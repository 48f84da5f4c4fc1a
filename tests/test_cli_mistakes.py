"""What the command line refuses, passes on and says of an end that was not planned."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from commanding import headscope
from made_up import a_map

from headscope import cli
from headscope.cli.base import print_json
from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap

LONG = "x" * 300


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return a_map(layers=3).save(tmp_path / "run")


def refused(*args: Any) -> str:
    """The one sentence that a command is refused with."""
    code, out, err = headscope(*args)
    (line,) = err.splitlines()
    assert (code, out) == (2, "")
    assert line.startswith("headscope: ")
    assert line.endswith(".")
    return line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("scan", "m", "--backend", "foo"), "'foo' is not one of 'hf', 'nnsight', 'lens'; .* scan"),
        (("scan", "m", "--seeed", "1"), "No such option: --seeed"),
        (("validate", "run", "--k", "x"), "Invalid value for '--k': .*; .*validate --help"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("show",), "Missing argument 'run'"),
        (("import", "file"), "Missing option '--out'"),
        (("scan", "m", "--out", LONG), "path is too long"),
        (("show", LONG), "path is too long"),
        (("report", LONG), "path is too long"),
    ],
)
def test_typing_mistakes_are_one_sentence(args: tuple[str, ...], message: str) -> None:
    assert re.search(message, refused(*args))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("L0H1", "--kv"), "All of L0H1 is shown; leave --score, --top and --kv out"),
        (("L0H1", "--score", "sink"), "All of L0H1 is shown"),
        (("L0H1", "--top", 3), "All of L0H1 is shown"),
        (("--kv", "--top", 3), "--top needs a score to rank by"),
        (("--json", "--top", 3), "--top needs a score to rank by"),
        (("--kv", "--score", "sink", "--top", -2), "--top takes a whole number from 1 up"),
        (("--score", "sink", "--top", 0), "--top takes a whole number from 1 up"),
        (("--top", 0), "--top takes a whole number from 1 up"),
    ],
)
def test_show_ignores_no_flag(args: tuple[Any, ...], message: str, run: Path) -> None:
    assert message in refused("show", run, *args)


def test_top_is_honoured(run: Path) -> None:
    for more, count in (((), 6), (("--top", 2), 2), (("--top", 4), 4)):
        _, out, _ = headscope("show", run, "--kv", "--score", "sink", *more, "--json")
        assert len(json.loads(out)) == count
    for top in (2, 5):
        _, out, _ = headscope("show", run, "--score", "sink", "--top", top, "--json")
        assert len(json.loads(out)) == top
        assert f"first {top}" in " ".join(headscope("show", run, "--top", top)[1].split())


def test_more_heads_than_there_are_cannot_be_tested(run: Path) -> None:
    assert "has 18 heads in all, so its top 100" in refused("validate", run, "--k", 100)


def test_validate_takes_lengths(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headscope import places
    from headscope.evals import validate

    asked = []

    def validated(*_: Any, **options: Any) -> None:
        asked.append(options)
        raise HeadscopeError("not here.")

    monkeypatch.setattr(places, "reopened", lambda *_: None)
    monkeypatch.setattr(validate, "validate", validated)
    assert "not here" in refused("validate", run, "--lengths", "256,300", "--samples", 2, "--quiet")
    (options,) = asked
    assert (options["prompts"], options["tasks"], options["samples"]) == (None, None, 2)
    assert options["lengths"] == (256, 300)
    assert "--lengths takes whole numbers" in refused("validate", run, "--lengths", "x")
    own = run / "own.jsonl"
    own.write_text('{"text": "a b", "answer": " c"}')
    said = refused("validate", run, "--lengths", "9", "--prompts", own)
    assert "'jsonl' have lengths of their own" in said
    assert len(asked) == 1


@pytest.mark.parametrize("command", ["show", "report"])
def test_ctrl_c_does_not_say_that_something_is_saved(
    command: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeadMap, "load", interrupted)
    assert headscope(command, run) == (2, "", "headscope: interrupted\n")


@pytest.mark.parametrize("measured", [False, True])
def test_ctrl_c_in_a_scan_says_what_is_saved(
    measured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headscope import loading, scanning

    def scan(*_: Any, out: Path, **__: Any) -> None:
        (out / "partial").mkdir(parents=True)
        if measured:
            (out / "partial" / "text-0-0.safetensors").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "load", lambda *_, **__: None)
    monkeypatch.setattr(scanning, "scan", scan)
    said = headscope("scan", "m", "--out", tmp_path / "run", "--quiet")
    saved = "; what was measured is saved; run the same command again to go on"
    ended = saved if measured else " before anything was measured"
    assert said == (2, "", f"headscope: interrupted{ended}\n")


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_ties_are_explained(run: Path, tmp_path: Path) -> None:
    head_map = HeadMap.load(run)
    for score in head_map.scores.values():
        score.values[:, 1:] = 0
    tied = head_map.save(tmp_path / "tied")
    for command in (("compare", tied, tied), ("agreement", tied)):
        said = " ".join(headscope(*command)[1].split())
        assert "Heads that are equal where the top 10 ends share the places" in said
        again = (*command[:1], *(run for _ in command[1:]))
        assert "Heads that are equal" not in headscope(*again, "--k", 1)[1]


def test_a_damaged_run_ends_in_a_sentence(run: Path) -> None:
    (run / "heads.parquet").write_bytes(b"PAR1")
    for command in ("show", "report", "clusters", "agreement", "validate"):
        assert "heads.parquet cannot be read; delete the folder" in refused(command, run)


def test_what_others_found_becomes_a_run(tmp_path: Path) -> None:
    heads = {f"{layer}-{head}": [layer / 4, head / 8] for layer in range(4) for head in range(6)}
    path, out = tmp_path / "model.json", tmp_path / "run"
    path.write_text(json.dumps(heads))
    code, printed, err = headscope("import", path, "--out", out, "--kv-heads", 2)
    assert code == 0, err
    assert f"headscope show {out}" in printed
    assert HeadMap.load(out).n_kv_heads == 2
    assert HeadMap.load(out).info.command.startswith("headscope import ")
    assert "is not one" in refused("import", path, "--out", out)
    code, printed, err = headscope("import", path, "--out", tmp_path / "two", "--json")
    assert code == 0, err
    assert "n_kv_heads is not in the file" in err
    assert len(json.loads(printed)["heads"]) == 24
    for args, message in (
        (("--format", "retrieval"), "no format named 'retrieval'. Did you mean retrieval_head"),
        (("--kv-heads", 0), "--kv-heads takes a whole number from 1 up"),
        (("--kv-heads", 4), "6 query heads and 4 KV heads do not fit"),
    ):
        assert message in headscope("import", path, "--out", tmp_path / "three", *args)[2]
    assert not (tmp_path / "three").exists()


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [{"b": float("nan")}, (float("-inf"), 1.5)]})
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"a": [{"b": None}, [None, 1.5]]}


def test_a_bug_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ZeroDivisionError):
        headscope("scan", "smollm2")
    assert not issubclass(ZeroDivisionError, HeadscopeError)
