"""Causal tests and evals as they are shown: every number where it belongs, and no more."""

import itertools
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up import a_map, a_validation, an_evaluation
from test_viz import SVG, Page

from headscope.evals.conditions import CONTROLS
from headscope.evals.validation import Validation
from headscope.viz import causal_tables, report_html
from headscope.viz.causal_tables import CONDITIONS
from headscope.viz.dose_chart import dose_chart
from headscope.viz.dot_chart import span


def test_nan_takes_no_room_on_an_axis() -> None:
    assert span([1.0, float("nan"), -1.0]) == span([1.0, -1.0])


def card(validation: Validation) -> ElementTree.Element:
    """A test's card in a report."""
    html = report_html(a_map(), [validation])
    written = re.search("<article.*?</article>", html, re.S)
    assert written is not None
    return ElementTree.fromstring(written.group())


def said(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def rows_of(table: ElementTree.Element) -> list[list[str]]:
    return [[said(cell) for cell in row] for row in table.iter("tr")]


def titled(svg: ElementTree.Element, start: str) -> ElementTree.Element:
    """The one group of a chart whose tooltip begins so."""
    (found,) = (
        g for g in svg.iter(f"{SVG}g") if (g.findtext(f"{SVG}title") or "").startswith(start)
    )
    return found


def doses_of(validation: Validation, task: int = 0) -> ElementTree.Element:
    found = ElementTree.fromstring(dose_chart(validation, task)).find(f"{SVG}svg")
    assert found is not None
    return found


def captions(root: ElementTree.Element) -> list[str]:
    return [said(each) for each in root.iter("figcaption")]


def test_each_eval_has_the_charts_that_its_metric_allows() -> None:
    change, doses = "Change of the {}, nats", ", by the number of heads ablated"
    answer, choice, token = (
        change.format(unit)
        for unit in (
            "log-probability of the answer",
            "margin of the right answers over the wrong",
            "log-probability of a token",
        )
    )
    right = "Share of right answers"
    expected = [change.format("log-probability of an answer token")]
    expected += [right, answer, answer + doses]
    expected += [f"{right}; dashed: guessing, 0.25", choice, choice + doses, token, token + doses]
    validation = a_validation(a_map())
    root = card(validation)
    assert captions(root) == expected
    assert captions(ElementTree.fromstring(validation._repr_html_())) == expected
    assert [said(each) for each in root.iter("h4")] == [
        "All evals", "needle: should change", "ioi: should change", "perplexity: should be spared",
    ]  # fmt: skip
    for svg in (each for each in root.iter() if each.tag.endswith("svg")):
        assert svg.get("role") == "img"
        assert svg.get("aria-label") in expected


def test_facts_tell_heads_evals_controls_and_seed() -> None:
    dl = card(a_validation(a_map(), kinds=("uniform", "norm_matched"), controls=7)).find("dl")
    assert dl is not None
    told = [said(each) for each in dl]
    facts = dict(zip(told[::2], told[1::2], strict=True))
    assert facts["Tested heads"] == "L0H0 L0H1"
    assert facts["Controls"] == "7 sets of random heads; 7 sets of random, alike in norm"
    assert facts["Seed"] == "0"
    assert facts["Evals"].startswith("needle: 8 questions (lengths 256 / 512, split test)ioi: 8")


@pytest.mark.parametrize("task", [0, 1, 2])
def test_the_table_of_an_eval_has_its_numbers_and_every_p(task: int) -> None:
    validation = a_validation(a_map())
    header, rows = causal_tables.conditions(validation, task)
    assert [row[0] for row in rows] == list(CONDITIONS.values())
    table, p = validation.table(task), validation.p_values(task)
    n = 3 if task == 2 else 2
    for shown, row in zip(rows, table.to_dict("records"), strict=True):
        kind = row["condition"]
        by_name = dict(zip(header, shown, strict=True))
        assert ("right answers" in by_name) == (task < 2)
        if task < 2:
            assert float(by_name["right answers"]) == pytest.approx(row["exact"], abs=0.005)
        if kind != "base":
            change = float(by_name["change"].replace("−", "-"))
            assert change == pytest.approx(row["change"], abs=0.5001 * 10**-n)
        if kind in CONTROLS:
            assert by_name["p"] == f"{p[f'{kind}.value']:.3f}"
            assert task == 2 or shown[header.index("p")] == f"{p[f'{kind}.exact']:.3f}"
    assert rows in [rows_of(each)[1:] for each in card(validation).iter("table")]


def test_doses_are_drawn_where_their_values_are() -> None:
    validation = a_validation(a_map())
    svg, table = doses_of(validation), validation.doses(0)
    ys, xs, values = [], [], []
    for row in table.to_dict("records"):
        group = titled(svg, f"{row['k']}, tested heads")
        circle, line = group.find(f"{SVG}circle"), group.find(f"{SVG}line")
        assert circle is not None
        assert line is not None
        xs.append(float(circle.attrib["cx"]))
        ys += [float(circle.attrib["cy"]), *(float(line.attrib[y]) for y in ("y1", "y2"))]
        values += [row["change"], row["change.low"], row["change.high"]]
        for kind in CONTROLS:
            box = titled(svg, f"{row['k']}, {CONDITIONS[kind]}").find(f"{SVG}rect")
            assert box is not None
            top, height = float(box.attrib["y"]), float(box.attrib["height"])
            if height > 2:  # thinner ones are drawn so thick, or they would not be seen
                ys += [top, top + height]
                values += [row[f"{kind}.95%"], row[f"{kind}.5%"]]
    assert list(table["k"]) == [1, 2, 4]
    assert np.diff(xs) == pytest.approx([xs[1] - xs[0]] * 2, abs=0.02)
    slope, start = np.polyfit(values, ys, 1)
    assert slope < 0
    assert len(values) > 20
    assert slope * np.array(values) + start == pytest.approx(ys, abs=0.03)


def test_the_dose_named_beforehand_is_marked() -> None:
    svg = doses_of(a_validation(a_map()))
    texts = {text.text or "": text for text in svg.iter(f"{SVG}text")}
    assert texts["2"].get("font-weight") == "700"
    assert texts["1"].get("font-weight") is texts["4"].get("font-weight") is None
    assert texts["named beforehand"].get("x") == texts["2"].get("x")
    (ground,) = (each for each in svg.iter(f"{SVG}rect") if each.get("class") == "track")
    start, width = float(ground.attrib["x"]), float(ground.attrib["width"])
    inside = [k for k in "124" if start < float(texts[k].attrib["x"]) < start + width]
    assert inside == ["2"]
    header, *rows = causal_tables.doses(a_validation(a_map()), 0)
    assert [row[0] for row in rows[0]] == ["1", "2, named beforehand", "4"]
    assert header.count("p (sets)") == 3


def test_kinds_of_control_differ_by_more_than_colour() -> None:
    svg = doses_of(a_validation(a_map()))
    looks = []
    for kind in CONTROLS:
        group = titled(svg, f"4, {CONDITIONS[kind]}")
        box = group.find(f"{SVG}rect")
        assert box is not None
        looks.append((box.get("fill") == "none", len(list(group.iter(f"{SVG}line"))) > 1))
    assert len(set(looks)) == 3
    legend = " ".join(text.text or "" for text in svg.iter(f"{SVG}text"))
    assert all(CONDITIONS[kind] in legend for kind in ("tested", *CONTROLS))
    one = doses_of(a_validation(a_map(), kinds=("layer_matched",)))
    legend = " ".join(text.text or "" for text in one.iter(f"{SVG}text"))
    assert CONDITIONS["layer_matched"] in legend
    assert CONDITIONS["norm_matched"] not in legend


def boxes(svg: ElementTree.Element) -> Iterator[tuple[str, float, float, float, float]]:
    """What a chart's words cover, were their letters 6 px wide."""
    for text in svg.iter(f"{SVG}text"):
        x, y, wide = float(text.attrib["x"]), float(text.attrib["y"]), 6.0 * len(text.text or "")
        left = {"middle": x - wide / 2, "end": x - wide}.get(text.get("text-anchor", ""), x)
        yield text.text or "", left, left + wide, y - 8, y + 2


@pytest.mark.parametrize("doses", [(1,), (1, 4), (1, 3, 5, 8), (1, 3, 4, 5, 8, 10, 12, 16, 20)])
@pytest.mark.parametrize("kinds", [(), ("uniform",), CONTROLS])
def test_words_of_a_dose_chart_are_inside_it_and_apart(
    doses: tuple[int, ...], kinds: tuple[str, ...]
) -> None:
    svg = doses_of(a_validation(a_map(), controls=2, doses=doses, kinds=kinds, evals=("needle",)))
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    words = list(boxes(svg))
    for _, left, right, top, bottom in words:
        assert left >= 0
        assert right <= width
        assert top >= -1
        assert bottom <= height
    for one, other in itertools.combinations(words, 2):
        beside = one[2] <= other[1] or other[2] <= one[1]
        above = one[4] <= other[3] or other[4] <= one[3]
        assert beside or above, (one, other)


def test_small_changes_have_ticks_that_differ() -> None:
    root = card(a_validation(a_map()))
    for svg in (each for each in root.iter() if each.tag.endswith("svg")):
        (group,) = (g for g in svg if g.get("class") == "tick")
        texts = [text.text for text in group if text.get("text-anchor") != "middle"]
        texts = texts or [text.text for text in group]
        assert len(texts) >= 2
        assert len(set(texts)) == len(texts)


def test_one_dose_and_one_eval_are_shown_without_what_compares_them() -> None:
    validation = a_validation(a_map(), doses=(), evals=("needle",))
    assert dose_chart(validation, 0) == ""
    root = card(validation)
    assert len(list(root.iter("table"))) == 1
    assert [said(each) for each in root.iter("h4")] == ["needle: should change"]


def test_evals_are_compared_with_verdict_and_margin() -> None:
    validation = a_validation(a_map())
    root = card(validation)
    header, *rows = rows_of(next(root.iter("table")))
    found = validation.specificity().to_dict("records")
    assert [row[0] for row in rows] == ["needle", "ioi", "perplexity"]
    assert [row[header.index("verdict")] for row in rows] == [row["verdict"] for row in found]
    assert [row[header.index("p")] for row in rows] == [f"{row['p']:.3f}" for row in found]
    beyond = [float(row[header.index("beyond random sets")].replace("−", "-")) for row in rows]
    assert beyond == pytest.approx([row["beyond"] for row in found], abs=0.00051)
    svg = next(each for each in root.iter() if each.tag.endswith("svg"))
    assert [g.get("class") for g in svg if g.find("title") is not None] == [
        "tested", "tested", "base",
    ]  # fmt: skip
    assert len([line for line in svg.iter("line") if line.get("class") == "threshold"]) == 2
    ticks = [path.get("d") or "" for path in svg.iter("path") if path.get("class") == "single"]
    assert [each.count("M") for each in ticks] == [3 * 19] * 3
    assert "±0.1 nats a token" in said(root)


def test_answers_without_room_are_said_to_have_none() -> None:
    floor = "right answers stand at the floor: there is no room for fewer"
    for base, prompts, stuck in [(0.1, 8, False), (3.0, 8, True), (3.0, 3, False)]:
        validation = a_validation(a_map(), prompts, base=base, evals=("needle",))
        for shown in (said(card(validation)), validation._repr_html_()):
            assert (floor in shown) == stuck
    up = a_validation(a_map(), evals=("needle",)).model_copy(update={"direction": "gain"})
    assert "answers stand at the ceiling: there is no room for more" in said(card(up))


@pytest.mark.parametrize(("prompts", "controls"), [(0, 2), (8, 0), (3, 2), (8, 1)])
def test_tests_that_are_not_finished_or_have_no_controls_claim_nothing_more(
    prompts: int, controls: int
) -> None:
    validation = a_validation(a_map(), prompts, controls)
    html = report_html(a_map(), [validation])
    page = Page(html)
    assert ("No question has been measured yet, so no claim is made." in page.said) == (not prompts)
    assert ("nothing to compare with" in page.said) == (controls == 0)
    assert ("too few to say" in page.said) == (prompts > 0)
    assert "more than random heads" not in page.said
    assert ("needle: 3 of 8 questions" in page.said) == (prompts == 3)
    assert ("No question of perplexity has been measured yet." in page.said) == (prompts == 3)
    assert ("p, empirical" in page.said) == (prompts > 0 and controls > 0)
    assert ("Thin ticks" in page.said) == (prompts > 0)
    drawn = [(name, value) for _, attributes in page.tags for name, value in attributes.items()]
    assert [each for each in drawn if "nan" in (each[1] or "").split()] == []
    root = ElementTree.fromstring(validation._repr_html_())
    assert (root.find(".//table") is not None) == (prompts > 0)


def test_an_evaluation_shows_all_questions_then_those_of_each_length() -> None:
    evaluation = an_evaluation()
    root = ElementTree.fromstring(evaluation._repr_html_())
    both, by_length = (rows_of(table) for table in root.iter("table"))
    assert [row[:3] for row in both[1:]] == [
        [task, condition, "8"] for task in ("needle", "ioi", "perplexity")
        for condition in ("base", "<0>")
    ]  # fmt: skip
    assert [row[1] for row in by_length[1:]] == ["256", "256", "512", "512"] * 3
    table = evaluation.table().to_dict("records")
    change = both[0].index("change [95 %]")
    for shown, row in zip(both[1:], table, strict=True):
        assert bool(shown[change]) == (row["condition"] == "<0>")
        if shown[change]:
            written = float(shown[change].split()[0].replace("−", "-"))
            assert written == pytest.approx(row["change"], abs=0.006)
    right = [row[both[0].index("right answers [95 %]")] for row in both[1:]]
    assert [cell.split()[-1] for cell in right] == [
        "ceiling",
        "floor",
        "ceiling",
        "floor",
        "–",
        "–",
    ]
    assert "guess 0.25" in right[2]
    assert all(claim in said(root) for claim in evaluation.claims())
    assert "tokens, the log-probability of a token" in said(root)


def test_an_evaluation_of_one_condition_or_of_few_questions_says_what_it_has() -> None:
    alone = ElementTree.fromstring(an_evaluation(changes=0)._repr_html_())
    assert "change" not in said(alone)
    nothing = ElementTree.fromstring(an_evaluation(0)._repr_html_())
    assert "No question has been measured yet." in said(nothing)
    assert nothing.find(".//table") is None
    few = ElementTree.fromstring(an_evaluation(3)._repr_html_())
    assert "Of perplexity only 0 of 8 questions have been measured yet." in said(few)
    tables = [rows_of(table) for table in few.iter("table")]
    assert {row[0] for table in tables for row in table[1:]} == {"needle"}
    assert "nan" not in " ".join(" ".join(row) for table in tables for row in table)
