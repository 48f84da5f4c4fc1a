"""Running probes: one forward pass per prompt for all probes that share it, resumable."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from headscope import storage
from headscope.answering import greedy_answer
from headscope.engines import Attended
from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap, in_order
from headscope.heads import label
from headscope.model import HeadModel, check_opened
from headscope.planning import Group, choose, grouped
from headscope.probes.base import Probe, Reading
from headscope.probes.study import _Study
from headscope.prompts.base import Prompt, PromptFamily
from headscope.resuming import finished, kept_part, take_back, tidy
from headscope.runinfo import FamilyInfo, ModelInfo, RunInfo, ScoreInfo, versions
from headscope.studying import Announce, studied

Progress = Callable[[str, int, int], None]  # family, prompts done, prompts in all


class _NoResult(HeadscopeError):
    """The same scan would come to this again, so that there is nothing to continue."""


def scan(
    model: HeadModel,
    probes: Sequence[str | Probe] | Literal["all"] = "all",
    *,
    prompts: PromptFamily | str | Path | None = None,
    lengths: Sequence[int] | None = None,
    samples: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    training: bool = False,
    command: str = "",
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> HeadMap:
    """Score every head of a model.

    Args:
        model: the opened model.
        probes: names, or probes with parameters of one's own; "all" for every one that does not
            take long.
        prompts: a family or a JSONL file to measure on, instead of each probe's own family.
        lengths: lengths in tokens of the prompts; of "all" probes, those keep their own whose
            prompts have no length that could be chosen.
        samples: prompts of each family.
        seed: of the prompts and the intervals; each family's own, and 0, if left out.
        out: a folder to save to while measuring; a scan that was cut off there goes on.
        training: whether "all" probes are also those that train, differentiate or read weights.
        command: what to run again to go on, for messages and the report.
        progress: called with (family, prompts done, prompts in all); for a study, its steps.
        announce: told what a study will cost before it starts.

    Raises:
        HeadscopeError: prompts do not fit, no prompt was answered, or `out` holds another run.
    """
    check_opened(model)
    if seed is not None and seed < 0:
        raise HeadscopeError(f"A seed is 0 or more, not {seed}.")
    if out is not None and model.stack.chain.entered:
        raise HeadscopeError(
            "A scan that is saved measures the model as it is: close the interventions' scopes "
            "first, or scan without out=."
        )
    chosen = choose(probes, prompts, lengths, samples, seed, training)
    groups, left_out = grouped(chosen, model, lenient=probes == "all")
    info = _describe(model, groups, left_out, seed or 0, command)
    folder = None if out is None else Path(out)
    if folder is not None and (folder / "run.json").exists():
        before = RunInfo.read(folder)
        differs = before.same_measurement(info)
        if differs:
            raise HeadscopeError(
                f"{folder} holds another run (it differs in: {', '.join(differs)}); choose "
                "another folder with --out, or delete this one."
            )
        if before.state == "complete":
            return finished(folder, before)
    elif folder is not None and any(p.suffix != ".part" for p in folder.glob("*")):
        raise HeadscopeError(f"{folder} is not empty and holds no run; choose another folder.")
    if folder is not None:
        info.write(folder)
    try:
        parts = {each.key: _measure(model, each, folder, progress, announce) for each in groups}
        return _finish(info, groups, parts, folder)
    except _NoResult:
        if folder is not None:
            take_back(folder)
        raise


def _describe(
    model: HeadModel,
    groups: Sequence[Group],
    left_out: Mapping[str, str],
    seed: int,
    command: str,
) -> RunInfo:
    members = [probe for group in groups for probe in group.probes]
    return RunInfo(
        model=ModelInfo(
            spec=model.spec,
            name=model.name,
            revision=model.revision,
            fingerprint=model.fingerprint,
            layers=model.layers,
            n_heads=model.n_heads,
            n_kv_heads=model.n_kv_heads,
            d_head=model.d_head,
            context_length=model.context_length,
            parameters=sum(p.numel() for p in model.hf.parameters()),
            reach=dict(model.backend.reach),
        ),
        backend=model.backend.name,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        seed=seed,
        probes={probe.name: _parameters(probe) for probe in members},
        scores={
            name: ScoreInfo(probe=probe.name, kv_view=probe.kv_view)
            for probe in members
            for name in probe.score_names()
        },
        curves={name: points for probe in members for name, points in probe.curves.items()},
        families={
            group.key: FamilyInfo(
                family=group.family.name,
                parameters=_parameters(group.family),
                digests=[prompt.digest for prompt in group.prompts],
            )
            for group in groups
        },
        left_out=dict(left_out),
        versions=versions(),
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _parameters(method: Any) -> dict[str, Any]:
    plain = dataclasses.asdict(method)
    if isinstance(method, Probe):
        plain["prompts"] = {"family": method.prompts.name, **plain["prompts"]}
    return json.loads(json.dumps(plain))


@dataclass(frozen=True, eq=False)
class _Measured:
    """What a group's prompts gave.

    Attributes:
        accepted: for each prompt, whether it counts.
        arrays: by name of score or curve, one row for each that does, or what a study made of all.
    """

    accepted: list[bool]
    seconds: float
    arrays: dict[str, np.ndarray]


def _measure(
    model: HeadModel,
    group: Group,
    folder: Path | None,
    progress: Progress | None,
    announce: Announce | None,
) -> _Measured:
    if isinstance(group.altering, _Study):
        step = None if progress is None else partial(progress, group.key)
        found = studied(model, group, folder, announce, step, lambda x: _checked(x, model, rows=1))
        seconds = float(found.pop("seconds")[0])
        return _Measured([True] * len(group.prompts), seconds, found)
    parts = []
    for index, prompt in enumerate(group.prompts):
        if progress is not None:
            progress(group.key, index, len(group.prompts))
        path = None if folder is None else folder / "partial" / f"{group.key}-{index}.safetensors"
        if path is not None and path.exists():
            parts.append(kept_part(path, group, model))
            continue
        start = time.perf_counter()
        part = _read(model, group, prompt)
        part["seconds"] = np.array([time.perf_counter() - start])
        if path is not None:
            storage.write_arrays(path, part)
        parts.append(part)
    if progress is not None:
        progress(group.key, len(group.prompts), len(group.prompts))
    return _joined(group, parts)


def _joined(group: Group, parts: Sequence[Mapping[str, np.ndarray]]) -> _Measured:
    """What single prompts gave, prompt by prompt."""
    arrays: dict[str, np.ndarray] = {}
    for name in (name for probe in group.probes for name in probe.outputs()):
        kept = [part[name] for part in parts if name in part]
        if len({array.shape for array in kept}) > 1:
            raise _NoResult(
                f"{name!r} has another number of points on each prompt of {group.key}, so that "
                "no mean can be taken; use prompts with as many documents each."
            )
        if kept:
            arrays[name] = np.stack(kept)
    accepted = [bool(part["accepted"][0]) for part in parts]
    return _Measured(accepted, sum(float(part["seconds"][0]) for part in parts), arrays)


@torch.no_grad()
def _read(model: HeadModel, group: Group, prompt: Prompt) -> dict[str, np.ndarray]:
    """One prompt's scores, each [layer, head]; none from an answer that is not accepted."""
    if group.altering is not None:
        altered = group.altering.read(model, prompt)
        return {"accepted": np.array([True]), **_checked(altered, model)}
    ids = torch.tensor(prompt.token_ids, device=model.device)
    on_prompt = [probe for probe in group.probes if probe.rows != "answer"]
    on_answer = [probe for probe in group.probes if probe.rows == "answer"]
    found: dict[str, np.ndarray] = {}
    cache, start = model.new_cache() if on_answer else None, None
    nothing = ids[:0]
    if on_prompt:
        reading = Reading(prompt, model, ids, nothing, nothing)
        with _observed(model, on_prompt, reading) as rows:
            start = model.forward(ids[None], cache=cache, prompt_length=len(ids), last=1)[0, -1]
        found |= _checked(rows, model)
    if not on_answer:
        return {"accepted": np.array([True]), **found}
    answer = greedy_answer(model, prompt, cache, start)
    accepted = answer.accepted(prompt)
    if accepted:
        # The prompt went through the model before: only the rows that made the answer do again.
        everything = torch.cat((ids, answer.token_ids))
        answer.cache.crop(len(ids) - 1 - int(answer.cache.get_seq_length()))
        made = torch.arange(len(answer.token_ids), device=ids.device)
        reading = Reading(prompt, model, everything, answer.token_ids, made)
        with _observed(model, on_answer, reading) as rows:
            model.forward(
                everything[None, len(ids) - 1 : -1], cache=answer.cache, prompt_length=len(ids),
                last=1,
            )  # fmt: skip
        found |= _checked(rows, model)
    return {"accepted": np.array([accepted]), **found}


