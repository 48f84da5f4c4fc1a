"""The app in a real Chromium."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip(
    "playwright.sync_api",
    reason="needs playwright; last result in benchmarks/results/test_browser.txt",
)
CHROMIUM = Path("/usr/bin/chromium")
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}; last result in benchmarks/results/test_browser.txt")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=_FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Callable[[Path], str]]:
    """Serves a folder of runs from this process; its address."""
    from headscope_app import engine
    from headscope_app.server import bound, make_app

    running = []

    def serve(folder: Path) -> str:
        app = make_app([folder])
        server = bound(app, "127.0.0.1", 0)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        running.append((app, server, thread))
        return f"http://localhost:{server.port}"

    yield serve
    for app, server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()
        engine.stop(app)


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A tab that fails on errors of scripts and on requests to anywhere else."""
    context = chromium.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("http://localhost:", "data:", "blob:"))
            else wrong.append(request.url)
        ),
    )
    yield page
    assert wrong == []
    context.close()
