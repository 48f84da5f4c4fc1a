"""How sure the roles of heads are."""

import numpy as np

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope.roles import SURE
from headscope.viz.chart import Chart
from headscope.viz.marks import Bars, Look
from headscope.viz.palette import AWAY, LINE, Pair
from headscope.viz.panel import Axis, Panel
from headscope.viz.view import words

_SURE, _ALL = Look(Pair.of(AWAY)), Look(Pair.named(LINE))


def confidence(found: HeadMap) -> Chart:
    """For every role, the heads that pass its rule, and those that surely do.

    Args:
        found: what a scan found.

    Raises:
        HeadscopeError: no rule speaks of its scores.
    """
    rules = found.rules()
    if not rules:
        raise HeadscopeError(
            "No rule speaks of these scores, so that no head has a role; scan with other probes."
        )
    passing, sure = [], []
    for rule in rules.values():
        decision = found.decision(rule)
        passing.append(int(decision.passes.sum()))
        sure.append(int((decision.passes & (decision.confidence >= SURE)).sum()))
    names = tuple(map(words, rules))
    said = [
        f"{name}: {n} of {len(found.heads())} heads, {m} of them surely"
        for name, n, m in zip(names, passing, sure, strict=True)
    ]
    at = np.arange(len(names), dtype=np.float64)
    panel = Panel(
        Axis("heads", 0.0, 1.04 * max(1, *passing)),
        Axis(names=names, down=True),
        (
            Bars(at, np.array(passing, np.float64), 0.72, _ALL, "pass the rule", "x", said=said),
            Bars(at, np.array(sure, np.float64), 0.72, _SURE, "surely", "x", said=said),
        ),
        width=320.0,
        height=max(17.0 * len(names), 40.0),
    )
    return Chart(
        f"How sure the roles of {found.info.model.name} are",
        (panel,),
        note=f"Surely: in {SURE:.1%} of bootstrap resamples of the prompts. A head may have "
        "several roles.",
    )
