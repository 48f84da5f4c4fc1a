"""Runs looked at in a browser: maps, heads, comparisons, keys, addresses, and what goes wrong."""

import csv
from pathlib import Path
from typing import Any

from browser.looking import drag, open_map, place, selected, settled
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
from headscope.headmap import HeadMap


def test_a_click_shows_a_head_and_a_second_opens_it(on_map: Any, run: str) -> None:
    on_map.mouse.click(*place(on_map, 2, 5))
    on_map.locator("#head-panel h2", has_text="L2H5").wait_for()
    on_map.wait_for_url("**head=L2H5&sel=L2H5")
    assert on_map.locator("#said").inner_text().startswith("L2H5, ")
    ring = on_map.locator("#map .rings .current").bounding_box()
    x, y = place(on_map, 2, 5)
    assert abs(ring["x"] + ring["width"] / 2 - x) < 1.5
    assert abs(ring["y"] + ring["height"] / 2 - y) < 1.5
    on_map.mouse.dblclick(*place(on_map, 3, 1))
    on_map.locator("h1", has_text="L3H1").wait_for()
    assert on_map.url.split("?")[0].endswith("/head")
    on_map.go_back()
    on_map.locator("#map .heatmaplayer image").wait_for()
    assert "head=L3H1" in on_map.url


def test_keys(on_map: Any) -> None:
    press = on_map.keyboard.press
    on_map.mouse.click(*place(on_map, 0, 0))
    for key, name in [
        ("ArrowRight", "L1H0"), ("ArrowDown", "L1H1"), ("ArrowLeft", "L0H1"), ("ArrowUp", "L0H0"),
        ("ArrowUp", "L0H0"), ("ArrowLeft", "L0H0"),
    ]:  # fmt: skip
        press(key)
        assert on_map.evaluate("headscope.get('head')") == name
    assert selected(on_map) == {"L0H0"}
    press("Shift+ArrowRight")
    press("ArrowDown")
    press("Space")
    assert selected(on_map) == {"L0H0", "L1H0", "L1H1"}
    press("]")
    assert on_map.locator("#state-probe").input_value() == "duplicate_token"
    press("[")
    assert on_map.locator("#state-probe").input_value() == ""
    press("/")
    on_map.keyboard.type("l1h?")
    assert on_map.locator("#state-q").input_value() == "l1h?"  # a field takes keys for itself
    assert not on_map.locator("#help").is_visible()
    press("Escape")
    press("?")
    assert on_map.locator("#help").is_visible()
    press("Escape")
    assert not on_map.locator("#help").is_visible()
    press("Escape")
    assert selected(on_map) == set()
    press("Enter")
    on_map.locator("h1", has_text="L1H1").wait_for()
    press("ArrowRight")
    on_map.locator("h1", has_text="L2H1").wait_for()
    press("m")
    on_map.locator("#map .heatmaplayer image").wait_for()


def test_filters_leave_the_heads_that_the_scores_say(on_map: Any, made: HeadMap) -> None:
    def matching() -> int:
        settled(on_map)
        on_map.wait_for_timeout(60)  # a frame in which the count is written
        return int(on_map.locator("#matching").inner_text().split()[0])

    roles = made.roles()
    having = roles["roles"].str.split(",")
    on_map.locator("[data-toggle='role=induction']").click()
    assert matching() == sum("induction" in own for own in having)
    on_map.locator("[data-toggle='role=sink']").click()
    assert matching() == sum(bool({"induction", "sink"} & {*own}) for own in having)
    on_map.go_back()
    on_map.go_back()
    assert matching() == 48
    assert on_map.locator("[data-toggle='role=sink']").get_attribute("aria-pressed") == "false"
    on_map.locator("#part-layers-0").fill("2")
    on_map.locator("#part-layers-1").fill("3")
    assert matching() == 16
    on_map.locator("#state-kv").select_option("1")
    assert matching() == 8
    on_map.locator("#state-q").fill("L2")
    assert matching() == 4
    on_map.locator("[data-act=select-matching]").click()
    assert selected(on_map) == {f"L2H{head}" for head in range(4, 8)}
    on_map.locator("[data-act=no-filters]").click()
    assert matching() == 48
    on_map.locator("#state-probe").select_option("sink")
    slider = on_map.locator("#state-min")
    slider.wait_for()
    settled(on_map)
    slider.fill("0.5")
    least = float(slider.input_value())
    assert abs(matching() - int((made["sink"].mean() >= least).sum())) <= 1  # of rounded scores
    assert f"min={least:.3g}"[:7] in on_map.evaluate("headscope.seen.search")


def test_a_box_selects_on_all_panels_and_the_file_is_the_table(on_map: Any, made: HeadMap) -> None:
    drag(on_map, place(on_map, 0.6, 0.6), place(on_map, 2.4, 3.4))
    box = {f"L{layer}H{head}" for layer in (1, 2) for head in (1, 2, 3)}
    on_map.locator("#chosen table[aria-label='6 selected heads']").wait_for()
    assert selected(on_map) == box
    listed = on_map.locator("#chosen tbody th").all_inner_texts()
    assert {*listed} == box
    on_map.locator("#scatter .scatterlayer path.point").first.wait_for()
    on_map.locator("#scatter").scroll_into_view_if_needed()
    rings = on_map.locator("#scatter .rings .chosen").get_attribute("d")
    assert rings.count("M") == 6
    with on_map.expect_download() as waiting:
        on_map.locator("#download-chosen").click()
    with Path(waiting.value.path()).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == listed


