"""How tensors lie in memory, as kernels need it."""

from torch import Tensor


def side_by_side(x: Tensor) -> Tensor:
    """A tensor whose rows lie side by side in memory, copied where they do not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def describable(x: Tensor) -> bool:
    """Whether a tensor descriptor can stand for it: rows that begin at multiples of 16 bytes, none
    of them twice."""
    size = x.element_size()
    return x.data_ptr() % 16 == 0 and all(step and step * size % 16 == 0 for step in x.stride()[:3])
