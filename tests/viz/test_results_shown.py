"""Every result's picture: in a notebook, as a chart, in a report."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import made_results as made
import numpy as np
import pytest
from charted import HOSTILE, holed, large_map, some_bench, some_patterns
from made_up import a_map, a_validation
from test_figures import checked
from test_viz import SVG, Page

from headscope.clusters import cluster
from headscope.errors import HeadscopeError
from headscope.evals.validation import Validation
from headscope.headmap import HeadMap
from headscope.headmap import Scores as HeadScores
from headscope.patch_map import PatchMap
from headscope.viz import Chart, figures, report_html
from headscope.viz.marks import Bars, Cells, Dots, Line, Outline
from headscope.viz.packing import packed
from headscope.viz.rows import Row, rows_panel, span
from headscope.viz.run_results import results_in


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


def curves(found: HeadMap) -> Mapping[str, Callable[[], Chart]]:
    return {
        "slot_curve": lambda: figures.slot_curve(found),
        "waveform": lambda: figures.waveform(found),
        "distances": lambda: figures.distances(found),
        "sink_profile": lambda: figures.sink_profile(found),
        "confidence": lambda: figures.confidence(found),
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


def marks(found: Chart, kind: type) -> list[Any]:
    return [mark for panel in found.panels for mark in panel.marks if isinstance(mark, kind)]


# ---- the numbers of curves ----------------------------------------------------------------------


def test_a_slot_curve_is_relative_to_the_mean_document() -> None:
    head_map = made.a_map_with_curves()
    lines = {line.name: line for line in marks(figures.slot_curve(head_map, ["L2H3"]), Line)}
    slots = head_map.curves["basin_slots"][:, 2, 3].astype(float)
    expected = (slots / slots.mean(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(lines["L2H3"].y, expected, rtol=1e-5)
    assert (lines["L2H3"].low <= lines["L2H3"].y).all()
    assert (lines["L2H3"].y <= lines["L2H3"].high).all()
    np.testing.assert_allclose(lines["all heads"].y.mean(), 1.0, rtol=1e-5)


def test_one_prompt_gives_curves_without_a_band() -> None:
    head_map = made.a_map_with_curves(prompts=1)
    for name in ("slot_curve", "waveform"):
        found = curves(head_map)[name]()
        assert "One prompt" in found.note
        for line in marks(found, Line):
            np.testing.assert_array_equal(line.low, line.y)
            np.testing.assert_array_equal(line.high, line.y)
        checked(found.svg(), found.name)


def test_heads_of_curves_are_those_a_score_ranks_first() -> None:
    head_map = made.a_map_with_curves()
    names = [line.name for line in marks(figures.waveform(head_map), Line)]
    assert names == ["all heads", *head_map.top("waveform", 5)["name"]]
    (line,) = marks(figures.waveform(head_map, [(1, 1)]), Line)[1:]
    assert line.x[0] == 1
    assert line.x[-1] == 1024
    assert (np.diff(line.x) > 0).all()


def test_answers_by_slot_are_those_of_the_table() -> None:
    found = made.evaluation()
    drawn = figures.slot_curve(found)
    by = found.model_copy(update={"tasks": found.tasks[:1]}).by("slot")
    first = [mark for mark in drawn.panels[0].marks if isinstance(mark, Line)]
    assert [line.name for line in first] == [each.label for each in found.conditions]
    for line in first:
        rows = by[by["condition"] == line.name]
        np.testing.assert_array_equal(line.y, rows["exact"])
        np.testing.assert_array_equal(line.low, rows["exact.low"])


def test_attention_of_a_text_adds_up_over_distances_and_tokens() -> None:
    patterns = some_patterns(n=10)
    for line in marks(figures.distances(patterns), Line):
        assert line.y.sum() == pytest.approx(1, abs=1e-5)
    own = np.diag(patterns["L1H0"]).mean()
    assert marks(figures.distances(patterns), Line)[0].y[0] == pytest.approx(own)
    received = marks(figures.sink_profile(patterns), Line)[0].y * np.arange(10, 0, -1)
    np.testing.assert_allclose(received, patterns["L1H0"].sum(0), rtol=1e-5)


def test_every_head_is_in_a_histogram_of_distances() -> None:
    head_map = made.a_map_with_curves()
    for bars in marks(figures.distances(head_map), Bars):
        assert bars.length.sum() == len(head_map.heads())


def test_a_layer_of_sinks_spans_its_heads() -> None:
    head_map = made.a_map_with_curves()
    first = marks(figures.sink_profile(head_map), Line)[0]
    means = head_map["sink"].mean()
    np.testing.assert_allclose(first.y, means.mean(1))
    np.testing.assert_allclose(first.low, means.min(1))
    np.testing.assert_allclose(first.high, means.max(1))


# ---- the numbers of causal tests ----------------------------------------------------------------


@pytest.mark.parametrize("task", [0, 1, 2])
def test_an_ablation_draws_the_rows_of_its_table(task: int) -> None:
    validation = a_validation(a_map())
    found = figures.ablation(validation, task)
    assert len(found.panels) == (1 if task == 2 else 2)
    for panel, column in zip(found.panels[::-1], ("change", "exact"), strict=False):
        places = {}
        for dots in (mark for mark in panel.marks if isinstance(mark, Dots)):
            for x, y, low, high in zip(dots.x, dots.y, dots.low, dots.high, strict=True):
                places[int(y)] = (x, low, high)
        table = validation.table(task)
        rows = table[[column, f"{column}.low", f"{column}.high"]].to_numpy(float)
        np.testing.assert_array_equal([places[i] for i in range(len(rows))], rows)
        ticks = [mark for mark in panel.marks if isinstance(mark, Outline)]
        assert [len(mark.x) // 3 for mark in ticks] == [19] * 3
        inside = panel.limits("x")
        assert all(inside[0] <= x <= inside[1] for x in rows.ravel() if np.isfinite(x))


def test_guessing_is_marked_where_there_is_a_chance() -> None:
    found = figures.ablation(a_validation(a_map()), 1)
    assert "guessing" in {getattr(mark, "name", "") for mark in found.panels[0].marks}


def test_doses_stand_in_their_order_and_the_tested_one_is_named() -> None:
    validation = a_validation(a_map(), doses=(1, 4, 6))
    found = figures.dose(validation)
    (panel,) = found.panels
    assert panel.x.names == ("1", "2", "4", "6")
    tested = next(dots for dots in marks(found, Dots) if dots.name == "tested heads")
    table = validation.doses(0)
    np.testing.assert_array_equal(tested.y, table["change"])
    controls = [dots for dots in marks(found, Dots) if dots.name != "tested heads"]
    assert len({(dots.look.marker, dots.look.filled) for dots in controls}) == 3
    for dots in controls:
        kind = {"random heads": "uniform", "random, same layers": "layer_matched"}.get(
            dots.name, "norm_matched"
        )
        np.testing.assert_array_equal(dots.low, table[f"{kind}.5%"])
        np.testing.assert_array_equal(dots.high, table[f"{kind}.95%"])
    assert "the number named beforehand" in {getattr(m, "name", "") for m in panel.marks}


def test_evals_differ_by_whether_they_should_change() -> None:
    found = figures.specificity(a_validation(a_map()))
    filled = {tuple(dots.y): dots.look.filled for dots in marks(found, Dots)}
    assert filled == {(0.0, 1.0): True, (2.0,): False}
    assert "±0.1 nats a token" in found.note


def test_effects_of_heads_are_cells_and_the_worst_are_listed() -> None:
    effects = made.effects()
    table = effects.table()
    (cells,) = marks(figures.ablation(effects), Cells)
    for row in table.to_dict("records"):
        assert cells.values[row["head"], row["layer"]] == row["change"]
    listed = figures.ablation(effects).panels[1]
    assert listed.y.names == tuple(table["name"].head(10))
    assert "as 1 head does" in figures.ablation(effects).note


def test_a_head_that_was_not_patched_is_empty() -> None:
    (cells,) = marks(made.patched().chart(), Cells)
    assert np.isnan(cells.values[3, 2])
    assert np.isfinite(cells.values).sum() == 11


def test_points_moved_aside_tell_their_own_numbers() -> None:
    """Marks of one budget are drawn beside each other: a tooltip must not say where they stand."""
    pytest.importorskip("plotly")
    for found in (made.pareto().chart(), figures.dose(a_validation(a_map(), doses=(1, 4, 6)))):
        drawn: Any = found.interactive().data
        hovered = [t for t in drawn if t.hoverinfo != "skip"]
        assert hovered
        for trace in hovered:
            assert trace.hovertemplate == "%{text}<extra></extra>"
    (points, *_) = (m for m in marks(made.pareto().chart(), Dots) if m.name == "planned")
    shares = made.pareto().table(0).query("profile.str.startswith('planner')")["share"]
    assert [float(said.split(" at ")[1].split(":")[0]) for said in points.said] == pytest.approx(
        sorted(shares), abs=0.002
    )


def test_a_pareto_has_a_point_for_each_budget_and_kind() -> None:
    found = made.pareto()
    table = found.table()
    dots = marks(found.chart(), Dots)
    assert sorted(np.concatenate([each.y for each in dots])) == sorted(table["of_dense"])
    assert len({(each.look.marker, each.look.filled) for each in dots}) == 4


def test_a_profile_letters_its_rules_those_that_compute_most_first() -> None:
    found = made.a_profile()
    (cells,) = marks(found.chart(), Cells)
    assert cells.letters is not None
    letters = {str(found.rule((0, head))): cells.letters[head, 0] for head in range(4)}
    assert letters["full"] == "A"
    assert len(set(letters.values())) == 4
    assert sum(int(key.name.rsplit(" ", 1)[1]) for key in found.chart().key) == 24


def test_a_rank_of_one_is_above_all_others() -> None:
    head_map = a_map()
    found = head_map.explain(head_map.top("sink", 1)["name"][0])
    place = [row["score"] for row in found.scores.to_dict("records")].index("sink")
    at = {int(y): x for bars in marks(found.chart(), Bars)
          for y, x in zip(bars.at, bars.length, strict=True)}  # fmt: skip
    assert at[place] == 1


# ---- what cannot be drawn -----------------------------------------------------------------------

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


def a_run(folder: Path) -> HeadMap:
    """A run's folder with a result of every kind."""
    head_map = made.a_map_with_curves()
    head_map.save(folder)
    kept = {
        "validations/a.json": a_validation(head_map),
        "evals/b.json": made.evaluation(),
        "effects.json": made.effects(),
        "patching/c.json": made.patched(),
        "patching/d.json": made.joint(),
        "profiles/e.json": made.a_profile(),
        "profiles/f.json": made.a_plan(),
        "bench/bench.json": some_bench("<mix>"),
        "profiles/g-answers.json": made.evaluation("answers of a Pareto"),
    }
    for name, result in kept.items():
        (folder / name).parent.mkdir(exist_ok=True)
        result.save(folder / name)
    made.recalls().save(folder / "profiles" / "recalls-1.safetensors")
    (folder / "notes.json").write_text('{"kind": "notes"}')
    (folder / "broken.json").write_text("{")
    return head_map


