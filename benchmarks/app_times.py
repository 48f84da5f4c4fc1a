"""Times of the dashboard in Chromium: lists, first paint, head pages, moving over large maps.

Runs are made of random scores and saved as any other; the app is started as a user starts it. Needs
playwright and Debian's chromium. Takes two minutes on a machine that does nothing else.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from environment import describe
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from made_up import NAMES, a_map

from headscope_app.library import Library
from headscope_app.listing import identity

PROBES = [*NAMES, "contextual", "razor_induction", "echo", "copying", "offset", "hidden_sinks",
          "qada", "snapkv_far", "basin", "distance", "duo_onthefly",
          *(f"score_{i}" for i in range(6))]  # fmt: skip
CHROMIUM = "/usr/bin/chromium"
MAP = "#map .heatmaplayer image"

# Two frames after something is true it has been painted.
_UNTIL = """async ([act, done]) => {
  const acts = {
    key: (key) => document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true })),
  };
  const ready = {
    title: (text) => document.getElementById('title')?.textContent === text
                     && document.querySelector('.strip'),
    panel: (text) => document.querySelector('#head-panel h2')?.textContent.startsWith(text),
    ring: (path) => document.querySelector('#map .rings .current').getAttribute('d') !== path,
  };
  const before = document.querySelector('#map .rings .current')?.getAttribute('d');
  const start = performance.now();
  acts[act[0]](act[1]);
  const frame = () => new Promise(requestAnimationFrame);
  while (!ready[done[0]](done[1] ?? before)) await frame();
  await frame();
  return performance.now() - start;
}"""

_CLICKS = """async (n) => {
  const drag = document.querySelector('#map .nsewdrag'), box = drag.getBoundingClientRect();
  const start = performance.now();
  for (let i = 0; i < n; i++) {
    const at = { clientX: box.x + box.width * ((i * 7) % 97 + 1) / 99, bubbles: true, button: 0,
                 clientY: box.y + box.height * ((i * 13) % 89 + 1) / 91 };
    drag.dispatchEvent(new PointerEvent('pointerdown', at));
    drag.dispatchEvent(new PointerEvent('pointerup', at));
    if (i % 100 === 0) await new Promise(requestAnimationFrame);
  }
  return performance.now() - start;
}"""

_FRAMES = """async (n) => {
  const times = [];
  let last = performance.now();
  for (let i = 0; i < n; i++) {
    const key = i % 40 < 20 ? 'ArrowRight' : 'ArrowLeft';
    document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  return times.slice(5);
}"""


def main() -> None:
    describe()
    busy = os.getloadavg()[0]
    print(f"{busy:.1f} processes wanted the {os.cpu_count()} cores in the minute before\n")
    with TemporaryDirectory() as place, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        print(f"Chromium {browser.version}, a window of 1 400 × 900, a fresh profile each time\n")
        folder = Path(place, "runs")
        small = _saved(folder / "small", 32, 32)
        large = _saved(folder / "large", 80, 64)
        many = Path(place, "many")
        for i in range(40):
            shutil.copytree(folder / "small", many / f"run-{i:02}")
        _listed(browser, many)
        _painted(browser, folder, "32 × 32 heads, 25 scores", small, 3)
        _painted(browser, folder, "80 × 64 heads, 25 scores", large, 1)
        _opened(browser, folder, small)
        _moved(browser, folder, "32 × 32", small)
        _moved(browser, folder, "80 × 64", large)
        browser.close()


def _saved(folder: Path, layers: int, heads: int) -> str:
    a_map(layers, heads, 8, PROBES).save(folder)
    return identity(folder.resolve())


def _listed(browser: Any, many: Path) -> None:
    began = time.perf_counter()
    entries = Library.of([many]).runs()
    print(f"{len(entries)} runs listed, read from disk: {time.perf_counter() - began:.2f} s")
    with _served(many) as (address, _), _page(browser) as page:
        wait = _timed(page, f"{address}/", "#runs tbody tr >> nth=39")
        again = _timed(page, f"{address}/", "#runs tbody tr >> nth=39")
    print(f"  the same in the browser: first {wait:.2f} s, again {again:.2f} s\n")


def _painted(browser: Any, folder: Path, what: str, run: str, rounds: int) -> None:
    """From the address to the map, the server and the browser both new."""
    cold, warm = [], []
    for _ in range(rounds):
        with _served(folder) as (address, _), _page(browser) as page:
            cold.append(_timed(page, f"{address}/run?run={run}", MAP))
            warm.append(_timed(page, f"{address}/run?run={run}", MAP))
    told = ", ".join(f"{each:.2f}" for each in cold)
    print(f"first paint, {what}: {told} s (server, browser and map all new)")
    print(f"  reloaded: {statistics.median(warm):.2f} s\n")


def _opened(browser: Any, folder: Path, run: str) -> None:
    """From the key that opens a head to its page, and on to the next heads."""
    with _served(folder) as (address, _), _page(browser) as page:
        page.goto(f"{address}/run?run={run}&head=L3H3")
        page.locator(MAP).wait_for()
        page.wait_for_load_state("networkidle")
        first = page.evaluate(_UNTIL, [["key", "Enter"], ["title", "L3H3"]])
        times = []
        for i in range(4, 24):
            page.wait_for_load_state("networkidle")
            times.append(page.evaluate(_UNTIL, [["key", "ArrowRight"], ["title", f"L{i}H3"]]))
    print(f"head page from the map: {first:.0f} ms; to the next head: {_spread(times)}\n")


def _moved(browser: Any, folder: Path, what: str, run: str) -> None:
    """Rings follow keys in the browser alone; the panel beside the map is asked for."""
    with _served(folder) as (address, pid), _page(browser) as page:
        page.goto(f"{address}/run?run={run}&head=L0H0")
        page.locator(MAP).wait_for()
        page.wait_for_load_state("networkidle")
        rings, panels = [], []
        for i in range(1, 21):
            rings.append(page.evaluate(_UNTIL, [["key", "ArrowRight"], ["ring"]]))
            page.wait_for_load_state("networkidle")
            panels.append(page.evaluate(_UNTIL, [["key", "ArrowDown"], ["panel", f"L{i}H{i}"]]))
            page.wait_for_load_state("networkidle")
        frames = page.evaluate(_FRAMES, 200)
        clicks = page.evaluate(_CLICKS, 10_000)
        memory = int(
            next(
                line.split()[1]
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if line.startswith("VmRSS")
            )
        )
    print(f"{what} heads: ring after a key {_spread(rings)}; panel beside it {_spread(panels)}")
    print(f"  200 keys in 200 frames: median {statistics.median(frames):.0f} ms a frame, "
          f"worst {max(frames):.0f} ms")  # fmt: skip
    print(f"  10 000 clicks: {clicks / 1000:.1f} s; server then {memory / 1024:.0f} MB\n")


def _spread(times: list[float]) -> str:
    return f"median {statistics.median(times):.0f} ms, worst of {len(times)} {max(times):.0f} ms"


def _timed(page: Any, url: str, until: str) -> float:
    began = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.locator(until).wait_for()
    return time.perf_counter() - began


@contextmanager
def _page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    yield context.new_page()
    context.close()


@contextmanager
def _served(folder: Path) -> Iterator[tuple[str, int]]:
    """The app as a process of its own: (address, process id)."""
    command = [sys.executable, "-m", "headscope", "app", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline() if process.stdout else ""
        yield said.split()[2].rstrip("/"), process.pid
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
