"""The head sets of a validation: the tested ones, and random ones to hold them against."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from headscope.errors import HeadscopeError
from headscope.evals.controls import (
    HeadSet,
    check_layer_matched,
    layer_matched_sets,
    norm_matched_sets,
    uniform_sets,
)
from headscope.heads import Head

ControlKind = Literal["uniform", "layer_matched", "norm_matched"]
Kind = Literal["base", "tested", "uniform", "layer_matched", "norm_matched"]
CONTROLS: tuple[ControlKind, ...] = get_args(ControlKind)
MOST_CONTROLS = 99


class Condition(BaseModel):
    """One head set, and the dose that it is or is held against: how many heads."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    k: int
    heads: list[tuple[int, int]]


def conditions(
    every: Sequence[Head],
    tested: Mapping[int, HeadSet],
    k: int,
    counts: Mapping[int, int],
    kinds: Sequence[ControlKind],
    norms: Mapping[Head, float],
    seed: int,
) -> list[Condition]:
    """All conditions: none ablated, the confirmatory dose and its controls, then other doses.

    What tests of spared evals need comes first: of other doses they take the tested sets alone.

    Args:
        every: all heads of the model.
        tested: head sets by their size.
        k: the confirmatory size.
        counts: control sets of each kind, by size.
        norms: of every head, for norm-matched sets.

    Raises:
        HeadscopeError: a layer has not enough other heads left to match those of size k.
    """
    if "layer_matched" in kinds and counts[k]:
        check_layer_matched(every, tested[k])
    doses = sorted(size for size in tested if size != k)
    found = [Condition(kind="base", k=0, heads=[])]
    found.append(Condition(kind="tested", k=k, heads=list(tested[k])))
    found += _controls(every, tested[k], counts[k], kinds, norms, seed)
    found += [Condition(kind="tested", k=size, heads=list(tested[size])) for size in doses]
    for size in doses:
        found += _controls(every, tested[size], counts[size], kinds, norms, seed)
    return found


def _controls(
    every: Sequence[Head],
    tested: HeadSet,
    count: int,
    kinds: Sequence[ControlKind],
    norms: Mapping[Head, float],
    seed: int,
) -> list[Condition]:
    drawn: dict[ControlKind, list[HeadSet]] = {}
    if "uniform" in kinds:
        drawn["uniform"] = uniform_sets(every, tested, count, seed)
    if "layer_matched" in kinds:
        drawn["layer_matched"] = layer_matched_sets(every, tested, count, seed)
    if "norm_matched" in kinds:
        drawn["norm_matched"] = norm_matched_sets(every, tested, norms, count, seed)
    return [
        Condition(kind=kind, k=len(tested), heads=list(heads))
        for kind, sets in drawn.items()
        for heads in sets
    ]


def check_counts(k: int, doses: Sequence[int], controls: int, kinds: Sequence[str]) -> None:
    """Refuse numbers that no validation can have.

    Raises:
        HeadscopeError: it says which.
    """
    if min((k, *doses)) < 1:
        raise HeadscopeError("Test at least one head: every dose is a whole number from 1 up.")
    if not 0 <= controls <= MOST_CONTROLS:
        raise HeadscopeError(
            f"Take 0 to {MOST_CONTROLS} control sets of each kind (99 allow p = 0.01), not "
            f"{controls}."
        )
    wrong = [kind for kind in kinds if kind not in CONTROLS]
    if wrong:
        raise HeadscopeError(
            f"There are no {wrong[0]!r} controls; choose among {', '.join(CONTROLS)}."
        )
