"""Jobs: real scans of a tiny model, started, watched, cancelled and taken up again."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from engine_room import tiny_folder

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.runinfo import RunInfo
from headscope_app.job import Job, Log, Stage
from headscope_app.jobs import Jobs
from headscope_app.tasks import Measure, Scan, Validate, check_model, check_name


def soon(met: Callable[[], object], seconds: float = 240) -> bool:
    """Whether something comes to hold."""
    end = time.monotonic() + seconds
    while not met() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(met())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    tiny_folder(made / "tiny")
    return made


@pytest.fixture
def jobs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    monkeypatch.setenv("HEADSCOPE_CACHE", str(tmp_path / "cache"))
    made = Jobs([root])
    yield made
    made.close()


@pytest.fixture
def task(root: Path) -> Scan:
    return Scan(model=str(root / "tiny"), probes=("previous_token",), samples=4, lengths=(40,))


def ended(jobs: Jobs, job: Job) -> Job:
    assert soon(lambda: jobs.job(job.id).state != "running"), jobs.progress(job)
    return jobs.job(job.id)


def test_a_scan_runs_to_its_end(jobs: Jobs, task: Scan, root: Path) -> None:
    job = jobs.scan(task, "whole", root)
    assert job.state == "running"
    with pytest.raises(HeadscopeError, match=r"scan whole is running; wait for it, or cancel"):
        jobs.scan(task, "second", root)
    job = ended(jobs, job)
    assert (job.state, job.told) == ("done", "")
    assert HeadMap.load(root / "whole").info.model.spec == str(root / "tiny")
    progress = jobs.progress(job)
    assert [(stage.done, stage.total) for stage in progress.stages] == [(4, 4)]
    assert progress.share == 1
    with pytest.raises(HeadscopeError, match="whole already"):
        jobs.scan(task, "whole", root)
    with pytest.raises(HeadscopeError, match="whole is done"):
        jobs.resume(job.id)
    validated = jobs.on_run(
        Validate(role="previous_token", k=2, heads=("L0H1", "L2H5"), tasks=("nothing",)),
        "whole", root / "whole",
    )  # fmt: skip
    assert "no eval named 'nothing'" in ended(jobs, validated).told


def test_a_scan_is_cancelled_and_goes_on(jobs: Jobs, task: Scan, root: Path) -> None:
    job = jobs.scan(replace(task, samples=150), "long", root)
    assert soon(lambda: jobs.progress(job).share > 0.02)
    before = jobs.progress(job)
    assert before.share < 1
    cancelled = jobs.cancel(job.id)
    assert cancelled.state == jobs.job(job.id).state == "cancelled"
    assert job.process() is None
    assert RunInfo.read(root / "long").state == "running"
    kept = {p: p.stat().st_mtime_ns for p in (root / "long" / "partial").glob("*.safetensors")}
    assert len(kept) >= before.stages[0].done
    assert jobs.cancel(job.id) == cancelled
    again = jobs.resume(job.id)
    assert again.id == job.id
    assert soon(lambda: sum(stage.done for stage in jobs.progress(again).stages) > len(kept))
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # not measured again
    assert ended(jobs, again).state == "done"
    assert HeadMap.load(root / "long").info.state == "complete"


def test_another_server_knows_a_job_that_runs(jobs: Jobs, task: Scan, root: Path) -> None:
    job = jobs.scan(replace(task, samples=900), "shared", root)
    other = Jobs([root])
    assert [each.id for each in other.all()] == [job.id]
    assert other.job(job.id).state == "running"
    jobs.close(keep=True)
    assert job.process() is not None
    with pytest.raises(HeadscopeError, match="shared is running"):
        other.scan(task, "third", root)
    other.close()
    assert soon(lambda: job.process() is None)
    stopped = other.job(job.id)
    assert stopped.state == "stopped"
    assert stopped.resumable


def test_a_number_that_is_another_process_by_now_is_left_alone(jobs: Jobs, root: Path) -> None:
    stale = Job(
        id="ab", what="scan", name="old", folder=root / "old", arguments=("scan",),
        state="running", pid=os.getpid(), started=1.0, begun=1.0,
    )  # fmt: skip
    jobs.place.mkdir(parents=True)
    stale.save(jobs.place / "ab.json")
    assert jobs.job("ab").state == "stopped"
    jobs.cancel("ab")
    jobs.close()
    assert psutil.pid_exists(os.getpid())


def test_a_killed_scan_says_so(jobs: Jobs, task: Scan, root: Path) -> None:
    job = jobs.scan(replace(task, samples=900), "killed", root)
    assert soon(lambda: (root / "killed" / "run.json").exists())
    os.kill(job.pid, signal.SIGKILL)
    job = ended(jobs, job)
    assert job.state == "failed"
    assert job.resumable
    assert "killed (SIGKILL), perhaps for lack of memory" in job.told


def test_a_job_took_until_its_last_words_however_late_they_are_read(
    jobs: Jobs, task: Scan, root: Path
) -> None:
    job = jobs.scan(replace(task, probes=("nothing",)), "late", root)
    assert soon(lambda: job.process() is None)
    for ending in ("out", "log"):
        os.utime(jobs.place / f"{job.id}.{ending}", (job.begun + 7, job.begun + 7))
    seen = ended(jobs, job)
    assert seen.state == "failed"
    assert seen.seconds == pytest.approx(7, abs=0.01)


@pytest.mark.parametrize(
    ("probes", "model", "said"),
    [
        (("retreival",), "tiny", "no probe named 'retreival'. Did you mean retrieval"),
        (("previous_token",), "empty", "holds no config.json"),
    ],
)
def test_what_the_command_refuses_is_handed_on(
    jobs: Jobs, root: Path, probes: tuple[str, ...], model: str, said: str
) -> None:
    (root / "empty").mkdir(exist_ok=True)
    job = jobs.scan(Scan(model=str(root / model), probes=probes), f"bad-{model}", root)
    job = ended(jobs, job)
    assert job.state == "failed"
    assert said in job.told
    assert "\n" not in job.told


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "a/b", "a\\b", ".hidden", "-rf", "a b", "é", "x" * 81, "a\n", "a."],
)
def test_names_that_are_none(jobs: Jobs, task: Scan, root: Path, name: str) -> None:
    with pytest.raises(HeadscopeError, match="Name the run with letters"):
        jobs.scan(task, name, root)
    assert jobs.all() == []


def test_good_names_pass() -> None:
    for name in ("a", "smollm2-1.7B_v2", "0"):
        check_name(name)


def test_folders_that_were_not_given(jobs: Jobs, task: Scan, root: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(HeadscopeError, match="the app was started with"):
        jobs.scan(task, "new", tmp_path)
    with pytest.raises(HeadscopeError, match="the app was started with"):
        jobs.on_run(Validate(), "run", tmp_path)
    link = root / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(HeadscopeError, match="the app was started with"):
        jobs.on_run(Validate(), "run", link)
    with pytest.raises(HeadscopeError, match="link already"):
        jobs.scan(task, "link", root)
    link.unlink()
    with pytest.raises(HeadscopeError, match="holds no run"):
        jobs.on_run(Validate(), "tiny", root / "tiny")


@pytest.mark.parametrize(
    ("spec", "fine"),
    [
        ("smollm2", True),
        ("gpt2", True),
        ("org/name-1.5B", True),
        ("known/../odd", True),
        ("tiny", True),
        ("/etc", False),
        ("../other", False),
        ("-x", False),
        ("a/b/c", False),
        ("<script>", False),
        ("", False),
        ("x\0y", False),
        ("~/model", False),
    ],
)
def test_models_that_may_be_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, spec: str, fine: bool
) -> None:
    monkeypatch.chdir(root)
    if fine:
        check_model(spec, [root], ["known/../odd"])
    else:
        with pytest.raises(HeadscopeError, match="odel"):
            check_model(spec, [root], ["known/../odd"])


@pytest.mark.parametrize(
    "task",
    [
        Scan(model="smollm2", samples=0),
        Scan(model="smollm2", samples=10**9),
        Scan(model="smollm2", lengths=(0,)),
        Scan(model="smollm2", seed=-1),
        Scan(model="smollm2", probes=("--out=/etc",)),
        Scan(model="smollm2", probes=("a,b",)),
        Validate(role="; rm"),
        Validate(k=0),
        Validate(k=None),  # pyright: ignore[reportArgumentType]
        Validate(controls=None),  # pyright: ignore[reportArgumentType]
        Validate(controls=100),
        Validate(heads=("L1H2 --out",)),
        Validate(part="never"),  # pyright: ignore[reportArgumentType]
        Validate(tasks=("../x",)),
        Measure(rules="full$(x)"),
    ],
)
def test_fields_that_make_no_sense(task: Scan | Validate | Measure, tmp_path: Path) -> None:
    with pytest.raises(HeadscopeError):
        task.arguments(tmp_path)


def test_a_model_is_no_option_whatever_it_looks_like(tmp_path: Path) -> None:
    given = Scan(model="--out=/", probes=("sink",)).arguments(tmp_path / "r")
    assert given[-2:] == ["--", "--out=/"]
    assert given[0] == "scan"
    assert f"--out={tmp_path / 'r'}" in given


def test_a_log_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(path)
    assert log.read().stages == ()
    with path.open("a") as file:
        file.write('{"stage": "a", "done": 1, "total": 4}\nhello <b>\n{"stage": "a", "done": 2, ')
        file.flush()
        assert (log.read().stages, log.read().said) == ((Stage("a", 1, 4),), "hello <b>")
        file.write('"total": 4}\n{"stage": 1}\n{broken\n')
    progress = log.read()
    assert progress.stages == (Stage("a", 2, 4),)
    assert progress.said == "{broken"
    assert progress.share == 0.5
