from altered.pasta import edit as edit
from headscope.interventions.context_steering import ContextSteering
from headscope.model import HeadModel


def methods(model: HeadModel) -> list[ContextSteering]:
    return [ContextSteering((3, 9)), ContextSteering((4, 12), alpha=0.5, heads=["L0H1", "L1H1"])]
