"""A plan: the rules of its profile, and what it loses and takes."""

from headscope.sparsity.planned import Plan
from headscope.viz.chart import Chart
from headscope.viz.figures.profile import profile


def plan(found: Plan) -> Chart:
    """The rule of every head.

    Args:
        found: as `headscope.sparsity.plan` gives it.
    """
    return profile(found.profile, note=" ".join(found.sentences()))
