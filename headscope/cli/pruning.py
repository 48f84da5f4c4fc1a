"""The command that takes heads out in several orders: prune."""

from pathlib import Path
from typing import Annotated

import typer

from headscope.cli.base import (
    Backend,
    Device,
    Dtype,
    EvalOut,
    Json,
    Lengths,
    Quiet,
    Samples,
    Seed,
    app,
    at_least,
    no_folder,
    print_json,
    resumable,
    typed,
)
from headscope.errors import HeadscopeError

_SUBJECT = typer.Argument(
    help="A model as for scan, or a run folder whose scores can then be orders."
)


@app.command()
def prune(
    model_or_run: Annotated[str, _SUBJECT],
    task: Annotated[str, typer.Option(help="Evals, joined by commas.")] = "needle",
    order: Annotated[
        str,
        typer.Option(
            help="Joined by commas: importance, importance_in_layer (as in the paper), both also "
            "with _once; random; and scores or roles of the run."
        ),
    ] = "importance,random",
    step: Annotated[float, typer.Option(help="Share of all heads pruned at each step.")] = 0.1,
    until: Annotated[float, typer.Option(help="Share of all heads pruned in the end.")] = 0.5,
    randoms: Annotated[int, typer.Option(help="Random orders; 19 allow p = 0.05.")] = 19,
    selection: Annotated[int, typer.Option(help="Prompts of each eval to choose heads by.")] = 16,
    prompts: Annotated[
        Path | None, typer.Option(help="Your own prompts to choose heads by, as JSONL.")
    ] = None,
    lengths: Lengths = None,
    samples: Samples = None,
    backend: Backend = None,
    dtype: Dtype = None,
    device: Device = None,
    out: EvalOut = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Prune more and more heads in several orders and measure an eval; continues where cut off."""
    from headscope import terminal
    from headscope.config import as_integers, as_names, split_names
    from headscope.evals.evaluate import chosen_evals
    from headscope.evals.pruning import check_orders
    from headscope.evals.pruning import prune as run_pruning
    from headscope.headmap import HeadMap
    from headscope.loading import load
    from headscope.places import evaluation_path, reopened
    from headscope.prompts.jsonl import Jsonl

    at_least("--seed", seed, 0)
    at_least("--samples", samples, 1)
    at_least("--selection", selection, 1)
    at_least("--randoms", randoms, 1)
    no_folder(out)
    run = Path(model_or_run)
    head_map = HeadMap.load(run) if (run / "run.json").exists() else None
    orders = split_names(order)
    check_orders(orders, head_map)  # said before a model is opened
    asked = as_integers(lengths, "--lengths")
    chosen = chosen_evals(as_names(task, "--task", "evals"), asked, samples, seed or 0)
    own = None if prompts is None else Jsonl(path=str(prompts))
    if head_map is None:
        opened = load(model_or_run, backend=backend, dtype=dtype, device=device)
    elif backend is not None or dtype is not None:
        raise HeadscopeError("A run's model is opened as it was; leave --backend and --dtype out.")
    else:
        opened = reopened(run, head_map, device)
    settings = ["prune", *orders, step, until, randoms, selection, prompts]
    settings.append("" if head_map is None else str(run.resolve()))
    path = out or evaluation_path(opened, chosen, list(map(str, settings)), seed)
    with resumable(path.exists), terminal.bars(quiet) as bars:
        result = run_pruning(
            opened,
            chosen,
            orders=orders,
            scores=head_map,
            step=step,
            until=until,
            randoms=randoms,
            prompts=own,
            selection=selection,
            seed=seed or 0,
            out=path,
            command=typed(),
            progress=bars.family,
        )
    tasks = range(len(result.tasks))
    if as_json:
        print_json(
            {
                "claims": result.claims(),
                "saved": str(path),
                "orders": [each.model_dump() for each in result.orders],
                "evals": [
                    {
                        "task": result.tasks[i].task,
                        "table": result.table(i).to_dict("records"),
                        "areas": result.areas(i).to_dict("records"),
                        "differences": result.differences(i).to_dict("records"),
                    }
                    for i in tasks
                ],
            }
        )
        return
    for i in tasks:
        about = f"{result.model}, {result.tasks[i].done} questions of {result.tasks[i].task}"
        shown = ("exact", "exact.low", "exact.high", "change", "change.low", "change.high")
        terminal.show_frame(result.table(i), about, ("order", "pruned", "share", *shown))
        beyond = ("exact.beyond", "exact.p", "value", "value.beyond", "value.p")
        columns = ("order", "orders", *shown[:3], *beyond)
        terminal.show_frame(result.areas(i), f"{about}: mean height of the curves", columns)
    for claim in result.claims():
        terminal.say(claim)
    terminal.say(f"Saved to {path}.")
