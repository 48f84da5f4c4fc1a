"""The numbers of causal tests as tables: headers, and rows as they are read."""

from collections.abc import Mapping
from math import isnan
from typing import Any

from headscope.evals.conditions import CONTROLS
from headscope.evals.gates import gate
from headscope.evals.measured import UNITS
from headscope.evals.statistics import least_prompts
from headscope.evals.validation import Validation

CONDITIONS = {
    "base": "nothing ablated",
    "tested": "tested heads",
    "uniform": "random heads",
    "layer_matched": "random, same layers",
    "norm_matched": "random, alike in norm",
}
EXPECTED = {"changes": "should change", "spared": "should be spared"}
NONE = "–"

Table = tuple[list[str], list[list[str]]]


def digits(found: Validation, task: int) -> int:
    """Decimals for nats: a token's change less than a whole answer's."""
    return 3 if found.tasks[task].metric == "tokens" else 2


def conditions(found: Validation, task: int) -> Table:
    """One row a kind of condition at the dose named beforehand."""
    measured, n, p = found.tasks[task], digits(found, task), found.p_values(task)
    answers = measured.exact(0) is not None
    header = ["", "sets", *(["right answers", "95 % interval", "p"] if answers else [])]
    header += [f"{UNITS[measured.metric]}, nats", "change", "95 % interval", "p"]
    rows = []
    for row in found.table(task).to_dict("records"):
        kind = row["condition"]
        cells = [CONDITIONS[kind], str(row["sets"])]
        if answers:
            cells += [f"{row['exact']:.2f}", _between(row, "exact"), _p(p, f"{kind}.exact")]
        cells.append(nats(row["value"], n))
        told = [nats(row["change"], n), _between(row, "change", n), _p(p, f"{kind}.value")]
        rows.append([*cells, *(told if kind != "base" else [""] * 3)])
    return header, rows


def doses(found: Validation, task: int) -> Table:
    """One row a dose: the tested heads; the mean of random sets of as many, and 90 % of them."""
    table, n = found.doses(task), digits(found, task)
    kinds = [kind for kind in CONTROLS if any(table[f"{kind}.sets"])]
    answers = found.tasks[task].exact(0) is not None
    header = ["heads", *(["right answers"] if answers else []), "change in nats", "95 % interval"]
    for kind in kinds:
        header += [CONDITIONS[kind], "p (sets)"]
    rows = []
    for row in table.to_dict("records"):
        cells = [f"{row['k']}, named beforehand" if row["confirmatory"] else str(row["k"])]
        cells += [f"{row['exact']:.2f}"] if answers else []
        cells += [nats(row["change"], n), _between(row, "change", n)]
        for kind in kinds:
            cells += _control(row, kind, n)
        rows.append(cells)
    return header, rows


def specificity(found: Validation) -> Table:
    """One row an eval, in nats for each token of the answer."""
    header = ["nats a token", "expected", "right before", "right after", "change", "95 % interval"]
    header += ["beyond random sets", "95 % interval", "p", "verdict"]
    rows = []
    for row in found.specificity().to_dict("records"):
        right = [NONE if isnan(row[x]) else f"{row[x]:.2f}" for x in ("exact.base", "exact")]
        cells = [row["task"], EXPECTED[row["expected"]], *right]
        for name in ("change", "beyond"):
            cells += [nats(row[name], 3), _between(row, name, 3)]
        rows.append([*cells, _p(row, "p"), row["verdict"]])
    return header, rows


def p_note(found: Validation, task: int) -> str:
    """What the p of the tables are, and how small so many sets let them be; "" without sets."""
    way = "down" if found.direction == "drop" else "up"
    counts = sorted({len(found.sets(kind, task=task)) for kind in CONTROLS} - {0})
    if not counts:
        return ""
    least = [
        f"{n} set{'' if n == 1 else 's'} of a kind allow{'s' if n == 1 else ''} none below "
        f"{1 / (1 + n):.3f}"
        for n in counts
    ]
    return (
        "p, empirical: the share of sets, the tested one counted among the random ones, whose mean "
        f"goes at least as far {way}; {', '.join(least)}."
    )


def gated(found: Validation, task: int) -> str:
    """That right answers have no room to go where the test says they would; "" where they have.

    Fewer questions than an interval needs do not tell.
    """
    measured = found.tasks[task]
    right = measured.exact(0)
    if right is None or measured.done < least_prompts():
        return ""
    stuck, way = ("floor", "fewer") if found.direction == "drop" else ("ceiling", "more")
    if gate(right, measured.chance) != stuck:
        return ""
    return (
        f"With nothing ablated right answers stand at the {stuck}: there is no room for {way}, so "
        "go by the nats."
    )


def nats(value: float, n: int) -> str:
    """So many decimals, with a minus as long as a digit, and none before 0."""
    return NONE if isnan(value) else f"{round(value, n) + 0.0:.{n}f}".replace("-", "−")


def _control(row: Mapping[str, Any], kind: str, n: int) -> list[str]:
    sets = row[f"{kind}.sets"]
    if not sets:
        return ["no such sets", NONE]
    span = _ends(row[f"{kind}.5%"], row[f"{kind}.95%"], n)
    return [f"{nats(row[f'{kind}.change'], n)} ({span})", f"{_p(row, f'{kind}.p')} ({sets})"]


def _between(row: Mapping[str, Any], name: str, n: int = 2) -> str:
    return _ends(row[f"{name}.low"], row[f"{name}.high"], n)


def _ends(low: float, high: float, n: int) -> str:
    return NONE if isnan(low) else f"{nats(low, n)} to {nats(high, n)}"


def _p(p: Mapping[str, Any], name: str) -> str:
    found = p.get(name)
    return NONE if found is None or isnan(found) else f"{found:.3f}"
