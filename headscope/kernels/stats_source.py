"""What patterns are made of, and how a pass over them is cut."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.kernels.choice import fetches_tiles
from headscope.kernels.layout import describable

LOG2E = 1.4426950408889634


@dataclass(frozen=True)
class Shape:
    """How a pass is cut and compiled.

    Attributes:
        rows, keys: of one tile.
        warps, stages: of a program, and of the tiles that are fetched ahead.
        registers: most that a thread may have; as many as it wants if left out.
        spread: columns of a tile that are summed apart until the end; 8 exchanges nothing
            between threads, 1 leaves it to Triton.
        sets: how masses are summed: 1, each tile by a product; 2, only tiles whose keys differ.
        tma: fetch tiles by tensor descriptors, which needs compute capability 9.0.
    """

    rows: int = 64
    keys: int = 128
    warps: int = 4
    stages: int = 3
    registers: int | None = None
    spread: int = 8
    sets: int = 2
    tma: bool = True

    @classmethod
    def of_rows(cls, q: Tensor) -> "Shape":
        """The tiles of the pass over rows, the fastest of six on an H100."""
        return cls._fitting(q, rows=64, keys=128, warps=4, stages=2)

    @classmethod
    def of_columns(cls, q: Tensor) -> "Shape":
        """The tiles of the pass over columns, the fastest of eight on an H100."""
        return replace(cls._fitting(q, rows=64, keys=128, warps=4, stages=2), registers=168)

    @classmethod
    def _fitting(cls, q: Tensor, rows: int, keys: int, warps: int, stages: int) -> "Shape":
        tma = fetches_tiles(q.device)
        if q.shape[-1] * q.element_size() > 256:  # of wide heads, less fits beside each other
            return cls(64, 64, 4, 2, tma=tma)
        return cls(rows, keys, warps, stages if tma else 2, tma=tma)

    @property
    def options(self) -> dict[str, Any]:
        """What Triton compiles with."""
        options: dict[str, Any] = {"num_warps": self.warps, "num_stages": self.stages}
        if self.registers is not None:
            options["maxnreg"] = self.registers
        # Newer versions ask for a decision: sums of products are twice as slow without it.
        return options | {"enable_fp_fusion": True}


@dataclass(frozen=True, eq=False)
class Source:
    """What the patterns of one layer are made of.

    Attributes:
        q, k: with elements of a row side by side; grouped heads are not expanded.
        scale: above 0.
        ahead: keys before the first query's own one.
        softcap, window, sink_logits: None where the layer has none.
    """

    q: Float[Tensor, "batch head query d"]
    k: Float[Tensor, "batch kv_head key d"]
    scale: float
    ahead: int
    softcap: float | None = None
    window: int | None = None
    sink_logits: Float[Tensor, " head"] | None = None

    @property
    def of_rows(self) -> tuple[int, int, int]:
        """(batch, head, query)."""
        return self.q.shape[0], self.q.shape[1], self.q.shape[2]

    @property
    def factors(self) -> tuple[float, float, float]:
        """From products to powers of two: in the exponent, within the soft-cap, and the cap."""
        if self.softcap is None:
            return self.scale * LOG2E, 1.0, 1.0
        return 1.0, 2 * LOG2E * self.scale / self.softcap, self.softcap * LOG2E

    def constants(self, shape: Shape) -> dict[str, Any]:
        """What all kernels are compiled for."""
        width = self.q.shape[-1]
        return {
            "HEADS": self.q.shape[1],
            "GROUP": self.q.shape[1] // self.k.shape[1],
            "M": shape.rows,
            "N": shape.keys,
            "WIDTH": width,
            "BLOCK_D": 128 if width == 96 else width,
            "TMA": shape.tma and all(describable(x) for x in (self.q, self.k)),
            "SPREAD": shape.spread,
            "SOFTCAP": self.softcap is not None,
            "WINDOW": self.window is not None,
            # Three products stand for one in single precision, which is as exact.
            "PRECISION": "tf32x3" if self.q.dtype == torch.float32 else "tf32",
        }

    def tensors(self, shape: Shape) -> tuple[Any, Any]:
        """q and k as kernels take them."""
        if not self.constants(shape)["TMA"]:
            return self.q, self.k
        from triton.tools.tensor_descriptor import TensorDescriptor

        block = self.constants(shape)["BLOCK_D"]
        return tuple(  # pyright: ignore[reportReturnType]
            TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, height, block])
            for x, height in ((self.q, shape.rows), (self.k, shape.keys))
        )


def in_powers(lse: Tensor) -> Float[Tensor, "batch head query"]:
    """Each row's log-sum-exp in powers of two, inf where no key is seen: all weights are 0 then."""
    return (lse.float() * LOG2E).masked_fill(lse == -torch.inf, torch.inf).contiguous()
