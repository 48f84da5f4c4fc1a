"""A plan on the page: what it costs, who has which rule, and the files that it can become."""

from collections.abc import Sequence

import numpy as np
from dash import html
from dash.development.base_component import Component

from headscope.heads import label
from headscope.viz.chart import Chart
from headscope.viz.marks import Cells
from headscope.viz.panel import Axis, Panel
from headscope.viz.ramps import sequential
from headscope_app.elements import attributes, table
from headscope_app.plans import Planned, Speed, Target

_PHASES = {"prefill": "Reading a prompt", "decode": "Writing a token"}


def costs(planned: Planned) -> Component:
    """What the profile takes, as four numbers, each with where it is from."""
    pairs = "–" if planned.density is None else f"{planned.density:.0%}"
    tiles = [
        _tile(
            "KV cache",
            f"{planned.held:.0%}",
            f"{_size(planned.kv_bytes)} of {_size(planned.full_bytes)} after {planned.n:,} tokens, "
            "in numbers of 2 bytes.",
        ),
        _tile(
            "Computed pairs",
            pairs,
            f"of queries and keys in a prompt of {planned.n:,} tokens."
            if planned.density is not None
            else "How many, the text decides.",
        ),
        *(_speed(each) for each in planned.speeds),
    ]
    timed = [
        html.Li(
            f"{_PHASES[each.phase]}: attention takes {each.share:.0%} of its time, as timed on "
            f"{each.where} with headscope's reference engine."
        )
        for each in planned.timed
    ]
    return html.Div(
        [
            html.Dl(tiles, className="tiles"),
            html.Ul([*map(html.Li, planned.sentences), *timed], className="said"),
        ]
    )


def _speed(speed: Speed) -> Component:
    limit = "" if speed.limit is None else f"At most {speed.limit:.2f} × by the {_counted(speed)}. "
    if speed.low is None or speed.high is None:
        shown = "–" if speed.limit is None else f"≤ {speed.limit:.2f} ×"
    elif speed.limit is not None and speed.high > 0.999 * speed.limit:
        shown = f"≥ {speed.low:.2f} ×"  # some layers have less to do than any that was timed
    elif f"{speed.low:.2f}" == f"{speed.high:.2f}":
        shown = f"{speed.low:.2f} ×"
    else:
        shown = f"{speed.low:.2f} – {speed.high:.2f} ×"
    return _tile(f"{_PHASES[speed.phase]}, attention", shown, limit + speed.source)


def _counted(speed: Speed) -> str:
    return "tiles that it computes" if speed.phase == "prefill" else "bytes that it reads"


def _tile(name: str, value: str, note: str) -> Component:
    return html.Div(
        [html.Dt(name), html.Dd(value, className="big"), html.Dd(note, className="note")]
    )


def rule_map(planned: Planned, model: str) -> Chart:
    """Layers × heads, shaded by what each head's rule computes."""
    grid = np.array(planned.grid)
    shares = np.array([np.nan if share is None else share for share in planned.shares])
    said = np.array(
        [
            [f"{label((layer, head))}: {planned.rules[place]}" for head, place in enumerate(row)]
            for layer, row in zip(planned.layers, planned.grid, strict=True)
        ]
    )
    letters = np.array(["F" if rule == "full" else "" for rule in planned.rules])[grid]
    cells = Cells(
        shares[grid].T,
        sequential(root=True, title="share of all pairs"),
        letters=letters.T,
        said=said.T,
        digits=3,
    )
    rows, columns = grid.shape[1], grid.shape[0]
    side = min(26.0, 980 / columns, 700 / rows)
    panel = Panel(
        Axis("layer", names=tuple(map(str, planned.layers))),
        Axis("head", names=tuple(map(str, range(rows))), down=True),
        (cells,),
        width=side * columns,
        height=side * rows,
        grid=False,
    )
    return Chart(f"Rules of the heads of {model}; F sees everything", (panel,))


def rule_table(planned: Planned) -> Component:
    """How many heads have each rule."""
    grid = np.array(planned.grid)
    group = grid.shape[1] // planned.n_kv_heads
    rows = []
    for place, rule in enumerate(planned.rules):
        has = grid == place
        if not has.any():
            continue
        whole = has.reshape(len(grid), planned.n_kv_heads, group).all(2)
        share = planned.shares[place]
        rows.append(
            {
                "rule": rule,
                "pairs": "–" if share is None else f"{share:.1%}",
                "heads": int(has.sum()),
                "kv": int(whole.sum()),
                "layers": int(has.any(1).sum()),
            }
        )
    rows.sort(key=lambda row: -row["heads"])
    columns = {"rule": "Rule", "pairs": "Of all pairs", "heads": "Heads", "kv": "Whole KV heads",
               "layers": "Layers"}  # fmt: skip
    return table(columns, rows, "Rules and how many heads have them")


def export_table(targets: Sequence[Target]) -> Component:
    """Every format with a button, or with why it cannot say this profile."""
    head = html.Tr([html.Th(name, scope="col") for name in ("Format", "For", "What differs", "")])
    return html.Div(
        html.Table(
            [html.Thead(head), html.Tbody([_target(each) for each in targets])],
            className="exports",
            **attributes(aria_label="Export formats"),
        ),
        className="scroll",
        tabIndex=0,
        role="region",
        **attributes(aria_label="Export formats"),
    )


def _target(target: Target) -> Component:
    told = target.refused or target.loses
    notes = [
        html.Div(each) for each in (target.merged, target.told and f"Use: {target.told}.") if each
    ]
    button = html.Button(
        "Download",
        id={"type": "plan-export", "format": target.name},
        type="button",
        disabled=bool(target.refused),
        **attributes(aria_label=f"Download as {target.name}"),
    )
    return html.Tr(
        [
            html.Th([target.name, html.Small(f"by {target.granularity}")], scope="row"),
            html.Td(target.loads),
            html.Td([told, *([] if target.refused else notes)], className="few"),
            html.Td(button),
        ],
        className="refused" if target.refused else None,
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
