"""Pages as they are laid out, without a browser: what stands on them, and what they say instead."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from app_runs import a_run, found, page, texts, walked, written
from made_up import HOSTILE, a_map, a_validation, with_values

pytest.importorskip("dash", reason="needs the extra [app]")

from headscope.headmap import HeadMap
from headscope_app.chosen import chosen_csv
from headscope_app.comparing import changed, confusion
from headscope_app.head_effects import effects_card
from headscope_app.library import Library
from headscope_app.pages import overview
from headscope_app.probe_figures import apart, ranks, top_table
from headscope_app.results import Results as Asked
from headscope_app.results_worker import Results
from headscope_app.run_figures import map_chart
from headscope_app.state import State
from headscope_app.views import browsable, numbers, pair_of, view_of


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def names_listed(runs: Path, query: str) -> list[str]:
    rows = overview.listed(Library.of([runs]).runs(), State.parse(query))
    return [
        texts(row.children[0])
        for row in walked(rows)
        if type(row).__name__ == "Tr" and row.children[0].scope == "row"
    ]


def test_an_empty_folder_says_how_to_make_a_run(runs: Path) -> None:
    said = texts(page(Library.of([runs]), "/"))
    assert "No runs in runs yet" in said
    assert "headscope scan smollm2 --out runs/first" in said


def test_runs_are_searched_filtered_and_sorted(runs: Path) -> None:
    a_run(runs / "b", a_map(spec="first", scores=["sink"]))
    a_run(runs / "a", a_map(spec="second", layers=9, scores=["sink", "induction"]))
    assert names_listed(runs, "?sort=name") == ["runs/a", "runs/b"]
    assert names_listed(runs, "?sort=heads") == ["runs/a", "runs/b"]
    assert names_listed(runs, "?sort=model") == ["runs/b", "runs/a"]
    assert names_listed(runs, "?q=INDUCTION second") == ["runs/a"]
    assert names_listed(runs, "?model=first") == ["runs/b"]
    assert names_listed(runs, "?sort=nonsense&q=") == ["runs/a", "runs/b"]
    nothing = overview.listed(Library.of([runs]).runs(), State.parse("?q=zebra"))
    assert "No run is like that" in texts(nothing)


@pytest.mark.parametrize("path", ["/run", "/head", "/probes", "/compare", "/planner"])
def test_a_run_that_is_not_there(path: str, runs: Path) -> None:
    a_run(runs / "one")
    assert "no such run" in texts(page(Library.of([runs]), path, "?run=0123&head=L0H0"))


def test_what_cannot_be_shown_is_said(runs: Path) -> None:
    id_ = a_run(runs / "one", a_map(scores=["sink"]))
    library = Library.of([runs])
    assert "no such page" in texts(page(library, "/nowhere"))
    assert "has no head L9H9" in texts(page(library, "/head", f"?run={id_}&head=L9H9"))
    assert "Choose a head" in texts(page(library, "/head", f"?run={id_}"))
    assert "one score only" in texts(page(library, "/probes", f"?run={id_}"))
    assert "no other run" in texts(page(library, "/compare", f"?run={id_}"))
    (runs / "one" / "scores.safetensors").write_bytes(b"")
    assert "runs/one is damaged" in texts(page(library, "/run", f"?run={id_}"))


def test_a_damaged_run_does_not_keep_others_from_being_made_or_chosen(runs: Path) -> None:
    damaged, sound = a_run(runs / "one"), a_run(runs / "two", a_map(scores=["sink"]))
    (runs / "one" / "heads.parquet").write_bytes(b"PAR1")
    library = Library.of([runs])
    new = page(library, "/new", f"?run={damaged}")
    assert found(new, "start-scan")
    assert found(new, "validate-role").options == []
    beside = page(library, "/compare", f"?run={sound}&other={damaged}")
    assert "runs/one is damaged" in texts(beside)
    assert found(beside, "state-other")


def test_runs_without_a_common_score_leave_the_choice(runs: Path) -> None:
    one, other = a_run(runs / "one", a_map(scores=["a"])), a_run(runs / "two", a_map(scores=["b"]))
    beside = page(Library.of([runs]), "/compare", f"?run={one}&other={other}")
    assert "share no score" in texts(beside)
    assert found(beside, "state-other")


def test_commands_to_copy_are_one_command(runs: Path) -> None:
    """What a run says of itself must not become a second command in the reader's shell."""
    id_ = a_run(runs / "one", a_map(spec="x; touch gone"))
    library = Library.of([runs])
    assert "headscope scan 'x; touch gone' --seed" in texts(
        page(library, "/compare", f"?run={id_}")
    )
    shown = texts(effects_card(library, Asked(), State(run=id_, head="L0H0")))
    assert "headscope effects 'x; touch gone' --task" in shown
    other = a_run(runs / "a b")
    tests = texts(page(Library.of([runs]), "/tests", f"?run={other}"))
    assert "headscope validate 'runs/a b' --role" in tests


