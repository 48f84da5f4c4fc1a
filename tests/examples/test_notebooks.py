"""The notebooks as they are kept: whole, without outputs, and of public names. CI executes them by
`python examples/run.py --small`."""

import ast
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def code(path: Path) -> Iterator[ast.stmt]:
    for cell in cells(path, "code"):
        yield from ast.parse("".join(cell["source"])).body


def test_there_is_one_of_each_subject() -> None:
    assert {path.stem for path in NOTEBOOKS} == {
        "find_and_break_retrieval_heads",
        "sinks_and_act",
        "positional_and_contextual_heads",
        "reorder_documents",
        "head_map_to_profile_to_speed",
        "your_own",
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_not_kept(path: Path) -> None:
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_imported_is_there_and_public(path: Path) -> None:
    for node in code(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headscope"):
            for alias in node.names:
                assert not alias.name.startswith("_")
                assert hasattr(import_module(node.module or ""), alias.name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_has_a_small_size_and_ends_with_a_conclusion(path: Path) -> None:
    names = {
        node.id for part in code(path) for node in ast.walk(part) if isinstance(node, ast.Name)
    }
    assert "SMALL" in names
    headings = ["".join(cell["source"]).partition("\n")[0] for cell in cells(path, "markdown")]
    assert headings[0].startswith("# ")
    assert headings[-1] == "## Conclusion"


def test_the_documentation_shows_what_was_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from making import notebooks

    kept = NOTEBOOKS[0]
    run = json.loads(kept.read_text())
    run["metadata"]["headscope"] = {"small": True, "seconds": 7, "date": "a day", "with": "torch"}
    last = [cell for cell in run["cells"] if cell["cell_type"] == "code"][-1]
    html = {"text/html": ["<p>one</p>\n", "\n", "<p>two</p>"], "text/plain": "no"}
    last["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": ["12 < 13\n"]},
        {"output_type": "stream", "name": "stderr", "text": ["a warning"]},
        {"output_type": "display_data", "data": html, "metadata": {}},
    ]
    monkeypatch.setattr(notebooks, "EXECUTED", tmp_path)
    assert "not executed for this build" in notebooks.page(kept)
    (tmp_path / kept.name).write_text(json.dumps(run))
    page = notebooks.page(kept)
    assert "executed at the small sizes of CI (`HEADSCOPE_SMALL=1`) on a day in 7 s" in page
    assert "12 < 13" in page
    assert "a warning" not in page
    assert '<div class="output">\n<p>one</p>\n<p>two</p>\n</div>' in page
    last["source"] = ["changed"]
    (tmp_path / kept.name).write_text(json.dumps(run))
    assert "not executed for this build" in notebooks.page(kept)
    sys.modules.pop("making.notebooks")
