"""The notebooks of examples/ as pages, with outputs where they have been executed."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "examples"
EXECUTED = FOLDER / "executed"  # what examples/run.py writes; not kept in git
_LEAD = (
    "# Notebooks\n\nAll on the built-in model and a CPU; `python examples/run.py` executes them. "
    "Each ends with a conclusion that is computed from its own run.\n"
)


def pages() -> dict[str, str]:
    """The pages by path, the list first."""
    found = {f"notebooks/{path.stem}.md": page(path) for path in sorted(FOLDER.glob("*.ipynb"))}
    titles = [
        f"- [{text.partition(chr(10))[0].removeprefix('# ')}]({Path(path).name})"
        for path, text in found.items()
    ]
    return {"notebooks/index.md": _LEAD + "\n" + "\n".join(titles) + "\n"} | found


def page(path: Path) -> str:
    """A notebook as Markdown: of its executed copy, if there is one of the same cells."""
    kept = json.loads(path.read_text())
    executed, place = None, EXECUTED / path.name
    if place.exists():
        run = json.loads(place.read_text())
        if [_source(c) for c in run["cells"]] == [_source(c) for c in kept["cells"]]:
            executed = run
    first, *cells = [_cell(cell) for cell in (executed or kept)["cells"]]
    return "\n\n".join([first, _note(path, executed), *cells]) + "\n"


def _note(path: Path, executed: Any) -> str:
    where = f"`examples/{path.name}`"
    if executed is None:
        return f"*{where}, not executed for this build: `python examples/run.py` does it.*"
    run = executed["metadata"]["headscope"]
    small = " at the small sizes of CI (`HEADSCOPE_SMALL=1`)" if run["small"] else ""
    return f"*{where}, executed{small} on {run['date']} in {run['seconds']:.0f} s: {run['with']}.*"


def _source(cell: Any) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _cell(cell: Any) -> str:
    if cell["cell_type"] == "markdown":
        return _source(cell)
    parts = [f"```python\n{_source(cell)}\n```"]
    parts += [_output(output) for output in cell.get("outputs", [])]
    return "\n\n".join(part for part in parts if part)


def _output(output: Any) -> str:
    if output["output_type"] == "stream":
        return _text(output["text"]) if output["name"] == "stdout" else ""
    data = output.get("data", {})
    if "text/markdown" in data:
        return _joined(data["text/markdown"])
    shown = next((kind for kind in ("text/html", "image/svg+xml") if kind in data), None)
    if shown is not None:
        # Markdown leaves a block of HTML alone up to its first empty line.
        html = "\n".join(line for line in _joined(data[shown]).splitlines() if line.strip())
        return f'<div class="output">\n{html}\n</div>'
    return _text(data["text/plain"]) if "text/plain" in data else ""


def _text(text: Any) -> str:
    return f"`````text\n{_joined(text).rstrip()}\n`````"


def _joined(text: Any) -> str:
    return text if isinstance(text, str) else "".join(text)