def test_a_run_page_has_all_that_filters_need(runs: Path) -> None:
    head_map = a_map()
    id_ = a_run(runs / "one", head_map)
    shown = page(Library.of([runs]), "/run", f"?run={id_}&head=L2H5&sel=L2H5,L3H1,L77H1&probe=sink")
    data = found(shown, "has-heads").data
    table = head_map.roles()
    assert [[data["roles"][i] for i in own] for own in data["of"]] == [
        row.split(",") if row else [] for row in table["roles"]
    ]
    assert (data["layers"], data["heads"], data["group"]) == ([0, 1, 2, 3], 6, 3)
    values = found(shown, "values").data
    assert np.allclose(values["probe"], head_map["sink"].mean().ravel(), rtol=1e-4)
    assert values["against"] != values["probe"]
    assert "L2H5" in texts(found(shown, "head-panel"))
    assert "L3H1" in texts(found(shown, "chosen"))
    assert "L77H1" not in texts(shown)  # the map has no such head
    least, most = head_map["sink"].mean().min(), head_map["sink"].mean().max()
    slider = found(shown, "state-min")
    assert (slider.min, slider.max) == (pytest.approx(least), pytest.approx(most))


def test_the_file_is_the_table() -> None:
    head_map = a_map()
    state = State(selected=("L3H5", "L0H1", "L9H9"), probe="induction", against="sink")
    read = pd.read_csv(io.StringIO(chosen_csv(view_of(head_map), state)))
    assert list(read["name"]) == ["L3H5", "L0H1"]
    full = head_map.to_pandas().set_index(["layer", "head"])
    for column in ("induction", "induction.low", "induction.high", "sink", "sink.high"):
        assert list(read[column]) == [full[column][3, 5], full[column][0, 1]], column


def test_scores_that_are_set_against_each_other() -> None:
    head_map = a_map(scores=["sink", "induction", "retrieval"])
    assert pair_of(head_map, State()) == ("induction", "retrieval")
    assert pair_of(head_map, State(probe="retrieval")) == ("induction", "retrieval")
    assert pair_of(head_map, State(probe="sink", against="induction")) == ("induction", "sink")
    assert pair_of(head_map, State(probe="no", against="sink")) == ("sink", "retrieval")
    assert pair_of(head_map, State(probe="sink", against="sink")) == ("retrieval", "sink")
    assert numbers(head_map, probe="no") == {}


def test_a_map_is_coloured_by_role_or_by_score() -> None:
    view = view_of(a_map())
    by_role, by_score = (map_chart(view, probe).panels[0].marks[0] for probe in ("", "sink"))
    assert by_role.letters is not None
    assert by_role.numbers is None
    mean = view.head_map["sink"].mean()
    assert np.array_equal(by_score.values, mean.T)
    low, high = view.head_map["sink"].interval()
    assert np.allclose(by_score.numbers[5, 3], [mean[3, 5], low[3, 5], high[3, 5]])


def test_a_heads_page_ranks_it_and_says_why(runs: Path) -> None:
    head_map = a_map()
    best = head_map.top("induction", 1)["name"][0]
    id_ = a_run(runs / "one", head_map)
    shown = texts(page(Library.of([runs]), "/head", f"?run={id_}&head={best}"))
    explained = head_map.explain(best)
    assert f"induction {explained.scores.set_index('score')['mean']['induction']:.3f}" in shown
    assert "passes : induction > 0.4" in shown
    assert "1 of 24" in shown


