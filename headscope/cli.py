"""The command line. Everything heavy is imported inside the commands."""

import json
import math
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from typer.core import TyperGroup

from headscope import __version__
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    import pandas as pd

    from headscope.probes.base import Probe
    from headscope.prompts.base import PromptFamily


class _Commands(TyperGroup):
    """The commands; typer itself would end an interrupted one without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise HeadscopeError(
                "interrupted; what was measured is saved; run the same command again to go on"
            ) from None


app = typer.Typer(
    cls=_Commands,
    help="Find out what every attention head of a language model does, and prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="About models.", no_args_is_help=True)
app.add_typer(models, name="models")

_MODEL = typer.Argument(help="smollm2, a Hugging Face id, a model folder or a .gguf file.")
Model = Annotated[str, _MODEL]
Run = Annotated[Path, typer.Argument(help="A run folder, made by `headscope scan`.")]
Backend = Annotated[
    Literal["hf", "nnsight", "lens"] | None, typer.Option(help="How the model is opened.")
]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16, float16; by default as the device likes it.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")]
Seed = Annotated[int | None, typer.Option(help="Of prompts, control sets and intervals.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Samples = Annotated[int | None, typer.Option(help="Prompts of each family.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def scan(
    model: Annotated[str | None, _MODEL] = None,
    probes: Annotated[str | None, typer.Option(help="Names joined by commas, or all.")] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Prompt lengths in tokens, joined by commas.")
    ] = None,
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
    _at_least("--seed", plan.seed, 0)
    _at_least("--samples", plan.samples, 1)
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
    with terminal.bars(quiet) as bars:
        head_map = run_scan(
            opened,
            plan.probes,
            prompts=plan.prompts,
            lengths=plan.lengths,
            samples=plan.samples,
            seed=plan.seed,
            out=folder,
            command=_command(),
            progress=bars.family,
        )
    if not quiet:
        for key, family in head_map.info.families.items():
            if not all(family.accepted):
                answered = f"{sum(family.accepted)} of {len(family.accepted)} prompts"
                terminal.err.print(f"{key}: the model answered {answered}; only those count.")
        passes, saved = head_map.info.passes()
        terminal.err.print(f"Passes over prompts: {passes} run, {saved} saved by sharing them.")
    if as_json:
        _print({"run": str(folder), "heads": head_map.to_pandas().to_dict("records")})
        return
    terminal.show_top(head_map, 3)
    terminal.say(f"Saved to {folder}. Next: headscope report {folder}")


@app.command()
def show(
    run: Run,
    head: Annotated[str | None, typer.Argument(help="A head, e.g. L17H3.")] = None,
    score: Annotated[str | None, typer.Option(help="Rank by this score or role.")] = None,
    top: Annotated[int, typer.Option(help="How many heads.")] = 10,
    kv: Annotated[bool, typer.Option("--kv", help="Scores by KV head.")] = False,
    as_json: Json = False,
) -> None:
    """Print the head map: the best heads of each role, one score's ranking, or one head."""
    from headscope import terminal
    from headscope.headmap import HeadMap
    from headscope.heads import check_heads, parse_head

    head_map = HeadMap.load(run)
    if kv:
        table = head_map.kv_heads()
        if score is not None:
            table = table.sort_values(head_map.score_of(score), ascending=False).head(top)
        if as_json:
            _print(table.to_dict("records"))
        else:
            terminal.show_frame(table, f"{head_map.info.model.name}: scores by KV head")
    elif head is not None:
        layer, number = parse_head(head)
        check_heads([(layer, number)], head_map.layers, head_map.n_heads, head_map.info.model.name)
        if as_json:
            table = head_map.roles().merge(head_map.to_pandas(), on=["layer", "head", "kv_head"])
            row = table[(table["layer"] == layer) & (table["head"] == number)]
            _print(cast("pd.DataFrame", row).to_dict("records")[0])
        else:
            terminal.show_head(head_map, head.upper(), layer, number)
    elif score is not None:
        best = head_map.top(score, top)
        if as_json:
            _print(best.to_dict("records"))
        else:
            terminal.show_frame(best, f"{head_map.info.model.name}: top {top} by {score}")
    elif as_json:
        _print(head_map.roles().to_dict("records"))
    else:
        terminal.show_top(head_map, 3)


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
    from headscope.evals.validate import validate as run_validation
    from headscope.headmap import HeadMap
    from headscope.heads import parse_heads
    from headscope.places import heads_name, reopened, validation_path
    from headscope.prompts.jsonl import Jsonl
    from headscope.prompts.needle import Needle

    _at_least("--seed", seed, 0)
    _at_least("--samples", samples, 1)
    if out is not None and out.is_dir():
        raise HeadscopeError(f"--out takes a file, and {out} is a folder.")
    head_map = HeadMap.load(run)
    named = None if heads is None else [name.strip() for name in heads.split(",") if name.strip()]
    seed = seed or 0
    if named is None:
        head_map.top(role, k)  # a role that is not there is said before a model is opened
        tested, subject = None, f"{role}-{k}"
    else:
        tested = parse_heads(named)
        subject = heads_name(tested)
    family: PromptFamily = (
        Needle(split="test", samples=samples or 24, seed=seed)
        if prompts is None
        else Jsonl(path=str(prompts), samples=samples or 0)
    )
    name = f"{subject}-{mode}-{part}"
    path = out or validation_path(run, head_map, name, family, controls, seed)
    opened = reopened(run, head_map, device)
    with terminal.bars(quiet) as bars:
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
            command=_command(),
            progress=bars.prompts,
        )
    if as_json:
        summary = {"claim": result.claim(), "p": result.p_values(), "saved": str(path)}
        _print(summary | {"table": result.table().to_dict("records")})
        return
    terminal.show_validation(result)
    terminal.say(f"Saved to {path}. Next: headscope report {run}")


