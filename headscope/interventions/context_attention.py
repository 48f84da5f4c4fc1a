"""How some rows share their attention among the distinct tokens of a context."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.errors import HeadscopeError
from headscope.interventions.spans import Span, checked_span
from headscope.prompts.base import Prompt, Range

_NAMES = ("context", "doc", "pair")


def context_of(prompt: Prompt, span: Span | None, whose: str) -> tuple[Range, ...]:
    """Where the context of a prompt stands.

    Args:
        span: the name of a span or of numbered ones, or ranges. If left out: "context", else
            doc_0, doc_1, ..., else pair_0, pair_1, ..., else all that the user says before the
            span "question", without a prompt's first token where no user is marked.

    Raises:
        HeadscopeError: the prompt has no such span.
    """
    if span is not None and not isinstance(span, str):
        found = checked_span(span, whose)
        assert not isinstance(found, str)
        return found
    for name in _NAMES if span is None else (span,):
        if name in prompt.spans:
            return (prompt.spans[name],)
        if several := tuple(prompt.numbered(name)):
            return several
    if span is not None:
        return (prompt.span(span),)  # which says what there is
    first, stop = prompt.spans.get("user", (1, 0))[0], prompt.spans.get("question", (0, 0))[0]
    if first >= stop:
        raise HeadscopeError(
            f"{whose} needs to know where the context stands, and this prompt marks none: pass "
            "context=, the name of a span or (start, stop) in tokens."
        )
    return ((first, stop),)


def positions_in(ranges: Sequence[Range]) -> list[int]:
    """Every position of some ranges once, in order."""
    return sorted({i for start, stop in ranges for i in range(start, stop)})


def on_context(
    attention: Attention, heads: Sequence[int], rows: Int[Tensor, " row"], positions: Sequence[int]
) -> Float[Tensor, "batch head row position"]:
    """Attention of some rows on the tokens at some positions; 0 where a key is not held."""
    count, last = len(positions), positions[-1]
    place = torch.full((last + 2,), count, device=attention.q.device)  # the last one: elsewhere
    place[list(positions)] = torch.arange(count, device=place.device)
    keys = attention.keys_by_head()
    index = place[torch.where((keys < 0) | (keys > last), last + 1, keys)]
    found = list[Tensor]()
    for head in heads:
        pattern = attention.head(head).rows(rows)
        of = index[:, min(head, index.shape[1] - 1), None].expand(*pattern.shape[:1], len(rows), -1)
        on = pattern.new_zeros(len(pattern), len(rows), count + 1)
        found.append(on.scatter_add(2, of, pattern[:, 0])[..., :count])
    return torch.stack(found, 1)


def token_ratios(
    on: Float[Tensor, "head row position"], tokens: Int[Tensor, " position"]
) -> tuple[Int[Tensor, " distinct"], Float[Tensor, "head row distinct"]]:
    """The distinct tokens of a context, and the share of each in a row's attention on it.

    A token that stands in several places has the mean of what these get; shares sum to 1, or are
    all 0 where a row gives the context nothing.
    """
    ids, inverse, counts = tokens.unique(return_inverse=True, return_counts=True)
    mean = on.new_zeros(*on.shape[:2], len(ids)).index_add(2, inverse, on) / counts
    total = mean.sum(-1, keepdim=True)
    return ids, mean / total.clamp(min=torch.finfo(mean.dtype).tiny)
