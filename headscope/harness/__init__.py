"""EleutherAI's lm-evaluation-harness on an opened model, as it is or under interventions.

`import headscope` needs none of the harness; this package does: pip install "headscope[harness]".
Tasks, prompts, filters and metrics are the harness's own, whatever is in force on the model:

    base = evaluate(model, ["examples/harness/keys.yaml"])
    with headscope.Ablate(["L18H6", "L18H7"])(model):
        ablated = evaluate(model, ["examples/harness/keys.yaml"])
"""

from headscope.errors import HeadscopeError

try:
    import lm_eval.evaluator  # noqa: F401
except ImportError as missing:
    raise HeadscopeError(
        f"The evaluation harness needs a package that is not installed ({missing.name}); "
        'pip install "headscope[harness]".'
    ) from missing

from headscope.harness.lm import HeadscopeLM
from headscope.harness.tasks import evaluate

__all__ = ["HeadscopeLM", "evaluate"]
