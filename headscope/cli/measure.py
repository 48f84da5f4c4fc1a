"""Commands that run a model: scan and validate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headscope.cli.base import (
    MODEL,
    Backend,
    Device,
    Dtype,
    Json,
    Lengths,
    Quiet,
    Run,
    Samples,
    Seed,
    app,
    at_least,
    print_json,
    resumable,
    typed,
)
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.prompts.base import PromptFamily


@app.command()
def scan(
    model: Annotated[str | None, MODEL] = None,
    probes: Annotated[str | None, typer.Option(help="Names joined by commas, or all.")] = None,
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
) -> None:
    """Score every head of a model and save the head map; continues a scan that was cut off."""
    from headscope import terminal
    from headscope.config import ScanConfig, as_integers, as_names
    from headscope.loading import load
    from headscope.model import short_name
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
    opened = load(
        plan.model_spec,
        backend=plan.backend,
        dtype=plan.dtype,
        device=plan.device,
        revision=plan.revision,
    )

    def kept() -> bool:
        return (folder / "heads.parquet").exists() or any(folder.glob("partial/*.safetensors"))

    with resumable(kept), terminal.bars(quiet) as bars:
        head_map = run_scan(
            opened,
            plan.probes,
            prompts=plan.prompts,
            lengths=plan.lengths,
            samples=plan.samples,
            seed=plan.seed,
            out=folder,
            command=typed(),
            progress=bars.family,
        )
    if not quiet:
        for key, family in head_map.info.families.items():
            if not all(family.accepted):
                answered = f"{sum(family.accepted)} of {len(family.accepted)} prompts"
                terminal.err.print(f"{key}: the model answered {answered}; only those count.")
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


@app.command()
def validate(
    run: Run,
    role: Annotated[str, typer.Option(help="Role or score whose top heads are tested.")] = (
        "retrieval"
    ),
    k: Annotated[int, typer.Option(help="How many of its top heads.")] = 5,
    heads: Annotated[
        str | None, typer.Option(help="Test these heads instead, e.g. L17H3,L18H6.")
    ] = None,
    controls: Annotated[
        int, typer.Option(help="Random sets of each kind (uniform and layer-matched).")
    ] = 19,
    mode: Annotated[
        Literal["zero", "mean", "uniform", "resample"], typer.Option(help="How heads are ablated.")
    ] = "zero",
    part: Annotated[
        Literal["all", "prefill", "decode", "answer"], typer.Option(help="Which rows are ablated.")
    ] = "all",
    lengths: Lengths = None,
    samples: Samples = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Your own prompts with answers, as JSONL.")
    ] = None,
    device: Device = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The file; RUN/validations/HEADS-MODE-PART.json by default."),
    ] = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ablate the heads that a scan found, and random ones, on prompts that found none of them."""
    from headscope import terminal
    from headscope.config import as_integers
    from headscope.evals.validate import needles_for, top_heads
    from headscope.evals.validate import validate as run_validation
    from headscope.headmap import HeadMap
    from headscope.heads import selected_heads
    from headscope.places import heads_name, reopened, validation_path
    from headscope.prompts.base import with_lengths
    from headscope.prompts.jsonl import Jsonl
    from headscope.prompts.needle import Needle

    at_least("--seed", seed, 0)
    at_least("--samples", samples, 1)
    if out is not None and out.is_dir():
        raise HeadscopeError(f"--out takes a file, and {out} is a folder.")
    head_map = HeadMap.load(run)
    named = None if heads is None else [name.strip() for name in heads.split(",") if name.strip()]
    seed = seed or 0
    if named is None:
        top_heads(head_map, role, k)  # what is not there is said before a model is opened
        tested, subject = None, f"{role}-{k}"
    else:
        shape = head_map.layers, head_map.n_heads, head_map.info.model.name
        tested = selected_heads(named, *shape)
        subject = heads_name(tested)
    asked = as_integers(lengths, "--lengths")
    opened = reopened(run, head_map, device)
    family: PromptFamily
    if prompts is not None:
        family = Jsonl(path=str(prompts), samples=samples or 0)
    elif asked is not None:
        family = Needle(split="test", samples=samples or 24, seed=seed)
    else:
        family = needles_for(opened, samples or 24, seed)
    family = family if asked is None else with_lengths(family, asked)
    name = f"{subject}-{mode}-{part}"
    path = out or validation_path(run, head_map, name, family, controls, seed)
    with resumable(path.exists), terminal.bars(quiet) as bars:
        result = run_validation(
            opened,
            head_map if tested is None else tested,
            role=role,
            k=k,
            controls=controls,
            mode=mode,
            part=part,
            prompts=family,
            seed=seed,
            found_on=None if tested is None else head_map,
            out=path,
            command=typed(),
            progress=bars.prompts,
        )
    if as_json:
        summary = {"claim": result.claim(), "p": result.p_values(), "saved": str(path)}
        print_json(summary | {"table": result.table().to_dict("records")})
        return
    terminal.show_validation(result)
    terminal.say(f"Saved to {path}. Next: headscope report {run}")
