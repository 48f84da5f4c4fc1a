"""headscope: find out what every attention head of a language model does, and prove it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

# Imported on first use: `import headscope` and `headscope --help` load no torch.
_HOMES = {
    "Ablate": "headscope.interventions.ablate",
    "Attention": "headscope.attention",
    "HeadModel": "headscope.model",
    "HeadscopeError": "headscope.errors",
    "HeadMap": "headscope.headmap",
    "Reference": "headscope.interventions.ablate",
    "Validation": "headscope.evals.validation",
    "Evaluation": "headscope.evals.evaluation",
    "evaluate": "headscope.evals.evaluate",
    "load": "headscope.loading",
    "read_heads": "headscope.export.reading",
    "scan": "headscope.scanning",
    "validate": "headscope.evals.validate",
}

if TYPE_CHECKING:
    from headscope.attention import Attention
    from headscope.errors import HeadscopeError
    from headscope.evals.evaluate import evaluate
    from headscope.evals.evaluation import Evaluation
    from headscope.evals.validate import validate
    from headscope.evals.validation import Validation
    from headscope.export.reading import read_heads
    from headscope.headmap import HeadMap
    from headscope.interventions.ablate import Ablate, Reference
    from headscope.loading import load
    from headscope.model import HeadModel
    from headscope.scanning import scan

__all__ = [
    "Ablate",
    "Attention",
    "Evaluation",
    "HeadMap",
    "HeadModel",
    "HeadscopeError",
    "Reference",
    "Validation",
    "__version__",
    "evaluate",
    "load",
    "read_heads",
    "scan",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'headscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
