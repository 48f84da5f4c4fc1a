"""From finding to profile: per-head rules, what they cost, and attention that runs by them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported on first use: a profile is read without transformers.
_HOMES = {
    "Budget": "headscope.sparsity.budget",
    "Costs": "headscope.sparsity.costs",
    "HeadCache": "headscope.head_cache",
    "Pareto": "headscope.sparsity.frontier",
    "Plan": "headscope.sparsity.planned",
    "Recalls": "headscope.sparsity.recalls",
    "SparseProfile": "headscope.sparsity.profile",
    "drop_profile": "headscope.sparsity.serving",
    "measure_costs": "headscope.sparsity.costs",
    "measure_recall": "headscope.sparsity.recall",
    "pareto": "headscope.sparsity.frontier",
    "plan": "headscope.sparsity.planner",
    "plan_by_score": "headscope.sparsity.planner",
    "use_profile": "headscope.sparsity.serving",
    "using_profile": "headscope.sparsity.serving",
}

if TYPE_CHECKING:
    from headscope.head_cache import HeadCache
    from headscope.sparsity.budget import Budget
    from headscope.sparsity.costs import Costs, measure_costs
    from headscope.sparsity.frontier import Pareto, pareto
    from headscope.sparsity.planned import Plan
    from headscope.sparsity.planner import plan, plan_by_score
    from headscope.sparsity.profile import SparseProfile
    from headscope.sparsity.recall import measure_recall
    from headscope.sparsity.recalls import Recalls
    from headscope.sparsity.serving import drop_profile, use_profile, using_profile

__all__ = [
    "Budget",
    "Costs",
    "HeadCache",
    "Pareto",
    "Plan",
    "Recalls",
    "SparseProfile",
    "drop_profile",
    "measure_costs",
    "measure_recall",
    "pareto",
    "plan",
    "plan_by_score",
    "use_profile",
    "using_profile",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'headscope.sparsity' has no attribute {name!r}")
