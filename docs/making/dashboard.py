"""The page about the dashboard: what its pages say of themselves, and what they look like."""

import ast
import re
from pathlib import Path
from typing import Any

APP = Path(__file__).parents[2] / "app" / "headscope_app"
PAGES = APP / "pages"
PICTURES = Path(__file__).parents[1] / "app"
_WIDE = "1400"  # px, of the pictures that are shown

_LEAD = """# Dashboard

```sh
pip install -c constraints.txt ".[app]"
headscope app runs
```

All runs of a folder in the browser, with no network: only the folders that are named can be read,
and nothing listens beyond this machine unless it is asked for with a flag and a token. The address
holds the state, so that a link, a bookmark and the back button lead to the same view.

| key | does |
|---|---|
"""


def pages() -> dict[str, str]:
    """The page by its path."""
    told = _told()
    titles = [title for title, _ in told]
    shown: dict[str, list[str]] = {title: [] for title in titles}
    for path in sorted(PICTURES.glob(f"*-{_WIDE}.png")):
        name = path.stem.removesuffix(f"-{_WIDE}")
        shown[_of(name.partition("-")[0], titles)].append(f"![{name}]({path.name})")
    parts = ["\n\n".join([f"## {title}", said, *shown[title]]) for title, said in told if said]
    keys = [f"| `{key}` | {does} |" for key, does in _named(APP / "shell.py", "_KEYS")]
    lead = _LEAD + "\n".join(keys)
    return {"app/index.md": "\n\n".join([lead, *parts]) + "\n"}


def _told() -> list[tuple[str, str]]:
    """Title and first line of every page, in the order in which the app links to them."""
    listed = re.search(r"PAGES[^=]*=\s*\(([^)]*)\)", (PAGES / "__init__.py").read_text())
    assert listed is not None
    found = []
    for name in re.findall(r"\w+", listed[1]):
        path = PAGES / f"{name}.py"
        said = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
        found.append((_named(path, "TITLE"), " ".join(said.split())))
    return found


def _named(path: Path, name: str) -> Any:
    """A constant of a module, without importing what the dashboard needs."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"{path} has no {name}")


def _of(name: str, titles: list[str]) -> str:
    """The title that a picture's name is, or is a word of."""
    words = {title: title.lower().split() for title in titles}
    exact = [title for title in titles if words[title] == [name]]
    return (exact or [title for title in titles if name in words[title]] or titles)[0]
