"""Activation patching on pairs of prompts: every head alone, sets of heads, and single paths."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval, TokenIds
from headscope.evals.controls import HeadSet
from headscope.evals.statistics import check_enough
from headscope.heads import Head, selected_heads
from headscope.interventions.patch import Outputs, Patch
from headscope.joint import JointEffect
from headscope.model import HeadModel, check_opened
from headscope.patch_map import PatchMap
from headscope.patch_runs import Lane, Pair, Said, chosen, pairs_of
from headscope.patched import Direction, Patched
from headscope.path_patching import path_patch
from headscope.runinfo import versions

__all__ = ["joint_effect", "patch_heads", "path_patch"]

Progress = Callable[[int, int], None]  # pairs done, pairs in all
Kind = TypeVar("Kind", bound=Patched)


def patch_heads(
    model: HeadModel,
    task: Eval,
    *,
    direction: Direction = "denoising",
    samples: int | None = None,
    heads: Sequence[Head | str] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> PatchMap:
    """Patch every head alone, at all positions, on each pair of an eval.

    A pair is a clean prompt and one that differs in few tokens and has another right answer. Both
    runs are scored on the same answers: the log of the probability of the clean prompt's right
    answers less that of the wrong ones (of single tokens: the logit difference). `Patched` says
    what an effect is; heads with large effects by one direction need not have them by the other:
    denoising finds heads that suffice, noising heads that are needed.

    Args:
        task: an eval of choices whose items have corrupt prompts; `split` "detect" where the heads
            are tested on others.
        direction: "denoising" patches the corrupt run from the clean one, "noising" the other way.
        samples: how many pairs.
        heads: which heads; all if left out.
        seed: of the intervals and p-values.
        out: a file to save to after every pair; a map that was cut off goes on.

    Raises:
        HeadscopeError: the eval makes no pairs, or fewer than an interval needs, they do not fit
            into the model, heads do not exist, or `out` holds another map.

    Source: Vig et al. 2020, arXiv 2004.12265; Wang et al. 2022, arXiv 2211.00593; Zhang & Nanda
    2023, arXiv 2309.16042.
    """
    check_opened(model)
    wanted = selected_heads(
        model.heads if heads is None else heads, model.layers, model.n_heads, model.name
    )
    task = chosen(task, samples)
    pairs = pairs_of(model, task)
    new = begun(
        PatchMap, model, task, pairs, direction, [(head,) for head in wanted], seed, command
    )
    return _measured(model, new, pairs, out, progress)


def joint_effect(
    model: HeadModel,
    task: Eval,
    heads: Sequence[Head | str],
    controls: Sequence[HeadSet],
    direction: Direction = "denoising",
    *,
    kind: str = "random",
    samples: int | None = None,
    found_on: PatchMap | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> JointEffect:
    """Patch a set of heads together, and each control set on the same pairs.

    Args:
        controls: sets from `headscope.evals.controls`; 19 allow p = 0.05, 99 p = 0.01.
        kind: what they are, for the claim: "layer-matched", "uniform".
        found_on: the map that the heads were chosen from: its pairs are refused here.
        direction, samples, seed, out: as in `patch_heads`.

    Raises:
        HeadscopeError: as in `patch_heads`; or the heads were found on these pairs.
    """
    check_opened(model)
    shape = model.layers, model.n_heads, model.name
    sets = [selected_heads(each, *shape) for each in (heads, *controls)]
    task = chosen(task, samples)
    pairs = pairs_of(model, task)
    if found_on is not None and {pair.digest for pair in pairs} & set(found_on.digests):
        raise HeadscopeError(
            "These pairs were used to find the heads; test on others, such as split='test'."
        )
    new = begun(JointEffect, model, task, pairs, direction, sets, seed, command, controls=kind)
    return _measured(model, new, pairs, out, progress)


def begun(
    kind: type[Kind],
    model: HeadModel,
    task: Eval,
    pairs: Sequence[Pair],
    direction: Direction,
    sets: Sequence[HeadSet],
    seed: int,
    command: str,
    **more: Any,
) -> Kind:
    """A result without any pair."""
    if direction not in ("denoising", "noising"):
        raise HeadscopeError(f"direction is 'denoising' or 'noising', not {direction!r}.")
    if seed < 0:
        raise HeadscopeError(f"The seed is 0 or more, not {seed}.")
    check_enough(len(pairs))
    return kind(
        model=model.name,
        fingerprint=model.fingerprint,
        backend=model.backend.name,
        dtype=str(model.dtype).removeprefix("torch."),
        layers=model.layers,
        n_heads=model.n_heads,
        n_kv_heads=model.n_kv_heads,
        task=task.name,
        parameters=json.loads(json.dumps(dataclasses.asdict(task))),
        direction=direction,
        seed=seed,
        digests=[pair.digest for pair in pairs],
        sets=[list(each) for each in sets],
        versions=versions(),
        command=command,
        **more,
    )


def _measured(
    model: HeadModel,
    new: Kind,
    pairs: Sequence[Pair],
    out: str | Path | None,
    progress: Progress | None,
) -> Kind:
    """A result with all of its pairs, gone on with where its file has some."""
    path = None if out is None else Path(out)
    result = new.continued(path)
    for index in range(result.done, len(pairs)):
        if progress is not None:
            progress(index, len(pairs))
        result.add(*one_pair(model, pairs[index], result.direction, result.sets))
        if path is not None:
            result.save(path)
    if progress is not None:
        progress(len(pairs), len(pairs))
    return result


def one_pair(
    model: HeadModel, pair: Pair, direction: Direction, sets: Sequence[Sequence[Head]]
) -> tuple[float, float, list[float]]:
    """Margins of the clean and the corrupt run, and with each set patched, many in one pass."""
    clean, corrupt = pair.gap(model)
    said: dict[TokenIds, Tensor] = {}
    for lane in pair.lanes(model, direction):
        # The run that is patched is read once more in the same kind of pass: in half precision
        # another kind rounds otherwise, and all heads would seem to change the answer a little.
        said |= _said(model, lane, [(), *sets])
    base, *margins = pair.margins(said).tolist()
    return (clean, base, margins) if direction == "denoising" else (base, corrupt, margins)


def _said(model: HeadModel, lane: Lane, sets: Sequence[Sequence[Head]]) -> Said:
    source = Outputs.of(model, lane.source)
    rows = [Patch(each, source) for each in sets]
    return lane.said(model, len(rows), lambda some: Patch.rowwise(model, rows[some]))
