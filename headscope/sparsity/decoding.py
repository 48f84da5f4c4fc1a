"""A decode step in one launch: what a layer holds and what its heads may see, for the kernel."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from headscope.attention import Attention
from headscope.edits import restrictions
from headscope.engines import Attended
from headscope.kernels.choice import nobody_asks, runs
from headscope.kernels.decode_plan import ALL, DecodePlan, KeyStore, See, why_not_stores
from headscope.kernels.decoding import decode_checked
from headscope.merge import Part, with_sink
from headscope.patterns.full import Full
from headscope.patterns.rules import Rule
from headscope.patterns.streaming import Streaming


def decode_step(attention: Attention, rules: Sequence[Rule]) -> Attended | None:
    """One token per sequence over keys that stand in the order of their positions, in one launch.

    Only keys that some head sees are read: of a KV head whose query heads all stream, its sinks
    and its window.

    Args:
        rules: of the query heads, in order.

    Returns:
        None where it is no such step, a rule is neither full nor streaming, or Triton does not run.

    Raises:
        HeadscopeError: such a step cannot run on Triton, and impl="triton" was asked for.
    """
    slots = attention.slots
    if slots is None or slots.padded or attention.key_positions.ndim > 2:
        return None
    held = slots.first_query - slots.first_key + 1
    if not 0 < held <= attention.n_keys:
        return None
    store = KeyStore(attention.k, attention.v, range(attention.n_kv_heads))
    done = one_launch(attention, [store], rules, held, slots.first_key)
    if done is None:
        return None
    hidden = restrictions(tuple(rules), attention.q.device)
    return Attended(done[0], replace(attention, known_lse=None, edits=hidden), done[1])


def one_launch(
    attention: Attention,
    stores: Sequence[KeyStore],
    rules: Sequence[Rule],
    seen: int,
    first: int = 0,
    lengths: Int[Tensor, " batch"] | None = None,
) -> Part | None:
    """(z, lse) of one token per sequence over all stores of a layer; None as in `decode_step`.

    Args:
        attention: of the layer; its keys and values are not looked at.
        seen: tokens of each sequence from position `first` on, the query's own among them.
        first: the position of slot 0 of a store that is no ring.
        lengths: `seen` of each sequence on the device, in 32 bits, where it is there already.
    """
    plain = not attention.edits and attention.mask is None and attention.chunk is None
    if attention.n_queries != 1 or not plain or not len(attention.q):
        return None
    q = attention.q
    if torch.is_grad_enabled():
        held = (x for store in stores for x in (store.k, store.v))
        if any(x.requires_grad for x in (q, *held)):
            return None
    sees = _seen_by_all(tuple(rules), attention.window, seen, first)
    if sees is None or not _runs(why_not_stores(stores, len(sees), q), q):
        return None
    plan = DecodePlan.of_checked(stores, sees)
    if lengths is None:
        lengths = torch.full((len(q),), seen, dtype=torch.int32, device=q.device)
    z, lse = decode_checked(q, plan, lengths, attention.scale, attention.softcap)
    return with_sink(z, lse, attention.sink_logits)


def _runs(reason: str | None, q: Tensor) -> bool:
    # That a machine has no GPU is said once by the engine, not again at every kind of step.
    return not nobody_asks(q.device) and runs(reason, "A decode step")


@lru_cache(maxsize=1024)
def seen_by(rule: Rule) -> See | None:
    """(sink, window) of a rule that the decode kernel takes; None of any other."""
    if isinstance(rule, Full):
        return 0, ALL
    if isinstance(rule, Streaming) and not rule.growth:
        return min(rule.sink, ALL), min(rule.window, ALL)
    return None


@lru_cache(maxsize=1024)
def _seen_by_each(rules: tuple[Rule, ...]) -> tuple[See, ...] | None:
    found = [see for rule in rules if (see := seen_by(rule)) is not None]
    return tuple(found) if len(found) == len(rules) else None


def _seen_by_all(
    rules: tuple[Rule, ...], window: int | None, seen: int, first: int
) -> tuple[See, ...] | None:
    """What the query heads see, in slots, where the layer itself may have a window."""
    sees = _seen_by_each(rules)
    if sees is None or (window is None and first == 0):
        return sees
    out = 0 if window is None else first + seen - window  # positions before it have left
    found: list[See] = []
    for sink, mine in sees:
        if window is not None:
            if 0 < out < sink:  # the layer's window is leaving the sinks, one after the other
                return None
            sink, mine = 0 if out >= sink else sink, min(mine, window)
        found.append((max(sink - first, 0), mine))
    return tuple(found)
