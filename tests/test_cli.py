"""The command line as a user meets it: results on stdout, one sentence on stderr, exit code 2."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from commanding import headscope
from organisms import rope_organism

from headscope.errors import HeadscopeError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An organism as a folder."""
    organism = rope_organism(0)
    where = tmp_path_factory.mktemp("models") / "organism"
    with torch.no_grad():
        organism.hf.save_pretrained(where)
    organism.tokenizer.save_pretrained(where)
    return str(where)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Own prompts: words that come again, with the answer that an induction head would copy."""
    rows = []
    for i in range(6):
        words = [f"w{10 + (7 * i + 11 * j) % 140}" for j in range(12)]
        line = " ".join(words)
        needle, answer = " ".join(words[4:8]), words[6]
        text = f"<s> {line} {line} {' '.join(words[:6])}"
        spans = {"needle": [text.index(needle), text.index(needle) + len(needle)]}
        spans["answer"] = [
            text.index(f" {answer} ") + 1,
            text.index(f" {answer} ") + 1 + len(answer),
        ]
        rows.append({"text": text, "spans": spans, "answer": " " + answer})
    path = tmp_path_factory.mktemp("prompts") / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def run(model: str, prompts: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("runs") / "first"
    code, _, err = headscope(
        "scan", model, "--probes", "retrieval,needle_mass,sink", "--prompts", prompts,
        "--out", where, "--quiet",
    )  # fmt: skip
    assert code == 0, err
    return str(where)


@pytest.fixture
def tested(prompts: str, tmp_path: Path) -> str:
    """Prompts that found nothing."""
    own = tmp_path / "test.jsonl"
    lines = Path(prompts).read_text().splitlines()
    own.write_text("\n".join(line.replace("w1", "w2") for line in lines))
    return str(own)


def test_scan_prints_its_table_and_says_where_it_saved(run: str, model: str, prompts: str) -> None:
    args = ("--probes", "retrieval,needle_mass,sink", "--prompts", prompts, "--out", run)
    code, out, err = headscope("scan", model, *args)
    assert (code, err) == (0, err)
    assert "retrieval" in out
    assert f"headscope report {run}" in out


def test_a_scan_of_few_prompts_says_what_its_intervals_are_worth(
    model: str, tmp_path: Path
) -> None:
    own, said = tmp_path / "own.jsonl", "fewer than 6 prompts count"
    own.write_text("\n".join(json.dumps({"text": f"<s> w1{i} w12 w13 w14"}) for i in range(6)))
    args = ("scan", model, "--probes", "sink", "--prompts", own)
    code, _, err = headscope(*args, "--samples", "5", "--out", tmp_path / "five")
    assert (code, said in err) == (0, True), err
    code, _, err = headscope(*args, "--out", tmp_path / "six")
    assert (code, said in err) == (0, False), err


def test_json_is_all_there_is_on_stdout(run: str, model: str, prompts: str) -> None:
    args = ("--probes", "retrieval,needle_mass,sink", "--prompts", prompts, "--out", run, "--json")
    for command in (
        ("scan", model, *args),
        ("show", run, "--json"),
        ("show", run, "L0H1", "--json"),
        ("show", run, "--score", "sink", "--json"),
        ("show", run, "--kv", "--json"),
        ("show", run, "--kv", "--score", "sink", "--json"),
        ("clusters", run, "--json"),
        ("clusters", run, "--k", 3, "--json"),
        ("agreement", run, "--json"),
        ("agreement", run, "--k", 3, "--score", "sink", "--json"),
        ("compare", run, run, "--json"),
        ("probes", "--json"),
        ("models", "check", model, "--json"),
    ):
        code, out, _ = headscope(*command)
        assert code == 0
        assert json.loads(out, parse_constant=pytest.fail)
    heads = json.loads(headscope("scan", model, *args)[1])["heads"]
    assert len(heads) == 32
    assert {"layer", "head", "kv_head", "sink", "sink.low", "sink.high"} <= set(heads[0])


def test_show(run: str) -> None:
    assert "retrieval" in headscope("show", run)[1]
    code, out, _ = headscope("show", run, "l1h2")
    assert code == 0
    assert "L1H2" in out
    assert "of 32" in out
    assert "L" in headscope("show", run, "--score", "sink", "--top", 3)[1]


def test_validate_and_report(run: str, tested: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    args = ("--prompts", tested, "--controls", 2, "--k", 1, "--quiet")
    code, out, err = headscope("validate", copy, *args, "--role", "retrieval")
    assert code == 0, err
    assert "layer-matched" in out
    code, out, err = headscope("validate", copy, *args, "--heads", "L2H3,L3H0", "--json")
    assert code == 0, err
    assert len(json.loads(out)["claims"]) == 1
    assert len(list((copy / "validations").iterdir())) == 2
    code, out, err = headscope("report", copy)
    assert code == 0, err
    alone = (copy / "report.html").read_text(encoding="utf-8")
    assert alone.startswith("<!doctype html>")
    assert str(copy / "report.html") in out
    both = tmp_path / "both.html"
    code, out, err = headscope("report", copy, "--beside", run, "--out", both)
    assert (code, err) == (0, "")
    assert len(both.read_text(encoding="utf-8")) > len(alone)
    code, _, err = headscope("report", copy, "--beside", tmp_path, "--out", tmp_path / "none.html")
    assert code == 2
    assert str(tmp_path) in err
    assert not (tmp_path / "none.html").exists()


def test_another_validation_gets_a_file_of_its_own(run: str, tested: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    args = ("validate", copy, "--prompts", tested, "--k", 1, "--quiet")
    first = ("--controls", 2)
    for more in (first, ("--controls", 3), (*first, "--seed", 1), (*first, "--samples", 6)):
        saved = set()
        for _ in range(2):  # again is the same file
            code, out, err = headscope(*args, *more, "--json")
            assert code == 0, err
            saved.add(json.loads(out)["saved"])
        assert len(saved) == 1
    names = sorted(path.name for path in (copy / "validations").iterdir())
    assert len(names) == 4
    assert all(re.fullmatch(r"retrieval-1-zero-all-[0-9a-f]{8}\.json", name) for name in names)
    own = tmp_path / "here" / "own.json"
    code, out, err = headscope(*args, *first, "--out", own)
    assert code == 0, err
    assert own.is_file()
    assert "own.json" in out


def test_many_heads_have_a_short_name(run: str, tested: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    heads = ",".join(f"L{layer}.{head:090d}" for layer in range(4) for head in range(7))
    args = ("--prompts", tested, "--controls", 1, "--kinds", "uniform", "--quiet")
    code, _, err = headscope("validate", copy, "--heads", heads, *args)
    assert code == 0, err
    (path,) = (copy / "validations").iterdir()
    assert re.fullmatch(r"28-heads-[0-9a-f]{8}-zero-all-[0-9a-f]{8}\.json", path.name)


def test_quiet_is_quiet(run: str, model: str, prompts: str) -> None:
    args = ("--probes", "retrieval,needle_mass,sink", "--prompts", prompts, "--out", run)
    assert headscope("scan", model, *args, "--quiet")[2] == ""
    assert "Passes over prompts" in headscope("scan", model, *args)[2]


def test_a_folder_may_be_where_one_is(
    model: str, prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "mine" / "sub"
    shutil.copytree(model, here.parent)
    here.mkdir()
    for place, spec in ((here.parent, "."), (here, "..")):
        monkeypatch.chdir(place)
        args = ("--probes", "sink", "--prompts", prompts, "--quiet")
        code, _, err = headscope("scan", spec, *args)
        assert code == 0, err
        assert (place / "runs" / "mine" / "run.json").is_file()


def test_a_model_that_is_not_there_any_more_is_explained(
    model: str, prompts: str, tested: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headscope import HeadMap, load, scan

    args = ("--prompts", tested, "--k", 1, "--controls", 1, "--role", "sink", "--quiet")
    opened = load(model)
    opened.hf.config._name_or_path = ""
    in_memory = load(opened.hf, opened.tokenizer)
    scan(in_memory, ["sink"], prompts=prompts, out=tmp_path / "memory")
    code, _, err = headscope("validate", tmp_path / "memory", *args)
    assert code == 2
    assert "was in Python's memory: validate it there" in err

    monkeypatch.chdir(Path(model).parent)
    scanned = ("scan", Path(model).name, "--probes", "sink", "--prompts", prompts, "--quiet")
    assert headscope(*scanned, "--out", tmp_path / "relative")[0] == 0
    assert headscope("validate", tmp_path / "relative", *args)[0] == 0
    monkeypatch.chdir(tmp_path)
    code, _, err = headscope("validate", tmp_path / "relative", *args)
    assert code == 2
    assert f"which is not in {tmp_path}: run this where the scan was run" in err
    assert HeadMap.load(tmp_path / "relative").info.model.spec == Path(model).name


def test_a_run_is_opened_again_at_its_revision(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headscope import loading, places

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    info = json.loads((copy / "run.json").read_text())
    info["model"] |= {"spec": "org/model", "revision": "abc"}
    (copy / "run.json").write_text(json.dumps(info))
    asked = []

    def load(spec: str, **options: Any) -> Any:
        asked.append((spec, options["revision"]))
        raise HeadscopeError("not here")

    monkeypatch.setattr(places, "load", load)
    monkeypatch.setattr(loading, "load", load)
    assert headscope("validate", copy)[0] == 2
    assert headscope("scan", "--config", copy)[0] == 2
    assert headscope("scan", "other/model", "--config", copy)[0] == 2
    assert asked == [("org/model", "abc"), ("org/model", "abc"), ("other/model", None)]


@pytest.mark.parametrize("wrong", ["abc", 3, [1], {"family": 3}, {"family": "text", "x": 1}])
def test_a_damaged_config_is_one_sentence(run: str, wrong: Any, tmp_path: Path) -> None:
    info = json.loads((Path(run) / "run.json").read_text())
    info["probes"]["sink"]["prompts"] = wrong
    (tmp_path / "run.json").write_text(json.dumps(info))
    code, _, err = headscope("scan", "--config", tmp_path)
    assert code == 2
    assert err.startswith("headscope: ")


def test_a_config_keeps_the_seeds_of_its_prompts(model: str, tmp_path: Path) -> None:
    from headscope import HeadMap, load, scan
    from headscope.probes.sink import Sink
    from headscope.prompts import Repeated

    family = Repeated(samples=1, seed=7, block=10, times=2)
    scan(load(model), [Sink(prompts=family)], out=tmp_path / "one")
    args = ("--config", tmp_path / "one", "--out", tmp_path / "two", "--quiet")
    code, _, err = headscope("scan", *args)
    assert code == 0, err
    families = HeadMap.load(tmp_path / "two").info.families.values()
    assert [family.parameters["seed"] for family in families] == [7]


def test_a_run_s_own_json_is_a_config(run: str, model: str, tmp_path: Path) -> None:
    again = tmp_path / "again"
    code, _, err = headscope("scan", "--config", f"{run}/run.json", "--out", again, "--quiet")
    assert code == 0, err
    for name in ("scores.safetensors", "heads.parquet"):
        assert (again / name).read_bytes() == (Path(run) / name).read_bytes()
    other = tmp_path / "other"
    args = ("--config", run, "--probes", "sink", "--out", other, "--quiet")
    assert headscope("scan", *args)[0] == 0
    assert list(json.loads((other / "run.json").read_text())["probes"]) == ["sink"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("scan", "no/such-model"), "cannot be opened"),
        (("scan",), "Name a model"),
        (("scan", ""), "Name a model"),
        (("scan", "MODEL", "--seed", "-1"), "--seed takes a whole number from 0 up"),
        (("scan", "MODEL", "--samples", "0"), "--samples takes a whole number from 1 up"),
        (("scan", "MODEL", "--device", "foo"), "no device 'foo'"),
        (("scan", "MODEL", "--out", "MODEL/config.json"), "config.json is a file"),
        (("validate", "RUN", "--seed", "-1"), "--seed takes"),
        (("validate", "RUN", "--samples", "0"), "--samples takes"),
        (("validate", "RUN", "--out", "RUN"), "is a folder"),
        (("validate", "RUN", "--heads", "L0H1", "--prompts", "PROMPTS"), "used to find the heads"),
        (("scan", "no/such-model", "--probes", "retreival"), "Did you mean retrieval"),
        (("scan", "MODEL", "--probes", ","), "names no probe"),
        (("scan", "MODEL", "--lengths", "12,x"), "--lengths"),
        (("scan", "MODEL", "--lengths", "0"), "positive"),
        (("scan", "MODEL", "--lengths", "9000", "--probes", "needle_mass"), "do not fit"),
        (
            ("scan", "no/such-model", "--prompts", "none.jsonl"),
            "The prompts in 'none.jsonl' cannot be read: No such file or directory.",
        ),
        (("scan", "MODEL", "--dtype", "int3"), "is no dtype"),
        (("scan", "--config", "none.json"), "none.json"),
        (("show", "nowhere"), "no run folder nowhere"),
        (("show", "RUN", "L99H0"), "has no head L99H0"),
        (("show", "RUN", "99"), "names no head"),
        (("show", "RUN", "--score", "x"), "no score 'x'"),
        (("show", "RUN", "--score", "local"), "no score 'distance'"),
        (("clusters", "nowhere"), "no run folder"),
        (("clusters", "RUN", "--k", "1"), "from 2 to"),
        (("agreement", "RUN", "--k", "0"), "at least one head"),
        (("agreement", "RUN", "--score", "x"), "no score 'x'"),
        (("compare", "RUN", "nowhere"), "no run folder"),
        (("validate", "RUN", "--heads", "L0H99"), "has no head"),
        (("validate", "RUN", "--heads", ","), "at least one head"),
        (("validate", "RUN", "--role", "x"), "no score 'x'"),
        (("report", "nowhere"), "no run folder"),
        (("models", "check", "no/such-model"), "cannot be read"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_two(
    args: tuple[str, ...], message: str, model: str, run: str, prompts: str
) -> None:
    known = {
        "MODEL": model,
        "RUN": run,
        "PROMPTS": prompts,
        "MODEL/config.json": f"{model}/config.json",
    }
    code, out, err = headscope(*(known.get(arg, arg) for arg in args))
    assert code == 2
    assert out == ""
    assert message in err
    assert err.splitlines()[0].strip()  # progress that never began leaves no empty line
    assert err.strip().splitlines()[-1].startswith("headscope: ")
    assert "Traceback" not in err


@pytest.mark.parametrize("args", [("scan", "m", "--backend", "jax"), ("frobnicate",), ("show",)])
def test_misused_flags_exit_with_two(args: tuple[str, ...]) -> None:
    assert headscope(*args)[0] == 2


def test_ctrl_c_is_one_sentence_and_the_scan_goes_on(model: str, tmp_path: Path) -> None:
    own, out = tmp_path / "many.jsonl", tmp_path / "run"
    words = [" ".join(f"w{10 + (i + 7 * j) % 140}" for j in range(40)) for i in range(200)]
    own.write_text("\n".join(json.dumps({"text": f"<s> {text}"}) for text in words))
    args = ["scan", model, "--probes", "sink", "--prompts", str(own), "--out", str(out)]
    # A shell that starts jobs in the background has them ignore Ctrl-C.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from headscope.cli import main; main()"
    )
    command = [sys.executable, "-c", code, *args]
    going = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("partial/*.safetensors")) and time.monotonic() < deadline:
        assert going.poll() is None, going.communicate()
        time.sleep(0.01)
    going.send_signal(signal.SIGINT)
    printed, err = going.communicate(timeout=60)
    assert going.returncode == 2, err
    assert printed == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1] == (
        "headscope: interrupted; what was measured is saved; run the same command again to go on"
    )
    assert 0 < len(list(out.glob("partial/*.safetensors"))) < 200
    assert headscope(*args)[0] == 0
    assert json.loads((out / "run.json").read_text())["state"] == "complete"
