"""Where the command line keeps results, and where it finds a run's model again."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import cast

from headscope.errors import HeadscopeError
from headscope.evals.validation import Validation
from headscope.headmap import HeadMap
from headscope.heads import Head, label
from headscope.loading import BackendName, load
from headscope.model import HeadModel
from headscope.prompts.base import PromptFamily


def heads_name(heads: Sequence[Head]) -> str:
    """Heads as part of a file's name, which may have 255 characters in all."""
    names = "-".join(map(label, heads)) or "none"
    return names if len(names) <= 100 else f"{len(heads)}-heads-{_digest(names)}"


def validation_path(
    run: Path, head_map: HeadMap, name: str, prompts: PromptFamily, controls: int, seed: int
) -> Path:
    """The file of a validation: by its name, and by its settings too where that holds another.

    The same command finds the same file, so that it goes on where it was cut off.
    """
    folder = run / "validations"
    path = folder / f"{name}.json"
    if not path.exists():
        return path
    old, wanted = Validation.load(path), {"family": prompts.name, **asdict(prompts)}
    tested, drawn = len(old.tested), sum(c.kind == "uniform" for c in old.conditions)
    possible = math.comb(max(0, len(head_map.heads()) - tested), tested)
    same = old.seed == seed and old.prompts == json.loads(json.dumps(wanted))
    if same and drawn == min(controls, possible):
        return path
    return folder / f"{name}-{_digest(json.dumps([wanted, seed, controls]))}.json"


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


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]
