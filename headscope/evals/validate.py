"""Is it these heads? Ablate them, and random ones, on prompts that found none of them."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from headscope.errors import HeadscopeError
from headscope.evals.controls import HeadSet, layer_matched_sets, uniform_sets
from headscope.evals.forced import Forced, forced_answer, prefilled
from headscope.evals.validation import Condition, Validation
from headscope.headmap import HeadMap
from headscope.heads import Head, check_heads, parse_heads
from headscope.interventions.ablate import Ablate, Mode, Reference
from headscope.model import HeadModel
from headscope.prompts.base import Prompt, PromptFamily
from headscope.prompts.needle import Needle
from headscope.prompts.text import Text
from headscope.run import Part
from headscope.runinfo import versions

Progress = Callable[[int, int], None]  # prompts done, prompts in all


def validate(
    model: HeadModel,
    heads: HeadMap | Sequence[Head | str],
    *,
    role: str = "retrieval",
    k: int = 5,
    controls: int = 19,
    mode: Mode = "zero",
    part: Part = "all",
    prompts: PromptFamily | None = None,
    samples: int | None = None,
    seed: int = 0,
    found_on: HeadMap | None = None,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Validation:
    """Ablate heads and measure the answers, against random head sets on the same prompts.

    Args:
        heads: a head map, whose top k by `role` are tested, or a list of heads.
        controls: how many uniform and how many layer-matched sets; 19 allow p = 0.05. Where fewer
            exist, those are used, and the claim says so.
        mode, part: how and where heads are ablated, see `Ablate`.
        prompts: what to test on; needles of the test split if left out.
        samples: how many prompts.
        seed: of the prompts, the control sets and the intervals.
        found_on: where a list of heads was found: its prompts are refused here too.
        out: a file to save to after every prompt; a validation that was cut off goes on.

    Raises:
        HeadscopeError: a prompt was used to find the heads, heads do not exist, or `out` holds
            another validation.
    """
    if samples is not None and samples < 1:
        raise HeadscopeError(f"A validation needs at least one prompt, not {samples}.")
    if controls < 0 or seed < 0:
        raise HeadscopeError("The number of controls and the seed are 0 or more.")
    if mode not in get_args(Mode) or part not in get_args(Part):
        raise HeadscopeError(
            f"mode is one of {', '.join(get_args(Mode))}; part is one of "
            f"{', '.join(get_args(Part))}."
        )
    head_map = heads if isinstance(heads, HeadMap) else found_on
    if head_map is not None and head_map.info.model.fingerprint != model.fingerprint:
        raise HeadscopeError(
            f"The head map is of {head_map.info.model.name}, with other weights than "
            f"{model.name}; open the model it was made with."
        )
    tested = _tested(model, heads, role, k)
    family = prompts or Needle(split="test", samples=24, seed=seed)
    if samples is not None:
        family = dataclasses.replace(family, samples=samples)
    chosen = family.prompts(model.tokenizer)
    if any(prompt.digest in _digests(head_map) for prompt in chosen):
        raise HeadscopeError(
            "These prompts were used to find the heads; test on others (another split or file)."
        )
    result = Validation(
        model=model.name,
        fingerprint=model.fingerprint,
        role=role if isinstance(heads, HeadMap) else "",
        mode=mode,
        part=part,
        seed=seed,
        prompts={"family": family.name, **dataclasses.asdict(family)},
        digests=[prompt.digest for prompt in chosen],
        answer_tokens=[len(prompt.answer_ids) for prompt in chosen],
        versions=versions(),
        command=command,
        conditions=_conditions(model, tested, controls, seed),
    )
    path = None if out is None else Path(out)
    if path is not None and path.exists():
        result = _continued(result, Validation.load(path), path)
    reference = None
    if mode in ("mean", "resample"):
        length = min(512, model.context_length)
        texts = Text(samples=4, split="tune", seed=seed, lengths=(length,))
        reference = Reference.measure(model, texts.prompts(model.tokenizer))
    for index in range(result.done, len(chosen)):
        if progress is not None:
            progress(index, len(chosen))
        scores = _scores(model, chosen[index], result, reference)
        for condition, score in zip(result.conditions, scores, strict=True):
            condition.logp.append(score.logp)
            condition.exact.append(score.exact)
        if path is not None:
            result.save(path)
    if progress is not None:
        progress(len(chosen), len(chosen))
    return result


def _tested(model: HeadModel, heads: HeadMap | Sequence[Head | str], role: str, k: int) -> HeadSet:
    if isinstance(heads, HeadMap):
        top = heads.top(role, k)
        heads = list(zip(top["layer"].tolist(), top["head"].tolist(), strict=True))
    tested = parse_heads(heads)
    if not tested:
        raise HeadscopeError("Name at least one head to test.")
    check_heads(tested, model.layers, model.n_heads, model.name)
    return tested


def _digests(head_map: HeadMap | None) -> set[str]:
    if head_map is None:
        return set()
    return {digest for family in head_map.info.families.values() for digest in family.digests}


def _conditions(model: HeadModel, tested: HeadSet, controls: int, seed: int) -> list[Condition]:
    every = [(layer, head) for layer in model.layers for head in range(model.n_heads)]
    return [
        Condition(kind="base", heads=[]),
        Condition(kind="tested", heads=list(tested)),
        *(
            Condition(kind="uniform", heads=list(drawn))
            for drawn in uniform_sets(every, tested, controls, seed)
        ),
        *(
            Condition(kind="layer_matched", heads=list(drawn))
            for drawn in layer_matched_sets(every, tested, controls, seed)
        ),
    ]


def _scores(
    model: HeadModel, prompt: Prompt, result: Validation, reference: Reference | None
) -> list[Forced]:
    # A head that is whole while the prompt is read leaves the same cache whatever the set.
    cache = prefilled(model, prompt) if result.part in ("answer", "decode") else None
    scores = []
    for condition in result.conditions:
        with Ablate(tuple(condition.heads), result.mode, result.part, reference)(model):
            scores.append(forced_answer(model, prompt, cache))
    return scores


def _continued(new: Validation, old: Validation, path: Path) -> Validation:
    def identity(v: Validation) -> Any:
        sets = [(c.kind, c.heads) for c in v.conditions]
        return v.fingerprint, v.mode, v.part, v.digests, sets

    if identity(new) != identity(old):
        raise HeadscopeError(
            f"{path} holds another validation; choose another file, or delete this one."
        )
    return old