def test_names_of_others_are_text(runs: Path) -> None:
    """Markup reaches the browser only as text of components, which escapes it, or escaped."""
    id_ = a_run(runs / "one", a_map(spec=HOSTILE, command=HOSTILE))
    other = a_run(runs / "two", a_map(spec=HOSTILE))
    library = Library.of([runs])
    for path in ("/", "/run", "/head", "/probes", "/compare"):
        shown = page(library, path, f"?run={id_}&other={other}&head=L0H0")
        for each in walked(shown):
            assert "dangerously_allow_html" not in each.to_plotly_json()["props"]
            figure = getattr(each, "figure", None)
            if figure:
                assert "<img" not in written(figure), each.id


def two_roles(*roles: tuple[float, float]) -> HeadMap:
    """One layer of heads: what each has of induction, and of previous_token."""
    values = np.array(roles).T[:, None, None, :] * np.ones((2, 4, 1, 1))
    return with_values({"induction": values[0], "previous_token": values[1]})


def test_roles_of_two_runs_are_counted_against_each_other() -> None:
    first = view_of(two_roles((0.9, 0), (0.9, 0), (0, 0.9), (0, 0)))
    second = view_of(two_roles((0.9, 0), (0, 0.9), (0, 0.9), (0.9, 0)))
    counts = confusion(first, second)
    assert counts.loc["induction", "induction"] == 1
    assert counts.loc["induction", "previous token"] == 1
    assert counts.loc["previous token", "previous token"] == 1
    assert counts.loc["no role", "induction"] == 1
    assert int(counts.to_numpy().sum()) == 4
    differ = {row["name"]: (row["first"], row["second"]) for row in changed(first, second)}
    assert differ == {"L0H1": ("induction", "previous_token"), "L0H3": ("", "induction")}


def test_runs_of_different_shape_are_compared_by_depth(runs: Path) -> None:
    one, other = a_run(runs / "one", a_map(layers=4)), a_run(runs / "two", a_map(layers=8))
    shown = texts(page(Library.of([runs]), "/compare", f"?run={one}&other={other}"))
    assert "by relative depth" in shown
    assert "whose primary role differs" not in shown


def test_two_scores_rank_heads_differently() -> None:
    values = {
        "induction": np.array([[[0.1, 0.2, 0.3, 0.4]]]),
        "sink": np.array([[[0.4, 0.2, 0.3, 0.1]]]),
    }
    view = view_of(with_values(values))
    assert ranks(view.head_map, "induction").ravel() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    first, second = apart(view, "induction", "sink", 2)
    assert {first["name"], second["name"]} == {"L0H0", "L0H3"}
    assert abs(first["difference"]) == pytest.approx(1)
    rows = top_table(view.head_map, "induction", "sink", 2)
    assert [(row["yes"], row["no"]) for row in rows] == [(1, 1), (1, 1)]


def test_heads_without_a_role_are_browsable() -> None:
    data = browsable(view_of(two_roles((0, 0), (0.9, 0.9))))
    assert data["of"] == [[], [0, 1]]


def test_a_validation_is_told_with_its_baselines_and_by_head(tmp_path: Path) -> None:
    head_map = a_map()
    test = a_validation(head_map)
    path = str(test.save(tmp_path / "made.json"))
    reader = Results()
    shown, _ = reader.handle({"do": "show", "kind": "validation", "path": path, "theme": "light"})
    assert shown["claims"] == test.claims()
    titles = [table["title"] for table in shown["tables"]]
    assert "needle: the ablation beside random sets" in titles
    conditions = [row["condition"] for row in shown["tables"][1]["rows"]]
    assert {"base", "tested", "uniform"} <= {*conditions}
    asked = {"files": [{"kind": "validation", "path": path, "id": "x"}]}
    asked |= {"do": "head", "head": "L0H0", "fingerprint": test.fingerprint}
    rows, _ = reader.handle(asked)
    alone = next(row for row in rows if row["task"] == "needle" and "alone" in row["done"])
    doses = test.doses(0).set_index("k")
    assert alone["change"] == pytest.approx(doses["change"][1])
    assert reader.handle(asked | {"head": "L3H5"})[0] == []
    assert reader.handle(asked | {"fingerprint": "other weights"})[0] == []
