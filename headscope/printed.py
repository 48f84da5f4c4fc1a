"""Results as text: roles, the evidence about a head, clusters, agreement, the list of probes."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from headscope.agreement import Agreement
from headscope.clusters import Clusters
from headscope.explanation import Explanation
from headscope.headmap import HeadMap
from headscope.roles import SURE

TIES = (
    "Heads that are equal where the top {k} ends share the places that are left, so that ties "
    "overlap no more than at random."
)
_WIDTH = 100
_NAMED = 6  # scores without a role that are named


def as_text(shown: RenderableType) -> str:
    """As it is printed, without colours, 100 columns wide."""
    console = Console(width=_WIDTH, file=StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(shown)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def roles(head_map: HeadMap, k: int) -> RenderableType:
    """Every role that was measured: how many heads have it, how surely, and the first k."""
    shape = f"{len(head_map.layers)} layers × {head_map.n_heads} heads"
    title = Text(
        "\n".join((f"{head_map.info.model.name}: {shape}", *head_map.info.model.windows()))
    )
    rules = head_map.rules()
    if not rules:
        return Group(title, Text(f"No rule speaks of its scores: {', '.join(head_map.scores)}."))
    table = blank_table("role and its rule", ">heads", ">sure", ">% of all", f"first {k}, by score")
    for role, rule in rules.items():
        decision = head_map.decision(rule)
        share, low, high = (100 * x for x in decision.share)
        best = head_map.top(role, k).to_dict("records")
        table.add_row(
            Text.assemble((role, "bold"), f"\n{rule}"),
            str(decision.passes.sum()),
            str((decision.confidence >= SURE).sum()),
            f"{share:.1f}" + ("" if rule.kind == "quantile" else f"\n{low:.1f}–{high:.1f}"),
            Text(", ".join(f"{row['name']} {_short(row[rule.score])}" for row in best)),
        )
    return Group(
        title,
        table,
        Text(
            f"sure: has the role in {SURE:.1%} of bootstrap resamples of the prompts. Where a rule "
            "takes the top or the lowest of all heads, it decides itself how many there are."
        ),
        *_without_role(head_map),
    )


def _without_role(head_map: HeadMap) -> list[Text]:
    """A sentence on scores that no rule reads, which the table of roles leaves out."""
    read = {score for rule in head_map.rules().values() for score in rule.scores}
    others = [name for name in head_map.scores if name not in read]
    if not others:
        return []
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    named = ", ".join(others[:_NAMED]) + more
    ranked = f"`headscope show RUN --score {others[0]}` ranks heads by one."
    return [Text(f"Scored without a role: {named}; {ranked}")]


def explanation(found: Explanation) -> RenderableType:
    """The evidence about one head."""
    held = ", ".join(found.roles) or "no role"
    title = Text(f"{found.name} of {found.model} (kv_head {found.kv_head}): {held}")
    shown: list[RenderableType] = [title]
    rank = f">rank of {found.heads}"
    if len(found.table):
        note = (
            "Beside yes and no: the share of bootstrap resamples of the prompts in which the head "
            "has the role. A quantile rule decides itself how many heads do. Ranks count from the "
            "end that speaks for the role."
        )
        shown += [_evidence(found, rank), Text(note)]
    others = blank_table("other scores", ">value [95 %]", rank)
    for row in found.others().to_dict("records"):
        others.add_row(Text(row["score"]), _measured(row), str(row["rank"]))
    return Group(*shown, others) if others.row_count else Group(*shown)


def _evidence(found: Explanation, rank: str) -> Table:
    """Roles that it has come first, and with their sources."""
    table = blank_table("role", "rule", ">value [95 %]", rank, ">has it")
    last = None
    rows = found.table.to_dict("records")
    for row in sorted(rows, key=lambda row: not row["passes"]):
        held = "bold" if row["passes"] else ""
        role, rule, decided = Text(), Text(f"by {row['score']}"), Text()
        if row["role"] != last:
            sure = "" if pd.isna(row["confidence"]) else f" {row['confidence']:.3f}"
            source = f"\n{row['kind']}; {row['source']}" if held else ""
            role, rule = Text(row["role"], held), Text.assemble(row["rule"], (source, "dim"))
            decided = Text(("yes" if held else "no") + sure, held)
        last = row["role"]
        table.add_row(role, rule, _measured(row), str(row["rank"]), decided)
    return table


def clusters(found: Clusters) -> RenderableType:
    """What each cluster is, and how well they are told apart."""
    table = blank_table(
        ">cluster", ">heads", "strongest scores, their mean z", "nearest its centre"
    )
    for row in found.described.to_dict("records"):
        texts = Text(row["strongest"]), Text(row["examples"])
        table.add_row(str(row["cluster"]), str(row["heads"]), *texts)
    held = " + ".join(f"{share:.0%}" for share in found.explained[:2])
    notes = [
        f"Silhouette {found.silhouette:.2f} (1: far apart, 0: they run into each other). The first "
        f"two components hold {held} of the variance."
    ]
    if found.constant:
        notes.append(f"Left out, equal on all heads: {', '.join(found.constant)}.")
    title = (
        f"{found.model}: {len(found.table)} heads in {found.k} clusters of {found.z.shape[1]} "
        "standardised scores"
    )
    return Group(Text(title), table, *map(Text, notes))


def agreement(found: Agreement, score: str | None = None) -> RenderableType:
    """For every score its closest; or one score beside all others."""
    columns = (">rank correlation", f">both in top {found.k}", ">p")
    if score is None:
        table = blank_table("score", "closest of another probe", *columns)
        rows = found.closest().to_dict("records")
        about = "how alike its scores rank"
    else:
        table = blank_table("score", *columns)
        rows = found.beside(score).to_dict("records")
        about = f"how like {score} its scores rank"
    for row in rows:
        names = [Text(str(row[key])) for key in ("score", "closest") if key in row]
        table.add_row(*names, *_compared(row, found, score))
    notes = [
        f"Random heads would share {found.chance:.2g} of {found.k} on average; p: that they share "
        "as many. It is of one pair: of many, some are low by chance."
    ]
    if any(overlap % 1 > 1e-9 for overlap in found.pairs["overlap"].dropna()):
        notes.append(TIES.format(k=found.k))
    if found.constant:
        notes.append(f"Constant, equal on all heads: {', '.join(found.constant)}.")
    title = f"{found.model}: {about} {found.heads} heads"
    return Group(Text(title), table, *map(Text, notes))


def _compared(row: Mapping[str, Any], found: Agreement, score: str | None) -> list[str]:
    if {row["score"], score} & {*found.constant}:
        return ["constant", "", ""]
    if pd.isna(row["spearman"]):
        return ["no other probe", "", ""]
    shared = f"{row['overlap']:.1f}".removesuffix(".0")
    return [f"{row['spearman']:+.2f}", shared, f"{row['p']:.2g}"]


def probes(rows: Sequence[Mapping[str, str]]) -> RenderableType:
    """What each probe measures, on which prompts, at what cost, and what comes out."""
    table = blank_table(
        "probe", "prompts, rows, cost", "what it measures, its source, what it gives"
    )
    for row in rows:
        table.add_row(
            Text(row["probe"], "bold"),
            Text(f"{row['prompts']}\n{row['reads']}\ncost: {row['cost']}"),
            Text.assemble(
                row["measures"], (f"\n{row['source']}", "dim"), f"\n→ {row['gives']}"
            ),
            end_section=True,
        )  # fmt: skip
    return table


def interventions(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What each intervention does, where and when, and where it comes from."""
    table = blank_table("intervention", "site, phase", "what it does, its parameters, its source")
    for row in rows:
        kind = ["causal" if row["causal"] else "not causal"] + ["stateful"] * row["stateful"]
        table.add_row(
            Text(row["intervention"], "bold"),
            Text(f"{row['site']}\n{row['phase']}\n{', '.join(kind)}"),
            Text.assemble(
                row["does"],
                f"\n{', '.join(row['parameters'])}" if row["parameters"] else "",
                (f"\n{row['source']}", "dim"),
            ),
            end_section=True,
        )  # fmt: skip
    return table


def blank_table(*names: str) -> Table:
    """An empty table; columns that begin with > stand to the right."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in names:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left")
    return table


def _measured(row: Mapping[str, Any]) -> str:
    return f"{_short(row['mean'])} [{_short(row['low'])}, {_short(row['high'])}]"


def _short(value: float) -> str:
    """A score with the digits that can be told apart: 0.12, 12.3, 123."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"
