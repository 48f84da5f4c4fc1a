"""From recalls and a budget to a profile: the least loss that the budget allows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np
from einops import rearrange, repeat
from jaxtyping import Float

from headscope.errors import HeadscopeError
from headscope.knapsack import Knapsack
from headscope.patterns.rules import Rule
from headscope.sparsity.budget import Budget
from headscope.sparsity.candidates import default_streaming
from headscope.sparsity.planned import Granularity, Plan, Taken
from headscope.sparsity.profile import ProfiledModel, SparseProfile, check_length, held_tokens
from headscope.sparsity.recalls import Loss, Over, Recalls

if TYPE_CHECKING:
    from headscope.headmap import HeadMap
    from headscope.sparsity.costs import Costs

Weights = Float[np.ndarray, "length unit rule"]


def plan(
    recalls: Recalls,
    budget: Budget | str | float = 0.5,
    *,
    granularity: Granularity = "kv_head",
    rules: Sequence[Rule] | None = None,
    loss: Loss | None = None,
    over: Over = "mean",
    costs: "Costs | None" = None,
    gap: float = 1e-4,
) -> Plan:
    """Choose a rule for every head: the least summed loss within a budget at every length.

    A multiple-choice knapsack, one budget a length, solved by branch and bound (HiGHS).

    Args:
        budget: a share of density, KV bytes or latency: see `Budget`.
        granularity: "kv_head" gives the query heads of a KV head one rule, as what is held and read
            for them is the same; "head" gives every query head its own.
        rules: of those that were measured; all if left out.
        loss: of those that were measured; "answer" before "output" before "recall" if left out.
        over: lengths: their mean counts, or for each head the length at which most is lost.
        costs: from `measure_costs`, for a budget of latency.
        gap: how far the loss may be above its bound, in shares of it.

    Raises:
        HeadscopeError: the budget is below what the smallest rules take, it does not fit the
            granularity, or something was not measured.
    """
    budget = Budget.of(budget)
    chosen = recalls if rules is None else recalls.only(rules)
    _check_unit(chosen.model, budget, granularity)
    name = chosen.best_loss if loss is None else loss
    lost = _by_unit(chosen.loss(name, over), chosen.model, granularity)
    units, choices = lost.shape
    weights = _weights(chosen, budget, granularity, costs)
    limits = np.full(len(chosen.lengths), budget.share)
    sack = Knapsack(
        loss=lost.ravel(),
        group=np.arange(units).repeat(choices),
        weight=weights.reshape(len(limits), -1) / units,
        budget=limits,
    )
    picked = sack.solved(gap)
    if picked is None:
        raise _too_small(chosen, budget, sack)
    index = picked.choices % choices
    grid = _grid(chosen, index, granularity)
    profile = SparseProfile.of(
        chosen.model,
        grid,
        notes={"planned": budget.label, "loss": name, "granularity": granularity, "over": over},
    )
    used = weights[:, np.arange(units), index].mean(1)
    return Plan(
        budget_kind=budget.kind,
        budget=budget.share,
        phase=budget.phase,
        granularity=granularity,
        loss=name,
        over=over,
        lost=picked.loss,
        bound=max(picked.bound, 0.0),
        taken=_taken(profile, chosen, index, granularity, used),
        measured={
            "prompts": len(chosen.about.digests),
            "rows": chosen.about.rows,
            "lengths": list(chosen.lengths),
        },
        profile=profile,
    )


def plan_by_score(
    head_map: "HeadMap",
    score: str,
    budget: Budget | str | float = 0.5,
    *,
    lengths: Sequence[int],
    rule: Rule | None = None,
    granularity: Granularity = "kv_head",
    d_head: int | None = None,
    seed: int = 0,
) -> Plan:
    """Give a rule to as few heads as meet the budget, those first that a score speaks for least.

    Nothing is measured: DuoAttention's threshold on a score, at the share that the budget asks for.

    Args:
        score: of a score or a role of the map.
        budget: of density or KV bytes.
        lengths: at which it is met, in tokens.
        rule: `default_streaming` of the lengths if left out.
        granularity: whole KV heads, or query heads one by one.
        d_head, seed: as in `SparseProfile.from_map`.

    Raises:
        HeadscopeError: there is no such score, or the budget is not met by the rule on every head.
    """
    budget = Budget.of(budget)
    facts = ProfiledModel.of_map(head_map, d_head)
    _check_unit(facts, budget, granularity)
    rule = default_streaming(lengths) if rule is None else rule
    weights = np.array([fixed_share(rule, n, budget) for n in lengths])
    units = len(facts.layers) * (facts.n_heads if granularity == "head" else facts.n_kv_heads)
    if (weights > budget.share + 1e-12).any():
        worst = int(weights.argmax())
        raise HeadscopeError(
            f"{rule} on every head takes {weights[worst]:.3g} of the {budget.words} at "
            f"{lengths[worst]} tokens, more than a budget of {budget.share:g}; raise the budget, "
            "or give a smaller rule."
        )
    # count heads with the rule take count * weight + the rest; rounding must not ask for one more.
    counts = np.ceil((1 - budget.share) * units / (1 - np.minimum(weights, 1 - 1e-12)) - 1e-9)
    count = int(counts.max()) if budget.share < 1 else 0
    profile = SparseProfile.from_map(
        head_map, score, share=count / units, rule=rule, by=granularity, seed=seed, d_head=d_head
    )
    used = (count * weights + units - count) / units
    return Plan(
        budget_kind=budget.kind,
        budget=budget.share,
        granularity=granularity,
        taken=tuple(
            _taken_at(profile, n, float(share), None)
            for n, share in zip(lengths, used, strict=True)
        ),
        by=score,
        profile=profile,
    )


def _check_unit(model: ProfiledModel, budget: Budget, granularity: Granularity) -> None:
    """Refuse units that a budget does not come in, and models that it cannot count.

    Raises:
        HeadscopeError: keys and values are held, and the time of a layer was measured, by KV head;
            layers with a window of their own take less than a share could be of.
    """
    if model.windowed and budget.kind != "latency":
        raise HeadscopeError(
            f"Some layers of {model.name} have a window of their own, and take less {budget.words} "
            "than is counted here: plan with a budget of latency, which is measured, or give heads "
            "rules by hand."
        )
    if granularity not in get_args(Granularity):
        raise HeadscopeError(
            f"The unit of a plan is the 'kv_head' or the 'head', not {granularity!r}."
        )
    if granularity == "kv_head" or budget.kind == "density" or model.group == 1:
        return
    what = "Keys and values are held" if budget.kind == "kv" else "Time is measured"
    raise HeadscopeError(
        f"{what} for whole KV heads, each of which {model.group} query heads of {model.name} "
        f"share: with a budget of {budget.words} plan with granularity='kv_head', or give a budget "
        "of density."
    )


def _by_unit(
    loss: Float[np.ndarray, "layer head rule"], model: ProfiledModel, granularity: Granularity
) -> Float[np.ndarray, "unit rule"]:
    group = model.group if granularity == "kv_head" else 1
    return rearrange(loss, "l (k g) r -> (l k) g r", g=group).sum(1)


def _weights(
    recalls: Recalls, budget: Budget, granularity: Granularity, costs: "Costs | None"
) -> Weights:
    """What each rule takes for each unit, where a unit without a rule takes 1 on average."""
    model, lengths, rules = recalls.model, recalls.lengths, recalls.rules
    layers = len(model.layers)
    units = model.n_heads if granularity == "head" else model.n_kv_heads
    if budget.kind == "density":
        group = model.n_heads // units
        by_head = rearrange(recalls.densities(), "n l (u g) r -> n (l u) g r", g=group)
        return by_head.mean(2)
    if budget.kind == "kv":
        held = np.array([[fixed_share(rule, n, budget) for rule in rules] for n in lengths])
        return repeat(held, "n r -> n u r", u=layers * units)
    if costs is None:
        raise HeadscopeError(
            "A budget of latency needs measured costs: pass costs=measure_costs(model, rules, "
            "lengths)."
        )
    shares = costs.shares(recalls.model, rules, lengths, budget.phase)
    return repeat(shares, "n l r -> n (l u) r", u=units)


def fixed_share(rule: Rule, n: int, budget: Budget) -> float:
    """What a rule takes for a head that has it, whatever the text."""
    check_length(n)
    if budget.kind == "kv":
        return held_tokens(rule.held(), n) / n
    density = rule.density(n) if budget.kind == "density" else None
    if density is None:
        raise HeadscopeError(
            f"What {rule} takes of the {budget.words} has to be measured; plan with "
            "headscope.sparsity.plan instead of a score."
        )
    return density


def _too_small(recalls: Recalls, budget: Budget, sack: Knapsack) -> HeadscopeError:
    least = sack.smallest() * budget.share
    longer = "plan for longer texts" if budget.kind == "latency" else (
        "give rules with smaller sinks and windows"
    )  # fmt: skip
    return HeadscopeError(
        f"A budget of {budget.share:g} of the {budget.words} is below the smallest that these "
        f"rules allow for {', '.join(map(str, recalls.lengths))} tokens, {_up(least)}: raise it, "
        f"or {longer}."
    )


def _up(share: float) -> str:
    """Rounded so that a budget of what is printed is met."""
    return f"{np.ceil(share * 1e4 - 1e-6) / 1e4:.4f}".rstrip("0").rstrip(".")


def _grid(recalls: Recalls, index: np.ndarray, granularity: Granularity) -> list[list[Rule]]:
    model = recalls.model
    group = model.group if granularity == "kv_head" else 1
    by_head = repeat(index, "u -> (u g)", g=group).reshape(len(model.layers), model.n_heads)
    return [[recalls.rules[place] for place in row] for row in by_head]


def _taken(
    profile: SparseProfile,
    recalls: Recalls,
    index: np.ndarray,
    granularity: Granularity,
    used: Float[np.ndarray, " length"],
) -> tuple[Taken, ...]:
    density = _weights(recalls, Budget(), granularity, None)
    chosen = density[:, np.arange(len(index)), index].mean(1)
    return tuple(
        _taken_at(profile, n, float(share), float(mean))
        for n, share, mean in zip(recalls.lengths, used, chosen, strict=True)
    )


def _taken_at(profile: SparseProfile, n: int, used: float, density: float | None) -> Taken:
    held = profile.held_keys(n)
    return Taken(
        n=n,
        budget=used,
        density=profile.density(n) if density is None else density,
        kv=float(held.mean() / n),
        kv_bytes=profile.kv_bytes(n),
    )
