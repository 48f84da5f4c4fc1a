"""One query token per sequence over the keys that each head may see: one launch."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.kernels.choice import gpu, on_its_device
from headscope.kernels.decode_plan import DecodePlan, why_not_query

_LOG2E = 1.4426950408889634
_AHEAD = 160 * 2**10  # bytes of shared memory, of which a program with three stages takes most
_MANY = 256  # tiles for each multiprocessor, from where on two programs share it better


@dataclass(frozen=True)
class Tuning:
    """How the work is cut; none of it changes a result beyond rounding.

    Attributes:
        tile: keys that are read at once.
        warps, stages: of a program.
        per_sm: programs for each multiprocessor.
        least: tiles that a program takes at least, where there are few.
        splits, columns: records and numbers of z that are joined at once.
        early: start what joins them before they are there, where the GPU can (from 9.0 on).
    """

    tile: int = 128
    warps: int = 4
    stages: int = 2
    per_sm: int = 1
    least: int = 1
    splits: int = 32
    columns: int = 64
    early: bool = True

    @classmethod
    def of(cls, q: Tensor, plan: DecodePlan) -> "Tuning":
        """What was fastest on an H100 for 8 192 to 131 072 tokens, at batch 1 and 8.

        With KV heads of one length, one program on each multiprocessor that loads far ahead comes
        closest to what memory gives. Where short heads stand between long ones, programs wait for
        their first keys more often, and two of them fill each other's gaps.
        """
        if q.device.type != "cuda":
            return cls(tile=32)
        most, device = plan.most, gpu(q.device)
        sms, units = device.multi_processor_count, plan.batch * len(most)
        tile = 128 if q.shape[-1] <= 128 else 64
        if q.shape[1] > 16 * len(most):  # the product of many rows takes registers of its own
            return cls(tile // 2, per_sm=2)
        if min(most) < max(most) or device.shared_memory_per_multiprocessor < _AHEAD:
            return cls(tile, per_sm=1 if 4 * units < sms else 2)
        if units * max(most) < _MANY * tile * sms:
            return cls(tile, stages=3)
        return cls(tile, per_sm=2)

    def programs(self, device: torch.device) -> int:
        if device.type != "cuda":
            return 5  # interpreted, one after the other
        return self.per_sm * gpu(device).multi_processor_count


def decode(
    q: Float[Tensor, "batch head 1 d"],
    plan: DecodePlan,
    seen: Int[Tensor, " batch"],
    scale: float,
    softcap: float | None = None,
    tuning: Tuning | None = None,
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
        tuning: how the work is cut; by what there is to read if left out.

    Returns:
        z in the dtype of q, and lse in float32; zeros and -inf where a head sees nothing.

    Raises:
        HeadscopeError: the kernel takes no such q, or the plan is for another one.
    """
    if reason := why_not_query(q, plan.stores[0]):
        raise HeadscopeError(f"This decode step cannot run on Triton: {reason}.")
    return decode_checked(q, plan, seen, scale, softcap, tuning)


@on_its_device
def decode_checked(
    q: Tensor,
    plan: DecodePlan,
    seen: Tensor,
    scale: float,
    softcap: float | None = None,
    tuning: Tuning | None = None,
) -> tuple[Tensor, Tensor]:
    """The same for q of which `why_not_query` had nothing to say."""
    batch, device = plan.batch, plan.places.device
    shape = (batch, len(plan.sees), 1, plan.stores[0].k.shape[3])
    if q.shape != shape:
        raise HeadscopeError(
            f"The plan is for q of shape {shape}, not "
            f"{tuple(q.shape)}; make one for these sequences and heads."
        )
    if seen.shape != (batch,) or seen.dtype != torch.int32 or seen.device != device:
        raise HeadscopeError(
            f"`seen` has to be int32 of shape {(batch,)} on {device}, not "
            f"{str(seen.dtype).removeprefix('torch.')} of {tuple(seen.shape)} on {seen.device}."
        )
    with torch.no_grad():
        return launch(q, plan, seen.contiguous(), scale, softcap, tuning or Tuning.of(q, plan))


def launch(
    q: Tensor, plan: DecodePlan, seen: Tensor, scale: float, softcap: float | None, tuning: Tuning
) -> tuple[Tensor, Tensor]:
    """(z, lse) of a decode step whose arguments were checked."""
    from headscope.kernels import decode as kernels

    attend: Any = kernels.attend
    join: Any = kernels.join
    batch, n_heads, _, width = q.shape
    n_kv = len(plan.places)
    group, units = n_heads // n_kv, batch * n_kv
    programs = tuning.programs(q.device)
    d, many = _power_of_2(width), max(64, _power_of_2(units))
    records = q.new_empty((programs + units) * group, d, dtype=torch.float32)
    peaks = q.new_empty((programs + units) * group, 2, dtype=torch.float32)
    z = q.new_empty(q.shape)
    lse = q.new_empty(batch, n_heads, 1, dtype=torch.float32)
    capped = softcap is not None
    early = tuning.early and _may_start_early(q.device)
    attend[(programs,)](
        q, plan.places, plan.reads, plan.sees, seen, records, peaks,
        units, n_kv, group, q.stride(0), q.stride(1),
        2 * _LOG2E * scale / softcap if softcap is not None else _LOG2E * scale,
        _LOG2E * softcap if softcap is not None else 0.0, tuning.least,
        WIDTH=width, D=d, ROWS=max(16, _power_of_2(group)), TILE=tuning.tile,
        UNITS=many, CAPPED=capped, EARLY=early, num_warps=tuning.warps, num_stages=tuning.stages,
    )  # fmt: skip
    columns = min(d, tuning.columns)
    join[(batch * n_heads, d // columns)](
        records, peaks, plan.places, plan.reads, seen, z, lse,
        units, n_kv, group, tuning.least, programs,
        WIDTH=width, D=d, TILE=tuning.tile, UNITS=many, SPLITS=tuning.splits, COLUMNS=columns,
        EARLY=early, num_warps=4, **({"launch_pdl": True} if early else {}),
    )  # fmt: skip
    return z, lse


def _may_start_early(device: torch.device) -> bool:
    return device.type == "cuda" and gpu(device).major >= 9


def _power_of_2(n: int) -> int:
    """The next one; Triton's own function is made for its compiler, and slow in a step."""
    return 1 << (n - 1).bit_length()
