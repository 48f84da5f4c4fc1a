"""Pages gone through in a browser: themes, focus, links, other windows, runs that change below."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from app_runs import a_run
from made_up import a_map

from browser.legible import NAMELESS, UNREADABLE
from browser.looking import SHAPE, new_window, open_map, place, selected, settled, turned
from browser.reading_runs import (
    address,
    folder,
    made,
    on_map,
    other,
    run,
    tab,
    window,
)  # fixtures


def test_turning_the_theme_takes_and_gives_no_focus(on_map: Any) -> None:
    on_map.locator("#state-q").click()
    on_map.keyboard.press("Escape")
    turned(on_map)
    assert on_map.evaluate("document.activeElement === document.body")
    chip = on_map.locator("[data-toggle='role=sink']")
    chip.focus()
    turned(on_map)
    assert on_map.evaluate("document.activeElement.dataset.toggle") == "role=sink"


def test_turning_the_theme_keeps_what_was_typed(tab: Any, address: str) -> None:
    tab.goto(f"{address}/new")
    tab.locator("#scan-name").fill("my-run")
    tab.locator("#title").click()
    tab.keyboard.press("t")
    tab.wait_for_url("**theme=*")
    settled(tab)
    assert tab.locator("#scan-name").input_value() == "my-run"


def test_graphs_come_though_their_script_failed_once(tab: Any, address: str) -> None:
    failed = []

    def once(route: Any) -> None:
        failed.append(route.request.url)
        route.abort() if len(failed) == 1 else route.continue_()

    tab.route("**/*plotly.min*", once)
    tab.goto(address)
    tab.locator("#runs tbody a").first.wait_for()
    tab.wait_for_timeout(800)  # longer than the list waits with what it needs not
    assert len(failed) == 1
    tab.locator("#runs tbody a").first.click()
    tab.locator("#map .heatmaplayer image").wait_for()


def test_links_lead_on_with_the_head_and_the_selection(on_map: Any) -> None:
    on_map.mouse.click(*place(on_map, 2, 3))
    on_map.locator("#head-panel h2", has_text="L2H3").wait_for()
    on_map.locator("nav .links a", has_text="Scores").click()
    on_map.locator("h1", has_text=" and ").wait_for()
    assert selected(on_map) == {"L2H3"}
    on_map.locator("nav .links a", has_text="Head").last.click()
    on_map.locator("h1", has_text="L2H3").wait_for()


def test_a_score_beside_itself_is_set_beside_another(tab: Any, address: str, run: str) -> None:
    tab.goto(f"{address}/probes?run={run}&probe=sink&against=sink")
    tab.locator("#map-apart .heatmaplayer image").wait_for()
    assert tab.locator("#state-against").input_value() != "sink"


def test_two_browsers_have_each_their_own(chromium: Any, address: str, run: str) -> None:
    contexts = [new_window(chromium) for _ in range(2)]
    tabs = [context.new_page() for context in contexts]
    for each in tabs:
        open_map(each, f"{address}/run?run={run}")
    for each, layer in zip(tabs, (1, 4), strict=True):
        each.mouse.click(*place(each, layer, 0))
    for each, layer in zip(tabs, (1, 4), strict=True):
        each.locator("#head-panel h2", has_text=f"L{layer}H0").wait_for()
        assert selected(each) == {f"L{layer}H0"}
    for context in contexts:
        context.close()


def test_a_run_that_is_deleted_or_damaged_under_the_page(
    tab: Any, address: str, folder: Path
) -> None:
    id_ = a_run(folder / "doomed", a_map(**SHAPE))
    open_map(tab, f"{address}/run?run={id_}")
    (folder / "doomed" / "scores.safetensors").write_bytes(b"broken")
    tab.mouse.click(*place(tab, 1, 1))
    tab.locator("#toast", has_text="doomed is damaged").wait_for()
    shutil.rmtree(folder / "doomed")
    tab.wait_for_timeout(600)  # longer than a listing is taken for true
    tab.reload()
    tab.locator(".notice.error", has_text="no such run").wait_for()
    tab.get_by_role("link", name="All runs").click()
    tab.locator("h1", has_text="Runs").wait_for()
    assert "doomed" not in tab.locator("#runs").inner_text()


def test_a_new_run_appears_and_a_search_finds_it(tab: Any, address: str, folder: Path) -> None:
    a_run(folder / "found" / "deep", a_map(layers=2, spec="llama-of-mine"))
    tab.goto(address)
    tab.locator("#state-q").fill("of-mine")
    tab.locator("table[aria-label='1 runs']").wait_for()
    assert tab.locator("#runs tbody th").all_inner_texts() == [f"{folder.name}/found/deep"]
    tab.wait_for_url("**q=of-mine")
    tab.locator("#runs tbody a").click()
    tab.locator("h1", has_text="llama-of-mine").wait_for()


@pytest.mark.parametrize("path", ["", "run", "head", "probes", "compare", "tests"])
def test_every_page_at_900_px(path: str, tab: Any, address: str, run: str, other: str) -> None:
    tab.set_viewport_size({"width": 900, "height": 800})
    tab.goto(f"{address}/{path}?run={run}&head=L1H1&sel=L1H1&other={other}&theme=light")
    tab.locator("#title").wait_for()
    settled(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 900
    assert tab.evaluate(NAMELESS) == []
    assert tab.evaluate(UNREADABLE) == []
    tab.locator("#copy-link").focus()
    if path:
        turned(tab)
    else:  # without pictures it stays as it is
        tab.keyboard.press("t")
    tab.wait_for_url("**theme=dark")
    assert tab.evaluate(UNREADABLE) == []
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "toggle-theme"
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
