"""One page for each registered method, from its docstring and its fields."""

from making.docstrings import Docstring, markdown, parameters
from making.kinds import KINDS, Facts, Kind


def page(kind: Kind, name: str) -> str:
    """The Markdown of one method."""
    method = kind.registry()[name]
    said = Docstring.of(method)
    table = parameters(method, said.meanings, kind.without)
    parts = [
        f"# {name}\n\n**{markdown(said.summary)}**",
        _table(kind.facts(method)),
        said.body,
        f"## Parameters\n\n{table}" if table else "",
        kind.more(method),
        f"## Run it\n\n{kind.run(method)}",
        f"One file has all of it: `{method.__module__.replace('.', '/')}.py`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def index(kind: Kind) -> str:
    """The list of a kind's methods, with the first sentence of each."""
    rows = [
        f"| [`{name}`]({name}.md) | {markdown(Docstring.of(method).summary)} |"
        for name, method in kind.registry().items()
    ]
    head = f"# {kind.title}\n\n{kind.lead}\n\n| | what it is |\n|---|---|\n"
    return head + "\n".join(rows) + "\n"


def pages() -> dict[str, str]:
    """Every page by its path, the index of each kind first."""
    found = {}
    for kind in KINDS:
        found[f"methods/{kind.folder}/index.md"] = index(kind)
        for name in kind.registry():
            found[f"methods/{kind.folder}/{name}.md"] = page(kind, name)
    return found


def _table(facts: Facts) -> str:
    rows = [f"| {name} | {value} |" for name, value in facts.items() if value]
    return "\n".join(["| | |", "|---|---|", *rows])
