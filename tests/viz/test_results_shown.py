"""Every result's picture: in a notebook and as a chart."""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from xml.etree import ElementTree

import made_results as made
import numpy as np
import pytest
from charted import HOSTILE, curves, holed, marks, some_bench, some_patterns
from made_up import a_map, a_validation
from test_figures import checked
from test_viz import SVG

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.viz import Chart, figures
from headscope.viz.marks import Dots
from headscope.viz.rows import Row, rows_panel, span


def results(model: str = "made-up") -> Mapping[str, Callable[[], Any]]:
    """Everything that has a picture in a notebook."""
    name = model.replace("\ud800", "")  # neither JSON nor pydantic hold half a character

    def head_map() -> HeadMap:
        return a_map(spec=name)

    return {
        "HeadMap": head_map,
        "Explanation": lambda: head_map().explain("L1H2"),
        "Evaluation": lambda: made.evaluation(name),
        "Validation": lambda: a_validation(head_map()),
        "Effects": lambda: made.effects(name),
        "PatchMap": lambda: made.patched(name),
        "JointEffect": lambda: made.joint(name),
        "Overlap": lambda: made.shared(name),
        "Signals": lambda: made.signals(name),
        "Clusters": lambda: head_map().clusters(3),
        "Agreement": lambda: head_map().agreement(),
        "Comparison": lambda: head_map().compare(a_map(spec=name)),
        "Pruning": lambda: made.pruning(name),
        "SparseProfile": lambda: made.a_profile(name),
        "Plan": lambda: made.a_plan(name),
        "Recalls": lambda: made.recalls(name),
        "Pareto": lambda: made.pareto(name),
        "Bench": lambda: some_bench(name),
        "decode": lambda: made.decode_bench(name),
        "Patterns": lambda: some_patterns(model=model),
    }


def others(model: str = "made-up") -> Mapping[str, Callable[[], Chart]]:
    """Figures that are not the first picture of a result."""
    test = a_validation(a_map(spec=model.replace("\ud800", "")), doses=(1, 4, 6))
    return {
        **curves(made.a_map_with_curves(spec=model.replace("\ud800", ""))),
        "slots of answers": lambda: figures.slot_curve(
            made.evaluation(model.replace("\ud800", ""))
        ),
        "distances on a text": lambda: figures.distances(some_patterns(model=model)),
        "sinks on a text": lambda: figures.sink_profile(some_patterns(model=model)),
        "dose": lambda: figures.dose(test),
        "dose of running text": lambda: figures.dose(test, 2),
        "specificity": lambda: figures.specificity(test),
    }


@cache
def result(name: str, model: str = "made-up") -> Any:
    return results(model)[name]()


@cache
def shown(name: str, model: str = "made-up") -> str:
    return result(name, model)._repr_html_()


@cache
def chart(name: str, model: str = "made-up") -> Chart:
    return result(name, model).chart() if name in results() else others(model)[name]()


RESULTS, OTHERS = sorted(results()), sorted(others())


@pytest.mark.parametrize("name", RESULTS)
def test_a_notebook_shows_every_result_offline_and_on_its_own_ground(name: str) -> None:
    html = shown(name)
    root = ElementTree.fromstring(html)
    assert len(html.encode()) < 300_000
    assert root.find(f".//{SVG}svg") is not None or root.tag == f"{SVG}svg"
    assert not {"script", "style", "link", "iframe"} & {
        each.tag.removeprefix(SVG) for each in root.iter()
    }
    for element in root.iter():
        assert not any(key.startswith("on") for key in element.attrib)
        if element.tag in ("table", "tr", "td", "th"):
            assert "background:#ffffff;color:#1b1f24" in element.get("style", "")
    if root.tag == "div":
        assert "background:#ffffff;color:#1b1f24" in root.get("style", "")
    assert "//" not in re.sub(r'xmlns="[^"]*"|base64,[^"]*', "", html)


@pytest.mark.parametrize("name", RESULTS)
def test_a_notebook_takes_hostile_names_for_text(name: str) -> None:
    html = shown(name, HOSTILE)
    ElementTree.fromstring(html)
    assert "<img" not in html
    assert "<script" not in html


