"""Charts of results hold the numbers of their tables."""

from typing import Any

import made_results as made
import numpy as np
import pytest
from charted import curves, marks, some_patterns
from made_up import a_map, a_validation
from test_figures import checked

from headscope.viz import figures
from headscope.viz.marks import Bars, Cells, Dots, Line, Outline


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
