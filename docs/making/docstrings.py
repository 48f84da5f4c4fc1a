"""A method's docstring and fields as Markdown."""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ATTRIBUTES = "Attributes:"
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_SPECIAL = re.compile(r"[\\*_\[\]#]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "~": "&#126;"}


@dataclass(frozen=True)
class Docstring:
    """What a docstring of the house holds, in Markdown.

    Attributes:
        summary: its first paragraph, plain text.
        body: the paragraphs between the summary and the attributes.
        meanings: of each attribute, by name.
    """

    summary: str
    body: str
    meanings: Mapping[str, str]

    @classmethod
    def of(cls, kind: type[Any]) -> "Docstring":
        """Of a class; what is not said of a field is taken from its bases."""
        summary, paragraphs, meanings = _parts(kind)
        for base in kind.__mro__[1:]:
            if base.__module__.partition(".")[0] != "builtins" and "__doc__" in vars(base):
                meanings = _parts(base)[2] | meanings
        return cls(summary, "\n\n".join(map(_paragraph, paragraphs)), meanings)


def _parts(kind: type[Any]) -> tuple[str, list[str], dict[str, str]]:
    text = inspect.cleandoc(vars(kind).get("__doc__") or "")
    prose, _, attributes = text.partition(_ATTRIBUTES)
    first, *rest = [part for part in prose.strip("\n").split("\n\n") if part.strip()] or [""]
    return " ".join(first.split()), rest, _meanings(attributes)


def _meanings(section: str) -> dict[str, str]:
    """ "a, b: what they are" by name; a line that is indented further continues the one above."""
    found: dict[str, str] = {}
    entries: list[str] = []
    for line in inspect.cleandoc(section).splitlines():
        if line.startswith(" ") and entries:
            entries[-1] += " " + line.strip()
        elif line.strip():
            entries.append(line.strip())
    for entry in entries:
        names, _, meaning = entry.partition(":")
        found |= {name.strip(): meaning.strip() for name in names.split(",")}
    return found


def _paragraph(text: str) -> str:
    if all(line.startswith("    ") for line in text.splitlines()):
        return f"```text\n{inspect.cleandoc(text)}\n```"
    if text.lstrip().startswith("- "):
        items = re.split(r"(?m)^\s*- ", text)[1:]
        return "\n".join(f"- {markdown(item)}" for item in items)
    return markdown(text)


def markdown(text: str) -> str:
    """Plain prose as one line of Markdown: `code` stays, papers become links."""
    pieces = re.split(r"(`[^`]+`)", " ".join(text.split()))
    prose = [piece if i % 2 else _linked(piece) for i, piece in enumerate(pieces)]
    return "".join(prose)


def _linked(text: str) -> str:
    # Markdown knows no backslash before these.
    escaped = "".join(_ENTITIES.get(c, c) for c in _SPECIAL.sub(r"\\\g<0>", text))
    return _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", escaped)


def parameters(kind: type[Any], meanings: Mapping[str, str], without: str = "") -> str:
    """A table of a dataclass's fields; nothing where there are none."""
    fields = [field for field in dataclasses.fields(kind) if field.name != without]
    if not fields:
        return ""
    rows = ["| parameter | type | default | meaning |", "|---|---|---|---|"]
    for field in sorted(fields, key=lambda field: bool(field.kw_only)):
        meaning = markdown(meanings.get(field.name, ""))
        rows.append(f"| `{field.name}` | `{_type(field.type)}` | {_default(field)} | {meaning} |")
    return "\n".join(rows)


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if isinstance(annotation, type) and getattr(annotation, "__args__", ()):
        text = str(annotation)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=\w)", "", text)


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    return "required"
