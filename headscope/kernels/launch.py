"""One launch of the prefill kernel."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.kernels.choice import fetches_tiles
from headscope.kernels.chosen import WORDS, Chosen
from headscope.kernels.layout import describable
from headscope.kernels.plan import FIELDS, Plan


@dataclass(frozen=True)
class Launch:
    """How the kernel is compiled.

    Attributes:
        warps: of one program.
        stages: tiles of keys that are fetched ahead.
        tma: fetch tiles by tensor descriptors, which needs compute capability 9.0.
        registers: most that a thread may have; said at all, the compiler takes more than it would,
            which pays where a program's loops are long.
    """

    warps: int
    stages: int
    tma: bool
    registers: int | None = 255

    @classmethod
    def of(cls, width: int, rows: int, device: torch.device) -> "Launch":
        """What was fastest for heads of a width and programs of some rows, on an H100."""
        tma = fetches_tiles(device)
        stages = 3 if tma else 2
        return cls(warps=4 * rows // 64, stages=2 if width * rows > 128 * 128 else stages, tma=tma)


def run(
    plan: Plan,
    chosen: Chosen | None,
    q: Float[Tensor, "batch head query d"],
    k: Float[Tensor, "batch kv_head key d"],
    v: Float[Tensor, "batch kv_head key d"],
    z: Float[Tensor, "batch head query d"],
    lse: Float[Tensor, "batch head query"],
    scale: float,
    softcap: float | None = None,
    packed: bool = False,
    launch: Launch | None = None,
) -> None:
    """Compute what a plan says into z and lse; rows that it does not name are left as they are.

    Args:
        q, k, v: with elements of a row side by side.
        chosen: the selections that the plan refers to.
        packed: keys of other sequences may follow those of a sequence.
    """
    from triton.tools.tensor_descriptor import TensorDescriptor

    from headscope.kernels.prefill import prefill

    if len(plan.programs) == 0:
        return
    width = q.shape[-1]
    how = Launch.of(width, plan.rows, q.device) if launch is None else launch
    block = 128 if width == 96 else width
    tma = how.tma and all(describable(x) for x in (q, k, v))
    given: tuple[Any, ...] = (q, k, v)
    if tma:
        rows = (plan.rows, 64, 64)
        given = tuple(
            TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, height, block])
            for x, height in zip(given, rows, strict=True)
        )
    joined = plan.joined and tma and not packed
    table = plan.programs if chosen is None else chosen.table
    kernel: Any = prefill  # what Triton takes besides its arguments is not declared
    kernel[(len(plan.programs),)](
        *given, k, v, z, lse,
        plan.programs, plan.whole, plan.partly, plan.bits, plan.masks, table,
        scale, 1.0 if softcap is None else softcap, q.shape[2], k.shape[2],
        q.shape[1] // k.shape[1],
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *z.stride()[:3], *lse.stride()[:2],
        N_FIELDS=len(FIELDS), NEAR=FIELDS.index("near_0"), N_SELECTION=WORDS, WIDTH=width,
        BLOCK_D=block, TMA=tma,
        SOFTCAP=softcap is not None, LISTS=plan.lists, MORE=plan.more and joined, JOINED=joined,
        CHOSEN=plan.chosen, COLUMNS=chosen is not None and chosen.columns, PACKED=packed,
        ROWS=plan.rows, num_warps=how.warps, num_stages=how.stages,
        **({} if joined or how.registers is None else {"maxnreg": how.registers}),
    )  # fmt: skip
