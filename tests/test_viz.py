"""Pictures and reports: pure functions of results, whatever their shape and whatever is in them."""

import itertools
import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up import HOSTILE, NAMES, a_map, a_validation, an_evaluation

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap, Scores
from headscope.roles import RULES
from headscope.rules import Rule, Threshold
from headscope.viz import head_map_svg, report_html, write_report
from headscope.viz.markup import el
from headscope.viz.palette import EMPTY, INK, LEVELS, MUTED, SURFACE, contrast, styles
from headscope.viz.view import View

SHAPES = {"1x1": (1, 1, 1), "30x9": (30, 9, 3), "32x32": (32, 32, 8), "80x64": (80, 64, 8)}
SVG = "{http://www.w3.org/2000/svg}"


@cache
def drawn(shape: str) -> str:
    return head_map_svg(a_map(*SHAPES[shape]), tooltips="role")


def cells(svg: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)
    group = next(g for g in root.iter(f"{SVG}g") if g.get("class") == "cells")
    return list(group)


class Page(HTMLParser):
    """Elements of a page, which have to be closed in the order in which they were opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.said = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.inside:
            self.inside[self.open[-1]][-1] += data
        else:
            self.said += data


@pytest.mark.parametrize("shape", SHAPES)
def test_every_head_has_a_cell_with_its_name(shape: str) -> None:
    svg, (layers, heads, kv_heads) = drawn(shape), SHAPES[shape]
    told = [cell.findtext(f"{SVG}title", "") for cell in cells(svg)]
    names = [re.split("[:,]", tooltip)[0] for tooltip in told]
    assert names == [f"L{layer}H{head}" for layer in range(layers) for head in range(heads)]
    lines = [e for e in ElementTree.fromstring(svg).iter() if e.get("class") == "kv-separator"]
    assert len(lines) == (kv_heads - 1 if kv_heads < heads else 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_drawn_outside_or_on_top_of_another_cell(shape: str) -> None:
    svg = drawn(shape)
    root = ElementTree.fromstring(svg)
    width, height = (float(root.attrib[key]) for key in ("width", "height"))
    boxes = [
        tuple(float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        for cell in cells(svg)
        for rect in cell.iter(f"{SVG}rect")
    ]
    assert all(x > 0 and x + w < width and y > 0 and y + h < height for x, y, w, h in boxes)
    for axis in (0, 1):
        starts = sorted({box[axis] for box in boxes})
        assert all(b - a > boxes[0][2] for a, b in itertools.pairwise(starts))
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.attrib["x"]) <= width
        assert 0 <= float(text.attrib["y"]) <= height


def test_axis_numbers_thin_out_and_letters_vanish_where_they_would_not_fit() -> None:
    small, large = drawn("1x1"), drawn("80x64")
    assert any(cell.findtext(f"{SVG}text") for cell in cells(small))
    assert not any(cell.findtext(f"{SVG}text") for cell in cells(large))
    numbers = [t.text for t in ElementTree.fromstring(large).iter(f"{SVG}text")]
    assert "76" in numbers
    assert "77" not in numbers


def test_layers_keep_their_own_numbers() -> None:
    svg = head_map_svg(a_map([3, 7, 11], 2, 2))
    assert cells(svg)[2].findtext(f"{SVG}title", "").startswith("L7H0\n")
    labels = [t.text for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert {"3", "7", "11"} <= set(labels)


def test_a_tooltip_tells_roles_and_scores_with_intervals() -> None:
    head_map = a_map()
    row = head_map.to_pandas().iloc[5]
    told = cells(head_map_svg(head_map))[5].findtext(f"{SVG}title", "")
    name, roles, _, *scores = told.split("\n")
    assert name == "L0H5, KV head 1"
    assert roles == (head_map.roles()["roles"][5].replace("_", " ").replace(",", ", ") or "no role")
    expected = f"sink {row['sink']:.2f} [{row['sink.low']:.2f}, {row['sink.high']:.2f}]"
    assert expected in scores
    assert len(scores) == len(NAMES)


def test_a_legend_counts_every_head_once() -> None:
    head_map = a_map()
    root = ElementTree.fromstring(head_map_svg(head_map))
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "Head map of made-up"
    assert "without a role" in root.findtext(f"{SVG}desc", "")
    counts = [int(span.text or "") for span in root.iter(f"{SVG}tspan")]
    assert sum(counts) == len(head_map.heads())


def test_confidence_is_the_way_from_the_threshold_up() -> None:
    means = [0.3 + d for d in (-0.1, 0.05, 0.3, 0.5, 0.7)]
    values = np.tile(np.array(means, np.float32)[:, None], (6, 1, 1))
    head_map = a_map(5, 1, 1, ["sink"])
    sure = View.of(HeadMap(head_map.info, {"sink": Scores(values, "max")}))
    assert [cell.level for cell in sure.cells] == [0, 1, 2, 3, 4]
    assert [cell.role for cell in sure.cells] == ["", "sink", "sink", "sink", "sink"]
    torn = values + np.array([2, 2, 2, -2, -2, -2], np.float32)[:, None, None]
    unsure = View.of(HeadMap(head_map.info, {"sink": Scores(torn, "max")}))
    assert {cell.level for cell in unsure.cells} == {0}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_letter_can_be_read_on_its_cell(theme: str) -> None:
    for style in styles([*RULES, "unknown", "another"]).values():
        for level in range(len(LEVELS)):
            assert contrast(style.text(level, theme), style.fill(level, theme)) >= 4.5
    for ink in (INK[theme], MUTED[theme]):
        assert contrast(ink, SURFACE[theme]) >= 4.5
        assert contrast(ink, EMPTY[theme]) >= 4.5


# Machado, Oliveira & Fernandes 2009, severity 1: what is left of a colour, in linear RGB.
_SEEN_BY = {
    "all": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("eyes", _SEEN_BY)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_roles_are_told_apart_by_any_eyes(eyes: str, theme: str) -> None:
    def oklab(colour: str) -> np.ndarray:
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen = np.clip(np.array(_SEEN_BY[eyes]) @ linear, 0, 1)
        to_lms = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
        to_lab = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
        return np.array(to_lab) @ np.cbrt(np.array(to_lms) @ seen)

    colours = [oklab(colour) for colour in {style.on(theme) for style in styles(RULES).values()}]
    assert len(colours) >= 6
    gaps = [np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2)]
    assert min(gaps) > 0.06


def test_unknown_roles_get_letters_of_their_own_whatever_their_order() -> None:
    some = [*RULES, "retriever", "successor", "copy_suppression", "rare"]
    found = styles(some)
    letters = [style.letter for style in found.values()]
    assert len(set(letters)) == len(letters)
    assert styles(reversed(some)) == found
    assert found["retrieval"].letter == "R"


def test_a_rule_of_a_third_party_is_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "mass", Rule(Threshold("needle_mass", ">", 0.2), "made up"))
    head_map = a_map(scores=["needle_mass", "sink"])
    assert f">{styles(RULES)['mass'].letter}</text>" in head_map_svg(head_map)
    assert "made up" in report_html(head_map)


def test_every_rule_is_drawn_told_and_explained() -> None:
    names = sorted({score for rule in RULES.values() for score in rule.scores})
    head_map = a_map(6, 6, 2, names)
    html = report_html(head_map)
    said = re.sub(r"\s+", " ", Page(html).said)
    for role, rule in RULES.items():
        assert str(rule).replace("_", " ") in said
        assert f'data-role="{role}"' in html
    assert "not measured" not in said
    root = ElementTree.fromstring(head_map_svg(head_map))
    counts = [int(span.text or "") for span in root.iter(f"{SVG}tspan")]
    assert sum(counts) == 36
    ElementTree.fromstring(head_map._repr_html_())
    page = head_map.explain("L2H3")._repr_html_()
    assert "script" not in page
    ElementTree.fromstring(page)


def test_low_scores_are_strong_where_they_speak_for_a_role() -> None:
    values = np.tile(np.array([5, 20, 300, 310, 320, 330], np.float32)[:, None], (6, 1, 1))
    made = a_map(6, 1, 1, ["distance"])
    view = View.of(HeadMap(made.info, {"distance": Scores(values, "max")}))
    assert [cell.role for cell in view.cells] == ["local", "local", "", "", "global", "global"]
    assert [cell.level for cell in view.cells] == [4, 1, 0, 0, 1, 4]
    assert [cell.layer for cell in view.leading("local")[:2]] == [0, 1]
    assert view.cuts == {"global": 320, "local": 20}
    assert view.conditions("distance") == [(20, True), (320, False)]


@pytest.mark.parametrize("scores", [["sink"], ["needle_mass"], ["retrieval", "sink_rate"]])
def test_maps_with_few_scores_are_drawn(scores: list[str]) -> None:
    head_map = a_map(scores=scores)
    assert len(cells(head_map_svg(head_map))) == 24
    Page(report_html(head_map))
    ElementTree.fromstring(head_map._repr_html_())


@pytest.mark.parametrize("theme", ["light", "dark", "auto"])
def test_the_same_map_gives_the_same_picture(theme: str) -> None:
    first, second = (head_map_svg(a_map(), theme=theme, ringed=[(0, 1)]) for _ in range(2))
    assert first == second
    assert ("prefers-color-scheme" in first) == (theme == "auto")


def test_the_same_results_give_the_same_report() -> None:
    head_map = a_map()
    assert report_html(head_map, [a_validation(head_map)]) == report_html(
        a_map(), [a_validation(a_map())]
    )


def test_sizes_stay_small() -> None:
    head_map = a_map(32, 32, 8)
    assert len(head_map._repr_html_().encode()) < 300_000
    assert len(report_html(head_map, [a_validation(head_map)]).encode()) < 1_100_000


def test_a_page_holds_all_that_was_measured() -> None:
    head_map = a_map()
    page = Page(report_html(head_map, [a_validation(head_map)]))
    said = re.sub(r"\s+", " ", page.said)
    facts = ["made-up", "c0ffee", "8,192 tokens", "float32 on cpu", "2026-11-22 20:07 UTC"]
    facts += ["headscope 1.2.3", "5 of 6 (83%)", "1 min 23 s", "headscope scan made-up --out run"]
    facts += [*a_validation(head_map).claims(), "headscope validate run", "It is no evidence"]
    facts += [rule.source.split(",")[0] for rule in RULES.values()]
    assert [fact for fact in facts if fact not in said] == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = {a.get("href") for tag, a in page.tags if tag == "a"}
    inner = {link[1:] for link in links if link and link.startswith("#")}
    assert inner <= set(ids)


def test_a_page_loads_nothing() -> None:
    head_map = a_map()
    html = report_html(head_map, [a_validation(head_map)])
    page = Page(html)
    policies = [a for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert "default-src 'none'" in (policies[0]["content"] or "")
    for tag, attributes in page.tags:
        assert not {"src", "srcset", "action", "data", "poster"} & set(attributes)
        for name, value in attributes.items():
            if "//" in (value or ""):
                assert (tag, name) in {("a", "href"), ("svg", "xmlns")}
    assert [a["href"] for tag, a in page.tags if tag == "link"] == ["data:,"]
    for content in [*page.inside["style"], *page.inside["script"]]:
        assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", content)


def test_hostile_names_stay_text() -> None:
    head_map = a_map(spec=HOSTILE, command=f"headscope scan '{HOSTILE}'")
    tests = [a_validation(head_map, command=f"headscope validate {HOSTILE}")]
    tests[0].tasks[0].parameters["path"] = HOSTILE
    tests[0].tasks[1].task = HOSTILE
    page = Page(report_html(head_map, tests))
    assert "img" not in [tag for tag, _ in page.tags]
    assert not any(name.startswith("on") for _, a in page.tags for name in a)
    assert len(page.inside["script"]) == 2
    assert set(json.loads(page.inside["script"][0])) >= {"roles", "layers"}
    assert HOSTILE.replace("\x1b", "\ufffd") in page.said
    asked = an_evaluation()
    asked.tasks[0].task = HOSTILE
    shown_in_notebooks = (head_map, tests[0], asked)
    for shown in (*(each._repr_html_() for each in shown_in_notebooks), head_map_svg(head_map)):
        ElementTree.fromstring(shown)
        assert "<img" not in shown


def test_data_in_a_script_cannot_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, HOSTILE, Rule(Threshold("sink", ">", 0.1), HOSTILE))
    page = Page(report_html(a_map(scores=["sink"])))
    assert len(page.inside["script"]) == 2
    data = json.loads(page.inside["script"][0])
    assert any(data["names"][role] == HOSTILE for roles in data["roles"] for role in roles)


def test_an_element_escapes_what_is_not_markup() -> None:
    assert el("p", "a < b", title='"') == '<p title="&quot;">a &lt; b</p>'
    assert el("p", el("b", "x"), class_=None) == "<p><b>x</b></p>"
    assert el("line", x1=1.0, x2=0.333333, y1=-2) == '<line x1="1" x2="0.33" y1="-2"/>'


def test_a_notebook_shows_no_script_and_brings_its_own_colours() -> None:
    head_map = a_map()
    results = (head_map, a_validation(head_map), an_evaluation())
    for shown in (each._repr_html_() for each in results):
        root = ElementTree.fromstring(shown)
        assert root.tag == "div"
        assert not {"script", "style", "link"} & {e.tag.removeprefix(SVG) for e in root.iter()}
        for element in root.iter():
            if element.tag in ("div", "table", "tr", "td", "th") and element.tag != "div":
                assert "background:#ffffff;color:#1b1f24" in element.get("style", "")
        assert "background:#ffffff;color:#1b1f24" in root.get("style", "")


def test_a_report_without_tests_says_so() -> None:
    assert "nothing here says that the model needs any of these heads" in report_html(a_map())


def test_a_test_of_another_model_is_refused() -> None:
    head_map = a_map()
    other = a_validation(head_map).model_copy(update={"fingerprint": "1" * 64, "model": "other"})
    with pytest.raises(HeadscopeError, match="with other weights than made-up"):
        report_html(head_map, [other])


def test_a_report_is_written_as_one_file(tmp_path: Path) -> None:
    path = write_report(a_map(), [], tmp_path / "new" / "report.html")
    assert path.read_text("utf-8") == report_html(a_map())
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
