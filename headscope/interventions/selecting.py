"""What methods share that keep every key and let an answer's rows read only some of them."""

from abc import abstractmethod
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention import Attention
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.interventions.base import Phase
from headscope.interventions.caching import _Cache
from headscope.interventions.sinks_and_window import all_layers
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel


@dataclass(frozen=True)
class _Selecting(_Cache):
    """A method that reads few keys in each step of an answer; the prompt is read in full.

    A subclass says in `_readable` which keys one row reads. Rows of the answer are those behind
    the prompt; where nobody said how long that is, passes over a single token. Several of them in
    one pass (a draft, an answer that is given) read what each would read in a step of its own, in
    time that grows with their number squared.
    """

    phase: ClassVar[Phase] = "decode"
    causal: ClassVar[bool] = True
    stateful: ClassVar[bool] = True
    read_exact: ClassVar[bool] = True  # whether `read_keys` is a count and not an upper bound

    @property
    def reads_prompt_alike(self) -> bool:
        return True

    @abstractmethod
    def _readable(
        self, attention: Attention, row: int, acts: Bool[Tensor, " batch"], kept: dict[Any, Any]
    ) -> Bool[Tensor, " batch #head key"] | None:
        """The keys that one row may read; None for all of them.

        Args:
            row: index of the query.
            acts: in which sequences the row is one of an answer.
            kept: what the method knows of these sequences, by layer.
        """

    def _visited(self, attention: Attention) -> Bool[Tensor, "batch query"]:
        """Rows that the method looks at, those that it acts on among them."""
        return self._acting(attention)

    @staticmethod
    def _acting(attention: Attention) -> Bool[Tensor, "batch query"]:
        assert attention.run is not None
        return attention.run.rows_in("decode", attention.query_positions)

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        assert attention.run is not None
        acting, changed = self._acting(attention), attention
        kept = attention.run.state.setdefault(self, {})
        for row in self._visited(attention).any(0).nonzero()[:, 0].tolist():
            read = self._readable(attention, row, acting[:, row], kept)
            if read is not None:
                changed = _reading(changed, row, acting[:, row], read)
        return attend(changed)

    def kept_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        return all_layers(model, tokens + new)


def _reading(
    attention: Attention,
    row: int,
    acts: Bool[Tensor, " batch"],
    read: Bool[Tensor, " batch #head key"],
) -> Attention:
    """The attention with one row confined to some keys; itself where nothing is lost."""
    gone = ~read & (attention.keys_by_head() >= 0) & acts[:, None, None]
    if not bool(gone.any()):
        return attention
    amount = torch.zeros(len(acts), 1, attention.n_queries, device=gone.device)
    amount[:, 0, row] = torch.where(acts, -torch.inf, 0.0)
    return attention.with_bias(gone, amount)


def row_logits(attention: Attention, row: int) -> Float[Tensor, "batch head key"]:
    """The logits of one row over all keys, -inf where it sees none.

    Weights would rank the same, but for keys so unlikely that they all round to zero.
    """
    (part,) = attention.tiles([row])
    ends = (part.keys.start, attention.n_keys - part.keys.stop)
    return pad(part.logits[:, :, 0], ends, value=-torch.inf)


def ranks(scores: Float[Tensor, "*n key"]) -> Int[Tensor, "*n key"]:
    """0 for the largest score, and so on; of equals the earlier key comes first."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def top_keys(scores: Float[Tensor, "*n key"], k: int) -> Bool[Tensor, "*n key"]:
    """The k keys of largest score, fewer where fewer have one above -inf."""
    return (ranks(scores) < k) & (scores > -torch.inf)


def edge_keys(
    attention: Attention, row: int, sink: int, recent: int
) -> Bool[Tensor, " batch #head key"]:
    """The first `sink` keys and the last `recent` ones before a row, its own among them."""
    key, query = attention.keys_by_head(), attention.query_positions[:, row, None, None]
    return (key >= 0) & (key <= query) & ((key < sink) | (key > query - recent))


def check_similarity(whose: str, similarity: float | None) -> None:
    """Refuse what is no cosine."""
    if similarity is not None and not (isfinite(similarity) and -1 <= similarity <= 1):
        raise HeadscopeError(
            f"{whose} compares a cosine with its similarity: give -1 to 1, not {similarity}."
        )
