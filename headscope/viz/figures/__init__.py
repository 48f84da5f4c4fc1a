"""Figures: pure functions from a result to a `Chart`, one file each."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headscope.viz.figures.ablation import ablation
    from headscope.viz.figures.agreement import agreement
    from headscope.viz.figures.attention_pattern import attention_pattern
    from headscope.viz.figures.clusters import clusters
    from headscope.viz.figures.comparison import comparison
    from headscope.viz.figures.confidence import confidence
    from headscope.viz.figures.decode_speed import decode_speed
    from headscope.viz.figures.distances import distances
    from headscope.viz.figures.dose import dose
    from headscope.viz.figures.evaluation import evaluation
    from headscope.viz.figures.gallery import gallery
    from headscope.viz.figures.head_map import head_map
    from headscope.viz.figures.head_ranks import head_ranks
    from headscope.viz.figures.joint import joint
    from headscope.viz.figures.kernel_speed import kernel_speed
    from headscope.viz.figures.model_comparison import model_comparison
    from headscope.viz.figures.overlap import overlap
    from headscope.viz.figures.pareto import pareto
    from headscope.viz.figures.patch_map import patch_map
    from headscope.viz.figures.plan import plan
    from headscope.viz.figures.profile import profile
    from headscope.viz.figures.pruning import pruning
    from headscope.viz.figures.recalls import recalls
    from headscope.viz.figures.score_distribution import score_distribution
    from headscope.viz.figures.score_scatter import score_scatter
    from headscope.viz.figures.signals import signals
    from headscope.viz.figures.sink_profile import sink_profile
    from headscope.viz.figures.slot_curve import slot_curve
    from headscope.viz.figures.specificity import specificity
    from headscope.viz.figures.text_attention import text_attention
    from headscope.viz.figures.waveform import waveform

__all__ = [
    "ablation",
    "agreement",
    "attention_pattern",
    "clusters",
    "comparison",
    "confidence",
    "decode_speed",
    "distances",
    "dose",
    "evaluation",
    "gallery",
    "head_map",
    "head_ranks",
    "joint",
    "kernel_speed",
    "model_comparison",
    "overlap",
    "pareto",
    "patch_map",
    "plan",
    "profile",
    "pruning",
    "recalls",
    "score_distribution",
    "score_scatter",
    "signals",
    "sink_profile",
    "slot_curve",
    "specificity",
    "text_attention",
    "waveform",
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