@pytest.mark.parametrize("name", [*RESULTS, *OTHERS])
def test_every_chart_stands_alone_in_every_theme(name: str) -> None:
    made_of = chart(name)
    for theme in ("light", "dark", "auto"):
        if name == "HeadMap":  # drawn by hand, and tested by itself
            assert len(made_of.svg(theme).encode()) < 300_000
        else:
            checked(made_of.svg(theme), made_of.name)
    hostile = chart(name, HOSTILE).svg()
    ElementTree.fromstring(hostile)
    assert "<img" not in hostile


@pytest.mark.parametrize("name", [*RESULTS, *OTHERS])
def test_every_chart_is_interactive_on_request(name: str) -> None:
    pytest.importorskip("plotly")
    written = chart(name, HOSTILE).interactive("dark").to_json()
    assert "<img" not in written
    assert "<script" not in written
    written.encode()


REFUSED = {
    "no curve 'basin_slots'": lambda: figures.slot_curve(a_map()),
    "no curve 'waveform_curve'": lambda: figures.waveform(a_map()),
    "says nothing of distances": lambda: figures.distances(a_map()),
    "says nothing of sinks": lambda: figures.sink_profile(a_map(scores=["retrieval"])),
    "has no head L9H9": lambda: figures.waveform(made.a_map_with_curves(), ["L9H9"]),
    "Name at least one head": lambda: figures.waveform(made.a_map_with_curves(), []),
    "says nothing of what a token gets": lambda: figures.sink_profile(some_patterns(90, size=3)),
    "compute them of a shorter text": lambda: figures.distances(some_patterns(90, size=3)),
    "sinks of whole layers": lambda: figures.sink_profile(made.a_map_with_curves(), ["L0H0"]),
    "has 3 evals, counted from 0, and no number 7": lambda: figures.ablation(
        a_validation(a_map()), 7
    ),
    "No question of needle": lambda: a_validation(a_map(), 0).chart(),
    "one number of heads": lambda: figures.dose(a_validation(a_map(), doses=())),
    "No question of this validation": lambda: figures.specificity(a_validation(a_map(), 0)),
    "No question of this evaluation": lambda: made.evaluation(questions=0).chart(),
    "No pair has been patched": lambda: made.patched(pairs=0).chart(),
    "and no number 3": lambda: figures.pareto(made.pareto(), 3),
    "No rule speaks": lambda: figures.confidence(a_map(scores=["needle_mass"])),
    "has no row of prefill": lambda: figures.kernel_speed(made.decode_bench()),
    "has no row of decode": lambda: figures.decode_speed(some_bench()),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(said: str) -> None:
    with pytest.raises(HeadscopeError, match=re.escape(said)):
        REFUSED[said]()


def test_a_result_of_nothing_still_shows_why() -> None:
    nothing = (made.effects(questions=0), made.patched(pairs=0), made.joint(pairs=0),
               made.pruning(questions=0), made.evaluation(questions=0))  # fmt: skip
    for result in nothing:
        said = "".join(ElementTree.fromstring(result._repr_html_()).itertext())
        assert "measured yet" in said or "patched yet" in said


def test_a_few_questions_have_dots_without_intervals() -> None:
    for result in (made.evaluation(questions=4), made.patched(pairs=4), made.effects(questions=4)):
        found = result.chart()
        assert any(np.isnan(dots.low).any() for dots in marks(found, Dots))
        assert "nan" not in found.svg().lower()


def test_scores_that_are_not_known_leave_gaps() -> None:
    head_map = made.a_map_with_curves()
    broken = {name: values.copy() for name, values in head_map.curves.items()}
    for values in broken.values():
        values[:, 0, 0] = np.nan
    found = HeadMap(head_map.info, holed(head_map).scores, broken)
    for name, draw in curves(found).items():
        assert "nan" not in draw().svg().lower(), name


def test_rows_hold_zero_and_all_their_numbers() -> None:
    row = Row("a", (2.0, 1.5, 2.5), "tested", [3.0, np.nan])
    low, high = rows_panel([row], "").limits("x")
    assert low == 0
    assert high > 3
    assert span([1.0, float("nan"), -1.0]) == span([1.0, -1.0])


# ---- reports ------------------------------------------------------------------------------------


def test_results_load_no_plotly() -> None:
    code = (
        "import sys, headscope\n"
        "import headscope.headmap, headscope.compare, headscope.clusters\n"
        "assert not {'plotly', 'dash', 'headscope.viz'} & set(sys.modules), 'viz'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