def test_a_report_holds_what_lies_in_the_folder(tmp_path: Path) -> None:
    head_map = a_run(tmp_path)
    found = results_in(tmp_path)
    assert sorted(type(each).__name__ for each in found) == [
        "Bench", "Effects", "Evaluation", "JointEffect", "PatchMap", "Plan", "Recalls",
        "SparseProfile", "Validation",
    ]  # fmt: skip
    html = report_html(head_map, (), found, a_map(7, 4, 4, ["sink"], "another"))
    page = Page(html)
    titles = [a["aria-label"] for tag, a in page.tags if tag == "svg" and "aria-label" in a]
    for draw in (*curves(head_map).values(), *(each.chart for each in found)):
        assert draw().name in titles
    assert "Roles of the heads of made-up and another" in titles
    sections = [a.get("id") for tag, a in page.tags if tag == "section"]
    links = [(a.get("href") or "")[1:] for tag, a in page.tags if tag == "a"][1 : len(sections) + 1]
    assert links == sections
    assert {"scores", "agreement", "curves", "comparison", "evals", "patching", "profiles"} <= set(
        sections
    )
    for tag, attributes in page.tags:
        assert not {"src", "srcset", "action", "data", "poster"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes), tag
    assert len(page.inside["script"]) == 2


def test_a_report_leaves_out_what_was_not_measured() -> None:
    page = Page(report_html(a_map(1, 1, 1, ["needle_mass"])))
    sections = {a.get("id") for tag, a in page.tags if tag == "section"}
    assert not sections & {"agreement", "curves", "comparison", "evals", "patching", "profiles"}
    hrefs = {(a.get("href") or "")[1:] for tag, a in page.tags if tag == "a"}
    assert "curves" not in hrefs


