"""The waves that RoPE lays over distance, for several bases at once."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.probes.rotation import waves
from headscope.rope import Tables

Waves = tuple[Int[Tensor, " _"], Int[Tensor, " _"]]  # distances of peaks and of troughs


def covering(
    tables: Tables,
    own: float,
    others: Sequence[float],
    count: int,
    reach: int,
    device: torch.device,
) -> tuple[float, ...]:
    """Bases whose peaks lie near each other's troughs, chosen one after the other.

    envelope_b(m) = mean over rotary pairs t of cos(m theta_t(b)), for distances m up to `reach`;
    peaks and troughs are its local extremes. The first base is the model's own; each next one
    makes the cost of all chosen so far least. Cost: the mean, over the troughs of every chosen
    base, of the distance in tokens to the nearest peak of another one. Of equals, the first wins.

    Source: after the base search of Attention Buckets (Chen et al. 2023, arXiv 2312.04455), whose
    released code counts peaks within 3 tokens of a trough. The cost above is headscope's own.

    Raises:
        HeadscopeError: fewer candidates than wanted, or too short a reach for a wave.
    """
    if not 1 <= count <= len(others) + 1:
        raise HeadscopeError(
            f"Choose between 1 and {len(others) + 1} bases (the model's own, and {len(others)} "
            f"candidates), not {count}."
        )
    found = {
        base: extremes(waves(tables, reach, device, base).mean(1).cpu())
        for base in dict.fromkeys((own, *others))
    }
    flat = next((base for base, (peaks, _) in found.items() if not len(peaks)), None)
    if flat is not None:
        raise HeadscopeError(
            f"The envelope of the base {flat:g} has no peak within {reach} tokens; look further."
        )
    chosen = [own]
    while len(chosen) < count:
        rest = [base for base in found if base not in chosen]
        chosen.append(min(rest, key=lambda base: cost([found[each] for each in (*chosen, base)])))
    return tuple(chosen)


def extremes(envelope: Float[Tensor, " distance"]) -> Waves:
    """Where a curve has its peaks and its troughs; its ends are neither."""
    rise = envelope.diff().sign()
    peaks, troughs = (rise[:-1] > 0) & (rise[1:] < 0), (rise[:-1] < 0) & (rise[1:] > 0)
    return peaks.nonzero()[:, 0] + 1, troughs.nonzero()[:, 0] + 1


def cost(each: Sequence[Waves]) -> float:
    """Mean distance from a trough of one curve to the nearest peak of another."""
    nearest = list[Tensor]()
    for i, (_, troughs) in enumerate(each):
        peaks = torch.cat([peaks for j, (peaks, _) in enumerate(each) if j != i])
        nearest.append((troughs[:, None] - peaks[None]).abs().amin(1))
    return float(torch.cat(nearest).double().mean())
