"""What a report holds of a run's folder, and what it leaves out."""

import json
import re
from base64 import b64decode
from pathlib import Path

import made_results as made
import numpy as np
import pytest
from charted import curves, holed, large_map, some_bench
from made_up import a_map, a_validation
from test_viz import Page

from headscope.clusters import cluster
from headscope.errors import HeadscopeError
from headscope.evals.validation import Validation
from headscope.headmap import HeadMap
from headscope.headmap import Scores as HeadScores
from headscope.patch_map import PatchMap
from headscope.viz import report_html
from headscope.viz.packing import packed
from headscope.viz.run_results import results_in


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
    large = large_map("80x64", 40)
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
        return np.frombuffer(b64decode(str(found[name])), kind).astype(float)

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


def test_heads_that_pack_alike_keep_their_ranks() -> None:
    """An outlier makes the steps of means coarse; ranks are those of the means themselves."""
    mean = np.array([1e6, 0.1, 0.3, np.nan, 0.2, 0.3, -0.5])
    found = packed(np.column_stack([mean, mean, mean]))
    ranks = np.frombuffer(b64decode(str(found["ranks"])), "<u2")
    assert ranks.tolist() == [1, 5, 2, 0, 4, 2, 6]


def test_few_heads_that_pack_alike_are_told_apart_one_by_one() -> None:
    mean = np.linspace(0, 1, 50)
    mean[20] = mean[21] + 1e-9
    mean[30] = np.nan
    found = packed(np.column_stack([mean, mean, mean]))
    assert "ranks" not in found
    assert found["others"] == {21: 29}  # the 28 of above and head 20 come before
