"""Marked parts of a prompt, by name or by position, and the keys and rows inside them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.interventions.base import Intervention
from headscope.prompts.base import Prompt, Range

# The name of a prompt's span, a half-open range of positions, or several ranges.
Span = str | Range | Sequence[Range]
_Method = TypeVar("_Method", bound=Intervention)


def checked_span(span: Any, whose: str) -> str | tuple[Range, ...]:
    """A span as a name or as ranges of positions; none of them empty.

    Raises:
        HeadscopeError: it is neither, or holds nothing.
    """
    if isinstance(span, str) and span:
        return span
    try:
        ranges = [span] if isinstance(span[0], int) else list(span)
        found = tuple((int(start), int(stop)) for start, stop in ranges)
    except (TypeError, ValueError, LookupError) as error:
        raise HeadscopeError(
            f"{whose} needs a span: the name of one, or (start, stop) in tokens, not {span!r}."
        ) from error
    for start, stop in found:
        if not 0 <= start < stop:
            raise HeadscopeError(
                f"The span ({start}, {stop}) of {whose} holds no token; give (start, stop) with "
                "0 <= start < stop, in tokens of the prompt."
            )
    return found


def named(method: _Method, prompt: Prompt, *fields: str) -> _Method:
    """A method with its named spans turned into the ranges of one prompt.

    A name also stands for the spans name_0, name_1, ... where there is none of just that name.

    Raises:
        HeadscopeError: the prompt has no such span.
    """
    changes: dict[str, Any] = {}
    for field in fields:
        span = getattr(method, field)
        if isinstance(span, str):
            several = () if span in prompt.spans else tuple(prompt.numbered(span))
            changes[field] = several or (prompt.span(span),)
    return replace(method, **changes) if changes else method


def keys_in(attention: Attention, span: Span, whose: str) -> Bool[Tensor, " batch #head key"]:
    """The keys whose positions lie in a span.

    Raises:
        HeadscopeError: the span is still a name, or reaches behind the prompt.
    """
    return _inside(attention.keys_by_head(), _ranges(attention, span, whose))


def rows_in(attention: Attention, span: Span, whose: str) -> Bool[Tensor, " batch 1 query"]:
    """The queries whose positions lie in a span; errors as `keys_in`."""
    return _inside(attention.query_positions[:, None], _ranges(attention, span, whose))


def _inside(positions: Int[Tensor, "*n"], ranges: tuple[Range, ...]) -> Bool[Tensor, "*n"]:
    found = torch.zeros_like(positions, dtype=torch.bool)
    for start, stop in ranges:
        found |= (positions >= start) & (positions < stop)
    return found


def _ranges(attention: Attention, span: Span, whose: str) -> tuple[Range, ...]:
    span = checked_span(span, whose)
    if isinstance(span, str):
        raise HeadscopeError(
            f"{whose} marks the span {span!r} by name: take method, prompt = "
            "method.prepared(model, prompt) first, or give (start, stop) in tokens."
        )
    run = attention.run
    known = None if run is None else run.prompt_length
    if known is None and run is not None and run.step == 0:
        known = attention.query_positions.amax(-1) + 1
    last = max(stop for _, stop in span)
    if known is not None and last > int(known.min()):
        raise HeadscopeError(
            f"The span of {whose} ends at token {last}, and the prompt has {int(known.min())}; "
            "give a span inside the prompt."
        )
    return span


def last_of(span: Span) -> int:
    """The position behind the last token of a span of ranges."""
    ranges = checked_span(span, "A span")
    assert not isinstance(ranges, str)  # keys_in has refused it
    return max(stop for _, stop in ranges)
