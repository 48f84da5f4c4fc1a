"""What every rule lets a row see once more, head by head and pair by pair.

One module a rule, of the rule's name. `RULES` draws rules whose numbers suit a few dozen tokens. A
pattern has `sees(rule, query, key)`, of two positions; a selector has `chosen(rule, head)`, of one
head of one sequence. Nothing here shares code with what is tested, nor memory with its purpose.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from headscope.attention import Attention
from headscope.patterns.base import Pattern
from headscope.patterns.rules import Rule

Pairs = Callable[[int, int], bool]  # by indices of a query and a key


@dataclass(frozen=True, eq=False)
class Head:
    """One query head of one sequence, on its own.

    Attributes:
        q, k: [query, d] and [key, d], float64.
        group: q of all heads of its KV group, itself among them.
        query, key: positions.
        pattern: [query, key], edits and the learned sink included.
        group_pattern: of the mean of the group's q, without edits and the learned sink.
    """

    q: Tensor
    k: Tensor
    query: list[int]
    key: list[int]
    pattern: Tensor
    group_pattern: Tensor
    attention: Attention

    def logit(self, q: Tensor, k: Tensor) -> float:
        logit = self.attention.scale * float(q @ k)
        cap = self.attention.softcap
        return logit if cap is None else cap * math.tanh(logit / cap)

    def rows(self, block: int) -> dict[int, list[int]]:
        """Indices of queries by their block."""
        found: dict[int, list[int]] = {}
        for i, query in enumerate(self.query):
            if query >= 0:
                found.setdefault(query // block, []).append(i)
        return found

    def columns(self, block: int) -> dict[int, list[int]]:
        """Indices of keys by their block, those later than all queries left out."""
        found: dict[int, list[int]] = {}
        for j, key in enumerate(self.key):
            if 0 <= key <= max(self.query):
                found.setdefault(key // block, []).append(j)
        return found

    def reaches(self, query: int, column: int, block: int) -> bool:
        """Whether the layer's window and chunk leave any position of a block, were it earlier."""
        a = self.attention
        return any(
            (a.window is None or query - key < a.window)
            and (a.chunk is None or key // a.chunk >= query // a.chunk)
            for key in range(column * block, (column + 1) * block)
        )

    def candidates(self, row: int, block: int) -> list[int]:
        columns = sorted(self.columns(block))
        return [j for j in columns if j <= row and self.reaches(row * block, j, block)]

    def late(self, last: int) -> list[int]:
        return [i for i, query in enumerate(self.query) if query >= 0][-last:]

    def by_block(self, rows: list[int], block: int) -> dict[int, float]:
        """What some rows give to each block, as shares of what they give in all."""
        total = {
            j: sum(float(self.pattern[i, key]) for i in rows for key in keys)
            for j, keys in self.columns(block).items()
        }
        whole = sum(total.values()) or 1.0
        return {j: share / whole for j, share in total.items()}

    def late_candidates(self, rows: list[int], block: int) -> list[int]:
        if not rows:
            return []
        first, last = self.query[rows[0]], self.query[rows[-1]]
        columns = sorted(self.columns(block))
        return [j for j in columns if j <= last // block and self.reaches(first, j, block)]


def mean(x: Tensor, index: list[int]) -> Tensor:
    return sum((x[i] for i in index), torch.zeros_like(x[0])) / len(index)


def softmax(logits: dict[Any, float]) -> dict[Any, float]:
    top = max(logits.values(), default=0.0)
    weights = {key: math.exp(value - top) for key, value in logits.items()}
    return {key: value / sum(weights.values()) for key, value in weights.items()}


def highest(scores: dict[int, float], count: int) -> set[int]:
    return set(sorted(scores, key=lambda j: (-scores[j], j))[: max(count, 0)])


def fewest(weights: dict[Any, float], share: float) -> set[Any]:
    held, chosen, whole = 0.0, set(), sum(weights.values())
    for key in sorted(weights, key=lambda key: (-weights[key], key)):
        if held >= share * whole or weights[key] == 0:
            break
        held += weights[key]
        chosen.add(key)
    return chosen


def first_blocks(sink: int, block: int) -> set[int]:
    return {position // block for position in range(sink)}


def in_blocks(head: Head, block: int, seen: dict[int, set[int]], sink: int) -> Pairs:
    """Blocks of keys by block of queries, its own and those of the sink besides."""

    def sees(i: int, j: int) -> bool:
        row, column = head.query[i] // block, head.key[j] // block
        always = column == row or column in first_blocks(sink, block)
        return head.query[i] >= 0 and (always or column in seen.get(row, set()))

    return sees


def module(rule: Rule | str) -> ModuleType:
    return import_module(f"rules.{rule if isinstance(rule, str) else rule.name}")


def drawn(name: str) -> st.SearchStrategy[Rule]:
    return module(name).RULES


# ---- whole attentions ------------------------------------------------------------------------


def visible(a: Attention) -> Tensor:
    """[batch, head, query, key] before edits and rules."""
    key = a.key_positions if a.key_positions.ndim == 3 else a.key_positions[:, None]
    key = key.repeat_interleave(a.q.shape[1] // key.shape[1], 1)[:, :, None]
    query = a.query_positions[:, None, :, None]
    seen = (key >= 0) & (key <= query)
    if a.window is not None:
        seen &= query - key < a.window
    if a.chunk is not None:
        seen &= query // a.chunk == key // a.chunk
    return seen if a.mask is None else seen & a.mask


def softmaxed(
    a: Attention, q: Tensor, seen: Tensor, extra: Tensor | float, sink: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(pattern, lse) in float64; a row that sees nothing is zeros and -inf."""
    k = a.k.double().repeat_interleave(q.shape[1] // a.k.shape[1], 1)
    logits = q.double() @ k.transpose(-1, -2) * a.scale
    if a.softcap is not None:
        logits = a.softcap * torch.tanh(logits / a.softcap)
    logits = (logits + extra).masked_fill(~seen, -torch.inf)
    total = logits
    if sink is not None:
        sink = sink.double()[None, :, None, None].expand(*logits.shape[:3], 1)
        total = torch.cat((logits, sink), -1)
    lse = total.logsumexp(-1)
    return (logits - lse.masked_fill(lse == -torch.inf, 0)[..., None]).exp(), lse


def heads(a: Attention, extra: Tensor | float) -> list[list[Head]]:
    """[batch][head] of an attention whose edits add `extra` to its logits."""
    seen, group = visible(a), a.q.shape[1] // a.k.shape[1]
    pattern, _ = softmaxed(a, a.q, seen, extra, a.sink_logits)
    proxy = a.q.double().unflatten(1, (a.k.shape[1], group)).mean(2)
    any_seen = seen.unflatten(1, (a.k.shape[1], group)).any(2)
    shared, _ = softmaxed(a, proxy, any_seen, 0.0, None)
    found = []
    for b in range(len(a.q)):
        found.append([])
        for h in range(a.q.shape[1]):
            kv = h // group
            key = a.key_positions[b, kv] if a.key_positions.ndim == 3 else a.key_positions[b]
            q, k = a.q[b, h].double(), a.k[b, kv].double()
            positions = a.query_positions[b].tolist(), key.tolist()
            found[b].append(Head(q, k, *positions, pattern[b, h], shared[b, kv], a))
    return found


def mask(a: Attention, rules: list[Rule], extra: Tensor | float = 0.0) -> Tensor:
    """What the rule of each head leaves: [batch, head, query, key], causality not included."""
    seen = torch.zeros(len(a.q), len(rules), a.q.shape[2], a.k.shape[2], dtype=torch.bool)
    for b, row in enumerate(heads(a, extra)):
        for h, (head, rule) in enumerate(zip(row, rules, strict=True)):
            pairs = _pairs(rule, head)
            for i in range(len(head.query)):
                for j in range(len(head.key)):
                    if 0 <= head.key[j] <= head.query[i]:
                        seen[b, h, i, j] = pairs(i, j)
    return seen


def _pairs(rule: Rule, head: Head) -> Pairs:
    if isinstance(rule, Pattern):
        sees = module(rule).sees
        return lambda i, j: sees(rule, head.query[i], head.key[j])
    if len(head.query) == 1 < len(head.key) and not rule.decodes:
        return lambda i, j: True
    return module(rule).chosen(rule, head)
