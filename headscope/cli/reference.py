"""Commands about headscope and models: probes, interventions, models check."""

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, cast

import typer

from headscope.cli.base import Json, Model, app, models, print_json

if TYPE_CHECKING:
    from headscope.interventions.base import Intervention
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


@app.command()
def interventions(as_json: Json = False) -> None:
    """List the interventions: what each does, where and when it acts, and where it comes from."""
    from headscope import printed, terminal
    from headscope.catalog import interventions as all_interventions

    rows = [_intervention(name, kind) for name, kind in all_interventions().items()]
    if as_json:
        print_json(rows)
    else:
        terminal.out.print(printed.interventions(rows))


def _intervention(name: str, kind: "type[Intervention]") -> dict[str, Any]:
    parts = {field.name: field.default for field in fields(kind) if field.name == "part"}
    return {
        "intervention": name,
        "site": kind.site,
        "phase": parts.get("part", kind.phase),
        "causal": kind.causal,
        "stateful": kind.stateful,
        "parameters": [
            field.name for field in sorted(fields(kind), key=lambda field: bool(field.kw_only))
        ],
        "does": " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split()),
        "source": kind.paper,
    }


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
