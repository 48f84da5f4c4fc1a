"""Figures: pure functions from a result to a `Chart`, one file each."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headscope.viz.figures.agreement import agreement
    from headscope.viz.figures.attention_pattern import attention_pattern
    from headscope.viz.figures.clusters import clusters
    from headscope.viz.figures.gallery import gallery
    from headscope.viz.figures.head_map import head_map
    from headscope.viz.figures.kernel_speed import kernel_speed
    from headscope.viz.figures.model_comparison import model_comparison
    from headscope.viz.figures.score_distribution import score_distribution
    from headscope.viz.figures.score_scatter import score_scatter
    from headscope.viz.figures.text_attention import text_attention

__all__ = [
    "agreement",
    "attention_pattern",
    "clusters",
    "gallery",
    "head_map",
    "kernel_speed",
    "model_comparison",
    "score_distribution",
    "score_scatter",
    "text_attention",
]


class _Figures(ModuleType):
    """Each figure is imported on first use: what reads causal tests takes torch, a head map does
    not."""

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{name}"), name)
        setattr(self, name, found)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system would put the module of a figure in the place of the figure.
        if not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Figures
