"""What a reader does in a window of the app, and how long to wait for it."""

from typing import Any

# Counts what a page asks for and has no answer to yet.
_COUNTING = """
window.asking = 0;
const { fetch } = window;
window.fetch = (...given) => {
  window.asking += 1;
  return fetch(...given).finally(() => { window.asking -= 1; });
};
"""
SHAPE = {"layers": 6, "heads": 8, "kv_heads": 2}


def new_window(chromium: Any) -> Any:
    context = chromium.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    context.set_default_timeout(30_000)
    context.add_init_script(_COUNTING)
    return context


def open_map(tab: Any, url: str, graph: str = "map") -> None:
    tab.goto(url)
    tab.locator(f"#{graph} .heatmaplayer image").wait_for()
    settled(tab)


def settled(tab: Any) -> None:
    """Wait until nothing is asked for and nothing moves; "networkidle" is reached once a page."""
    seen, still = "", 0
    while still < 4:
        tab.wait_for_timeout(60)
        now = tab.evaluate("[asking, scrollY, document.documentElement.scrollHeight].join()")
        still = still + 1 if now == seen and now.startswith("0,") else 0
        seen = now


def place(tab: Any, layer: int, head: int, graph: str = "map") -> tuple[float, float]:
    """Where a head is on the screen."""
    x, y = tab.evaluate(
        """([graph, x, y]) => {
          const place = document.getElementById(graph);
          const g = place.querySelector('.js-plotly-plot') || place;
          const box = g.getBoundingClientRect(), { xaxis, yaxis } = g._fullLayout;
          return [box.x + xaxis._offset + xaxis.l2p(x), box.y + yaxis._offset + yaxis.l2p(y)];
        }""",
        [graph, layer, head],
    )
    return x, y


def selected(tab: Any) -> set[str]:
    return set(tab.evaluate("headscope.list('sel')"))


def drag(tab: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    tab.mouse.move(*start)
    tab.mouse.down()
    tab.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    tab.mouse.move(*end)
    tab.mouse.up()


def turned(tab: Any) -> None:
    """Turn the theme of a page with pictures, and wait until it is laid out anew."""
    with tab.expect_response(lambda answer: "main.children" in (answer.request.post_data or "")):
        tab.keyboard.press("t")
    settled(tab)
