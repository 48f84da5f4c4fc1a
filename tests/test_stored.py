"""Run folders that are not whole: one sentence each, that says what to do."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up import a_map

from headscope import HeadMap, storage
from headscope.errors import HeadscopeError
from headscope.runinfo import RunInfo
from headscope.scores import Scores
from headscope.viz.report import report_html

Change = Callable[[dict[str, np.ndarray]], object]


def not_a_number(arrays: dict[str, np.ndarray]) -> None:
    arrays["sink"][0, 1, 2] = np.nan


def infinite(arrays: dict[str, np.ndarray]) -> None:
    arrays["sink"][0, 1, 2] = np.inf


def of_text(arrays: dict[str, np.ndarray]) -> None:
    arrays["sink"] = arrays["sink"].astype(np.uint8)


def other_axes(arrays: dict[str, np.ndarray]) -> None:
    arrays["sink"] = arrays["sink"][..., None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (not_a_number, "its sink holds what is no number"),
        (infinite, "its sink holds what is no number"),
        (of_text, "its sink holds what is no number"),
        (other_axes, "its sink does not fit its run.json"),
        (lambda arrays: arrays.pop("sink"), "its sink is missing, which its run.json lists"),
        (lambda arrays: arrays.clear(), "it holds no scores"),
        (lambda arrays: arrays.update(new=arrays["sink"]), "its new does not fit its run.json"),
    ],
)
def test_scores_that_are_not_sound(change: Change, message: str, tmp_path: Path) -> None:
    folder = a_map().save(tmp_path / "run")
    arrays = {name: array.copy() for name, array in stored(folder).items()}
    change(arrays)
    storage.write_arrays(folder / "scores.safetensors", arrays)
    with pytest.raises(HeadscopeError, match=rf"is damaged: {message}.*; delete the folder and"):
        HeadMap.load(folder)


@pytest.mark.parametrize("name", ["heads.parquet", "scores.safetensors"])
def test_files_that_are_not_whole(name: str, tmp_path: Path) -> None:
    folder = a_map().save(tmp_path / "run")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(HeadscopeError, match=rf"{name} cannot be read; delete the folder and scan"):
        HeadMap.load(folder)
    (folder / name).unlink()
    with pytest.raises(HeadscopeError, match=rf"{name} is not there .* delete the folder and scan"):
        HeadMap.load(folder)


def test_a_table_of_another_map(tmp_path: Path) -> None:
    folder = a_map().save(tmp_path / "run")
    for other in (a_map(layers=3), a_map(scores=["sink"])):
        storage.write_table(folder / "heads.parquet", other.to_pandas())
        with pytest.raises(HeadscopeError, match=r"heads\.parquet does not fit its scores"):
            HeadMap.load(folder)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("headscope scan m --out run", "continue it: headscope scan m --out run."),
        ("", "was begun in Python: continue it there"),
    ],
)
def test_an_unfinished_run_says_how_to_go_on(command: str, said: str, tmp_path: Path) -> None:
    a_map(command=command).info.model_copy(update={"state": "running"}).write(tmp_path)
    with pytest.raises(HeadscopeError, match="not finished") as caught:
        HeadMap.load(tmp_path)
    assert said in str(caught.value)
    assert ": ." not in str(caught.value)


def test_a_score_that_no_prompt_was_answered_for_may_be_missing(tmp_path: Path) -> None:
    whole = a_map()
    unanswered = {"samples": 6, "seed": 0, "lengths": [256]}
    family = whole.info.families["text-0"].model_copy(
        update={"family": "needle", "parameters": unanswered, "accepted": [False] * 6}
    )
    info = whole.info.model_copy(
        update={
            "families": {**whole.info.families, "needle-1": family},
            "probes": {**whole.info.probes, "retrieval": {
                "prompts": {"family": "needle", **unanswered}
            }},
        }
    )  # fmt: skip
    scores = {name: score for name, score in whole.scores.items() if name != "retrieval"}
    folder = dataclasses.replace(whole, info=info, scores=scores).save(tmp_path / "run")
    loaded = HeadMap.load(folder)
    assert list(loaded.scores) == [name for name in whole.scores if name != "retrieval"]
    assert RunInfo.read(folder).scores.keys() == whole.scores.keys()
    assert report_html(loaded).startswith("<!doctype html>")


def stored(folder: Path) -> dict[str, np.ndarray]:
    return storage.read_arrays(folder / "scores.safetensors")


def test_a_read_map_has_its_intervals_from_its_table_to_the_last_bit(tmp_path: Path) -> None:
    made = a_map()
    read = HeadMap.load(made.save(tmp_path / "run"))
    for name, score in read.scores.items():
        assert read.info.seed in score._intervals
        fresh = Scores(score.values, score.kv_view)
        assert np.array_equal(score.interval(read.info.seed), fresh.interval(read.info.seed)), name


def test_intervals_that_are_no_numbers_or_of_other_heads_are_worked_out_anew(
    tmp_path: Path,
) -> None:
    folder = a_map().save(tmp_path / "run")
    table = storage.read_table(folder / "heads.parquet")
    right = HeadMap.load(folder)["sink"].interval()
    for wrong in (np.nan, "low"):
        storage.write_table(folder / "heads.parquet", table.assign(**{"sink.low": wrong}))
        assert np.array_equal(HeadMap.load(folder)["sink"].interval(), right)
    storage.write_table(folder / "heads.parquet", table[::-1])
    assert np.array_equal(HeadMap.load(folder)["sink"].interval(), right)


def test_a_folder_of_runs_is_none_and_names_them(tmp_path: Path) -> None:
    for name in ("one", "two"):
        a_map().save(tmp_path / name)
    with pytest.raises(HeadscopeError, match="no run of headscope; it holds the runs one, two"):
        HeadMap.load(tmp_path)
