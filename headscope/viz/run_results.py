"""Results that lie in a run's folder, beside the run itself."""

import json
from collections.abc import Iterator
from pathlib import Path

from headscope import storage
from headscope.bench.result import Bench
from headscope.errors import HeadscopeError
from headscope.evals.effects import Effects
from headscope.evals.evaluation import Evaluation
from headscope.evals.pruned import Pruning
from headscope.evals.validation import Validation
from headscope.joint import JointEffect
from headscope.patch_map import PatchMap
from headscope.sparsity.frontier import Pareto
from headscope.sparsity.planned import Plan
from headscope.sparsity.profile import SparseProfile
from headscope.sparsity.recalls import Recalls

Result = (
    Validation | Evaluation | Effects | PatchMap | JointEffect | Pruning | Pareto | Plan
    | SparseProfile | Recalls | Bench
)  # fmt: skip
_KINDS: dict[str, type[Result]] = {
    "validation": Validation,
    "evaluation": Evaluation,
    "effects": Effects,
    "patch_map": PatchMap,
    "joint_effect": JointEffect,
    "pruning": Pruning,
    "pareto": Pareto,
    "sparse_plan": Plan,
    "sparse_profile": SparseProfile,
    "bench": Bench,
}
_ANSWERS = "-answers.json"  # of a comparison of profiles, which holds them too


def results_in(folder: Path) -> list[Result]:
    """Everything that was measured or planned and kept in a run's folder or one right below it.

    Files of other kinds are left alone, and so are results of which nothing is measured yet.

    Raises:
        HeadscopeError: a result cannot be read.
    """
    return [found for path in _files(folder) if (found := _read(path)) is not None]


def fingerprint_of(result: Result) -> str | None:
    """Whose weights a result was measured on; None where it does not say."""
    if isinstance(result, Bench):
        return None
    if isinstance(result, Pareto):
        return result.evaluation.fingerprint
    if isinstance(result, Plan):
        return result.profile.model.fingerprint
    if isinstance(result, SparseProfile | Recalls):
        return result.model.fingerprint
    return result.fingerprint


def _files(folder: Path) -> Iterator[Path]:
    for pattern in ("*.json", "*/*.json", "*/recalls-*.safetensors"):
        for path in sorted(folder.glob(pattern)):
            inside = path.resolve().is_relative_to(folder.resolve())  # links lead elsewhere
            other = path.name == "run.json" or path.name.endswith(_ANSWERS)
            if inside and path.is_file() and not other:
                yield path


def _read(path: Path) -> Result | None:
    if path.suffix == ".safetensors":
        recalls = Recalls.load(path)
        return recalls if recalls.complete else None
    kind = _KINDS.get(_kind(path))
    if kind is None:
        return None
    found = kind.load(path)
    return found if _done(found) else None


def _kind(path: Path) -> str:
    """What a file says it is; those in `validations` are nothing else."""
    try:
        content = json.loads(storage.read(path))
    except (ValueError, RecursionError, HeadscopeError):
        content = None
    if path.parent.name == "validations":
        return "validation"
    kind = content.get("kind") if isinstance(content, dict) else None
    return kind if isinstance(kind, str) else ""


def _done(found: Result) -> bool:
    if isinstance(found, Effects):
        return found.measured.done > 0
    return getattr(found, "done", 1) > 0
