"""The command that measures heads: scan."""

from pathlib import Path
from typing import Annotated

import typer

from headscope.cli.base import (
    MODEL,
    Backend,
    Device,
    Dtype,
    Json,
    Lengths,
    Quiet,
    Samples,
    Seed,
    Told,
    app,
    at_least,
    print_json,
    resumable,
    typed,
)
from headscope.errors import HeadscopeError


@app.command()
def scan(
    model: Annotated[str | None, MODEL] = None,
    probes: Annotated[
        str | None, typer.Option(help="Names joined by commas; all by default.")
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="With all: also probes that train; takes long.")
    ] = False,
    lengths: Lengths = None,
    samples: Samples = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Your own prompts: a JSONL file, see the README.")
    ] = None,
    backend: Backend = None,
    dtype: Dtype = None,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/MODEL by default.")] = None,
    seed: Seed = None,
    config: Annotated[
        Path | None, typer.Option(help="A run.json: measure again what it describes.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Told = "bars",
) -> None:
    """Score every head of a model and save the head map; continues a scan that was cut off."""
    from headscope import terminal
    from headscope.config import ScanConfig, as_integers, as_names
    from headscope.evals.statistics import least_prompts
    from headscope.loading import load
    from headscope.model import short_name
    from headscope.planning import choose
    from headscope.prompts.jsonl import Jsonl
    from headscope.scanning import scan as run_scan

    plan = ScanConfig.read(config) if config is not None else ScanConfig()
    plan = plan.changed(
        model=model,
        probes=as_names(probes),
        lengths=as_integers(lengths, "--lengths"),
        samples=samples,
        prompts=prompts,
        backend=backend,
        dtype=dtype,
        device=device,
        seed=seed,
    )
    at_least("--seed", plan.seed, 0)
    at_least("--samples", plan.samples, 1)
    folder = out or Path("runs") / short_name(plan.model_spec)
    if folder.is_file():
        raise HeadscopeError(f"--out takes a folder, and {folder} is a file.")
    # A mistake in these is said before a model is fetched and opened.
    choose(plan.probes, plan.prompts, plan.lengths, plan.samples, plan.seed, training)
    if plan.prompts is not None:
        Jsonl(path=str(plan.prompts)).lines()
    opened = load(
        plan.model_spec,
        backend=plan.backend,
        dtype=plan.dtype,
        device=plan.device,
        revision=plan.revision,
    )

    def kept() -> bool:
        return (folder / "heads.parquet").exists() or any(folder.glob("partial/*.safetensors"))

    with resumable(kept), terminal.bars(quiet, progress) as bars:
        head_map = run_scan(
            opened,
            plan.probes,
            prompts=plan.prompts,
            lengths=plan.lengths,
            samples=plan.samples,
            seed=plan.seed,
            out=folder,
            command=typed(),
            training=training,
            progress=bars.family,
            announce=None if quiet else terminal.err.print,
        )
    if not quiet:
        for key, family in head_map.info.families.items():
            if not all(family.accepted):
                answered = f"{sum(family.accepted)} of {len(family.accepted)} prompts"
                terminal.err.print(f"{key}: the model answered {answered}; only those count.")
        least = least_prompts()
        few = [key for key, each in head_map.info.families.items() if sum(each.accepted) < least]
        if few and (plan.samples is not None or plan.prompts is not None):
            terminal.err.print(
                f"{', '.join(few)}: fewer than {least} prompts count, so that intervals say little."
            )
        for name, reason in head_map.info.left_out.items():
            terminal.err.print(f"{name} is left out: {reason}")
        for sentence in head_map.info.model.windows():
            terminal.err.print(sentence)
        passes, saved = head_map.info.passes()
        terminal.err.print(f"Passes over prompts: {passes} run, {saved} saved by sharing them.")
    if as_json:
        print_json({"run": str(folder), "heads": head_map.to_pandas().to_dict("records")})
        return
    terminal.show_top(head_map, 3)
    terminal.say(f"Saved to {folder}. Next: headscope report {folder}")