@app.command()
def report(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="The file; RUN/report.html by default.")] = None,
) -> None:
    """Write one HTML file with the head map, its evidence and its causal tests; works offline."""
    from headscope import terminal
    from headscope.evals.validation import Validation
    from headscope.headmap import HeadMap
    from headscope.viz.report import write_report

    head_map = HeadMap.load(run)
    tests = [Validation.load(path) for path in sorted((run / "validations").glob("*.json"))]
    path = write_report(head_map, [t for t in tests if t.done], out or run / "report.html")
    terminal.say(f"Report: {path.resolve()}")


@app.command()
def compare(
    first: Run,
    second: Run,
    k: Annotated[int, typer.Option(help="Heads of each map that should be the same.")] = 10,
    as_json: Json = False,
) -> None:
    """How far two runs agree: rank correlation and top-k overlap of every score."""
    from headscope import terminal
    from headscope.compare import compare as compare_maps
    from headscope.headmap import HeadMap

    comparison = compare_maps(HeadMap.load(first), HeadMap.load(second), k)
    if as_json:
        _print(comparison.table.to_dict("records"))
    else:
        terminal.show_comparison(comparison)


@app.command()
def probes(as_json: Json = False) -> None:
    """List the probes: what each measures, on which prompts, and where it comes from."""
    import pandas as pd

    from headscope import terminal
    from headscope.catalog import probes as all_probes

    def row(name: str, probe: "Probe") -> dict[str, str]:
        return {
            "probe": name,
            "prompts": probe.prompts.name,
            "reads": f"{probe.rows} rows",
            "cost": probe.cost,
            "gives": ", ".join(probe.outputs()),
            "measures": (probe.__doc__ or "").strip().splitlines()[0],
            "source": probe.paper,
        }

    rows = [row(name, cast(Any, kind)()) for name, kind in all_probes().items()]
    if as_json:
        _print(rows)
    else:
        terminal.show_frame(pd.DataFrame(rows), "Probes")


@models.command("check")
def check(model: Model, as_json: Json = False) -> None:
    """Say, from its config alone, what a model looks like and whether headscope can open it."""
    from headscope import terminal
    from headscope.checking import check_model

    found = check_model(model)
    if as_json:
        _print(asdict(found))
    else:
        for name, value in asdict(found).items():
            if name != "problem":
                terminal.say(f"{name:>15}  {value}")
        terminal.say(found.problem or f"headscope can open {model}.")
    if found.problem:
        raise typer.Exit(2)


def main() -> None:
    """Entry point: a user's mistake is one sentence and exit code 2, anything else a traceback."""
    try:
        app()
    except HeadscopeError as error:
        print(f"headscope: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _command() -> str:
    return shlex.join(["headscope", *sys.argv[1:]])


def _print(value: Any) -> None:
    print(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    """Without NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _at_least(flag: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise HeadscopeError(f"{flag} takes a whole number from {least} up, not {value}.")
