"""Figures: static, safe, small, and the same numbers whoever draws them."""

import re
from functools import cache
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from charted import (
    FIGURES,
    HOSTILE,
    SHAPES,
    every,
    holed,
    large_map,
    of_map,
    some_bench,
    some_patterns,
)
from made_up import a_map

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.patterns.dilated import Dilated
from headscope.patterns.streaming import Streaming
from headscope.viz import Chart, figures
from headscope.viz.chart import check_theme
from headscope.viz.marks import Cells, Dots, Line, Look
from headscope.viz.outlining import edges, inside
from headscope.viz.palette import SERIES, SURFACE, Pair, contrast
from headscope.viz.panel import Axis, Panel
from headscope.viz.pooling import max_pool, quantised, restored
from headscope.viz.ramps import diverging, sequential, stepped

SVG = "{http://www.w3.org/2000/svg}"


@cache
def chart(name: str, model: str = "made-up") -> Chart:
    return every(model)[name]()


def checked(svg: str, name: str) -> ElementTree.Element:
    """The root of a picture that stands alone and can be read aloud."""
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") == root.findtext(f"{SVG}title") == name
    assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {
        "svg", "title", "desc", "style", "g", "rect", "path", "line", "text", "tspan", "image",
        "circle",
    }  # fmt: skip
    for element in root.iter():
        assert "id" not in element.attrib
        assert not any(key.startswith("on") for key in element.attrib)
        assert element.get("href", "data:image/png;base64,").startswith("data:image/png;base64,")
    assert "//" not in re.sub(r'xmlns="[^"]*"|base64,[^"]*', "", svg)
    assert len(svg.encode()) < 300_000
    return root


@pytest.mark.parametrize("theme", ["light", "dark", "auto"])
@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_stands_alone(name: str, theme: Any) -> None:
    svg = chart(name).svg(theme)
    root = checked(svg, chart(name).name)
    ground = root.find(f"{SVG}rect")
    assert ground is not None
    assert ground.get("fill") == SURFACE["dark" if theme == "dark" else "light"]
    assert ("prefers-color-scheme: dark" in svg) == (theme == "auto")
    assert svg == chart(name).svg(theme)


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_written_outside(name: str) -> None:
    root = ElementTree.fromstring(chart(name).svg())
    width, height = (float(root.attrib[key]) for key in ("width", "height"))
    for text in root.iter(f"{SVG}text"):
        moved = re.findall(r"translate\(([\d.]+) ([\d.]+)\)", text.get("transform", ""))
        x, y = map(float, moved[0] if moved else (text.get("x", 0), text.get("y", 0)))
        assert 0 <= x <= width
        assert 0 <= y <= height


@pytest.mark.parametrize("name", FIGURES)
def test_hostile_names_stay_text(name: str) -> None:
    pytest.importorskip("plotly")
    made = chart(name, HOSTILE)
    for theme in ("light", "auto"):
        svg = made.svg(theme)
        ElementTree.fromstring(svg)
        assert "<img" not in svg
        assert "<script" not in svg
    written = made.interactive().to_json()
    assert "<img" not in written
    assert "<script" not in written
    written.encode()  # a lone surrogate could not be


@pytest.mark.parametrize("shape", SHAPES)
def test_maps_of_any_size_stay_small(shape: str) -> None:
    head_map = large_map(shape)
    for name, figure in of_map(head_map).items():
        if name != "agreement" or shape != "1x1":  # of one head nothing has a rank
            made = figure()
            checked(made.svg("auto"), made.name)  # which is the largest
    assert len(head_map._repr_html_().encode()) < 300_000


def test_a_score_that_is_not_known_is_left_out() -> None:
    pytest.importorskip("plotly")
    head_map = holed(a_map())
    for name, figure in of_map(head_map).items():
        if name != "agreement":
            assert "nan" not in figure().svg().lower()
            figure().interactive()
    found = figures.score_scatter(head_map, "sink", "induction")
    assert "1 head is left out" in found.note
    assert sum(m.x.size for m in found.panels[0].marks if isinstance(m, Dots)) == 23
    assert "1 head not known" in figures.score_distribution(head_map).svg()


def data_of(figure: Any, kind: str) -> list[Any]:
    return [trace for trace in figure.data if trace.type == kind]


