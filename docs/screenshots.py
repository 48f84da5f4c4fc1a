"""Make the pictures of the dashboard again, from runs: every page at 1 400 and 900 px.

    headscope scan smollm2 --probes all --samples 4 --out runs/smollm2
    headscope scan smollm2 --seed 7 --samples 4 --out runs/smollm2-seed7
    headscope validate runs/smollm2 --part answer --samples 6 --controls 19 --doses 1,3,5
    python docs/screenshots.py runs runs/smollm2 runs/smollm2-seed7

Needs playwright and Debian's chromium. Where Pillow is there, pictures are kept with 256 colours,
in half of the size.
"""

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from headscope_app import engine
from headscope_app.listing import identity
from headscope_app.server import bound, make_app

OUT = Path(__file__).parent / "app"
CHROMIUM = "/usr/bin/chromium"
HEIGHTS = {1400: 900, 900: 1100}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="what the app is started on")
    parser.add_argument("run", type=Path, help="a run in it, with a validation")
    parser.add_argument("other", type=Path, help="another of the same model")
    parser.add_argument("--only", default="", help="pages whose name has this in it")
    asked = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    run, other = (identity(path.resolve()) for path in (asked.run, asked.other))
    heads = "head=L18H6&sel=L18H6,L18H7,L23H2,L17H4"
    pages = {
        "runs": ("/", "#runs tbody"),
        "map": (f"/run?run={run}&{heads}", "#scatter .scatterlayer"),
        "map-dark": (
            f"/run?run={run}&{heads}&probe=induction&theme=dark",
            "#scatter .scatterlayer",
        ),
        "head": (f"/head?run={run}&head=L18H6", ".strip"),
        "scores": (f"/probes?run={run}&probe=retrieval&against=induction", "#map-apart image"),
        "compare": (f"/compare?run={run}&other={other}", "#two-maps image"),
        "tests": (f"/tests?run={run}", ".claims"),
        "planner": (f"/planner?run={run}", "#title"),
        "new": (f"/new?run={run}", "#title"),
    }
    with _served(asked.folder) as address, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width, height in HEIGHTS.items():
            tab = browser.new_page(viewport={"width": width, "height": height})
            tab.set_default_timeout(120_000)
            for name, (path, until) in pages.items():
                if asked.only in name:
                    tab.goto(address + path)
                    tab.locator(until).first.wait_for()
                    _prepared(tab, name)
                    tab.screenshot(path=OUT / f"{name}-{width}.png", full_page=name == "head")
                    _smaller(OUT / f"{name}-{width}.png")
                    print(OUT / f"{name}-{width}.png", flush=True)
        browser.close()


def _prepared(tab: Any, name: str) -> None:
    """What a reader would have done before."""
    tab.wait_for_load_state("networkidle")
    if name == "head":
        tab.locator("#ask-pattern").click()
        tab.locator("#pattern .heatmaplayer image").wait_for()
        tab.locator("[data-token]").last.click()
        tab.evaluate("scrollTo(0, 0)")
    tab.wait_for_timeout(1500)


def _smaller(path: Path) -> None:
    """As few colours as a screenshot needs, where Pillow is there."""
    try:
        from PIL import Image  # pyright: ignore[reportMissingImports]
    except ImportError:
        return
    few = (
        Image.open(path)
        .convert("RGB")
        .quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    few.save(path, optimize=True)


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    app = make_app([folder])
    server = bound(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{server.port}"
    server.shutdown()
    thread.join()
    engine.stop(app)


if __name__ == "__main__":
    main()
