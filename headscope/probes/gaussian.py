"""The attention on a stretch of keys, estimated from their mean and covariance."""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import near, wide


def gaussian(
    attention: Attention,
    rows: Int[Tensor, " row"],
    reach: tuple[Int[Tensor, " row"], Int[Tensor, " row"]],
    sinks: int,
) -> Float[Tensor, "head row"]:
    """log of the sum of exp(score) over some keys of each row, the scores taken for Gaussian.

    It is log T + mean + variance / 2 for T keys, from the mean and the covariance of the keys.

    Args:
        rows: the rows of a prompt, whose keys start and stop at the positions in `reach`.
        sinks: how many keys at the prompt's start are in no row's reach.
    """
    keys = wide(attention.k[0][:, attention.key_positions[0] >= sinks])
    centre = keys.mean(1, keepdim=True)
    keys = keys - centre  # variances are differences: of small numbers, then

    def query(some: Int[Tensor, " row"]) -> Float[Tensor, "kv_head group row d"]:
        q = attention.scale * wide(attention.q[0][:, rows[some]])
        return rearrange(q, "(k g) r d -> k g r d", g=attention.group)

    start, stop = (position - sinks for position in reach)
    size = (stop - start).to(keys)
    # Keys of which running sums are not yet taken: few, unless launches cost more than the work.
    run, group = near(attention), attention.group
    sums = _sums(query, keys, stop, run, group) - _sums(query, keys, start, run, group)
    mean, square = sums / size
    variance = (square - mean.square()).clamp(min=0)
    every = torch.arange(len(rows), device=rows.device).split(run)
    base = torch.cat([(query(some) * centre[:, None]).sum(-1) for some in every], -1)
    scores = base + mean + variance / 2 + torch.log(size)
    return rearrange(scores, "k g r -> (k g) r")


def _sums(
    query: Callable[[Int[Tensor, " row"]], Float[Tensor, "kv_head group row d"]],
    keys: Float[Tensor, "kv_head key d"],
    stop: Int[Tensor, " row"],
    run: int,
    group: int,
) -> Float[Tensor, "2 kv_head group row"]:
    """Every row's scores and their squares, summed over the keys before `stop`.

    Running sums of k and k k^T stand for all keys but the last few of each row: time is n d^2.
    """
    width, out = keys.shape[-1], keys.new_zeros(2, len(keys), group, len(stop))
    first, second = keys.new_zeros(len(keys), width), keys.new_zeros(len(keys), width, width)
    for start in range(0, keys.shape[1] + 1, run):
        last = keys[:, start : start + run]
        rows = ((stop // run == start // run) & (stop > 0)).nonzero()[:, 0]
        some = query(rows)
        left = torch.arange(start, start + last.shape[1], device=keys.device) < stop[rows, None]
        scores = torch.einsum("kgrd,kjd->kgrj", some, last) * left
        out[0, :, :, rows] = torch.einsum("kgrd,kd->kgr", some, first) + scores.sum(-1)
        spread = (torch.einsum("kgrd,kde->kgre", some, second) * some).sum(-1)
        out[1, :, :, rows] = spread + scores.square().sum(-1)
        first, second = first + last.sum(1), second + last.transpose(-1, -2) @ last
    return out