@pytest.mark.parametrize("name", FIGURES)
def test_interactive_figures_have_the_same_numbers(name: str) -> None:
    pytest.importorskip("plotly")
    figure, made = chart(name).interactive("dark"), chart(name)
    marks = [mark for panel in made.panels for mark in panel.marks]
    matrices = [mark for mark in marks if isinstance(mark, Cells)]
    heatmaps = data_of(figure, "heatmap")
    assert len(heatmaps) == len(matrices)
    for drawn, mark in zip(heatmaps, matrices, strict=True):
        np.testing.assert_array_equal(drawn.z, mark.values)
        assert isinstance(drawn.z, np.ndarray)
        if mark.numbers is not None:
            np.testing.assert_array_equal(drawn.customdata, mark.numbers)
    points = {t.name: t for t in data_of(figure, "scatter") if t.name and t.mode != "lines"}
    for mark in marks:
        if isinstance(mark, Dots) and mark.name:
            np.testing.assert_array_equal(points[mark.name].x, mark.x)
            np.testing.assert_array_equal(points[mark.name].y, mark.y)
    lines = [t for t in data_of(figure, "scatter") if t.hoverinfo != "skip"]
    drawn_lines = [mark for mark in marks if isinstance(mark, Line)]
    for drawn, mark in zip(lines if drawn_lines else [], drawn_lines, strict=True):
        np.testing.assert_array_equal(drawn.y, mark.y)


def test_the_interactive_head_map_is_one_heatmap_with_all_scores() -> None:
    pytest.importorskip("plotly")
    head_map = large_map("80x64")
    figure = figures.head_map(head_map).interactive()
    (cells,) = data_of(figure, "heatmap")
    assert cells.customdata.shape == (64, 80, 25)
    for i, name in enumerate(head_map.scores):
        np.testing.assert_allclose(cells.customdata[..., i], head_map[name].mean().T, rtol=1e-6)
        assert name.replace("_", " ") in cells.hovertemplate
    assert cells.text is None  # a letter in so small a cell is a smudge, and costs an element
    written = figure.to_json()
    assert len(written) < 1_300_000
    assert '"bdata"' in written
    table = head_map.roles()
    colours = [colour for _, colour in cells.colorscale][::2]
    shown = {
        role: {colours[int(cells.z[h, layer])] for layer, h, r in
               zip(table["layer"], table["head"], table["role"], strict=True) if r == role}
        for role in set(table["role"])
    }  # fmt: skip
    assert all(len(found) <= 5 for found in shown.values())
    assert len(set().union(*shown.values())) == sum(map(len, shown.values()))


def test_letters_and_lines_between_kv_groups_are_drawn() -> None:
    pytest.importorskip("plotly")
    head_map = a_map()
    figure = figures.head_map(head_map).interactive()
    (cells,) = data_of(figure, "heatmap")
    roles = head_map.roles()["roles"]
    assert cells.text[5, 0] == ("" if not roles[5] else cells.text[5, 0])
    assert {letter for letter in cells.text.ravel() if letter} <= set("IDPRSWZYOCBHNFGELAUV")
    (separator,) = [t for t in data_of(figure, "scatter") if t.mode == "lines"]
    assert separator.y[:2].tolist() == [2.5, 2.5]
    assert "KV head 1" in cells.hovertext[5, 0]


def test_histograms_count_every_head() -> None:
    head_map = a_map(32, 32, 8)
    for panel in figures.score_distribution(head_map).panels:
        heights = np.concatenate([m.length for m in panel.marks if hasattr(m, "length")])
        assert round(float((heights**2).sum())) == 1024


def test_scores_that_rank_alike_stand_together() -> None:
    from headscope.agreement import agreement

    base = a_map(8, 8, 8, ["a", "b"])
    rng = np.random.default_rng(1)
    first, second = rng.random((2, 6, 8, 8))
    scores = {name: base.scores["a"].__class__(values.astype(np.float32), "max")
              for name, values in {"a": first, "b": second, "c": first + 0.01, "d": second + 0.01,
                                   "e": np.ones_like(first)}.items()}  # fmt: skip
    info = base.info.model_copy(update={"scores": dict.fromkeys(scores, base.info.scores["a"])})
    found = figures.agreement(agreement(HeadMap(info, scores)))
    names = found.panels[0].x.names
    assert {frozenset(names[:2]), frozenset(names[2:4])} == {frozenset("ac"), frozenset("bd")}
    assert names[4] == "e"
    assert "without a rank: e" in found.note


def test_two_maps_of_one_shape_are_compared_head_by_head() -> None:
    first = a_map()
    values = {n: s.values.copy() for n, s in first.scores.items()}
    for each in values.values():
        each[:, 2, 3] = 0.0
    second = HeadMap(first.info, {n: first.scores[n].__class__(v, "max")
                                  for n, v in values.items()})  # fmt: skip
    found = figures.model_comparison(first, second)
    cells = next(m for m in found.panels[2].marks if isinstance(m, Cells))
    a, b = (m.roles()["role"].to_numpy().reshape(4, 6).T for m in (first, second))
    np.testing.assert_array_equal(cells.values == 1, (a == b) & (a != ""))
    assert cells.said is not None
    assert (cells.values > 1)[3, 2]
    assert "second:" in cells.said[3, 2]
    assert f"Of {((a != '') | (b != '')).sum()} heads" in found.note


