"""Queries, keys and values that rules which choose by content find something in."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from headscope.bench.case import Case
from headscope.patterns.rules import Rule

_TOPICS = 32  # directions that texts come back to, of each KV head
_STAY = 256  # tokens from one topic to the next
_SINKS = 4  # tokens at the start that all later ones may attend to
_SHARED, _SINK = 0.5, (1.5, 0.6)  # of keys and of queries; the rest is noise


def made_case(
    rules: tuple[Rule, ...],
    n_kv_heads: int,
    width: int,
    n: int,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
) -> Case:
    """A layer over a made-up text, whose attention has structure somewhat as a model's has.

    Of each KV head there are 32 random directions, its topics, and one more, its sink. The text has
    one topic drawn for every 256th token; between them the direction turns evenly from one to the
    next, so that neighbours are alike, and so are passages far apart that have the same topic. With
    all directions of length sqrt(d) and e standard normal,

        key = 0.5 topic + sqrt(0.75) e,       plus 1.5 sink in the first 4 tokens,
        query = 0.5 topic + sqrt(0.75) e + 0.6 sink,       e of each query head its own,

    and values are standard normal. Logits q·k / sqrt(d) then have a standard deviation near 1,
    sqrt(d) / 4 more where topics agree, and 0.9 sqrt(d) more on the first tokens. Nothing is
    rotated by position. Times of rules by position do not depend on any of it.

    Args:
        rules: of each query head.
        width: numbers of a head.
        n: tokens.
        seed: of everything that is drawn.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    group = len(rules) // n_kv_heads
    q, k, v = (
        torch.empty(1, heads, n, width, device=device, dtype=dtype)
        for heads in (len(rules), n_kv_heads, n_kv_heads)
    )
    for kv in range(n_kv_heads):
        topics = normalize(normal(_TOPICS + 1, width), dim=-1) * width**0.5
        shared = _SHARED * _walk(topics[1:], n, generator)
        noise = (1 - _SHARED**2) ** 0.5
        key = shared + noise * normal(n, width)
        key[:_SINKS] += _SINK[0] * topics[0]
        k[0, kv], v[0, kv] = key, normal(n, width)
        for head in range(kv * group, (kv + 1) * group):
            q[0, head] = shared + noise * normal(n, width) + _SINK[1] * topics[0]
    return Case(rules, q, k, v)


def _walk(topics: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """A direction for each token, from topic to topic."""
    stops = -(-n // _STAY) + 1
    drawn = torch.randint(len(topics), (stops,), generator=generator, device=topics.device)
    token = torch.arange(n, device=topics.device)
    at, part = token // _STAY, (token % _STAY / _STAY)[:, None]
    mixed = (1 - part) * topics[drawn[at]] + part * topics[drawn[at + 1]]
    return normalize(mixed, dim=-1) * topics.shape[1] ** 0.5
