"""What the app may read, and what it says of what it cannot."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from app_runs import a_run
from made_up import HOSTILE, a_map, a_validation

pytest.importorskip("dash", reason="needs the extra [app]")

from headscope import storage
from headscope.errors import HeadscopeError
from headscope_app.library import Library
from headscope_app.listing import identity


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def library(folder: Path) -> Library:
    """One that looks at its folders every time."""
    made = Library.of([folder])
    made.refresh()
    return made


def only(folder: Path) -> str:
    (entry,) = library(folder).runs()
    return entry.problem


def test_runs_are_listed_with_what_they_hold(runs: Path) -> None:
    a_run(runs / "deep" / "er" / "one", tested=True)
    a_run(runs / "two", a_map(spec="other"))
    os.utime(runs / "two" / "run.json", (1, 1))
    entries = library(runs).runs()
    assert [entry.name for entry in entries] == ["runs/deep/er/one", "runs/two"]  # newest first
    assert [entry.state for entry in entries] == ["complete", "complete"]
    assert entries[0].files == ("validation",)
    assert entries[0].info is not None
    assert entries[0].info.model.name == "made-up"


def test_a_root_may_be_a_run_itself_and_roots_may_overlap(runs: Path) -> None:
    a_run(runs / "one")
    both = Library.of([runs, runs / "one"])
    assert [entry.name for entry in both.runs()] == ["runs/one"]
    assert [entry.name for entry in Library.of([runs / "one"]).runs()] == ["one"]


def test_results_beside_runs_are_listed(runs: Path) -> None:
    id_ = a_run(runs / "one", tested=True)
    a_validation(a_map()).save(runs / "loose.json")
    storage.write(runs / "other.json", b'{"kind": "shopping list"}')
    storage.write(runs / "no.json", b"\x00\xff not json")
    made = library(runs)
    assert [(place.name, place.kind) for place in made.files(id_)] == [
        ("runs/one/validations/made.json", "validation")
    ]
    assert [place.name for place in made.files("")] == ["runs/loose.json"]


def test_ids_are_the_same_after_a_restart_and_tell_no_path(runs: Path) -> None:
    id_ = a_run(runs / "one")
    assert [entry.id for entry in library(runs).runs()] == [id_]
    assert "one" not in id_
    assert len(id_) == 12


@pytest.mark.parametrize(
    "id_",
    ["../one", "..%2fone", "/etc/passwd", "runs/one", "one", "", "\x00", "a" * 10_000, HOSTILE],
)
def test_an_id_is_no_path(id_: str, runs: Path) -> None:
    a_run(runs / "one")
    with pytest.raises(HeadscopeError, match="no such run"):
        library(runs).head_map(id_)
    with pytest.raises(HeadscopeError, match="no such file"):
        library(runs).file(id_)


def test_a_file_is_no_run_and_a_run_outside_is_not_found(runs: Path, tmp_path: Path) -> None:
    a_run(runs / "one", tested=True)
    outside = a_run(tmp_path / "outside")
    made = library(runs)
    with pytest.raises(HeadscopeError, match="no such run"):
        made.head_map(made.files()[0].id)
    with pytest.raises(HeadscopeError, match="no such run"):
        made.head_map(outside)


def test_a_folder_that_leads_out_is_said_and_not_followed(runs: Path, tmp_path: Path) -> None:
    a_run(tmp_path / "secret" / "run")
    (runs / "link").symlink_to(tmp_path / "secret")
    made = library(runs)
    assert made.runs() == []
    assert made.listing().notes == [
        "runs/link is a link out of the given folders, and is not followed."
    ]


def test_a_link_within_is_listed_once(runs: Path) -> None:
    a_run(runs / "one")
    (runs / "again").symlink_to(runs / "one")
    (runs / "loop").symlink_to(runs)
    made = library(runs)
    assert [entry.name for entry in made.runs()] == ["runs/one"]
    assert made.listing().notes == []


@pytest.mark.parametrize("name", ["run.json", "scores.safetensors", "heads.parquet"])
def test_a_file_that_leads_out_is_not_read(name: str, runs: Path, tmp_path: Path) -> None:
    a_run(tmp_path / "secret")
    id_ = a_run(runs / "one")
    (runs / "one" / name).unlink()
    (runs / "one" / name).symlink_to(tmp_path / "secret" / name)
    with pytest.raises(HeadscopeError, match=f"{name} is a link out of the given folders"):
        library(runs).head_map(id_)


def test_a_given_folder_may_be_a_link(runs: Path, tmp_path: Path) -> None:
    a_run(runs / "one")
    (tmp_path / "named").symlink_to(runs)
    assert [entry.state for entry in library(tmp_path / "named").runs()] == ["complete"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b'{"a":' * 100_000, "damaged"),
        (b'{"name": "npm-package"}', "not a scan's"),
        (b'{"schema_version": 99}', "newer headscope"),
    ],
)
def test_damaged_and_foreign_folders_are_listed_with_their_problem(
    content: bytes, said: str, runs: Path
) -> None:
    a_run(runs / "one")
    (runs / "one" / "run.json").write_bytes(content)
    problem = only(runs)
    assert said in problem
    assert str(runs.parent) not in problem  # a browser is not told where the folders lie


def test_a_pipe_in_the_place_of_a_file_blocks_nobody(runs: Path) -> None:
    id_ = a_run(runs / "one")
    (runs / "one" / "run.json").unlink()
    os.mkfifo(runs / "one" / "run.json")
    assert "pipe" in only(runs) or "no run.json" in only(runs)
    with pytest.raises(HeadscopeError):
        library(runs).head_map(id_)


def test_an_unfinished_run_and_one_that_lacks_files(runs: Path) -> None:
    a_run(runs / "one")
    content = json.loads((runs / "one" / "run.json").read_text())
    (runs / "one" / "run.json").write_text(json.dumps(content | {"state": "running"}))
    assert [entry.state for entry in library(runs).runs()] == ["running"]
    (runs / "one" / "run.json").write_text(json.dumps(content))
    (runs / "one" / "heads.parquet").unlink()
    (entry,) = library(runs).runs()
    assert (entry.state, entry.problem) == ("damaged", "Its heads.parquet cannot be found.")


def test_a_map_is_read_once_until_its_files_change(runs: Path) -> None:
    id_ = a_run(runs / "one")
    made = library(runs)
    first = made.head_map(id_)
    assert made.head_map(id_) is first
    a_run(runs / "one", a_map(layers=2))
    again = made.head_map(id_)
    assert again is not first
    assert len(again.layers) == 2


def test_a_run_that_is_deleted_or_damaged_while_it_is_open(runs: Path) -> None:
    id_ = a_run(runs / "one")
    made = library(runs)
    made.head_map(id_)
    (runs / "one" / "scores.safetensors").write_bytes(b"gone wrong")
    with pytest.raises(HeadscopeError, match=r"runs/one is damaged: its scores\.safetensors"):
        made.head_map(id_)
    shutil.rmtree(runs / "one")
    made.refresh()
    with pytest.raises(HeadscopeError, match="not any more"):
        made.head_map(id_)


def test_a_file_that_would_fill_the_memory_is_not_read(runs: Path) -> None:
    id_ = a_run(runs / "one")
    os.truncate(runs / "one" / "scores.safetensors", 5 * 2**30)  # takes no room on the disk
    with pytest.raises(HeadscopeError, match=r"one holds 5\.0 GiB of scores"):
        library(runs).head_map(id_)


def test_a_small_table_that_unpacks_to_a_large_one_is_not_read(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = a_run(runs / "one")
    many = pd.DataFrame(dict.fromkeys(("layer", "head", "sink"), np.zeros(10**7)))
    storage.write_table(runs / "one" / "heads.parquet", many)
    assert (runs / "one" / "heads.parquet").stat().st_size < 10**6
    monkeypatch.setattr(pd, "read_parquet", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(HeadscopeError, match=r"heads\.parquet does not fit its scores"):
        library(runs).head_map(id_)


def test_a_file_that_is_larger_than_any_result_is_not_handed_on(runs: Path) -> None:
    id_ = a_run(runs / "one", tested=True)
    found = library(runs)
    (place,) = found.files(id_)
    os.truncate(place.path, 2**29)
    with pytest.raises(HeadscopeError, match="larger than 256 MiB"):
        found.check(place)


def test_what_is_kept_has_a_size(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [a_run(runs / name) for name in "abc"]
    sizes = sum(path.stat().st_size for path in (runs / "a").iterdir())
    monkeypatch.setattr("headscope_app.library._MOST", int(2.5 * sizes))
    found = library(runs)
    maps = [found.head_map(id_) for id_ in ids]
    assert len(found._kept) == 2
    assert found.head_map(ids[2]) is maps[2]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadscopeError, match=r"There is no folder .*missing; name one"):
        Library.of([tmp_path / "missing"])


def test_a_large_folder_ends(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headscope_app.listing._MOST", 50)
    for i in range(80):
        (runs / f"{i:03}").mkdir()
    assert any("Only the first 50" in note for note in library(runs).listing().notes)


def test_names_that_are_no_text(runs: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(runs) + b"/\xff\xfe<b>"))
    a_map().save(folder)
    (entry,) = library(runs).runs()
    assert entry.state == "complete"
    assert entry.id == identity(folder)
    assert entry.name.encode()  # it can be sent
