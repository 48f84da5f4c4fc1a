"""Which heads a validation tests, and on which evals."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from headscope.errors import HeadscopeError
from headscope.evals.base import Eval
from headscope.evals.conditions import check_counts
from headscope.evals.controls import HeadSet
from headscope.evals.evaluate import chosen_evals
from headscope.evals.given import given
from headscope.evals.needle import Needle
from headscope.headmap import HeadMap
from headscope.heads import Head, selected_heads
from headscope.model import HeadModel
from headscope.prompts.base import PromptFamily, with_lengths
from headscope.prompts.jsonl import Jsonl


def top_heads(head_map: HeadMap, role: str, k: int) -> HeadSet:
    """The k heads of a map that a validation tests.

    Raises:
        HeadscopeError: there is no such role or score, or there are not so many heads.
    """
    top = head_map.top(role, k)
    if len(top) < k:
        raise HeadscopeError(
            f"{head_map.info.model.name} has {len(top)} heads in all, so its top {k} cannot be "
            "tested; ask for fewer (--k, --doses)."
        )
    return tuple(zip(top["layer"].tolist(), top["head"].tolist(), strict=True))


def needles_for(model: HeadModel, samples: int = 24, seed: int = 0) -> Needle:
    """Needles of the test split, in those of their lengths that fit with the answer.

    Raises:
        HeadscopeError: none of them fits.
    """
    task = Needle(samples=samples, seed=seed, lengths=(256, 512, 768, 1024))
    for count in range(len(task.lengths), 0, -1):
        fitting = dataclasses.replace(task, lengths=task.lengths[:count])
        if fitting.lengths[-1] >= model.context_length:
            continue  # no room for an answer, whatever it is
        made = [item.prompt for item in fitting.items(model.tokenizer)]
        if all(len(p) + len(p.answer_ids) <= model.context_length for p in made):
            return fitting
    raise HeadscopeError(
        f"No needle of {min(task.lengths)} tokens or more fits into the {model.context_length} "
        f"that {model.spec} was made for; give other prompts, or shorter lengths."
    )


def tested_sets(
    model: HeadModel, heads: HeadMap | Sequence[Head | str], role: str, k: int, doses: Sequence[int]
) -> tuple[dict[int, HeadSet], int]:
    """Head sets by their size, and the size that was named beforehand."""
    if isinstance(heads, HeadMap):
        check_counts(k, doses, 0, ())
        most = top_heads(heads, role, max((k, *doses)))
    else:
        most = tuple(heads)
        k = len(selected_heads(most, model.layers, model.n_heads, model.name))
        beyond = [dose for dose in doses if dose > k]
        if beyond:
            raise HeadscopeError(f"{k} heads are given, so that {beyond[0]} cannot be tested.")
    chosen = selected_heads(most, model.layers, model.n_heads, model.name)
    return {size: chosen[:size] for size in sorted({k, *doses})}, k


def target_evals(
    model: HeadModel,
    tasks: Sequence[str | Eval] | None,
    prompts: PromptFamily | str | Path | None,
    samples: int | None,
    lengths: Sequence[int] | None,
    seed: int,
) -> list[Eval]:
    if prompts is not None:
        if tasks is not None:
            raise HeadscopeError("Test on tasks= or on prompts=, not on both.")
        family = Jsonl(path=str(prompts)) if isinstance(prompts, str | Path) else prompts
        if samples is not None:
            family = dataclasses.replace(family, samples=samples)
        return [given(family if lengths is None else with_lengths(family, lengths))]
    if tasks is not None:
        return chosen_evals(tasks, lengths, samples, seed)
    if lengths is None:
        return [needles_for(model, samples or 24, seed)]
    return [Needle(samples=samples or 24, seed=seed, lengths=tuple(lengths))]
