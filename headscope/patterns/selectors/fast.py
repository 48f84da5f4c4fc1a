"""Which attentions choose their keys with Triton's kernels."""

from typing import TYPE_CHECKING

from headscope.kernels.choice import nobody_asks, runs, why_not_these

if TYPE_CHECKING:
    from headscope.attention import Attention


def by_kernels(attention: "Attention") -> bool:
    """Whether kernels choose for an attention; what they choose is the same but for rounding.

    They take the plain case, tokens without gaps that see all before them. Others run on the
    reference wherever they are, as does everything on a CPU.
    """
    slots = attention.slots
    if slots is None or slots.padded or attention.key_positions.ndim == 3:
        return False
    if not attention.only_causal or attention.edits:
        return False
    if slots.first_query + attention.n_queries != slots.first_key + attention.n_keys:
        return False
    if nobody_asks(attention.q.device):
        return False
    return runs(why_not_these(attention.q, attention.k), "Choosing keys")
