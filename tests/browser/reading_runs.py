"""Two runs in a served folder, and one window for all tests that read them: fixtures."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from app_runs import a_run
from made_up import HOSTILE, a_map

from browser.looking import SHAPE, new_window, open_map
from headscope.headmap import HeadMap


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def made() -> HeadMap:
    return a_map(**SHAPE)


@pytest.fixture(scope="module")
def run(folder: Path, made: HeadMap) -> str:
    return a_run(folder / "one", made, tested=True)


@pytest.fixture(scope="module")
def other(folder: Path) -> str:
    return a_run(folder / "two", a_map(layers=6, heads=8, kv_heads=8, spec=HOSTILE))


@pytest.fixture(scope="module")
def address(served: Callable[[Path], str], folder: Path, run: str, other: str) -> str:
    return served(folder)


@pytest.fixture(scope="module")
def window(chromium: Any) -> Iterator[Any]:
    """One for all tests here, so that scripts are loaded once."""
    context = new_window(chromium)
    yield context
    context.close()


@pytest.fixture
def tab(window: Any) -> Iterator[Any]:
    """A tab that fails on errors of scripts, on dialogs, and on requests to anywhere else."""
    page = window.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda request: wrong.append(request.url) if _strange(request) else None)
    yield page
    page.evaluate("localStorage.clear()")
    page.close()
    assert wrong == []


def _strange(request: Any) -> bool:
    return not request.url.startswith(("http://localhost:", "data:", "blob:"))


@pytest.fixture
def on_map(tab: Any, address: str, run: str) -> Any:
    open_map(tab, f"{address}/run?run={run}")
    return tab
