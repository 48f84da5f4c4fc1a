"""Interventions as text: from the command line, and back for a result that says what was done."""

import dataclasses
import json
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from pydantic import BaseModel
from torch import Tensor

from headscope.catalog import interventions
from headscope.errors import HeadscopeError
from headscope.evals.typed_fields import fitting
from headscope.interventions.base import Intervention
from headscope.model import HeadModel
from headscope.registry import find

_HOW = "write it as ablate:heads=L18H6+L18H7,mode=zero,part=answer or pasta:span=needle"
# How two whole numbers read: a range of tokens, where a field is not one of heads.
_PAIRS = {"heads": "L{}H{}", "streaming": "L{}KV{}"}
_WORDS = {"True": True, "False": False, "None": None}  # as Python writes them


def described(method: Intervention) -> str:
    """A recipe as it would be typed, tensors and the like by their kind."""
    given = {
        f.name: _text(getattr(method, f.name), _PAIRS.get(f.name, "{}:{}"))
        for f in sorted(dataclasses.fields(method), key=lambda f: bool(f.kw_only))
        if getattr(method, f.name) is not None or not (_required(f) or f.default is None)
    }
    return f"{method.name}:" + ",".join(f"{name}={value}" for name, value in given.items())


def parsed(text: str, model: HeadModel, seed: int = 0) -> list[Intervention]:
    """The interventions that a text names, those joined by & in force together.

    Args:
        text: NAME:FIELD=VALUE,FIELD=VALUE; lists joined by +, ranges of tokens as START:STOP.
        seed: of what a method has to measure beforehand.

    Raises:
        HeadscopeError: no such method or field, or a value that it does not take.
    """
    return [_one(part.strip(), model, seed) for part in text.split("&")]


def _one(text: str, model: HeadModel, seed: int) -> Intervention:
    name, _, rest = text.partition(":")
    kind = find(interventions(), name.strip(), "intervention")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    known = list(fields)
    options: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in rest.split(","))):
        field, equals, value = pair.partition("=")
        if not equals or field.strip() not in known:
            raise HeadscopeError(
                f"{pair!r} sets nothing that {name} has ({', '.join(known)}); {_HOW}."
            )
        field, value = field.strip(), value.strip()
        options[field] = fitting(fields[field], _value(value), value, kind.name)
    try:
        method = kind(**kind.completed(options, model, seed))
    except TypeError as error:
        lacking = [
            f.name for f in dataclasses.fields(kind) if _required(f) and f.name not in options
        ]
        what = f"lacks {', '.join(lacking)}" if lacking else str(error)
        raise HeadscopeError(f"The intervention {text!r} {what}; {_HOW}.") from error
    method.check(model)
    return method


def _required(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(text: str) -> Any:
    if "+" in text:
        return [_value(part) for part in text.split("+") if part]
    if re.fullmatch(r"\d+:\d+", text):
        start, stop = text.split(":")
        return int(start), int(stop)
    if text in _WORDS:
        return _WORDS[text]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _text(value: Any, pair: str) -> str:
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(x, int) for x in value):
        return pair.format(*value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "+".join(_text(each, pair) for each in value)
    if isinstance(value, str) and value != value.strip():
        return json.dumps(value)
    if isinstance(value, str | int | float | bool | None):
        return str(value)
    return f"{type(value).__name__.lower()}#{_digest(value)}"


def _digest(value: Any) -> str:
    """Eight digits that tell two measured or trained things of a kind apart."""
    found = sha256()

    def take(part: Any) -> None:
        if isinstance(part, Tensor):
            found.update(part.detach().double().cpu().contiguous().numpy().tobytes())
        elif isinstance(part, np.ndarray):
            found.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, BaseModel):
            found.update(part.model_dump_json().encode())
        elif dataclasses.is_dataclass(part):
            for field in dataclasses.fields(part):
                take(getattr(part, field.name))
        elif isinstance(part, list | tuple):
            for each in part:
                take(each)
        elif isinstance(part, str | int | float | bool | None):
            found.update(repr(part).encode())
        else:  # a function, say, whose name is all that stays the same
            found.update(getattr(part, "__qualname__", type(part).__name__).encode())

    take(value)
    return found.hexdigest()[:8]
