"""Figures in a real browser: a text to click in, and a large interactive map, with no request."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from charted import TOKENS, large_map, some_patterns

from headscope.viz import figures


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A page that fails on errors, on anything logged and on every request but for files."""
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("file:", "data:", "blob:", "about:"))
            else wrong.append(request.url)
        ),
    )
    yield page
    assert wrong == []
    page.close()


def shades(place: Any) -> list[float]:
    return place.evaluate_all("all => all.map(e => +e.style.getPropertyValue('--w'))")


def test_clicking_a_token_shows_where_heads_look(tab: Any, tmp_path: Path) -> None:
    found = some_patterns()
    tab.goto(figures.text_attention(found).save(tmp_path / "text.html").as_uri())
    tokens = tab.get_by_role("option")
    assert tokens.count() == len(TOKENS)
    tokens.nth(5).click()
    expected = np.zeros(len(TOKENS))
    expected[:6] = np.sqrt(found["L1H0"][5, :6])
    np.testing.assert_allclose(shades(tokens), expected, atol=6e-3)
    assert tokens.nth(5).get_attribute("aria-selected") == "true"
    tab.get_by_role("button", name="L1H2").click()
    both = np.sqrt((found["L1H0"][5] + found["L1H2"][5]) / 2)
    np.testing.assert_allclose(shades(tokens), both, atol=6e-3)
    assert "L1H0, L1H2 on average" in tab.locator(".hs-said").inner_text()
    tab.get_by_role("button", name="L1H0").click()
    tab.get_by_role("button", name="L1H2").click()  # the last one stays
    np.testing.assert_allclose(shades(tokens), np.sqrt(found["L1H2"][5]), atol=6e-3)
    tab.get_by_role("button", name="who looks here").click()
    np.testing.assert_allclose(shades(tokens), np.sqrt(found["L1H2"][:, 5]), atol=6e-3)


def test_it_can_be_used_without_a_mouse(tab: Any, tmp_path: Path) -> None:
    tab.goto(figures.text_attention(some_patterns()).save(tmp_path / "text.html").as_uri())
    for _ in range(5):  # three heads, "who looks here", and the text as one stop
        tab.keyboard.press("Tab")
    focused = "document.activeElement.getAttribute('role')"
    assert tab.evaluate(focused) == "option"
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    chosen = tab.locator("[role=option][aria-selected=true]")
    assert chosen.inner_text() == TOKENS[1]
    assert tab.evaluate("document.activeElement.textContent") == TOKENS[1]
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Space")
    assert "L1H0, L1H2" in tab.locator(".hs-said").inner_text()


def test_it_works_twice_in_a_notebook_and_in_its_frames(tab: Any) -> None:
    part = figures.text_attention(some_patterns())._repr_html_()
    frame = f'<iframe sandbox="allow-scripts" srcdoc="{escape(part)}" width="800"></iframe>'
    tab.set_content(f"<div id=a></div><div id=b>{part}</div>{frame}")
    # As JupyterLab and VS Code do: markup first, then every script anew.
    tab.evaluate(
        """part => {
            const place = document.querySelector("#a");
            place.innerHTML = part;
            for (const old of place.querySelectorAll("script")) {
                const script = document.createElement("script");
                script.textContent = old.textContent;
                old.replaceWith(script);
            }
        }""",
        part,
    )
    for place in (tab.locator("#a"), tab.locator("#b"), tab.frame_locator("iframe")):
        place.get_by_role("option").nth(2).click()
        assert place.get_by_role("option").nth(2).get_attribute("aria-selected") == "true"
        assert place.get_by_role("button", name="L1H1").is_visible()


def test_without_script_a_text_is_still_shown(chromium: Any, tmp_path: Path) -> None:
    path = figures.text_attention(some_patterns()).save(tmp_path / "text.html")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.get_by_role("option").count() == len(TOKENS)
    assert not page.get_by_role("button", name="L1H1").is_visible()
    assert "L1H0: from “a” to" in page.locator(".hs-said").inner_text()
    context.close()


def test_a_large_map_is_drawn_and_tells_all_scores(tab: Any, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    head_map = large_map("80x64")
    tab.goto(figures.head_map(head_map).save(tmp_path / "map.html").as_uri())
    tab.locator(".heatmaplayer image").wait_for()
    box = tab.locator(".nsewdrag").bounding_box()
    x, y = box["x"] + box["width"] * 7.5 / 80, box["y"] + box["height"] * 10.5 / 64
    tab.mouse.move(x - 30, y)
    tab.mouse.move(x, y)
    told = tab.locator(".hoverlayer .hovertext", has_text="L7H10, KV head 1")
    told.wait_for()
    said = told.text_content()
    for name, score in head_map.scores.items():
        assert f"{name.replace('_', ' ')} {score.mean()[7, 10]:.2f}" in said
