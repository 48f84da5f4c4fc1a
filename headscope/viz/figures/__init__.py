"""Figures: pure functions from a result to a `Chart`, one file each."""

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
