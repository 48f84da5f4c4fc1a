"""A way to compute a layer that is not headscope's."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from headscope.bench.case import Case
from headscope.bench.meters import Call


@dataclass(frozen=True, eq=False)
class Runnable:
    """A baseline that is ready for one case.

    Attributes:
        call: computes it once, on tensors that lie as the baseline likes them best.
        joined: its output in the layer's order of heads; None where it does not follow the rules.
        mask_seconds: what was built from the tiles of the rules beforehand; None where nothing was.
    """

    call: Call
    joined: Callable[[], Float[Tensor, "1 head token d"]] | None = None
    mask_seconds: float | None = None


class Baseline(ABC):
    """One of the ways that headscope is measured against.

    Attributes:
        name: on the command line and in results.
        dense: it computes every pair whatever the rules say; speed-ups are over the best of these.
        compiles: it goes through torch.compile.
    """

    name: ClassVar[str]
    dense: ClassVar[bool] = False
    compiles: ClassVar[bool] = False

    @abstractmethod
    def why_not(self, case: Case) -> str | None:
        """What keeps it from computing a case, as a clause; None if nothing does."""

    @abstractmethod
    def ready(self, case: Case) -> Runnable:
        """Lay out and build what a serving engine would have beforehand."""