def test_brushing_the_scatter_selects_on_the_map(
    tab: Any, address: str, run: str, made: HeadMap
) -> None:
    open_map(tab, f"{address}/run?run={run}&probe=sink&against=induction")
    tab.locator("#scatter .scatterlayer path.point").first.wait_for()
    tab.locator("#scatter").scroll_into_view_if_needed()
    settled(tab)
    drag(tab, place(tab, 0.25, 0.35, "scatter"), place(tab, 0.75, 0.9, "scatter"))
    across, up = made["induction"].mean(), made["sink"].mean()
    inside = (across > 0.25) & (across < 0.75) & (up > 0.35) & (up < 0.9)
    wanted = {f"L{layer}H{head}" for layer, head in zip(*inside.nonzero(), strict=True)}
    tab.locator("#matching", has_text=f"{len(wanted)} selected").wait_for()
    assert selected(tab) == wanted
    layer, head = (int(each) for each in min(wanted)[1:].split("H"))
    path = tab.locator("#map .rings .chosen").get_attribute("d")
    assert path.count("M") == len(wanted)
    settled(tab)  # what is said of a selection moves the graph
    tab.mouse.click(*place(tab, across[layer, head], up[layer, head], "scatter"))
    tab.wait_for_url(f"**head=L{layer}H{head}*")


def test_an_address_brings_all_back(tab: Any, address: str, run: str) -> None:
    query = (
        f"run={run}&head=L3H2&sel=L3H2,L4H4&probe=sink&against=induction&layers=1-4&q=L&theme=dark"
    )
    open_map(tab, f"{address}/run?{query}")
    assert tab.locator("html").get_attribute("data-theme") == "dark"
    assert tab.locator("#state-probe").input_value() == "sink"
    assert tab.locator("#state-against").input_value() == "induction"
    assert tab.locator("#part-layers-1").input_value() == "4"
    assert tab.locator("#state-q").input_value() == "L"
    assert "L3H2" in tab.locator("#head-panel h2").inner_text()
    assert tab.locator("#matching").inner_text() == "32 of 48 heads match · 2 selected"
    tab.get_by_role("link", name="Head", exact=True).click()
    tab.locator("h1", has_text="L3H2").wait_for()
    tab.go_back()
    tab.locator("#map .heatmaplayer image").wait_for()
    assert tab.evaluate("headscope.list('sel')") == ["L3H2", "L4H4"]


def test_the_theme_is_turned_and_stays(on_map: Any, address: str, run: str) -> None:
    on_map.locator("#toggle-theme").click()
    on_map.wait_for_url("**theme=dark")
    ground = on_map.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(c) for c in ground[4:-1].split(",")) < 120
    open_map(on_map, f"{address}/run?run={run}")
    assert on_map.locator("html").get_attribute("data-theme") == "dark"


def test_two_scores_and_two_runs(tab: Any, address: str, run: str, other: str) -> None:
    open_map(tab, f"{address}/probes?run={run}&probe=sink&against=retrieval")
    tab.mouse.click(*place(tab, 1, 2, "map-second"))
    for graph in ("map", "map-second", "map-apart", "scatter"):
        tab.locator(f"#{graph} .rings .current[d^=M]").wait_for(state="attached")
    tab.locator("#state-against").select_option("induction")
    tab.locator("h1", has_text="induction").wait_for()
    tab.goto(f"{address}/compare?run={run}")
    tab.locator("#state-other").select_option(other)
    tab.locator("#two-maps .heatmaplayer image").first.wait_for()
    assert tab.locator("#two-maps .heatmaplayer").count() >= 1
    assert tab.locator("table.confusion").is_visible()
    assert f"other={other}" in tab.url


def test_results_of_tests_are_read(tab: Any, address: str, run: str) -> None:
    tab.goto(f"{address}/tests?run={run}")
    tab.locator(".claims li").first.wait_for()
    assert (
        tab.locator("#result").get_by_text("needle: the ablation beside random sets").is_visible()
    )


def test_10_000_quick_clicks(on_map: Any) -> None:
    asked: list[str] = []
    on_map.on("request", lambda request: asked.append(request.url))
    last = on_map.evaluate(
        """async () => {
          const drag = document.querySelector('#map .nsewdrag');
          const box = drag.getBoundingClientRect();
          for (let i = 0; i < 10000; i++) {
            const at = {
              clientX: box.x + box.width * ((i * 7) % 97 + 1) / 99, bubbles: true, button: 0,
              clientY: box.y + box.height * ((i * 13) % 89 + 1) / 91, ctrlKey: i % 3 === 0,
            };
            drag.dispatchEvent(new PointerEvent('pointerdown', at));
            drag.dispatchEvent(new PointerEvent('pointerup', at));
            if (i % 500 === 0) await new Promise((done) => setTimeout(done));
          }
          return headscope.get('head');
        }"""
    )
    on_map.locator("#head-panel h2", has_text=last).wait_for()
    on_map.wait_for_url(f"**head={last}**")
    assert len(asked) < 300  # the server is asked when it is still, not at every click
