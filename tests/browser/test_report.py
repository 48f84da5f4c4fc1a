"""The report in a real browser: what its script does, and that the page asks for nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up import HOSTILE, a_map, a_validation

from headscope.viz import write_report


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    """A report of hostile names, opened as a file; fails on errors and on any request."""
    head_map = a_map(spec=HOSTILE, command=f"headscope scan {HOSTILE}")
    path = write_report(head_map, [a_validation(head_map)], tmp_path / "report.html")
    tab = chromium.new_page(viewport={"width": 1200, "height": 900})
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("dialog", lambda dialog: wrong.append(dialog.message))
    tab.on("request", lambda request: wrong.append(request.url))
    tab.goto(path.as_uri())
    assert wrong == [path.as_uri()]
    yield tab
    assert wrong == [path.as_uri()]
    tab.close()


def selected(page: Any) -> str:
    return page.locator("#head").inner_text()


def test_pointing_shows_and_clicking_selects(page: Any) -> None:
    first = selected(page)
    page.locator("#L2H5").hover()
    assert selected(page) == "L2H5"
    assert "layer 2, head 5, KV head 1" in page.locator("#facts").inner_text()
    expected = a_map().to_pandas().query("layer == 2 and head == 5").iloc[0]
    shown = page.locator("[data-score=sink] output").inner_text()
    assert abs(float(shown.split()[0]) - expected["sink"]) < 0.006
    scores = a_map().explain("L2H5").scores.set_index("score")
    assert shown.endswith(f"#{scores['rank']['sink']}")
    page.locator("h1").hover()
    assert selected(page) == first
    page.locator("#L2H5").click()
    page.locator("h1").hover()
    assert selected(page) == "L2H5"
    assert page.url.endswith("#L2H5")


def test_arrow_keys_move_the_selected_head_and_stop_at_the_edges(page: Any) -> None:
    page.locator("#L0H0").click()
    for key, name in [
        ("ArrowRight", "L1H0"), ("ArrowDown", "L1H1"), ("ArrowLeft", "L0H1"), ("ArrowUp", "L0H0"),
        ("ArrowUp", "L0H0"), ("ArrowLeft", "L0H0"),
    ]:  # fmt: skip
        page.keyboard.press(key)
        assert selected(page) == name
    page.locator("#L3H5").click()
    for key in ("ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
        assert selected(page) == "L3H5"


def test_a_link_to_a_head_selects_it(page: Any) -> None:
    page.locator("#tests a.head").last.click()
    assert selected(page) == "L0H1"


def test_filters_fade_heads_without_the_role(page: Any) -> None:
    roles = a_map().roles()["roles"].str.split(",")
    chip = page.locator('.chip[data-role="sink"]')
    chip.click()
    assert page.locator(".cells > g:not(.dim)").count() == sum("sink" in each for each in roles)
    assert chip.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.locator(".cells > g.dim").count() == 0


def test_tables_sort(page: Any) -> None:
    table = page.locator("table.sortable").first
    before = table.locator("tbody td:first-child").all_inner_texts()
    button = table.locator("th button").first
    button.click()
    ascending = table.locator("tbody td:first-child").all_inner_texts()
    assert ascending == sorted(before)
    button.click()
    assert table.locator("tbody td:first-child").all_inner_texts() == ascending[::-1]


def test_commands_can_be_copied(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("pre.copy button").last.click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "headscope validate run"


@pytest.mark.parametrize("width", [390, 900, 1200, 1700])
def test_nothing_sticks_out(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_everything_important_is_there_without_the_script(chromium: Any, tmp_path: Path) -> None:
    head_map = a_map()
    path = write_report(head_map, [a_validation(head_map)], tmp_path / "report.html")
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(path.as_uri())
    said = tab.locator("body").inner_text()
    for text in ("Head map", "Causal tests", "Prompts", "headscope scan made-up --out run"):
        assert text in said
    assert tab.locator(".cells > g").count() == len(head_map.heads())
    context.close()
