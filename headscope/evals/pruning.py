"""Greedy pruning: take heads out step by step, and see which order leaves an eval whole longest."""

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.errors import HeadscopeError
from headscope.evals.apart import check_apart, check_weights
from headscope.evals.base import Eval, Item
from headscope.evals.evaluate import chosen_evals
from headscope.evals.masking import check_room, masked_scores, masks_of
from headscope.evals.measured import Measured, Progress, check_items, go_through, made_items
from headscope.evals.pruned import Order, Pruning
from headscope.evals.statistics import check_enough
from headscope.headmap import HeadMap
from headscope.heads import Head
from headscope.interventions.ablate import Ablate
from headscope.model import HeadModel, check_opened
from headscope.probes.gradients import need_gradients
from headscope.probes.importance import Importance, importance, layer_norms
from headscope.prompts.base import Prompt, PromptFamily
from headscope.runinfo import versions

# Orders by the gradient: whether scores are divided by the norm of their layer.
GRADIENT: Mapping[str, bool] = {
    "importance": False,
    "importance_in_layer": True,
    "importance_once": False,
    "importance_in_layer_once": True,
}


def prune(
    model: HeadModel,
    tasks: str | Eval | Sequence[str | Eval],
    *,
    orders: Sequence[str] = ("importance", "random"),
    scores: HeadMap | None = None,
    step: float = 0.1,
    until: float = 0.5,
    randoms: int = 19,
    prompts: PromptFamily | None = None,
    selection: int = 16,
    samples: int | None = None,
    lengths: Sequence[int] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Pruning:
    """Ablate the lowest heads of some orders, more at every step, and measure evals.

    Heads are zeroed at all positions; those that are out stay out. All orders are measured on the
    same questions, with the whole model.

    Source: Michel et al. 2019, arXiv 1905.10650, section 4: the order "importance_in_layer",
    10 % of all heads at a step. Random orders as a null distribution, and intervals, are
    headscope's own.

    Args:
        tasks: an eval or several; test questions, of the split "test" unless an eval says so.
        orders: names, each once.
            "importance": the probe of that name on the model without the heads pruned so far,
            anew at every step. "importance_in_layer": over the norm of each layer, as in the paper.
            Both with "_once" at the end: on the whole model, for all steps.
            "random": so many random orders as `randoms`.
            Any score or role of `scores`, least of it first; heads that tie are drawn.
        scores: a head map of the model.
        step: share of all heads that is pruned at each step.
        until: share of all heads that is pruned in the end.
        randoms: 19 allow p = 0.05.
        prompts: those by which "importance" is found, with answers; by default the questions of
            `tasks` in the split "detect".
        selection: how many of those.
        samples, lengths: of the questions of `tasks`.
        seed: of questions, random orders, ties and intervals.
        out: a file to save to after every step and question; what was cut off goes on.
        command: what to run again to go on, for messages.
        progress: called with (what is done, how much of it, how much in all).

    Raises:
        HeadscopeError: there is no such order, steps prune nothing or too much, a prompt would both
            choose heads and test them, expects no answer or does not fit into the model, no
            gradient reaches the heads, no question is answered rightly, there are too few for an
            interval, or `out` holds another pruning.
    """
    check_opened(model)
    counts = _counts(len(model.heads), step, until)
    wanted = [orders] if isinstance(orders, str) else list(orders)
    check_orders(wanted, scores)
    if randoms < 1 or selection < 1 or seed < 0:
        raise HeadscopeError(
            "A pruning needs at least one random order and one prompt to choose by, and a seed of "
            f"0 or more, not randoms={randoms}, selection={selection} and seed={seed}."
        )
    if scores is not None:
        check_weights(scores, model)
    chosen = chosen_evals([tasks] if isinstance(tasks, str | Eval) else tasks, lengths, samples,
                          seed)  # fmt: skip
    questions = [made_items(model, task) for task in chosen]
    for task, items in zip(chosen, questions, strict=True):
        check_items(model, task, items)
        check_enough(len(items))
        if scores is not None and _scored(wanted):
            check_apart(scores, task, [item.prompt for item in items], model.tokenizer)
    selected: list[Prompt] = []
    if any(name in GRADIENT for name in wanted):
        need_gradients("importance", model)
        selected = _selection(model, chosen, prompts, selection)
        _check_disjoint(chosen, questions, selected)
    ranked = _orders(model, wanted, scores, counts[-1], randoms, seed)
    result = Pruning(
        model=model.name,
        fingerprint=model.fingerprint,
        seed=seed,
        total=len(model.heads),
        counts=counts,
        selection=[prompt.digest for prompt in selected],
        orders=ranked,
        tasks=[
            Measured.of(task, items, 1 + len(ranked) * len(counts))
            for task, items in zip(chosen, questions, strict=True)
        ],
        versions=versions(),
        command=command,
    )
    path = None if out is None else Path(out)
    result = result.continued(path)
    if not result.done:
        for task, items in zip(chosen, questions, strict=True):
            check_room(model, task, items, "drop")
        _choose(model, result, selected, path, progress)
    masks = masks_of(model, result.conditions(), "zero", "all", seed)
    measure = partial(masked_scores, model, masks=masks)
    for measured, items in zip(result.tasks, questions, strict=True):
        go_through(result, measured, items, measure, path, progress)
    return result


def _counts(total: int, step: float, until: float) -> list[int]:
    """How many heads are out at each step."""
    if not (0 < step <= until <= 1):
        raise HeadscopeError(
            "A pruning needs 0 < step <= until <= 1, as shares of all heads, not "
            f"step={step:g} and until={until:g}."
        )
    steps = int(until / step + 1e-9)
    counts = sorted({round(total * step * (i + 1)) for i in range(steps)} - {0})
    if not counts:
        raise HeadscopeError(f"Steps of {step:g} prune none of {total} heads; use a larger step.")
    return counts


def check_orders(names: Sequence[str], scores: HeadMap | None) -> None:
    """Refuse names of orders that cannot be followed.

    Raises:
        HeadscopeError: there is none, one is there twice, or is no order and no score of the map.
    """
    if not names:
        raise HeadscopeError("Name at least one order, such as 'importance' or 'random'.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise HeadscopeError(f"The order {twice!r} is there twice; name it once.")
    for name in _scored(names):
        if scores is None:
            raise HeadscopeError(
                f"The order {name!r} is none of {', '.join((*GRADIENT, 'random'))}; for a score, "
                "give a head map that has it (a run folder of `headscope scan`)."
            )
        scores.score_of(name)


def _scored(names: Sequence[str]) -> list[str]:
    """The orders that are scores of a map."""
    return [name for name in names if name not in GRADIENT and name != "random"]


def _selection(
    model: HeadModel, tasks: Sequence[Eval], prompts: PromptFamily | None, count: int
) -> list[Prompt]:
    """Prompts that choose heads, checked."""
    if prompts is not None:
        found = dataclasses.replace(prompts, samples=count).prompts(model.tokenizer)
    else:
        found = [
            item.prompt
            for task in tasks
            for item in made_items(model, dataclasses.replace(task, samples=count, split="detect"))
        ]
    for prompt in found:
        Importance().check(prompt)
        model.check_prompt(prompt)
    return found


def _check_disjoint(
    tasks: Sequence[Eval], questions: Sequence[Sequence[Item]], selected: Sequence[Prompt]
) -> None:
    known = {prompt.token_ids for prompt in selected}
    for task, items in zip(tasks, questions, strict=True):
        if task.split == "detect" or any(item.prompt.token_ids in known for item in items):
            raise HeadscopeError(
                f"Questions of {task.title!r} would both choose the heads and test them; test on "
                "split='test', and give other prompts= to choose by where an eval has no splits."
            )


def _orders(
    model: HeadModel,
    names: Sequence[str],
    scores: HeadMap | None,
    most: int,
    randoms: int,
    seed: int,
) -> list[Order]:
    """All orders; those by the gradient are still empty. Random ones stand last."""
    found = []
    for name in names:
        if name in GRADIENT:
            found.append(Order(name=name, kind="gradient"))
        elif name != "random":
            assert scores is not None
            mean = torch.from_numpy(scores[scores.score_of(name)].mean())
            sign = -1 if scores.lowest_first(name) else 1
            ranked = _lowest(model, sign * mean, (), random.Random(f"{name}-{seed}"))
            found.append(Order(name=name, kind="score", heads=ranked[:most]))
    if "random" in names:
        for index in range(randoms):
            drawn = random.Random(f"prune-{seed}-{index}").sample(model.heads, most)
            found.append(Order(name=f"random {index + 1}", kind="random", heads=drawn))
    return found


def _lowest(
    model: HeadModel,
    scores: Float[Tensor, "layer head"],
    out: Sequence[Head],
    rng: random.Random,
) -> list[Head]:
    """Heads that are still in, the lowest first; those that tie are drawn."""
    known = dict(zip(model.heads, scores.flatten().tolist(), strict=True))
    gone = set(out)
    left = [head for head in model.heads if head not in gone]
    return sorted(rng.sample(left, len(left)), key=lambda head: known[head])


def _choose(
    model: HeadModel,
    result: Pruning,
    prompts: Sequence[Prompt],
    path: Path | None,
    progress: Progress | None,
) -> None:
    """Fill the orders by the gradient, step by step."""
    whole: list[Tensor] = []  # of the model that has all heads: what all of them begin with
    for order in (order for order in result.orders if order.kind == "gradient"):
        once = order.name.endswith("_once")
        steps = [result.counts[-1]] if once else result.counts
        for step, count in enumerate(steps):
            if len(order.heads) >= count:
                continue
            first = step * len(prompts)
            tick = _tick(progress, f"choosing by {order.name}", first, len(steps) * len(prompts))
            if not order.heads:
                whole = whole or [_mean(model, prompts, (), tick)]
                found = whole[0]
            else:
                found = _mean(model, prompts, order.heads, tick)
            if GRADIENT[order.name]:
                found = found / layer_norms(found)
            rng = random.Random(f"{order.name}-{result.seed}-{step}")
            ranked = _lowest(model, found, order.heads, rng)
            order.heads += ranked[: count - len(order.heads)]
            if path is not None:
                result.save(path)
        _tick(progress, f"choosing by {order.name}", 1, 1)(0)


def _mean(
    model: HeadModel,
    prompts: Sequence[Prompt],
    out: Sequence[Head],
    tick: Callable[[int], None],
) -> Float[Tensor, "layer head"]:
    """Mean importance over prompts, of a model without some heads."""
    found = []
    with Ablate(tuple(out))(model):
        for index, prompt in enumerate(prompts):
            tick(index)
            found.append(importance(model, prompt).double())
    return torch.stack(found).mean(0)


def _tick(progress: Progress | None, what: str, before: int, total: int) -> Callable[[int], None]:
    def tick(index: int) -> None:
        if progress is not None:
            progress(what, before + index, total)

    return tick
