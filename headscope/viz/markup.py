"""Markup that cannot be written unescaped: text becomes markup only by passing through here."""

import re
from html import escape

Value = str | int | float | None

# Neither XML nor UTF-8 can hold these; a path on disk can.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_VOID = {"br", "circle", "line", "link", "meta", "path", "polyline", "rect"}


class Markup(str):
    """A string that is markup already."""

    __slots__ = ()


def text(value: str) -> Markup:
    """Any string as text that is safe inside an element or a quoted attribute."""
    return Markup(escape(_UNWRITABLE.sub("\ufffd", value)))


def number(value: int | float) -> str:
    """A length or coordinate, to a hundredth, as short as it can be written."""
    short = f"{value:.2f}"
    return short.rstrip("0").rstrip(".") if "." in short else short


def join(*children: str) -> Markup:
    """Children one after the other; those that are not markup are escaped."""
    return Markup("".join(c if isinstance(c, Markup) else text(c) for c in children))


def el(tag: str, /, *children: str, **attributes: Value) -> Markup:
    """An element of HTML or SVG.

    Args:
        children: markup, or strings that are escaped.
        attributes: `class_` is written class, `data_low` data-low; None leaves one out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID and not children:
        return Markup(f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{join(*children)}</{tag}>")


def _value(value: str | int | float) -> str:
    return text(value) if isinstance(value, str) else number(value)
