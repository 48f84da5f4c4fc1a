"""One query token per sequence over the keys that each head may see: one launch."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.kernels.decode_plan import DecodePlan, why_not_stores

if TYPE_CHECKING:
    from headscope.kernels.decode import Tuning


def decode(
    q: Float[Tensor, "batch head 1 d"],
    plan: DecodePlan,
    seen: Int[Tensor, " batch"],
    scale: float,
    softcap: float | None = None,
    tuning: "Tuning | None" = None,
) -> tuple[Float[Tensor, "batch head 1 d"], Float[Tensor, "batch head 1"]]:
    """z and log-sum-exp of a decode step, whose own keys are stored already.

    Nothing waits for the device, and launches do not depend on lengths: a CUDA graph captured once
    is right for every later step, with `seen` counted up in place, until a store is full.

    Args:
        q: bfloat16 or float16, of any strides but the last.
        plan: of the layer's stores and rules.
        seen: int32, tokens that each sequence has had, this one among them: its query stands at
            position seen - 1, which no flat store may have fewer slots than. Where one has, and
            where a ring was made smaller than what it should hold, z and lse are NaN.
        scale: of the logits.
        softcap: logits become softcap * tanh(logits / softcap).
        tuning: how the work is cut; by the width of a head if left out.

    Returns:
        z in the dtype of q, and lse in float32; zeros and -inf where a head sees nothing.

    Raises:
        HeadscopeError: the kernel takes no such q, or the plan is for another one.
    """
    like, device = plan.stores[0].k, plan.places.device
    if reason := why_not_stores(plan.stores, len(plan.sees), q):
        raise HeadscopeError(f"This decode step cannot run on Triton: {reason}.")
    batch, heads = plan.batch, len(plan.sees)
    if q.shape != (batch, heads, 1, like.shape[3]):
        raise HeadscopeError(
            f"The plan is for q of shape {(batch, heads, 1, like.shape[3])}, not "
            f"{tuple(q.shape)}; make one for these sequences and heads."
        )
    if seen.shape != (batch,) or seen.dtype != torch.int32 or seen.device != device:
        raise HeadscopeError(
            f"`seen` has to be int32 of shape {(batch,)} on {device}, not "
            f"{str(seen.dtype).removeprefix('torch.')} of {tuple(seen.shape)} on {seen.device}."
        )
    from headscope.kernels.decode import Tuning, launch

    with torch.no_grad():
        return launch(q, plan, seen.contiguous(), scale, softcap, tuning or Tuning.of(q))
