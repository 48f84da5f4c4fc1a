"""Commands about headscope and models: probes, models check."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import typer

from headscope.cli.base import Json, Model, app, models, print_json

if TYPE_CHECKING:
    from headscope.probes.base import Probe


@app.command()
def probes(as_json: Json = False) -> None:
    """List the probes: what each measures, on which prompts, and where it comes from."""
    from headscope import printed, terminal
    from headscope.catalog import probes as all_probes

    def row(name: str, probe: "Probe") -> dict[str, str]:
        return {
            "probe": name,
            "prompts": probe.prompts.name,
            "reads": "in passes of its own" if probe.alters else f"{probe.rows} rows",
            "cost": probe.cost,
            "gives": ", ".join(probe.outputs()),
            "measures": " ".join((probe.__doc__ or "").strip().split("\n\n")[0].split()),
            "source": probe.paper,
        }

    rows = [row(name, cast(Any, kind)()) for name, kind in all_probes().items()]
    if as_json:
        print_json(rows)
    else:
        terminal.out.print(printed.probes(rows))


@models.command("check")
def check(model: Model, as_json: Json = False) -> None:
    """Say, from its config alone, what a model looks like and whether headscope can open it."""
    from headscope import terminal
    from headscope.checking import check_model

    found = check_model(model)
    if as_json:
        print_json(asdict(found))
    else:
        for name, value in asdict(found).items():
            if name != "problem":
                terminal.say(f"{name:>15}  {value}")
        terminal.say(found.problem or f"headscope can open {model}.")
    if found.problem:
        raise typer.Exit(2)
