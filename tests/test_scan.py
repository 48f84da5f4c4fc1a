"""Scans: shared passes, saving, going on after a kill, and folders that are not what they seem."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import opened
from organisms import rope_organism

import headscope
from headscope import storage
from headscope.compare import compare
from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap, Scores
from headscope.model import HeadModel
from headscope.probes.induction import Induction
from headscope.probes.previous_token import PreviousToken
from headscope.probes.sink import Sink
from headscope.prompts import Repeated
from headscope.runinfo import SCHEMA

FAMILY = Repeated(samples=4, block=20, times=3)
PROBES = [Induction(prompts=FAMILY), PreviousToken(prompts=FAMILY), Sink(prompts=Repeated(4, 0, 9))]


def scan(model: HeadModel, **options: Any) -> HeadMap:
    return headscope.scan(model, PROBES, samples=4, **options)


def test_probes_with_the_same_prompts_share_one_pass(llama: HeadModel) -> None:
    passes: list[int] = []
    with llama.observed(lambda a: passes.append(a.attention.layer)):
        head_map = scan(llama)
    assert passes.count(0) == 8  # two families of four prompts for three probes
    assert set(head_map.info.families) == {"repeated-0", "repeated-1"}


def test_a_map_survives_being_saved(llama: HeadModel, tmp_path: Path) -> None:
    head_map = scan(llama)
    head_map.save(tmp_path / "run")
    again = HeadMap.load(tmp_path / "run")
    assert (
        list(again.scores)
        == list(head_map.scores)
        == ["induction", "previous_token", "sink", "sink_rate"]
    )
    for name in again.scores:
        assert np.array_equal(again[name].values, head_map[name].values)
    assert again.info == head_map.info
    table = pd.read_parquet(tmp_path / "run" / "heads.parquet")
    pd.testing.assert_frame_equal(table, head_map.to_pandas())
    assert list(table.columns[:6]) == [
        "layer", "head", "kv_head", "induction", "induction.low", "induction.high",
    ]  # fmt: skip
    assert len(table) == 18
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "heads.parquet", "run.json", "scores.safetensors",
    ]  # fmt: skip


def test_a_scan_that_is_done_is_not_measured_again(llama: HeadModel, tmp_path: Path) -> None:
    first = scan(llama, out=tmp_path / "run")
    passes: list[int] = []
    with llama.observed(lambda a: passes.append(1)):
        again = scan(llama, out=tmp_path / "run")
    assert not passes
    assert again.info == first.info


class Killed(BaseException):
    """Stands for a kill: nothing in headscope catches it."""


def killer(at: int) -> Callable[[Path, bytes], None]:
    """`storage.write`, dying in its n-th call: half of the time before the rename, half after."""
    calls = 0
    real = storage.write

    def write(path: Path, content: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            if at % 2:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(f".{path.name}.dead.part").write_bytes(content[: len(content) // 2])
            else:
                real(path, content)
            raise Killed
        real(path, content)

    return write


@pytest.mark.parametrize("at", range(1, 13))
def test_a_scan_killed_in_any_save_goes_on(
    llama: HeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    scan(llama, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", killer(at))
        with pytest.raises(Killed):
            scan(llama, out=tmp_path / "run")
    scan(llama, out=tmp_path / "run")
    for name in ("heads.parquet", "scores.safetensors"):
        same = [(tmp_path / run / name).read_bytes() for run in ("whole", "run")]
        assert same[0] == same[1]
    assert len(list((tmp_path / "run").iterdir())) == 3


def test_an_interrupt_leaves_a_scan_that_goes_on(llama: HeadModel, tmp_path: Path) -> None:
    def interrupt(family: str, done: int, total: int) -> None:
        if family == "repeated-1" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(llama, out=tmp_path / "run", progress=interrupt)
    assert len(list((tmp_path / "run" / "partial").iterdir())) == 6
    with pytest.raises(HeadscopeError, match="not finished"):
        HeadMap.load(tmp_path / "run")
    passes: list[int] = []
    with llama.observed(lambda a: passes.append(a.attention.layer)):
        scan(llama, out=tmp_path / "run")
    assert passes.count(0) == 2


def test_a_full_disk_loses_nothing(
    llama: HeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.replace, []

    def full(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(HeadscopeError, match="disk is full"):
            scan(llama, out=tmp_path / "run")
    assert not list(tmp_path.rglob("*.part"))
    assert scan(llama, out=tmp_path / "run").info.state == "complete"


def test_a_scan_without_a_result_leaves_nothing_to_continue(tmp_path: Path) -> None:
    line = {
        "text": "w31 w40 w41",
        "spans": {"needle": "w31 w40", "answer": "w31"},
        "answer": " w31 w32 w33",
    }
    (tmp_path / "p").write_text(json.dumps(line))
    model = opened("llama")
    with pytest.raises(HeadscopeError, match="answered none of the prompts"):
        headscope.scan(model, ["retrieval"], prompts=tmp_path / "p", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

    class Broken(PreviousToken):
        def measure(self, attended: Any, reading: Any) -> Any:
            found = super().measure(attended, reading)["previous_token"]
            return {"broken": found / 0 - found / 0}

    Broken.registry.pop("broken")
    with pytest.raises(HeadscopeError, match="is no number"):
        headscope.scan(model, [Broken(prompts=FAMILY)], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert scan(model, out=tmp_path / "run").info.state == "complete"


@pytest.mark.parametrize(
    "change",
    [
        lambda part: part.pop("previous_token"),
        lambda part: part.update(previous_token=part["previous_token"][:2]),
        lambda part: part.update(previous_token=part["previous_token"] * np.nan),
        lambda part: part.update(surprise=part["previous_token"]),
        lambda part: part.pop("accepted"),
        lambda part: part.update(seconds=np.zeros((2, 2))),
    ],
)
def test_a_part_that_does_not_fit_is_named(
    llama: HeadModel, tmp_path: Path, change: Callable[[dict[str, np.ndarray]], Any]
) -> None:
    def interrupt(family: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(llama, out=tmp_path / "run", progress=interrupt)
    path = tmp_path / "run" / "partial" / "repeated-0-1.safetensors"
    part = storage.read_arrays(path)
    change(part)
    storage.write_arrays(path, part)
    with pytest.raises(HeadscopeError, match=f"{path.name} is damaged; delete it"):
        scan(llama, out=tmp_path / "run")
    path.unlink()
    assert scan(llama, out=tmp_path / "run").info.state == "complete"


def test_a_finished_scan_is_checked_and_its_table_made_again(
    llama: HeadModel, tmp_path: Path
) -> None:
    scan(llama, out=tmp_path / "run")
    table = (tmp_path / "run" / "heads.parquet").read_bytes()
    (tmp_path / "run" / "heads.parquet").unlink()
    scan(llama, out=tmp_path / "run")
    assert (tmp_path / "run" / "heads.parquet").read_bytes() == table
    for lost in ([], ["heads.parquet"]):
        for name in lost:
            (tmp_path / "run" / name).unlink()
        (tmp_path / "run" / "scores.safetensors").write_bytes(b"half")
        with pytest.raises(HeadscopeError, match="delete the folder and scan again"):
            scan(llama, out=tmp_path / "run")


def test_another_run_s_folder_is_refused(llama: HeadModel, tmp_path: Path) -> None:
    scan(llama, out=tmp_path / "run")
    with pytest.raises(HeadscopeError, match=r"differs in: seed"):
        scan(llama, out=tmp_path / "run", seed=3)
    with pytest.raises(HeadscopeError, match=r"differs in: model"):
        scan(opened("llama_mha"), out=tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(HeadscopeError, match="holds no run"):
        scan(llama, out=tmp_path / "mine")


def damage(folder: Path, how: str) -> None:
    info = json.loads((folder / "run.json").read_text())
    if how == "no run.json":
        (folder / "run.json").unlink()
    elif how == "half a run.json":
        (folder / "run.json").write_text((folder / "run.json").read_text()[:300])
    elif how == "list":
        (folder / "run.json").write_text("[1]")
    elif how == "newer":
        (folder / "run.json").write_text(json.dumps(info | {"schema_version": SCHEMA + 1}))
    elif how == "unknown key":
        (folder / "run.json").write_text(json.dumps(info | {"surprise": 1}))
    elif how == "no scores":
        (folder / "scores.safetensors").unlink()
    elif how == "half the scores":
        content = (folder / "scores.safetensors").read_bytes()
        (folder / "scores.safetensors").write_bytes(content[: len(content) // 2])
    elif how == "other shape":
        storage.write_arrays(folder / "scores.safetensors", {"sink": np.zeros((2, 9, 9), "f4")})
    elif how == "no folder":
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no run.json", "holds no run.json"),
        ("half a run.json", "damaged"),
        ("list", "damaged"),
        ("newer", "newer headscope"),
        ("unknown key", "surprise"),
        ("no scores", "cannot be read"),
        ("half the scores", "damaged"),
        ("other shape", "damaged"),
        ("no folder", "no run folder"),
    ],
)
def test_damaged_folders_are_named(
    llama: HeadModel, tmp_path: Path, how: str, message: str
) -> None:
    scan(llama, out=tmp_path / "run")
    damage(tmp_path / "run", how)
    with pytest.raises(HeadscopeError, match=message):
        HeadMap.load(tmp_path / "run")


def test_loading_runs_no_code(tmp_path: Path) -> None:
    """A file that would run code if it were unpickled is only damaged."""
    import pickle  # noqa: TID251

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/pwned",)

    (tmp_path / "scores.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(HeadscopeError, match="damaged"):
        storage.read_arrays(tmp_path / "scores.safetensors")
    (tmp_path / "heads.parquet").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(HeadscopeError, match="damaged"):
        storage.read_table(tmp_path / "heads.parquet")
    assert not (tmp_path / "pwned").exists()


def test_top_and_roles(llama: HeadModel) -> None:
    head_map = scan(llama)
    best = head_map.top("induction", 3)
    means = head_map["induction"].mean()
    layer, head = np.unravel_index(means.argmax(), means.shape)
    assert best.iloc[0]["name"] == f"L{layer}H{head}"
    assert best["induction"].is_monotonic_decreasing
    with pytest.raises(HeadscopeError, match="no score 'x'"):
        head_map.top("x")
    with pytest.raises(HeadscopeError, match="at least one"):
        head_map.top("induction", 0)
    roles = head_map.roles()
    assert len(roles) == 18
    assert set(roles["role"]) <= {"", "induction", "previous_token", "sink"}


def test_roles_follow_their_written_thresholds() -> None:
    organism = rope_organism(1)
    model = headscope.load(organism.hf, organism.tokenizer)
    head_map = headscope.scan(model, PROBES, samples=4)
    roles = head_map.roles().set_index(["layer", "head"])
    for role in ("induction", "previous_token"):
        named = {head for head, held in roles["roles"].items() if role in held.split(",")}
        assert organism.roles[role] <= named
        assert roles.loc[sorted(organism.roles[role]), "sure"].all()


def test_the_share_above_a_threshold_has_an_interval() -> None:
    """Half of the heads are certainly above, a quarter is on the edge."""
    rng = np.random.default_rng(0)
    mean = np.repeat([0.9, 0.5, 0.1, 0.1], 25)
    values = (mean + rng.normal(0, 0.05, (12, 1, 100))).astype(np.float32)
    values[:, :, 25:50] -= values[:, :, 25:50].mean(0) - 0.5  # exactly on the edge
    share, low, high = Scores(values, "max").share_above(0.5)
    assert 0.25 <= share <= 0.5
    assert 0.25 < low < 0.375 < high < 0.5
    assert Scores(values, "max").share_above(2.0) == (0, 0, 0)


def test_intervals_hold_the_mean_and_shrink_with_prompts() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, size=(64, 2, 3)).astype(np.float32)
    few, many = Scores(values[:8], "max"), Scores(values, "max")
    for scores in (few, many):
        low, high = scores.interval()
        assert ((low <= scores.mean()) & (scores.mean() <= high)).all()
    width = [np.subtract(*s.interval()[::-1]).mean() for s in (few, many)]
    assert width[1] < width[0] * 0.6
    covered = [
        (low[0, 0] <= 0.5) & (high[0, 0] >= 0.5)
        for low, high in (
            Scores(rng.normal(0.5, 0.1, (40, 1, 1)), "max").interval(i) for i in range(200)
        )
    ]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_kv_view() -> None:
    values = np.arange(12, dtype=np.float32).reshape(1, 2, 6)
    assert Scores(values, "max").by_kv_head(2).tolist() == [[2, 5], [8, 11]]
    assert Scores(values, "mean").by_kv_head(3).tolist() == [[0.5, 2.5, 4.5], [6.5, 8.5, 10.5]]


def test_comparison(llama: HeadModel) -> None:
    one, other = scan(llama), scan(llama, seed=5)
    table = compare(one, other, 5).table.set_index("score")
    a, b = one["sink"].mean().ravel(), other["sink"].mean().ravel()
    ranks = [pd.Series(x).rank() for x in (a, b)]
    assert table.loc["sink", "spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    both = set(np.argsort(-a)[:5]) & set(np.argsort(-b)[:5])
    assert table.loc["sink", "overlap"] == len(both)
    assert table.loc["sink", "chance"] == pytest.approx(25 / 18)
    with pytest.raises(HeadscopeError, match="different shapes"):
        compare(one, headscope.scan(load_organism(), PROBES, samples=2))


def load_organism() -> HeadModel:
    organism = rope_organism(0)
    return headscope.load(organism.hf, organism.tokenizer)


def test_prompts_over_the_context_are_refused(llama: HeadModel) -> None:
    long = Induction(prompts=Repeated(block=60, times=3))
    with pytest.raises(HeadscopeError, match="do not fit into the 128"):
        headscope.scan(llama, [long])


def test_unknown_probes_are_refused_with_a_hint(llama: HeadModel) -> None:
    with pytest.raises(HeadscopeError, match="Did you mean induction"):
        headscope.scan(llama, ["inductoin"])
    with pytest.raises(HeadscopeError, match="at least one probe"):
        headscope.scan(llama, [])


def test_the_package_imports_no_torch() -> None:
    code = "import headscope, sys; assert 'torch' not in sys.modules; print(headscope.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == headscope.__version__
