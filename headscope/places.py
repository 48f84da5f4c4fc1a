"""Where the command line keeps results, and where it finds a run's model again."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval
from headscope.headmap import HeadMap
from headscope.heads import Head, label
from headscope.loading import BackendName, load
from headscope.model import HeadModel


def heads_name(heads: Sequence[Head]) -> str:
    """Heads as part of a file's name, which may have 255 characters in all."""
    names = "-".join(map(label, heads)) or "none"
    return names if len(names) <= 100 else f"{len(heads)}-heads-{digest(names)}"


def validation_path(run: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """The file of a validation: the same command finds the same file, and goes on there.

    Args:
        name: what it tests, for people.
        settings: everything that it depends on.
    """
    return run / "validations" / f"{name}-{digest(repr(sorted(settings.items())))}.json"


def evaluation_path(
    model: HeadModel, tasks: Sequence[Eval], changes: Sequence[str], seed: int | None
) -> Path:
    """The file of an evaluation, in the same way."""
    names = "-".join(task.name for task in tasks)
    names = names if len(names) <= 60 else f"{len(tasks)}-evals"
    settings = (model.fingerprint, list(tasks), list(changes), seed)
    return Path("runs") / f"{model.name}-evals" / f"{names}-{digest(repr(settings))}.json"


def patching_path(model: HeadModel, task: Eval, direction: str, seed: int | None) -> Path:
    """The folder of a map by patching and the tests of its heads, in the same way."""
    settings = (model.fingerprint, model.backend.name, model.dtype, task, direction, seed)
    name = f"{task.name}-{direction}-{digest(repr(settings))}"
    return Path("runs") / f"{model.name}-patching" / name


def reopened(run: Path, head_map: HeadMap, device: str | None) -> HeadModel:
    """The model that a run was made with.

    Raises:
        HeadscopeError: it is not there; the message says where it was.
    """
    info, model = head_map.info, head_map.info.model
    try:
        return load(
            model.spec,
            backend=cast(BackendName, info.backend),
            dtype=info.dtype,
            device=device,
            revision=model.revision,
        )
    except HeadscopeError as error:
        if model.revision is not None or model.spec == "smollm2" or Path(model.spec).exists():
            raise
        if info.command:
            raise HeadscopeError(
                f"The model of this run was {model.spec!r}, which is not in {Path.cwd()}: run this "
                "where the scan was run."
            ) from error
        raise HeadscopeError(
            f"The model of this run, {model.spec!r}, was in Python's memory: validate it there, "
            f"with headscope.validate(model, headscope.HeadMap.load({str(run)!r}))."
        ) from error


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]