def test_a_report_survives_heads_that_are_not_known() -> None:
    page = Page(report_html(holed(a_map())))
    assert "NaN" not in page.inside["script"][0]
    numbers = [value for _, a in page.tags for value in a.values() if value is not None]
    assert not [value for value in numbers if "nan" in re.split(r"[^a-z]", value)]
    assert " nan " not in page.said


def test_results_of_other_weights_are_refused() -> None:
    other = made.patched().model_copy(update={"fingerprint": "1" * 64, "model": "other"})
    with pytest.raises(HeadscopeError, match="patchmap is of other, with other weights"):
        report_html(a_map(), (), [other])


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    path = made.patched().save(tmp_path / "map.json")
    assert [type(each) for each in results_in(tmp_path)] == [PatchMap]
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"patched": []}))
    with pytest.raises(HeadscopeError, match=r"map\.json is damaged"):
        results_in(tmp_path)
    path.unlink()
    (tmp_path / "validations").mkdir()
    (tmp_path / "validations" / "v.json").write_text("no JSON")
    with pytest.raises(HeadscopeError, match=f"no {Validation.__name__.lower()}"):
        results_in(tmp_path)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    outside = made.patched().save(tmp_path / "secret.json")
    (run / "map.json").symlink_to(outside)
    assert results_in(run) == []