def test_maps_of_other_shapes_are_compared_by_relative_depth() -> None:
    first, second = a_map(4, 6, 2), a_map(8, 3, 3)
    found = figures.model_comparison(first, second)
    (cells,) = found.panels[2].marks
    assert isinstance(cells, Cells)
    assert cells.numbers is not None
    roles = [m.roles()["role"].to_numpy().reshape(len(m.layers), -1) for m in (first, second)]
    row, role = 0, found.panels[2].y.names[0].replace(" ", "_")
    expected = [(roles[0] == role).mean(1), (roles[1] == role).reshape(4, -1).mean(1)]
    np.testing.assert_allclose(cells.numbers[row, :, :2].T, expected, atol=1e-9)
    np.testing.assert_allclose(cells.values[row], expected[1] - expected[0], atol=1e-9)


REFUSED = {
    "one panel": lambda: Chart("Nothing", ()),
    "Name one score": lambda: figures.score_distribution(a_map(), []),
    "has no score 'nothing'": lambda: figures.score_distribution(a_map(), ["nothing"]),
    "nothing beside itself": lambda: figures.score_scatter(a_map(), "sink", "sink"),
    "share no role": lambda: figures.model_comparison(a_map(scores=["sink"]),
                                                      a_map(scores=["retrieval"])),
    "with a token at least": lambda: figures.attention_pattern(np.zeros((0, 0))),
    "not an array of shape": lambda: figures.attention_pattern(np.zeros(3)),
    "as many queries as keys": lambda: figures.attention_pattern(np.zeros((2, 3))),
    "do not belong": lambda: figures.attention_pattern(np.eye(3), ["a"]),
    "no head of layer 9": lambda: figures.gallery(some_patterns(), 9),
    "no row of prefill": lambda: figures.kernel_speed(
        some_bench().model_copy(update={"prefill": []})
    ),
    "Name one head": lambda: figures.text_attention(some_patterns(), []),
    "was not computed": lambda: figures.text_attention(some_patterns(), ["L5H5"]),
    "choose 4 of them": lambda: figures.text_attention(
        some_patterns(256, 5), list(some_patterns(256, 5).weights)
    ),
    "no theme 'neon'; choose light or dark": lambda: check_theme("neon", ("light", "dark")),
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(said: str) -> None:
    with pytest.raises(HeadscopeError, match=re.escape(said)) as refused:
        REFUSED[said]()
    assert "\n" not in str(refused.value)


def test_a_chart_is_saved_by_the_ending_of_its_name(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    made = chart("gallery", HOSTILE)
    assert made.save(tmp_path / "a.SVG").read_text("utf-8") == made.svg()
    page = made.save(tmp_path / "a.html", "dark").read_text("utf-8")
    assert "default-src 'none'" in unescape(page)
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=\"(?!data:)", page)
    assert "<img src=x" not in page
    with pytest.raises(HeadscopeError, match=r"end it in \.svg or in \.html"):
        made.save(tmp_path / "a.png")
    assert made._repr_html_() == made.svg()


# ---- what charts are made of ---------------------------------------------------------------


def test_axes_hold_all_that_is_drawn() -> None:
    x = np.array([1.0, 2.0, np.nan, 4.0])
    panel = Panel(Axis(), Axis(), (Line(x, x, low=x - 3, high=x + 5),))
    assert panel.limits("x")[0] < 1 < 4 < panel.limits("x")[1]
    assert panel.limits("y")[0] < -2 < 9 < panel.limits("y")[1]
    empty = Panel(Axis(), Axis(log=2), (Dots(np.array([np.nan]), np.array([np.nan])),))
    assert empty.limits("x")[0] < empty.limits("x")[1]
    ElementTree.fromstring(Chart("Empty", (empty,)).svg())
    single = Panel(Axis(), Axis(log=10), (Dots(np.array([3.0]), np.array([1000.0])),))
    assert single.limits("x")[0] < 3 < single.limits("x")[1]
    assert single.limits("y")[0] < 1000 < single.limits("y")[1]


def test_logarithmic_axes_say_powers_and_leave_out_what_has_none() -> None:
    n = 2.0 ** np.arange(9, 18)
    panel = Panel(Axis(log=2), Axis(), (Line(n, n),))
    said = [name for _, name in panel.scale("x").ticks()]
    assert said[0] == "512"
    assert "2k" in said
    places = panel.scale("x").at(np.array([0.0, 512.0, 1024.0, 2048.0]))
    assert np.isnan(places[0])
    assert places[2] - places[1] == pytest.approx(places[3] - places[2])


def test_names_thin_out_where_there_is_no_room() -> None:
    names = tuple(f"t{i}" for i in range(300))
    panel = Panel(Axis(names=names), Axis(), (), width=360.0)
    ticks = panel.scale("x").ticks()
    assert [name for _, name in ticks[:2]] == ["t0", "t10"]
    assert all(b - a == 10 for (a, _), (b, _) in pairwise(ticks))


@pytest.mark.parametrize("ramp", [sequential(), sequential(root=True), diverging()])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_more_is_further_from_the_surface(ramp: Any, theme: Any) -> None:
    values = np.linspace(max(ramp.low, 0.0), ramp.high, 9)
    hexes = ["#" + bytes(c).hex() for c in ramp.colours(values, theme)]
    far = [contrast(colour, SURFACE[theme]) for colour in hexes]
    assert far[0] < 1.3
    assert all(b > a for a, b in pairwise(far))
    assert far[-1] >= 3


def test_ramps_are_the_same_in_both_renderers() -> None:
    from headscope.viz.charts import Scale

    ramp = sequential(0.0, 2.0, root=True)
    values = np.array([0.0, 0.1, 0.5, 1.3, 2.0])
    drawn = ramp.colours(values, "light")
    stops = [(place, int(colour[1:3], 16)) for place, colour in ramp.colorscale("light")]
    way = Scale(*ramp.limits, 0.0, 1.0).places(values)
    red = np.interp(way, *np.array(stops, float).T)
    np.testing.assert_allclose(drawn[:, 0], red, atol=1)
    steps = stepped([Pair("#000000", "#000000"), Pair("#ffffff", "#ffffff")])
    assert steps.colours(np.array([0, 1]), "light").tolist() == [[0] * 3, [255] * 3]
    assert steps.colorscale("light") == [
        [0.0, "#000000"], [0.5, "#000000"], [0.5, "#ffffff"], [1.0, "#ffffff"],
    ]  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_series_can_be_seen_and_told_apart_without_colour(theme: Any) -> None:
    looks = [Look.series(i) for i in range(2 * len(SERIES))]
    for look in looks:
        assert contrast(look.colour.on(theme), SURFACE[theme]) >= 3
    kinds = [(look.marker, look.dashes, look.filled, look.colour) for look in looks]
    assert len(set(kinds)) == len(kinds)


def test_pooling_keeps_the_highest() -> None:
    weights = np.random.default_rng(0).random((10, 10)).astype(np.float32)
    weights[3, 3] = np.nan
    pooled = max_pool(weights, 4)
    assert pooled.shape == (3, 3)
    assert pooled[0, 0] == np.nanmax(weights[:4, :4])
    assert pooled[2, 2] == weights[8:, 8:].max()
    assert max_pool(weights, 1) is weights
    values = np.array([0.0, 1e-3, 0.5, 1.0, np.nan])
    np.testing.assert_allclose(restored(quantised(values))[:4], values[:4], atol=4e-3)


@pytest.mark.parametrize(
    "pattern", [Streaming(sink=2, window=3), Dilated(sink=1, neighbors=2, dilation=3)]
)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_an_outline_goes_around_what_a_pattern_sees(pattern: Any, size: int) -> None:
    import torch

    n = 20
    query, key = torch.arange(n)[:, None], torch.arange(n)[None]
    exact = (pattern.at(n).mask(query, key) & (key <= query)).numpy()
    found = inside(pattern, n, size)
    np.testing.assert_array_equal(found, max_pool(exact.astype(float), size) > 0)
    x, y = edges(found)
    framed = np.pad(found, 1).astype(int)
    perimeter = np.abs(np.diff(framed, axis=0)).sum() + np.abs(np.diff(framed, axis=1)).sum()
    ends = np.stack([x, y], 1).reshape(-1, 3, 2)
    assert np.abs(ends[:, 1] - ends[:, 0]).sum() == perimeter
    assert np.isnan(ends[:, 2]).all()


def test_a_tooltip_says_the_weight() -> None:
    patterns = some_patterns()
    weights = patterns["L1H1"]
    told = [e.text or "" for e in ElementTree.fromstring(chart("attention_pattern").svg()).iter(
        f"{SVG}title")]  # fmt: skip
    assert f'·a, ·"quoted": {weights[9, 1]:.4f}'.rstrip("0") in [unescape(t) for t in told]
