"""What methods share that keep something for each sequence of a batch and follow beams."""

from typing import Any

from jaxtyping import Int
from torch import Tensor

from headscope.run import Run


class _Following:
    """A method whose state is a dict of tensors, or of tuples of them, with the batch first."""

    def reorder(self, run: Run, index: Int[Tensor, " new_batch"]) -> None:
        state = run.state.get(self, {})
        for name, held in state.items():
            state[name] = _rows_of(held, index)


def _rows_of(held: Any, index: Int[Tensor, " new_batch"]) -> Any:
    if isinstance(held, tuple):
        return tuple(_rows_of(each, index) for each in held)
    return held[index.to(held.device)]
