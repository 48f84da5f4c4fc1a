"""The rotary pairs of a layer, for probes that speak of nothing else."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention import Attention
from headscope.blocks import budget, wide
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.rope import Tables


def need_rotation(probe: str, model: HeadModel) -> None:
    """Refuse a model whose layers rotate nothing, or in a way that cannot be taken apart."""
    kinds = {found.layer: found.rotary for found in model.backend.layers}
    for layer, rotary in kinds.items():
        if isinstance(rotary, str):
            raise HeadscopeError(
                f"the probe {probe!r} takes the rotation of every layer apart, which layer {layer} "
                f"does not allow ({rotary}); leave the probe out."
            )
    if all(rotary is None for rotary in kinds.values()):
        raise HeadscopeError(
            f"the probe {probe!r} is about rotary positions (RoPE), and {model.name} has none; "
            "leave the probe out."
        )


def turns(attention: Attention, up_to: int) -> Float[Tensor, "distance angle"]:
    """cos(m * theta_t) for m = 0 ... up_to tokens, as the layer's own tables hold it.

    A layer without rotation has no angles.
    """
    if attention.rope is None:
        return attention.q.new_zeros(up_to + 1, 0, dtype=torch.float32)
    return waves(attention.rope.tables, up_to, attention.q.device)


def waves(
    tables: Tables, up_to: int, device: torch.device, base: float | None = None
) -> Float[Tensor, "distance angle"]:
    """cos(m * theta_t) for m = 0 ... up_to tokens, with the model's own base or another one."""
    distances = torch.arange(up_to + 1, device=device)
    cos = tables(distances[None], base)[0][0].float()
    # Scaled tables (YaRN) carry a factor that is no angle.
    return cos / cos[:1]


def wavelengths(attention: Attention) -> Float[Tensor, " angle"]:
    """Tokens in which each rotary pair turns once round; infinite where it stands still."""
    if attention.rope is None:
        return attention.q.new_zeros(0, dtype=torch.float32)
    one = torch.ones(1, 1, dtype=torch.long, device=attention.q.device)
    cos, sin = (table[0, 0].float() for table in attention.rope.tables(one, None))
    return 2 * torch.pi / torch.atan2(sin, cos).abs()


def in_pairs(
    attention: Attention, x: Float[Tensor, "... d"], angles: int
) -> tuple[Float[Tensor, "... angle"], Float[Tensor, "... angle"]]:
    """Queries, keys or their products: the two dimensions of every pair that turns together."""
    turned = x[..., : 2 * angles]
    if attention.rope is not None and attention.rope.pairing == "interleaved":
        return turned[..., ::2], turned[..., 1::2]
    return turned[..., :angles], turned[..., angles:]


def mean_over_rows(
    attention: Attention,
    x: Float[Tensor, "batch any_head n d"],
    of: Callable[[Tensor, slice], Tensor],
) -> Tensor:
    """The mean over axis 2 of what a function makes of queries or keys, a few heads at a time.

    Not a few rows: some rotary tables depend on the largest position that they are asked for.

    Args:
        of: of x in some heads, in float32 at least, and those heads.
    """
    step = max(1, budget(attention) // (x.shape[0] * x.shape[2] * x.shape[3]))
    parts = [slice(start, start + step) for start in range(0, x.shape[1], step)]
    return torch.cat([of(wide(x[:, part]), part).mean(2) for part in parts], dim=1)
