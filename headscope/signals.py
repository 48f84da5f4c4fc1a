"""Signals between heads: who wrote what later heads match their queries and keys by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from headscope.errors import HeadscopeError
from headscope.heads import label
from headscope.model import HeadModel, check_opened
from headscope.prompts.base import Prompt
from headscope.signal_tracing import Tracer, check_settings, need_signals

if TYPE_CHECKING:
    from headscope.viz.chart import Chart

SIDES = ("query", "key")


@dataclass(frozen=True, eq=False)
class Signals:
    """What heads wrote into the signals of later heads, summed over firings and prompts.

    Attributes:
        model: its name.
        layers: indices of its attention layers, in the order of the arrays.
        prompts: how many were traced.
        share, attention: what a signal and a firing are; see `trace_signals`.
        given: logits that each head (first pair) gave to the signals of each later head (second
            pair), on the query and on the key side.
        signal: logits of each head's signals.
        terms: terms of each head's signals.
        firings: how often each head fired.
    """

    model: str
    layers: tuple[int, ...]
    prompts: int
    share: float
    attention: float
    given: Float[np.ndarray, "side layer head layer head"]
    signal: Float[np.ndarray, "layer head"]
    terms: Float[np.ndarray, "layer head"]
    firings: Float[np.ndarray, "layer head"]

    def to_pandas(self) -> pd.DataFrame:
        """All edges into heads that fire, those that give most logits first.

        Returns:
            sender, receiver, side ("query" or "key"); logits, given over all firings of the
            receiver; share, of the logits of its signals (what all that was written gave is 1 on
            each side); firings, of the receiver.
        """
        sides, layers, heads, *_ = self.given.shape
        places = np.indices((sides, layers, heads, layers, heads)).reshape(5, -1)
        side, sender, sent_by, receiver, read_by = places
        edge = (sender < receiver) & (self.firings[receiver, read_by] > 0)
        side, sender, sent_by, receiver, read_by = places[:, edge]
        logits = self.given[side, sender, sent_by, receiver, read_by]
        table = {
            "sender": self._labels(sender, sent_by),
            "receiver": self._labels(receiver, read_by),
            "side": [SIDES[i] for i in side],
            "logits": logits,
            "share": logits / self.signal[receiver, read_by],
            "firings": self.firings[receiver, read_by].astype(int),
        }
        return pd.DataFrame(table).sort_values("logits", ascending=False, ignore_index=True)

    def heads(self) -> pd.DataFrame:
        """All heads that fire, layer by layer.

        Returns:
            head, firings; terms and logits, of a signal on average; from_heads, the share of the
            signals that earlier heads wrote, on average of both sides. The rest came from
            embeddings, MLPs and biases.
        """
        layer, head = (self.firings > 0).nonzero()
        firings, signal = self.firings[layer, head], self.signal[layer, head]
        given = self.given.sum((0, 1, 2))[layer, head]
        table = {
            "head": self._labels(layer, head),
            "firings": firings.astype(int),
            "terms": self.terms[layer, head] / firings,
            "logits": signal / firings,
            "from_heads": given / (2 * signal),
        }
        return pd.DataFrame(table)

    def _labels(self, layers: np.ndarray, heads: np.ndarray) -> list[str]:
        return [label((self.layers[i], h)) for i, h in zip(layers, heads.tolist(), strict=True)]

    def chart(self) -> "Chart":
        """The share of every head's signals that earlier heads wrote.

        `.svg()` and `.save(path)` are static, `.interactive()` is a plotly figure.

        Raises:
            HeadscopeError: no head fired.
        """
        from headscope.viz.figures import signals

        return signals(self)

    def _repr_html_(self) -> str:
        """The picture with its numbers, for notebooks."""
        from headscope.viz.notebook_results import signals_repr

        return signals_repr(self)


def trace_signals(
    model: HeadModel,
    prompts: Sequence[Prompt | Sequence[int]],
    *,
    share: float = 0.7,
    attention: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> Signals:
    """Trace what later heads match by to the heads that wrote it: one forward pass per prompt.

    A head fires where it attends to a key behind the first with more than `attention`, and its
    logit is positive. The logit is a sum of terms by the SVD of the head's QK map; the fewest that
    reach `share` of it are the signal. What a head of an earlier layer wrote at the query, and at
    the key, gives an exact part of the signal's logits, the norm's scale taken as it was, as do
    embeddings, MLPs and biases: on each side these parts are all of it.

    Args:
        prompts: prompts, or lists of token ids.
        share: more than 0 and at most 1.
        attention: 0.5 or more and below 1.
        progress: called with (prompts done, prompts in all).

    Raises:
        HeadscopeError: there are no prompts, a setting is out of range, or the model has rotary
            positions, qk-norm, gated outputs, or other norms than one before each layer.

    Source: Franco & Crovella 2024, arXiv 2410.00340; see `QkSignals`.
    """
    check_opened(model)
    check_settings("trace_signals()", share, attention)
    ids = [list(p.token_ids) if isinstance(p, Prompt) else list(p) for p in prompts]
    if not ids:
        raise HeadscopeError("trace_signals() needs at least one prompt.")
    tracer = Tracer(model, need_signals("trace_signals()", model), share, attention)
    sums: list[np.ndarray] = []
    for index, each in enumerate(ids):
        if progress is not None:
            progress(index, len(ids))
        traced = tracer.trace(each)
        found = (traced.given, traced.signal, traced.terms, traced.firings)
        arrays = [array.double().cpu().numpy() for array in found]
        sums = [a + b for a, b in zip(sums, arrays, strict=True)] if sums else arrays
    if progress is not None:
        progress(len(ids), len(ids))
    return Signals(model.name, tuple(model.layers), len(ids), share, attention, *sums)
