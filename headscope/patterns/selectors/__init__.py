"""Rules that look at queries and keys to choose what each row sees, one file each."""

from headscope.patterns.selectors.base import Selector
from headscope.patterns.selectors.block_top_k import BlockTopK
from headscope.patterns.selectors.flex_prefill import FlexPrefill
from headscope.patterns.selectors.hierarchical_top_k import HierarchicalTopK
from headscope.patterns.selectors.proxy_attn import ProxyAttn
from headscope.patterns.selectors.self_similarity import SelfSimilarity
from headscope.patterns.selectors.vertical_slash import VerticalSlash

__all__ = [
    "BlockTopK",
    "FlexPrefill",
    "HierarchicalTopK",
    "ProxyAttn",
    "Selector",
    "SelfSimilarity",
    "VerticalSlash",
]
