"""A typed value as the field that it is for would have it."""

from collections.abc import Sequence
from dataclasses import Field
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from headscope.errors import HeadscopeError

# A union with a Literal in it is of the older kind.
_UNIONS = (get_origin(Literal["a"] | list[int]), UnionType)


def fitting(field: Field[Any], value: Any, text: str, whose: str) -> Any:
    """A value in the type of a dataclass field, as far as that is plain.

    What is one number or name alone becomes a list where a list is wanted; spans and what a method
    completes itself are left to the method.

    Args:
        value: what the text reads as by itself.
        text: as it was typed.

    Raises:
        HeadscopeError: the field takes a truth, a number or several, and this is none.
    """
    kinds = _kinds(field.type)
    plain = {kind for kind in kinds if kind in (bool, int, float, str)}
    other = kinds - plain - {NoneType}
    if value is None and NoneType in kinds:
        return None
    if not other:
        return _one(plain, value, text, f"{whose} needs {field.name} to be")
    several = next((kind for kind in other if get_origin(kind) is Sequence), None)
    named = isinstance(value, str) and any(get_origin(kind) is Literal for kind in other)
    if several is None or named:
        return value
    wanted = _kinds(get_args(several)[0])
    numbers = wanted <= {int, float}
    if isinstance(value, tuple) and not numbers:  # a range, or a head by its numbers
        return value if any(get_origin(kind) is tuple for kind in other) else [value]
    if str in plain:
        return value
    if text == "":
        return []
    each = list(value) if isinstance(value, list | tuple) else [value]
    if numbers:
        return [_one(wanted, x, text, f"{whose} needs each of {field.name} to be") for x in each]
    return each


def _kinds(hint: Any) -> set[Any]:
    return set(get_args(hint)) if get_origin(hint) in _UNIONS else {hint}


def _one(plain: set[Any], value: Any, text: str, what: str) -> Any:
    if type(value) in plain:
        return value
    if float in plain and type(value) is int:
        return float(value)
    if str in plain:
        return text
    if not plain:
        return value
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    wanted = names[float if float in plain else plain.copy().pop()]
    raise HeadscopeError(f"{what} {wanted}, not {text!r}.")
