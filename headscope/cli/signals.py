"""The command that traces signals between heads: signals."""

from typing import Annotated

import typer

from headscope.cli.base import (
    Backend,
    Device,
    Dtype,
    Json,
    Lengths,
    Model,
    Quiet,
    Seed,
    app,
    at_least,
    print_json,
)


@app.command()
def signals(
    model: Model,
    task: Annotated[
        str, typer.Option(help="Evals whose questions are traced, joined by commas.")
    ] = "ioi",
    samples: Annotated[int, typer.Option(help="Questions in all.")] = 32,
    share: Annotated[
        float, typer.Option(help="Of a logit, that the terms of its signal reach.")
    ] = 0.7,
    attention: Annotated[
        float, typer.Option(help="Weight above which a head attends to a key.")
    ] = 0.5,
    top: Annotated[int, typer.Option(help="How many edges to print.")] = 20,
    lengths: Lengths = None,
    backend: Backend = None,
    dtype: Dtype = None,
    device: Device = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Trace what heads match queries and keys by to the earlier heads that wrote it.

    For models with learned positions, such as GPT-2 and OPT.
    """
    from headscope import terminal
    from headscope.config import as_integers, split_names
    from headscope.evals.questions import Questions
    from headscope.loading import load
    from headscope.signal_tracing import check_settings
    from headscope.signals import trace_signals

    for flag, value, least in (("--seed", seed, 0), ("--samples", samples, 1), ("--top", top, 1)):
        at_least(flag, value, least)
    check_settings("headscope signals", share, attention)
    names = tuple(split_names(task))
    asked = Questions(
        tasks=names, samples=samples, seed=seed or 0,
        lengths=tuple(as_integers(lengths, "--lengths") or ()),
    )  # fmt: skip
    asked.evals()  # a name that there is not is refused before a model is opened
    opened = load(model, backend=backend, dtype=dtype, device=device)
    with terminal.bars(quiet) as bars:
        found = trace_signals(
            opened,
            asked.prompts(opened.tokenizer),
            share=share,
            attention=attention,
            progress=lambda done, total: bars.family("signals", done, total),
        )
    edges, heads = found.to_pandas().head(top), found.heads()
    if as_json:
        records = {"edges": edges.to_dict("records"), "heads": heads.to_dict("records")}
        print_json({"model": found.model, "prompts": found.prompts, **records})
        return
    if heads.empty:
        terminal.say(
            f"No head of {found.model} fires on these prompts: none gives one key behind the first "
            f"more than {attention} of its attention."
        )
        return
    terminal.show_frame(edges, f"{found.model}: signals between heads, {found.prompts} prompts")
    terminal.say(
        f"Heads that fire: {len(heads)}, {heads['firings'].sum()} times. Earlier heads wrote "
        f"{found.given.sum() / (2 * found.signal.sum()):.0%} of their signals' logits."
    )
