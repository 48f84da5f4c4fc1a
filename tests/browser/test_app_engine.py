"""What works behind the pages, used from a browser: patterns, jobs, plans and files."""

import os
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_room import tiny_folder, words
from planned_run import planned_run

import headscope
from headscope.catalog import profile_formats
from headscope.headmap import HeadMap
from headscope.sparsity import SparseProfile
from headscope_app import engine as engines
from headscope_app.engine import Engine
from headscope_app.listing import identity
from headscope_app.live import Live
from headscope_app.server import bound, make_app

FORMATS = profile_formats()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where jobs are remembered."""
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSCOPE_CACHE", str(place))
        yield place


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A made-up run to plan with, a run of a tiny model, and one whose model is gone."""
    folder = tmp_path_factory.mktemp("runs")
    planned_run(folder)
    model = headscope.load(str(tiny_folder(folder / "tiny")))
    scanned = headscope.scan(
        model, ["previous_token", "sink"], samples=2, lengths=[40], out=folder / "real"
    )
    info = scanned.info.model_copy(
        update={"model": scanned.info.model.model_copy(update={"spec": "nobody/nothing"})}
    )
    HeadMap(info, {name: scanned[name] for name in scanned.scores}).save(folder / "gone")
    return folder


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[tuple[str, Engine]]:
    """(address, what works behind it)."""
    app = make_app([root])
    server = bound(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{server.port}", app.server.extensions["headscope"]
    server.shutdown()
    thread.join()
    server.server_close()
    engines.stop(app)


def head_page(root: Path, run: str, head: str = "L1H4") -> str:
    return f"/head?run={identity(root / run)}&head={head}"


def ask(tab: Any, text: str) -> None:
    """Type a text and ask for its pattern."""
    tab.wait_for_load_state("networkidle")
    tab.locator("#pattern-text").fill(text)
    tab.locator("#ask-pattern").click()


def until(tab: Any, met: Callable[[], object]) -> None:
    """Wait for something; the page's policy lets Playwright's own waiting evaluate nothing."""
    for _ in range(600):
        if met():
            return
        tab.wait_for_timeout(50)
    raise AssertionError("it did not come to that")


# ---- patterns ------------------------------------------------------------------------------


def test_a_typed_text_shows_where_a_head_looks(
    tab: Any, root: Path, engine: tuple[str, Engine]
) -> None:
    tab.goto(engine[0] + head_page(root, "real"))
    text = words(30)
    ask(tab, text)
    tab.locator("#pattern .heatmaplayer image").wait_for()
    model = headscope.load(str(root / "tiny"))
    n = model.tokens(text).shape[1]
    assert f"{n} tokens" in tab.locator("#pattern-out").inner_text()
    seen: list[Any] = []
    with model.observed(lambda attended: seen.append(attended.attention)):
        model.forward(model.tokens(text))
    expected = seen[1].dense()[0, 4]
    shown = tab.locator("#pattern-out table").first.locator("tbody tr").first.inner_text()
    assert f"{float(expected.max()):.3f}" in shown


def test_what_is_typed_is_never_run(tab: Any, root: Path, engine: tuple[str, Engine]) -> None:
    tab.goto(engine[0] + head_page(root, "real"))
    ask(tab, "<img src=x onerror=alert(1)> <script>alert(2)</script> w5")
    tab.locator("#pattern .heatmaplayer image").wait_for()
    assert tab.locator("#pattern-out img[src='x']").count() == 0


def test_texts_that_cannot_be_read_are_said(
    tab: Any, root: Path, engine: tuple[str, Engine]
) -> None:
    tab.goto(engine[0] + head_page(root, "real"))
    for text, said in [
        (words(400), "more than the 128"),
        ("w" * 1_000_000, "1,000,000 characters"),
    ]:
        ask(tab, text)
        tab.get_by_text(said).wait_for()


def test_a_model_that_is_gone_is_said(tab: Any, root: Path, engine: tuple[str, Engine]) -> None:
    tab.goto(engine[0] + head_page(root, "gone"))
    ask(tab, words(10))
    tab.get_by_text("not in the Hugging Face cache").wait_for()
    tab.locator("#title").wait_for()


def test_no_model_is_opened_before_it_is_asked_for(
    tab: Any, root: Path, engine: tuple[str, Engine]
) -> None:
    tab.goto(engine[0] + head_page(root, "gone"))
    tab.locator("#pattern-out").get_by_text("opening it takes a moment").wait_for()
    tab.wait_for_load_state("networkidle")
    assert "opening it takes a moment" in tab.locator("#pattern-out").inner_text()


def test_a_question_about_one_run_is_none_about_another(
    tab: Any, root: Path, engine: tuple[str, Engine]
) -> None:
    tab.goto(engine[0] + head_page(root, "real"))
    ask(tab, words(9))
    tab.locator("#pattern .heatmaplayer image").wait_for()
    tab.evaluate("(href) => headscope.go(href)", head_page(root, "gone"))
    tab.locator("#pattern-out").get_by_text("opening it takes a moment").wait_for()


def test_heads_are_gone_through_while_a_pattern_takes_long(
    tab: Any, root: Path, engine: tuple[str, Engine]
) -> None:
    tab.goto(engine[0] + head_page(root, "real", "L0H0"))
    ask(tab, words(12))
    tab.locator("#pattern .heatmaplayer image").wait_for()
    pid = engine[1].live.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        keys = [*["ArrowDown"] * 4, "ArrowRight", *["ArrowUp"] * 4]
        heads = ["L0H1", "L0H2", "L0H3", "L0H4", "L1H4", "L1H3", "L1H2", "L1H1", "L1H0"]
        for key, head in zip(keys, heads, strict=True):  # more than a browser asks for at once
            tab.keyboard.press(key)
            tab.locator("#title", has_text=head).wait_for()
    finally:
        os.kill(pid, signal.SIGCONT)
    tab.get_by_label("Attention of L1H0").locator(".heatmaplayer image").wait_for()


def test_a_killed_worker_is_said_and_replaced(
    tab: Any, root: Path, engine: tuple[str, Engine]
) -> None:
    tab.goto(engine[0] + head_page(root, "real"))
    ask(tab, words(12))
    tab.locator("#pattern .heatmaplayer image").wait_for()
    pid = engine[1].live.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # at work for certain when it is killed
    ask(tab, words(14))
    until(tab, lambda: engine[1].live.worker._busy)
    os.kill(pid, signal.SIGKILL)
    tab.get_by_text("was killed (SIGKILL)").wait_for()
    ask(tab, words(15))
    tab.locator("#pattern .heatmaplayer image").wait_for()
    assert engine[1].live.worker.pid not in (None, pid)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")
def test_a_worker_out_of_memory_says_so(
    tab: Any, root: Path, engine: tuple[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    starved = Live(memory=150 * 2**20)
    monkeypatch.setattr(engine[1].live, "worker", starved.worker)
    tab.goto(engine[0] + head_page(root, "real"))
    ask(tab, words(20))
    tab.get_by_text("memory").first.wait_for()
    starved.close()
    tab.locator("#title").wait_for()


# ---- jobs ----------------------------------------------------------------------------------


def done(job: Any) -> int:
    """Prompts that a job's bar says are done."""
    return int(job.locator("progress").get_attribute("value") or 0)


def test_a_scan_starts_shows_progress_is_cancelled_and_goes_on(
    tab: Any, root: Path, engine: tuple[str, Engine]
) -> None:
    tab.goto(engine[0] + "/new")
    tab.locator("#scan-name").fill("from-page")
    tab.locator("#scan-model").fill(str(root / "tiny"))
    tab.locator("#scan-samples").fill("400")
    tab.locator("#scan-lengths").fill("40")
    tab.locator("summary", has_text="Probes").click()
    tab.locator("#scan-probes label", has_text="previous_token").locator("input").check()
    tab.locator("#start-scan").click()
    job = tab.locator(".job", has_text="from-page")
    job.locator("progress").wait_for()
    until(tab, lambda: done(job) > 3)
    job.locator("summary").click()
    job.get_by_role("button", name="Cancel").focus()
    before = done(job)
    until(tab, lambda: done(job) > before)
    # Progress that is written leaves alone what a hand or a screen reader is on.
    assert tab.evaluate("document.activeElement.textContent") == "Cancel"
    assert job.locator("details").get_attribute("open") is not None
    tab.keyboard.press("Enter")
    job.get_by_text("cancelled", exact=True).wait_for()
    assert "go on from there" in job.inner_text()
    assert any((root / "from-page" / "partial").iterdir())
    job.get_by_role("button", name="Go on").click()
    job.get_by_text("running", exact=True).wait_for()
    job.get_by_text("done", exact=True).wait_for(timeout=120_000)
    assert HeadMap.load(root / "from-page").info.state == "complete"
    job.get_by_role("link", name="from-page").click()
    tab.locator("#map .heatmaplayer image").wait_for()


def test_what_is_wrong_with_a_form_is_said(
    tab: Any, root: Path, engine: tuple[str, Engine]
) -> None:
    tab.goto(engine[0] + "/new")
    toast = tab.locator("#toast")
    for name, model, said in [
        ("../up", "smollm2", "Name the run with letters"),
        ("run", "smollm2", "There is a run already"),
        ("new", "/etc", "A model is smollm2"),
    ]:
        tab.locator("#scan-name").fill(name)
        tab.locator("#scan-model").fill(model)
        tab.locator("#start-scan").click()
        toast.get_by_text(said).wait_for()
        toast.get_by_role("button").click()
    assert not (root.parent / "up").exists()


# ---- plans ---------------------------------------------------------------------------------


def planner(root: Path, more: str = "") -> str:
    return f"/planner?run={identity(root / 'run')}{more}"


def test_the_slider_changes_the_plan_and_the_address(
    tab: Any, root: Path, engine: tuple[str, Engine]
) -> None:
    tab.goto(engine[0] + planner(root))
    first = tab.locator(".tiles .big").first
    first.wait_for()
    before = first.inner_text()
    tab.locator("#state-share").focus()
    for _ in range(12):
        tab.keyboard.press("ArrowRight")
    until(tab, lambda: first.inner_text() != before)
    tab.wait_for_url("**share=62**")
    assert float(first.inner_text().rstrip("%")) > float(before.rstrip("%"))
    assert tab.locator("#share-said").inner_text() == "62 %"
    share = tab.url
    tab.locator("#state-of").select_option("density")
    tab.wait_for_url("**of=density**")
    tab.go_back()
    tab.wait_for_url(share)
    tab.reload()
    tab.locator("#share-said", has_text="62 %").wait_for()
    assert tab.locator("#state-share").input_value() == "62"


def test_a_budget_that_cannot_be_met_says_what_can(
    tab: Any, root: Path, engine: tuple[str, Engine]
) -> None:
    tab.goto(engine[0] + planner(root, "&share=5"))
    tab.get_by_text("is below the smallest that these rules allow").wait_for()


def test_a_score_is_told_from_what_was_measured(
    tab: Any, root: Path, engine: tuple[str, Engine]
) -> None:
    tab.goto(engine[0] + planner(root))
    tab.locator("#state-by").select_option("score:retrieval")
    tab.get_by_text("what the profile loses was not measured").wait_for()
    tab.get_by_text("NVIDIA H100 80GB HBM3").first.wait_for()
    assert "not measured on your machine" in tab.locator(".tiles").inner_text()
    tab.locator("#state-n").fill("4000")
    tab.get_by_text("was timed from 8,192 to 131,072 tokens only").first.wait_for()


def downloaded(tab: Any, name: str, folder: Path) -> Path:
    """The file, or the folder of files, that a format's button gives."""
    button = tab.get_by_role("button", name=f"Download as {name}")
    button.wait_for()
    with tab.expect_download() as waiting:
        button.click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    if path.suffix != ".zip":
        return path
    with zipfile.ZipFile(path) as zipped:
        zipped.extractall(folder / name)
    return folder / name


def test_every_format_is_downloaded_and_read_again(
    tab: Any, root: Path, engine: tuple[str, Engine], tmp_path: Path
) -> None:
    slashes = identity(root / "run" / "profiles" / "slashes.json")
    for source, names in {
        "score:retrieval&sink=64&window=256&ranks=2": [n for n in FORMATS if n != "qwen_1m"],
        f"profile:{slashes}": ["qwen_1m"],
    }.items():
        tab.goto(engine[0] + planner(root, f"&by={source}"))
        profile = SparseProfile.load(downloaded(tab, "headscope", tmp_path))
        for name in names:
            kind = FORMATS[name]
            made = kind(ranks=2) if name == "rtp_llm" else kind()  # pyright: ignore
            again = made.read(downloaded(tab, name, tmp_path), profile)
            for layer in profile.model.layers:
                assert again.of_layer(layer) == profile.of_layer(layer)


@pytest.mark.parametrize("width", [900, 1400])
@pytest.mark.parametrize("page", ["planner", "new"])
def test_nothing_sticks_out_of_these_pages(
    tab: Any, root: Path, engine: tuple[str, Engine], page: str, width: int
) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(engine[0] + (planner(root) if page == "planner" else "/new"))
    tab.locator(".exports, #scan-probes label").first.wait_for(state="attached")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
