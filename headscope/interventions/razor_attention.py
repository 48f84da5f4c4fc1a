from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.engines import Attended, attend_apart
from headscope.errors import HeadscopeError
from headscope.heads import Head, check_heads, parse_heads
from headscope.interventions.base import Phase
from headscope.interventions.caching import _Cache
from headscope.interventions.checks import check_sizes
from headscope.interventions.kv_heads import kv_heads_of
from headscope.interventions.sinks_and_window import all_layers
from headscope.patterns.base import Pattern
from headscope.stack import Attend

if TYPE_CHECKING:
    from headscope.model import HeadModel

_ROWS = 128  # rows whose dropped keys are averaged at a time


@dataclass(frozen=True)
class _Dropped(Pattern):
    """Keys that a row has given up: neither first tokens nor among its last ones."""

    sink: int
    recent: int
    divisor: int

    def mask(self, query: Int[Tensor, "..."], key: Int[Tensor, "..."]) -> Tensor:
        # The window grows by less than one key a row, so that no key comes back.
        length = ((query + 1) // self.divisor).clamp(min=self.recent)
        return (key >= self.sink) & (query - key >= length)


@dataclass(frozen=True)
class RazorAttention(_Cache):
    """Behind the prompt, KV heads without a retrieval head see sinks, a window and one mean token.

    The prompt is read in full. From row i >= its length on, the other KV heads keep key j if
    j < sink or i - j < L, L = max(recent, floor((i + 1) / divisor)). The N_d keys that are dropped
    become one, k^ = their mean, v^ = the mean of their values (keys after RoPE), with log N_d
    added to its logit: z = (N_d exp(s q·k^) v^ + sum_kept exp(s q·k_j) v_j) / (the same without
    values). A key that leaves the window later joins the mean. What other methods add to the
    logits of single keys does not reach the mean token.

    Source: Tang et al. 2024, "RazorAttention: Efficient KV Cache Compression Through Retrieval
    Heads", arXiv 2407.15891, section 3.2 and Algorithm 1 (read second-hand: 4 000 and 5 are their
    sizes as reported; there is no released code). Headscope's own: L counts the tokens read so
    far where the paper takes the prompt's; a KV head stays whole if one of its query heads
    retrieves.

    Attributes:
        heads: retrieval heads, which are query heads; every KV head that one of them reads keeps
            all. All heads of a model make a no-op.
        sink: first tokens that the others keep.
        recent: tokens of their window at least, the query's own among them.
        divisor: of the tokens read so far, the window holds one in so many; 2 or more.
        compensate: whether there is a mean token; without it what is dropped is lost.
    """

    paper = "Tang et al. 2024, arXiv 2407.15891"
    phase: ClassVar[Phase] = "decode"
    causal: ClassVar[bool] = True
    heads: Sequence[Head | str]
    sink: int = 4
    recent: int = 4000
    divisor: int = 5
    compensate: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", parse_heads(self.heads))
        check_sizes("RazorAttention", sink=(self.sink, 0), recent=(self.recent, 1))
        if not isinstance(self.divisor, int) or self.divisor < 2:
            raise HeadscopeError(
                f"RazorAttention needs a whole divisor of 2 or more, not {self.divisor!r}: its "
                "window must not grow as fast as the text."
            )

    def check(self, model: "HeadModel") -> None:
        check_heads(parse_heads(self.heads), model.layers, model.n_heads, model.name)

    @property
    def reads_prompt_alike(self) -> bool:
        return True

    def attend(self, attention: Attention, attend: Attend) -> Attended:
        assert attention.run is not None
        rows = attention.run.rows_in("decode", attention.query_positions)
        whole = kv_heads_of(parse_heads(self.heads), attention.group)
        small = [k for k in range(attention.n_kv_heads) if (attention.layer, k) not in whole]
        pattern = _Dropped(self.sink, self.recent, self.divisor)
        some = rows.any(0).nonzero()[:, 0]
        if not small or len(some) == 0:
            return attend(attention)
        heads = [k * attention.group + g for k in small for g in range(attention.group)]
        amount = torch.where(rows, -torch.inf, 0.0)[:, None]
        kept = attention.with_bias(pattern, amount, heads)
        if not self.compensate:
            return attend(kept)
        mean = self._mean(attention, pattern, some, rows, small)
        return attend(kept) if mean is None else attend_apart(attend, attention, kept, mean)

    @staticmethod
    def _mean(
        attention: Attention,
        pattern: Pattern,
        some: Int[Tensor, " row"],
        rows: Bool[Tensor, "batch query"],
        small: list[int],
    ) -> Attention | None:
        """An attention over one mean token for each row, which that row alone sees."""
        counts, keys, values = [], [], []
        by_kv = attention.keys_by_head()[:, :: attention.group]
        every = torch.arange(attention.n_keys, device=some.device)
        for part in some.split(_ROWS):
            at = attention.query_positions[:, None, part, None]
            gone = pattern.mask(at, by_kv[:, :, None]) & rows[:, None, part, None]
            gone = gone & attention.visible_at(part[:, None], every[None])[:, :: attention.group]
            gone = gone.expand(-1, attention.n_kv_heads, -1, -1)
            counts.append(gone.sum(-1))
            for sums, x in ((keys, attention.k), (values, attention.v)):
                wide = torch.promote_types(x.dtype, torch.float32)
                sums.append(gone.to(wide) @ x.to(wide))
        number = torch.cat(counts, 2)  # [batch, kv_head, row]
        lacking = torch.ones(attention.n_kv_heads, dtype=torch.bool, device=some.device)
        lacking[small] = False
        number = number.masked_fill(lacking[:, None], 0)
        if not bool(number.any()):
            return None
        over = number.clamp(min=1)[..., None]
        k, v = (
            (torch.cat(sums, 2) / over).to(x)
            for sums, x in ((keys, attention.k), (values, attention.v))
        )
        return _one_each(attention, some, k, v, number)

    def kept_keys(
        self, model: "HeadModel", tokens: int, new: int = 1
    ) -> Int[Tensor, "layer kv_head"]:
        total = tokens + new
        small = min(total, self.sink + max(self.recent, total // self.divisor))
        kept = all_layers(model, small + int(self.compensate and small < total))
        for layer, kv in kv_heads_of(parse_heads(self.heads), model.n_heads // model.n_kv_heads):
            kept[model.layers.index(layer), kv] = total
        return kept


def _one_each(
    attention: Attention,
    some: Int[Tensor, " row"],
    k: Float[Tensor, "batch kv_head row d"],
    v: Float[Tensor, "batch kv_head row dv"],
    number: Int[Tensor, "batch kv_head row"],
) -> Attention:
    seen = some == torch.arange(attention.n_queries, device=some.device)[:, None]
    held = (number > 0).repeat_interleave(attention.group, 1)
    weight = number.clamp(min=1).double().log().to(attention.q.dtype)
    amount = torch.zeros_like(attention.q[..., 0])
    amount[:, :, some] = weight.repeat_interleave(attention.group, 1)
    single = replace(
        attention,
        k=k,
        v=v,
        key_positions=attention.query_positions[:, some],
        window=None,
        chunk=None,
        mask=seen[None, None] & held[:, :, None],
        slots=None,
        cache=None,
        edits=(),
        known_lse=None,
    )
    return single.with_bias(slice(None), amount)
