"""Causal tests and evals as they are shown: every number where it belongs, and no more."""

import re
from xml.etree import ElementTree

import pytest
from made_up import a_map, a_validation, an_evaluation
from test_viz import SVG, Page

from headscope.evals.conditions import CONTROLS, ControlKind
from headscope.evals.validation import Validation
from headscope.viz import causal_tables, report_html
from headscope.viz.causal_tables import CONDITIONS
from headscope.viz.figures import ablation, dose, specificity


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


def test_each_eval_has_the_charts_that_its_metric_allows() -> None:
    validation = a_validation(a_map())
    expected = ["Mean ablation of heads of made-up: all evals"]
    for name in ("needle", "ioi", "perplexity"):
        expected.append(f"{name}: mean ablation of heads of made-up")
        expected.append(f"{name}, by the number of heads ablated: made-up")
    root = card(validation)
    for shown in (root, ElementTree.fromstring(validation._repr_html_())):
        svgs = [each for each in shown.iter() if each.tag.endswith("svg")]
        assert [each.get("aria-label") for each in svgs] == expected
        assert {each.get("role") for each in svgs} == {"img"}
    assert [said(each) for each in root.iter("h4")] == [
        "All evals", "needle: should change", "ioi: should change", "perplexity: should be spared",
    ]  # fmt: skip


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


def test_the_dose_named_beforehand_is_marked() -> None:
    header, *rows = causal_tables.doses(a_validation(a_map()), 0)
    assert [row[0] for row in rows[0]] == ["1", "2, named beforehand", "4"]
    assert header.count("p (sets)") == 3


@pytest.mark.parametrize("doses", [(1, 4), (1, 3, 5, 8), (1, 3, 4, 5, 8, 10, 12, 16, 20)])
@pytest.mark.parametrize("kinds", [(), ("uniform",), CONTROLS])
def test_words_of_a_dose_chart_are_inside_it(
    doses: tuple[int, ...], kinds: tuple[ControlKind, ...]
) -> None:
    test = a_validation(a_map(), controls=2, doses=doses, kinds=kinds, evals=("needle",))
    root = ElementTree.fromstring(dose(test).svg())
    width, height = (float(root.attrib[key]) for key in ("width", "height"))
    names = "".join(root.itertext())
    assert all((CONDITIONS[kind] in names) == (kind in kinds) for kind in CONTROLS[1:])
    for text in root.iter(f"{SVG}text"):
        if text.get("transform") is None:
            assert 0 <= float(text.get("x", 0)) <= width
            assert 0 <= float(text.get("y", 0)) <= height


def test_small_changes_have_ticks_that_differ() -> None:
    test = a_validation(a_map())
    for chart in (ablation(test, 2), dose(test, 2), specificity(test)):
        for panel in chart.panels:
            for along in ("x", "y"):
                ticks = [each for _, each in panel.scale(along).ticks()]
                assert len(ticks) >= 2
                assert len(set(ticks)) == len(ticks)


def test_one_dose_and_one_eval_are_shown_without_what_compares_them() -> None:
    validation = a_validation(a_map(), doses=(), evals=("needle",))
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
    assert ("mean ablation of heads of made-up" in html) == (prompts > 0)
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
