"""What cutting single attention entries would do to a loss, by how far apart they are."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from headscope.blocks import Tile, columns, fold, wide
from headscope.probes.gradients import Differentiated


def influence_by_distance(
    layer: Differentiated, block: int, sink: int
) -> Float[Tensor, "head distance_block"]:
    """Sum of |E| over all entries of each range of distances, keys of the first `sink` left out.

    E_ij is the first-order change of the loss where query i no longer sees key j, in nats. The
    rest of its row, a learned sink too, is scaled up to make room, so that the output moves by
    A_ij (z_i - v_j) / (1 - A_ij). With G_ij = dL/dA_ij = dL/dz_i . v_j,

        E_ij = -A_ij (G_ij - sum_k A_ik G_ik) / (1 - A_ij).

    A key that is all that a row sees leaves nothing behind: E_ij = -A_ij G_ij. Made tile by tile:
    memory grows with tokens, not with their square.

    Args:
        block: tokens of a range: range b holds the distances block b to block (b + 1) - 1.

    Source: Fu et al. 2024, MoA, arXiv 2406.14909, equation (3), which sums over squares of tokens.
    """
    attention = layer.attention
    ranges = -(-attention.n_keys // block)
    total = wide(layer.slope).new_zeros(attention.n_heads, ranges)

    def summed(part: Tile) -> Float[Tensor, "head distance_block"]:
        query = attention.query_positions[0, part.queries, None]
        key = attention.keys_by_head()[0][:, None, columns(part.keys, part.queries)]
        counts = (key >= sink) & (key <= query)
        place = ((query - key).clamp(min=0) // block).clamp(max=ranges - 1)
        change = entry_influence(layer, part).abs().masked_fill(~counts, 0)
        # A row at a time: sums of a few numbers keep their digits.
        rows = change.new_zeros(*change.shape[:2], ranges)
        return rows.scatter_add(2, place.expand_as(change), change).sum(1)

    for part in fold(attention, summed):
        total += part
    return total


def entry_influence(layer: Differentiated, part: Tile) -> Float[Tensor, "head query key"]:
    """E of all entries of a tile, 0 where a key is invisible."""
    attention, p = layer.attention, part.probabilities[0]
    slope = rearrange(
        wide(layer.slope[0, :, part.queries]), "(k g) q d -> k (g q) d", g=attention.group
    )
    gain = slope @ wide(attention.v[0, :, part.keys]).mT
    gain = rearrange(gain, "k (g q) j -> (k g) q j", g=attention.group)
    if not p.shape[-1]:
        return p
    # Where one key holds nearly all of a row, 1 - A has no digits left; what the others hold has.
    most, top = p.max(-1, keepdim=True)
    others = p.scatter(-1, top, 0)
    left = others.sum(-1, keepdim=True)
    if attention.sink_logits is not None:
        left = left + (attention.sink_logits[:, None].to(part.lse) - part.lse[0]).exp()[..., None]
    rest = (others * gain).sum(-1, keepdim=True)
    held = rest + most * gain.gather(-1, top)
    # All but the largest are at most a half.
    without = ((held - p * gain) / (1 - p).clamp(min=0.5)).scatter(
        -1, top, torch.where(left > 0, rest / left, 0)
    )
    return p * (without - gain)
