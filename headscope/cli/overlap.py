"""The command that compares two tasks' circuits: overlap."""

from pathlib import Path
from typing import Annotated

import typer

from headscope.cli.base import Json, app, at_least, print_json

_MAP = typer.Argument(help="A map of `headscope patch`: its folder, or map.json within.")


@app.command()
def overlap(
    map_a: Annotated[Path, _MAP],
    map_b: Annotated[Path, _MAP],
    top: Annotated[
        int | None,
        typer.Option(help="A circuit is the so many largest effects; by default what is sure."),
    ] = None,
    level: Annotated[float, typer.Option(help="False discovery rate of a circuit's heads.")] = 0.05,
    show: Annotated[int, typer.Option(help="How many heads to print.")] = 15,
    seed: Annotated[int, typer.Option(help="Of intervals and p-values.")] = 0,
    as_json: Json = False,
) -> None:
    """Heads that two patching maps share, and how many chance would give within layers."""
    from headscope import terminal
    from headscope.circuits import overlap as compared
    from headscope.heads import label
    from headscope.patch_map import PatchMap

    at_least("--top", top, 1)
    at_least("--show", show, 1)
    at_least("--seed", seed, 0)
    maps = [PatchMap.load(p / "map.json" if p.is_dir() else p) for p in (map_a, map_b)]
    found = compared(*maps, top=top, level=level, seed=seed)
    table = found.table()
    if as_json:
        low, high = found.interval()
        print_json(
            {
                "claims": found.claims(),
                "shared": [label(head) for head in found.shared],
                "circuits": [[label(head) for head in c.found] for c in (found.a, found.b)],
                "jaccard": found.jaccard(), "low": low, "high": high, "share": found.share(),
                "expected": found.expected(), "p": found.p(),
                "expected_uniform": found.expected(False), "p_uniform": found.p(False),
                "heads": table.head(show).to_dict("records"),
            }
        )  # fmt: skip
        return
    title = f"{found.model}: heads that matter to {found.a.task} and to {found.b.task}"
    columns = ("name", "both", "effect_a", "effect_b", "q_a", "q_b", "in_a", "in_b")
    terminal.show_frame(table.head(show), title, columns)
    for claim in found.claims():
        terminal.say(claim)
