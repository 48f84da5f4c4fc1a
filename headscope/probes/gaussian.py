"""The attention on a stretch of keys, estimated from their mean and covariance."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import wide

_RUN = 128  # keys of which running sums are not yet taken


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
    centre = keys.mean(1, keepdim=True)  # variances are differences: of small numbers, then
    q = attention.scale * wide(attention.q[0][:, rows])
    q = rearrange(q, "(k g) r d -> k g r d", g=attention.group)
    start, stop = (position - sinks for position in reach)
    size = (stop - start).to(q)
    sums = _sums(q, keys - centre, stop) - _sums(q, keys - centre, start)
    mean, square = sums / size
    variance = (square - mean.square()).clamp(min=0)
    scores = (q * centre[:, None]).sum(-1) + mean + variance / 2 + torch.log(size)
    return rearrange(scores, "k g r -> (k g) r")


def _sums(
    q: Float[Tensor, "kv_head group row d"], keys: Float[Tensor, "kv_head key d"], stop: Tensor
) -> Float[Tensor, "2 kv_head group row"]:
    """Every row's scores and their squares, summed over the keys before `stop`.

    Running sums of k and k k^T stand for all keys but the last few of each row: time is n d^2.
    """
    out = q.new_zeros(2, *q.shape[:3])
    first, second = q.new_zeros(len(q), q.shape[-1]), q.new_zeros(len(q), q.shape[-1], q.shape[-1])
    for start in range(0, keys.shape[1] + 1, _RUN):
        last = keys[:, start : start + _RUN]
        rows = (stop // _RUN == start // _RUN).nonzero()[:, 0]
        some = q[:, :, rows]
        left = torch.arange(start, start + last.shape[1], device=q.device) < stop[rows, None]
        scores = torch.einsum("kgrd,kjd->kgrj", some, last) * left
        out[0, :, :, rows] = torch.einsum("kgrd,kd->kgr", some, first) + scores.sum(-1)
        spread = (torch.einsum("kgrd,kde->kgre", some, second) * some).sum(-1)
        out[1, :, :, rows] = spread + scores.square().sum(-1)
        first, second = first + last.sum(1), second + last.transpose(-1, -2) @ last
    return out
