"""Attention with a rule for each query head, as one function of tensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import Slots
from headscope.errors import HeadscopeError
from headscope.kernels import attending
from headscope.kernels.choice import Impl, runs, using
from headscope.kernels.resolving import check
from headscope.patterns.base import Pattern
from headscope.patterns.selection import Selection

if TYPE_CHECKING:
    from headscope.kernels.mixed import Dispatch, Ran
    from headscope.patterns.rules import Rule


@dataclass(frozen=True, eq=False)
class Output:
    """A finished attention.

    Attributes:
        z: per head, before W_O.
        lse: natural log of each row's sum of exponentials; -inf where a row sees nothing; None
            where it was not wanted.
        ran: how Triton computed it; None where the reference did.
    """

    z: Float[Tensor, "batch head query d"]
    lse: Float[Tensor, "batch head query"] | None
    ran: "Ran | None"


def sparse_attention(
    q: Float[Tensor, "batch head query d"],
    k: Float[Tensor, "batch kv_head key d"],
    v: Float[Tensor, "batch kv_head key d"],
    rules: Sequence["Rule | Selection"],
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
    lengths: Sequence[int] | None = None,
    impl: Impl = "auto",
    dispatch: "Dispatch" = "auto",
    with_lse: bool = True,
) -> Output:
    """softmax(softcap(scale * q k^T) over the keys that each head's rule lets a query see) v.

    Queries are the last ones of the keys: query i stands at position key - query + i, so that a
    chunk of a prompt is attended to with all keys before it.

    Args:
        q, k, v: bfloat16 or float16, heads 64, 96, 128 or 256 wide, for Triton; the reference takes
            any.
        rules: of each query head; a `Selection` was made for all heads of these tensors.
        scale: of the logits; 1 / sqrt(d) if left out.
        softcap: logits become softcap * tanh(logits / softcap).
        window: tokens that the layer lets any query see, whatever its rule says.
        lengths: several texts stand one after the other on the axis of tokens of a single row, as
            many queries as keys; rules by position only.
        impl: "triton" refuses where Triton cannot run, "auto" says once that it cannot.
        dispatch: where heads that see everything are computed; see `Ran`.
        with_lse: give the log-sum-exp too, which takes dense kernels 1 to 3 % longer.

    Raises:
        HeadscopeError: shapes do not fit, or Triton was asked for and cannot run.
    """
    _check(q, k, v, rules)
    _check_numbers(softcap, window, dispatch)
    scale = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    with using(impl):
        if lengths is not None:
            return _packed(q, k, v, rules, scale, softcap, window, lengths, dispatch, with_lse)
        attention = _attention(q, k, v, scale, softcap, window)
        for rule in rules:
            if isinstance(rule, Selection):
                check(rule, attention, attention.n_heads)
        return _attended(attention, rules, dispatch, with_lse)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None, window: int | None
) -> Attention:
    first, keys = k.shape[2] - q.shape[2], k.shape[2]
    return Attention(
        layer=0,
        q=q,
        k=k,
        v=v,
        scale=scale,
        softcap=softcap,
        window=window,
        query_positions=torch.arange(first, keys, device=q.device).expand(len(q), -1),
        key_positions=torch.arange(keys, device=q.device).expand(len(q), -1),
        slots=Slots(first, 0, padded=False),
    )


def _attended(
    attention: Attention,
    rules: Sequence["Rule | Selection"],
    dispatch: "Dispatch",
    with_lse: bool,
) -> Output:
    if attending.takes(attention, None):
        ready = attending.ready(attention, rules, dispatch)
        if ready is not None:
            return Output(*ready.run(attention, with_lse))
        runs(attending.GAPS, attending.WHAT)
    from headscope.sparsity.engine import attend_by_reference

    done = attend_by_reference(attention, rules)
    return Output(done.z, done.lse if with_lse else None, None)


def _packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rules: Sequence["Rule | Selection"],
    scale: float,
    softcap: float | None,
    window: int | None,
    lengths: Sequence[int],
    dispatch: "Dispatch",
    with_lse: bool,
) -> Output:
    """Texts one after the other: of each its own attention, in one launch where Triton runs."""
    tokens, least = sum(lengths), min(lengths, default=0)
    if len(q) != 1 or q.shape[2] != tokens or k.shape[2] != tokens or least < 1:
        raise HeadscopeError(
            f"Texts of {list(lengths)} tokens stand in one row of {tokens}, each of a token at "
            f"least; q is {tuple(q.shape)} and k {tuple(k.shape)}."
        )
    patterns = [rule for rule in rules if isinstance(rule, Pattern)]
    if len(patterns) < len(rules):
        raise HeadscopeError(
            "Rules of texts that stand in one row go by position; call once for each text to "
            "choose keys by content."
        )
    starts = list(accumulate(lengths, initial=0))

    def text(a: int, b: int) -> Attention:
        return _attention(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b], scale, softcap, window)

    if attending.takes(text(0, lengths[0]), None):
        found = attending.attend_packed(
            (q, k, v), patterns, starts, scale, softcap, window, dispatch, with_lse
        )
        return Output(*found)
    each = [_attended(text(a, b), rules, dispatch, with_lse) for a, b in pairwise(starts)]
    lse = [one.lse for one in each if one.lse is not None]
    return Output(torch.cat([one.z for one in each], 2), torch.cat(lse, 2) if lse else None, None)


def _check(q: Tensor, k: Tensor, v: Tensor, rules: Sequence["Rule | Selection"]) -> None:
    """Refuse shapes that do not fit one another."""
    shapes = f"q is {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)}"
    if any(x.ndim != 4 for x in (q, k, v)) or k.shape[:3] != v.shape[:3]:
        raise HeadscopeError(f"q, k and v are [batch, head, token, d]; {shapes}.")
    if 0 in (q.shape[1], k.shape[1]):
        raise HeadscopeError(f"There is a query head and a KV head at least; {shapes}.")
    if len(q) != len(k) or q.shape[1] % k.shape[1] or q.shape[3] != k.shape[3]:
        raise HeadscopeError(
            f"q and k share the batch and the width of a head, and KV heads divide the query "
            f"heads; {shapes}."
        )
    if q.shape[2] > k.shape[2]:
        raise HeadscopeError(f"Queries are the last ones of the keys, and no more; {shapes}.")
    if len(rules) != q.shape[1]:
        raise HeadscopeError(f"Give each of {q.shape[1]} query heads a rule, not {len(rules)}.")


def _check_numbers(softcap: float | None, window: int | None, dispatch: str) -> None:
    if softcap is not None and not softcap > 0:
        raise HeadscopeError(f"A soft-cap is above 0, or None for none, and not {softcap!r}.")
    if window is not None and window < 1:
        raise HeadscopeError(
            f"A layer's window has a token at least, the query's own, not {window}."
        )
    if dispatch not in ("auto", "hybrid", "single"):
        raise HeadscopeError(f"dispatch is auto, hybrid or single, not {dispatch!r}.")