@contextmanager
def _observed(
    model: HeadModel, probes: Sequence[Probe], reading: Reading
) -> Iterator[dict[str, list[Tensor]]]:
    """What probes measure of the pass that is made within, layer by layer."""
    rows: dict[str, list[Tensor]] = {name: [] for probe in probes for name in probe.outputs()}

    def observe(attended: Attended) -> None:
        for probe in probes:
            for name, score in probe.measure(attended, reading).items():
                rows[name].append(score.cpu())

    with model.observed(observe):
        yield rows


def _checked(
    found: Mapping[str, Sequence[Tensor] | Tensor], model: HeadModel, rows: int = 0
) -> dict[str, np.ndarray]:
    """Scores as float32 arrays; an error that names layer and head where one is no number.

    Args:
        rows: axes before [layer, head].
    """
    scores = {
        name: x if isinstance(x, Tensor) else torch.stack(list(x)) for name, x in found.items()
    }
    for name, score in scores.items():
        heads = score.flatten(rows + 2).sum(-1) if score.ndim > rows + 2 else score
        bad = ~torch.isfinite(heads)
        if bool(bad.any()):
            layer, head = bad.nonzero()[0, rows:].tolist()
            raise _NoResult(
                f"{label((model.layers[layer], head))} has a {name} that is no number: the model's "
                "activations hold NaN or infinity there; try --dtype float32."
            )
    return {name: score.float().cpu().numpy() for name, score in scores.items()}


def _finish(
    info: RunInfo,
    groups: Sequence[Group],
    parts: Mapping[str, _Measured],
    folder: Path | None,
) -> HeadMap:
    arrays: dict[str, np.ndarray] = {}
    families = dict(info.families)
    for key, found in parts.items():
        arrays |= found.arrays
        families[key] = families[key].model_copy(
            update={"accepted": found.accepted, "seconds": round(found.seconds, 3)}
        )
    if not arrays:
        rate = ", ".join(f"{g.key}: 0 of {len(g.prompts)}" for g in groups)
        raise _NoResult(
            f"The model answered none of the prompts ({rate}), so there is nothing to score; "
            "try shorter prompts, another kind of needle, or a larger model."
        )
    curves = {name: arrays.pop(name) for name in info.curves if name in arrays}
    measured = {name: info.curves[name] for name in curves}
    done = info.model_copy(update={"state": "complete", "families": families, "curves": measured})
    head_map = HeadMap(done, in_order(done, arrays), curves)
    if folder is not None:
        head_map.save(folder)
        tidy(folder)
    return head_map
