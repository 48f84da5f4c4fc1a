"""Is it these heads? Ablate them, and random ones, on questions that found none of them."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from headscope.errors import HeadscopeError
from headscope.evals.apart import check_apart, check_weights
from headscope.evals.base import Eval
from headscope.evals.choosing import target_evals, tested_sets
from headscope.evals.conditions import Condition, ControlKind, check_counts, conditions
from headscope.evals.controls import HeadSet
from headscope.evals.evaluate import chosen_evals
from headscope.evals.head_norms import head_norms
from headscope.evals.masking import Direction, check_room, masked_scores, masks_of
from headscope.evals.measured import Measured, Progress, check_items, go_through, made_items
from headscope.evals.statistics import check_enough
from headscope.evals.validation import Validation
from headscope.headmap import HeadMap
from headscope.heads import Head
from headscope.interventions.ablate import Mode
from headscope.model import HeadModel, check_opened
from headscope.prompts.base import PromptFamily
from headscope.prompts.text import reference_text
from headscope.run import Part
from headscope.runinfo import versions


def validate(
    model: HeadModel,
    heads: HeadMap | Sequence[Head | str],
    *,
    role: str = "retrieval",
    k: int = 5,
    tasks: Sequence[str | Eval] | None = None,
    spared: Sequence[str | Eval] = (),
    doses: Sequence[int] = (),
    controls: int = 19,
    dose_controls: int = 19,
    kinds: Sequence[ControlKind] = ("uniform", "layer_matched"),
    mode: Mode = "zero",
    part: Part = "all",
    direction: Direction = "drop",
    prompts: PromptFamily | str | Path | None = None,
    samples: int | None = None,
    lengths: Sequence[int] | None = None,
    seed: int = 0,
    found_on: HeadMap | None = None,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Validation:
    """Ablate heads and measure evals, against random head sets on the same questions.

    Args:
        heads: a head map, whose top k by `role` are tested, or a list of heads, all of them tested.
        k: the dose that was named beforehand; of a list it is its length.
        tasks: evals that the heads are said to be needed for; needles that fit the model if left
            out.
        spared: evals that should stay as they are.
        doses: other numbers of top heads to test, for a curve; of a list its first so many.
        controls: how many sets of each kind; 19 allow p = 0.05, 99 allow 0.01. Where fewer exist,
            those are used, and the claim says so.
        dose_controls: the same for the other doses, of which spared evals have none.
        kinds: "uniform" draws from all other heads, "layer_matched" as many of each layer as are
            tested, "norm_matched" heads that write as much to the residual stream.
        mode, part: how and where heads are ablated, see `Ablate`. Where no prompt row is ablated,
            each prompt is read once for all conditions.
        direction: what the ablation is said to do to the evals.
        prompts: a family of prompts with answers, or a JSONL file, instead of `tasks`.
        samples: questions of each eval.
        lengths: of the prompts of `tasks`, in tokens.
        seed: of the questions, the control sets and the intervals.
        found_on: where a list of heads was found: its prompts are refused here too.
        out: a file to save to after every question; a validation that was cut off goes on.

    Raises:
        HeadscopeError: a prompt was used to find the heads, expects no answer or does not fit into
            the model, heads do not exist or cannot be matched, no question leaves room for a
            change, there are too few for an interval, or `out` holds another validation.
    """
    check_opened(model)
    _check(mode, part, samples, seed)
    head_map = heads if isinstance(heads, HeadMap) else found_on
    if head_map is not None:
        check_weights(head_map, model)
    tested, k = tested_sets(model, heads, role, k, doses)
    check_counts(k, doses, max(controls, dose_controls), kinds)
    targets = target_evals(model, tasks, prompts, samples, lengths, seed)
    chosen = targets + (chosen_evals(spared, None, samples, seed) if spared else [])
    both = {task.title for task in targets} & {task.title for task in chosen[len(targets) :]}
    if both:
        raise HeadscopeError(f"{min(both)} cannot be both tested and spared; name it once.")
    questions = [made_items(model, task) for task in chosen]
    for task, items in zip(chosen, questions, strict=True):
        if head_map is not None:
            check_apart(head_map, task, [item.prompt for item in items], model.tokenizer)
        check_items(model, task, items)
        check_enough(len(items), 0.95)
    sets = _conditions(model, tested, k, controls, dose_controls, kinds, seed)
    # Of other doses spared evals take the tested sets alone, which stand before their controls.
    shared = 1 + max(i for i, c in enumerate(sets) if c.kind == "tested")
    result = Validation(
        model=model.name,
        fingerprint=model.fingerprint,
        role=role if isinstance(heads, HeadMap) else "",
        k=k,
        mode=mode,
        part=part,
        direction=direction,
        seed=seed,
        conditions=sets,
        targets=len(targets),
        tasks=[
            Measured.of(task, items, len(sets) if index < len(targets) else shared)
            for index, (task, items) in enumerate(zip(chosen, questions, strict=True))
        ],
        versions=versions(),
        command=command,
    )
    path = None if out is None else Path(out)
    result = result.continued(path)
    if result.done == 0:
        for task, items in zip(targets, questions, strict=False):
            check_room(model, task, items, direction)
    masks = masks_of(model, [c.heads for c in sets], mode, part, seed)
    for measured, items in zip(result.tasks, questions, strict=True):
        scores = partial(masked_scores, model, masks=masks[: len(measured.scores)])
        go_through(result, measured, items, scores, path, progress)
    return result


def _check(mode: str, part: str, samples: int | None, seed: int) -> None:
    if samples is not None and samples < 1:
        raise HeadscopeError(f"A validation needs at least one prompt, not {samples}.")
    if seed < 0:
        raise HeadscopeError("The seed is 0 or more.")
    if mode not in get_args(Mode) or part not in get_args(Part):
        raise HeadscopeError(
            f"mode is one of {', '.join(get_args(Mode))}; part is one of "
            f"{', '.join(get_args(Part))}."
        )


def _conditions(
    model: HeadModel,
    tested: dict[int, HeadSet],
    k: int,
    controls: int,
    dose_controls: int,
    kinds: Sequence[ControlKind],
    seed: int,
) -> list[Condition]:
    counts = {size: controls if size == k else dose_controls for size in tested}
    norms: Mapping[Head, float] = {}
    if "norm_matched" in kinds:
        texts = reference_text(model.context_length, seed)
        norms = head_norms(model, texts.prompts(model.tokenizer))
    return conditions(model.heads, tested, k, counts, kinds, norms, seed)
