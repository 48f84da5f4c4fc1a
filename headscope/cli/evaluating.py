"""Commands about evals: evals, eval, effects."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from headscope.cli.base import (
    Backend,
    Device,
    Dtype,
    EvalOut,
    Json,
    Lengths,
    Mode,
    Model,
    Part,
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

if TYPE_CHECKING:
    from headscope.evals.base import Eval
    from headscope.evals.evaluation import Evaluation

METRICS = {
    "answer": "log-probability of the answer, exact match",
    "choice": "margin over the wrong answers, share right",
    "tokens": "log-probability of a token (perplexity)",
}


@app.command()
def evals(as_json: Json = False) -> None:
    """List the evals: what each asks, how it is scored, where its idea comes from."""
    from headscope import printed_evals, terminal
    from headscope.catalog import evals as all_evals

    def row(name: str, task: "Eval") -> dict[str, str]:
        return {
            "eval": name,
            "asks": " ".join((task.__doc__ or "").strip().split("\n\n")[0].split()),
            "metric": METRICS[task.metric],
            "lengths": ", ".join(map(str, task.lengths)) or "as it is",
            "source": task.source,
            "licence": task.licence,
        }

    rows = [row(name, cast(Any, kind)()) for name, kind in all_evals().items()]
    if as_json:
        print_json(rows)
    else:
        terminal.out.print(printed_evals.evals(rows))


@app.command("eval")
def eval_(
    model: Model,
    tasks: Annotated[str | None, typer.Option(help="Names joined by commas, or all.")] = None,
    lengths: Lengths = None,
    samples: Samples = None,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="A change to compare with, e.g. ablate:heads=L18H6+L18H7,part=answer; "
            "may be given several times, and A & B are in force together.",
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="One row for each value of this fact: length, depth, slot.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Your own questions with answers: a JSONL file.")
    ] = None,
    backend: Backend = None,
    dtype: Dtype = None,
    device: Device = None,
    out: EvalOut = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask a model the questions of some evals, as it is and as changed; continues where cut off."""
    from headscope import terminal
    from headscope.config import as_integers, as_names
    from headscope.evals.describing import parsed
    from headscope.evals.evaluate import chosen_evals, evaluate
    from headscope.evals.own import Own
    from headscope.loading import load
    from headscope.places import evaluation_path

    at_least("--seed", seed, 0)
    at_least("--samples", samples, 1)
    no_folder(out)
    named = as_names(tasks, "--tasks", "evals") if tasks is not None else None
    if named is None and prompts is None:
        raise HeadscopeError("Name evals with --tasks (or all), or a file with --prompts.")
    asked = as_integers(lengths, "--lengths")
    chosen = [] if named is None else chosen_evals(named, asked, samples, seed)
    if prompts is not None:
        chosen.append(Own(path=str(prompts), samples=samples or 0))
    opened = load(model, backend=backend, dtype=dtype, device=device)
    changes = {text: parsed(text, opened, seed or 0) for text in with_ or []}
    path = out or evaluation_path(opened, chosen, list(changes), seed)
    with resumable(path.exists), terminal.bars(quiet) as bars:
        result = evaluate(
            opened,
            chosen,
            seed=seed,
            changes=changes,
            out=path,
            command=typed(),
            progress=bars.family,
        )
    if as_json:
        print_json(_plain(result, by, path))
        return
    terminal.show_evaluation(result, by)
    terminal.say(f"Saved to {path}.")


def _plain(result: "Evaluation", by: str | None, path: Path) -> dict[str, Any]:
    facts = {name for task in result.tasks for known in task.facts for name in known}
    shown = [by] if by is not None else [name for name in ("length", "depth") if name in facts]
    tables = {name: result.by(name).to_dict("records") for name in shown}
    return {
        "saved": str(path),
        "claims": result.claims(),
        "table": result.table().to_dict("records"),
        "by": tables,
        "curves": result.curves().to_dict("records"),
    }


@app.command()
def effects(
    model: Model,
    task: Annotated[str, typer.Option(help="One eval.")] = "needle",
    heads: Annotated[
        str | None, typer.Option(help="Only these heads, e.g. L17H3,L18H6; all by default.")
    ] = None,
    mode: Mode = "zero",
    part: Part = "answer",
    lengths: Lengths = None,
    samples: Samples = None,
    top: Annotated[int, typer.Option(help="How many heads to print.")] = 10,
    backend: Backend = None,
    dtype: Dtype = None,
    device: Device = None,
    out: EvalOut = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ablate every head alone on one eval; false discoveries are controlled over all heads."""
    from headscope import terminal
    from headscope.config import as_integers, split_names
    from headscope.evals.effects import effects as measure_effects
    from headscope.evals.evaluate import chosen_evals
    from headscope.loading import load
    from headscope.places import evaluation_path

    at_least("--seed", seed, 0)
    at_least("--samples", samples, 1)
    at_least("--top", top, 1)
    no_folder(out)
    named = None if heads is None else split_names(heads)
    asked = as_integers(lengths, "--lengths")
    chosen = chosen_evals([task], asked, samples, seed or 0)
    opened = load(model, backend=backend, dtype=dtype, device=device)
    path = out or evaluation_path(opened, chosen, ["effects", mode, part, *(named or [])], seed)
    with resumable(path.exists), terminal.bars(quiet) as bars:
        result = measure_effects(
            opened,
            chosen[0],
            heads=named,
            mode=mode,
            part=part,
            seed=seed or 0,
            out=path,
            command=typed(),
            progress=bars.family,
        )
    table = result.table()
    if as_json:
        saved = {"claim": result.claim(), "saved": str(path)}
        print_json(saved | {"heads": table.to_dict("records")})
        return
    terminal.show_frame(table.head(top), f"{result.model}: heads ablated alone, {task}")
    terminal.say(result.claim())
    terminal.say(f"Saved to {path}.")
