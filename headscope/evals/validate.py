"""Is it these heads? Ablate them, and random ones, on prompts that found none of them."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from headscope.errors import HeadscopeError
from headscope.evals.apart import check_apart
from headscope.evals.controls import HeadSet, layer_matched_sets, uniform_sets
from headscope.evals.forced import Forced, forced_answer, prefilled
from headscope.evals.validation import Condition, Validation
from headscope.headmap import HeadMap
from headscope.heads import Head, selected_heads
from headscope.interventions.ablate import Ablate, Mode, Reference
from headscope.model import HeadModel, check_opened
from headscope.prompts.base import Prompt, PromptFamily, with_lengths
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
    lengths: Sequence[int] | None = None,
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
        prompts: what to test on; the needles of `needles_for` if left out.
        samples: how many prompts.
        lengths: of the prompts, in tokens.
        seed: of the prompts, the control sets and the intervals.
        found_on: where a list of heads was found: its prompts are refused here too.
        out: a file to save to after every prompt; a validation that was cut off goes on.

    Raises:
        HeadscopeError: a prompt was used to find the heads, expects no answer or does not fit into
            the model, heads do not exist, or `out` holds another validation.
    """
    check_opened(model)
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
    if head_map is not None:
        _check_model(head_map, model)
    tested = _tested(model, heads, role, k)
    if prompts is None and lengths is None:
        prompts = needles_for(model, samples or 24, seed)
    family = _family(prompts or Needle(split="test", samples=24, seed=seed), samples, lengths)
    chosen = family.prompts(model.tokenizer)
    if head_map is not None:
        check_apart(head_map, family, chosen, model.tokenizer)
    for index, prompt in enumerate(chosen):
        _check_prompt(model, prompt, f"Prompt {index + 1} of {family.name}")
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


def top_heads(head_map: HeadMap, role: str, k: int) -> HeadSet:
    """The k heads of a map that a validation tests.

    Raises:
        HeadscopeError: there is no such role or score, or there are not so many heads.
    """
    top = head_map.top(role, k)
    if len(top) < k:
        raise HeadscopeError(
            f"{head_map.info.model.name} has {len(top)} heads in all, so its top {k} cannot be "
            "tested; ask for fewer (--k)."
        )
    return tuple(zip(top["layer"].tolist(), top["head"].tolist(), strict=True))


def _tested(model: HeadModel, heads: HeadMap | Sequence[Head | str], role: str, k: int) -> HeadSet:
    chosen = top_heads(heads, role, k) if isinstance(heads, HeadMap) else heads
    return selected_heads(chosen, model.layers, model.n_heads, model.name)


def _family(
    family: PromptFamily, samples: int | None, lengths: Sequence[int] | None
) -> PromptFamily:
    if samples is not None:
        family = dataclasses.replace(family, samples=samples)
    return family if lengths is None else with_lengths(family, lengths)


def needles_for(model: HeadModel, samples: int = 24, seed: int = 0) -> Needle:
    """Needles of the test split, in those of their lengths that fit with the answer.

    Raises:
        HeadscopeError: none of them fits.
    """
    family = Needle(split="test", samples=samples, seed=seed)
    for count in range(len(family.lengths), 0, -1):
        fitting = dataclasses.replace(family, lengths=family.lengths[:count])
        if fitting.lengths[-1] >= model.context_length:
            continue  # no room for an answer, whatever it is
        made = fitting.prompts(model.tokenizer)
        if all(len(p) + len(p.answer_ids) <= model.context_length for p in made):
            return fitting
    raise HeadscopeError(
        f"No needle of {min(family.lengths)} tokens or more fits into the {model.context_length} "
        f"that {model.spec} was made for; give other prompts, or shorter lengths."
    )


def _check_model(head_map: HeadMap, model: HeadModel) -> None:
    """Refuse a map of another model; one that came without its weights is known by its shape."""
    info = head_map.info.model
    same = info.fingerprint == model.fingerprint
    if info.fingerprint is None:
        same = (info.layers, info.n_heads) == (model.layers, model.n_heads)
    if not same:
        raise HeadscopeError(
            f"The head map is of {info.name}, with other weights than {model.name}; open the model "
            "it was made with."
        )


def _check_prompt(model: HeadModel, prompt: Prompt, where: str) -> None:
    """Refuse a prompt before any is measured: what was measured would stay behind in the file."""
    try:
        model.check_prompt(prompt)
    except HeadscopeError as error:
        raise HeadscopeError(f"{where}: {error}") from error
    if not prompt.answer_ids:
        raise HeadscopeError(
            f"{where} expects no answer, so that none can be scored; give its 'answer'."
        )


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
