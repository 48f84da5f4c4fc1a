"""What headscope is measured against, by name."""

from collections.abc import Sequence

from headscope.bench.baselines.base import Baseline, Runnable
from headscope.bench.baselines.cudnn import Cudnn
from headscope.bench.baselines.flash import Flash
from headscope.bench.baselines.flash_sparse_attn import FlashSparseAttn
from headscope.bench.baselines.flex import Flex
from headscope.bench.baselines.two_launch import TwoLaunch
from headscope.errors import HeadscopeError

BASELINES: dict[str, Baseline] = {
    each.name: each for each in (Cudnn(), Flash(), TwoLaunch(), Flex(), FlashSparseAttn())
}
__all__ = ["BASELINES", "Baseline", "Runnable", "chosen_baselines"]


def chosen_baselines(names: Sequence[str]) -> tuple[Baseline, ...]:
    """Baselines by name, those of dense attention among them even where they are not named.

    Raises:
        HeadscopeError: there is no such baseline.
    """
    asked = list(BASELINES) if list(names) == ["all"] else list(names)
    for name in asked:
        if name not in BASELINES:
            known = ", ".join(BASELINES)
            raise HeadscopeError(f"There is no baseline {name!r}; name some of {known}, or all.")
    if not any(BASELINES[name].dense for name in asked):
        asked = ["cudnn", "flash", *asked]
    return tuple(each for name, each in BASELINES.items() if name in asked)