def test_a_report_of_a_large_map_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    # One number of clusters: finding the best takes long, and the size of a page not further.
    monkeypatch.setattr(HeadMap, "clusters", lambda self: cluster(self, 4))
    large = large_map("80x64")
    n_layers, heads = len(large.layers), large.n_heads
    rng = np.random.default_rng(0)
    points = {
        name: rng.random((2, n_layers, heads, n), dtype=np.float32)
        for name, n in made.CURVES.items()
    }
    few = {name: HeadScores(score.values[:2], "max") for name, score in large.scores.items()}
    head_map = HeadMap(large.info, few, points)
    html = report_html(head_map, [a_validation(head_map)], [made.evaluation(), made.a_plan()])
    assert len(html.encode()) < 3_000_000


def test_scores_are_packed_to_a_hundredth_and_back() -> None:
    rng = np.random.default_rng(0)
    mean = rng.normal(0, 100, 50)
    values = np.column_stack([mean, mean - rng.random(50), mean + rng.random(50)])
    values[3] = np.nan
    found = packed(values)

    def numbers(name: str, kind: str) -> np.ndarray:
        import base64

        return np.frombuffer(base64.b64decode(str(found[name])), kind).astype(float)

    steps = numbers("means", "<u2")
    back = float(found["low"]) + float(found["step"]) * steps
    assert steps[3] == 65535
    known = np.arange(50) != 3
    np.testing.assert_allclose(back[known], mean[known], atol=0.01)
    reach = float(found["reach"])
    np.testing.assert_allclose(
        (back - reach * numbers("below", "u1"))[known], values[known, 1], atol=0.015
    )
    np.testing.assert_allclose(
        (back + reach * numbers("above", "u1"))[known], values[known, 2], atol=0.015
    )


def test_results_load_no_plotly() -> None:
    code = (
        "import sys, headscope\n"
        "import headscope.headmap, headscope.compare, headscope.clusters\n"
        "assert not {'plotly', 'dash', 'headscope.viz'} & set(sys.modules), 'viz'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
