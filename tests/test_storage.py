"""Files that are whole or not there, and what is no file."""

import os
from pathlib import Path

import pytest

from headscope import storage
from headscope.errors import HeadscopeError


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "pipe"), (os.mkdir, "folder")])
def test_what_is_no_file_is_neither_replaced_nor_read(
    tmp_path: Path, make: object, kind: str
) -> None:
    assert callable(make)
    place, link = tmp_path / "place", tmp_path / "link"
    make(place)
    link.symlink_to(place)
    before = place.stat().st_mode
    for path in (place, link):
        with pytest.raises(HeadscopeError, match=f"is a {kind}"):
            storage.write(path, b"content")
        with pytest.raises(HeadscopeError, match=f"is a {kind}"):
            storage.read(path)
    assert place.stat().st_mode == before
    assert {p.name for p in tmp_path.iterdir()} == {"place", "link"}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
    link.symlink_to(target)
    for content in (b"one", b"two"):  # a target that is not there yet, and one that is
        storage.write(link, content)
        assert target.read_bytes() == content
    assert link.is_symlink()
    assert [p.name for p in target.parent.iterdir()] == ["file"]


def test_links_in_a_circle_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(HeadscopeError, match="cannot be read"):
        storage.read(tmp_path / "a")
