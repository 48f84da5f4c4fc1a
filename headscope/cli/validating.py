"""The command that tests what a scan found: validate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from headscope.cli.base import (
    Device,
    Json,
    Lengths,
    Mode,
    Part,
    Quiet,
    Run,
    Samples,
    Seed,
    Told,
    app,
    at_least,
    no_folder,
    print_json,
    resumable,
    typed,
)
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.prompts.base import PromptFamily


@app.command()
def validate(
    run: Run,
    role: Annotated[str, typer.Option(help="Role or score whose top heads are tested.")] = (
        "retrieval"
    ),
    k: Annotated[int, typer.Option(help="How many of its top heads: named beforehand.")] = 5,
    heads: Annotated[
        str | None, typer.Option(help="Test these heads instead, e.g. L17H3,L18H6.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Evals that should change, joined by commas; needles.")
    ] = None,
    spared: Annotated[
        str | None, typer.Option(help="Evals that should stay as they are, e.g. perplexity.")
    ] = None,
    doses: Annotated[
        str | None, typer.Option(help="Other numbers of top heads, for a curve: 1,2,3,10,20.")
    ] = None,
    controls: Annotated[int, typer.Option(help="Random sets of each kind, up to 99.")] = 19,
    dose_controls: Annotated[int, typer.Option(help="The same for each of the other doses.")] = 19,
    kinds: Annotated[
        str, typer.Option(help="Of random sets: uniform, layer_matched, norm_matched.")
    ] = "uniform,layer_matched",
    mode: Mode = "zero",
    part: Part = "all",
    direction: Annotated[
        Literal["drop", "gain"], typer.Option(help="What the ablation should do to --tasks.")
    ] = "drop",
    lengths: Lengths = None,
    samples: Samples = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Your own prompts with answers, as JSONL.")
    ] = None,
    device: Device = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The file; RUN/validations/HEADS-MODE-PART-SETTINGS.json by default."),
    ] = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Told = "bars",
) -> None:
    """Ablate the heads that a scan found, and random ones, on questions that found none of them."""
    from headscope import terminal
    from headscope.config import as_integers, as_names, split_names
    from headscope.evals.choosing import top_heads
    from headscope.evals.validate import validate as run_validation
    from headscope.headmap import HeadMap
    from headscope.heads import selected_heads
    from headscope.places import heads_name, reopened, validation_path
    from headscope.prompts.base import with_lengths
    from headscope.prompts.jsonl import Jsonl

    at_least("--seed", seed, 0)
    at_least("--samples", samples, 1)
    no_folder(out)
    head_map = HeadMap.load(run)
    named = None if heads is None else split_names(heads)
    others = as_integers(doses, "--doses") or ()
    if named is None:
        top_heads(head_map, role, max((k, *others)))  # said before a model is opened
        tested, subject = None, f"{role}-{k}"
    else:
        shape = head_map.layers, head_map.n_heads, head_map.info.model.name
        tested = selected_heads(named, *shape)
        subject = heads_name(tested)
    if prompts is not None and tasks is not None:
        raise HeadscopeError("Test on --tasks or on --prompts, not on both.")
    asked = as_integers(lengths, "--lengths")
    own: PromptFamily | None = None
    if prompts is not None:
        own = Jsonl(path=str(prompts), samples=samples or 0)
        own = own if asked is None else with_lengths(own, asked)
    settings: dict[str, Any] = {
        "role": role, "k": k, "controls": controls, "dose_controls": dose_controls,
        "kinds": split_names(kinds),
        "mode": mode, "part": part,
        "direction": direction, "doses": others, "lengths": asked, "samples": samples,
        "seed": seed or 0, "tasks": None if tasks is None else as_names(tasks, "--tasks", "evals"),
        "spared": () if spared is None else as_names(spared, "--spared", "evals"),
    }  # fmt: skip
    path = out or validation_path(
        run, f"{subject}-{mode}-{part}", {**settings, "prompts": str(prompts or "")}
    )
    opened = reopened(run, head_map, device)
    with resumable(path.exists), terminal.bars(quiet, progress) as bars:
        result = run_validation(
            opened,
            head_map if tested is None else tested,
            **settings,
            prompts=own,
            found_on=None if tested is None else head_map,
            out=path,
            command=typed(),
            progress=bars.family,
        )
    if as_json:
        print_json(
            {
                "claims": result.claims(),
                "p": result.p_values(),
                "saved": str(path),
                "table": result.table().to_dict("records"),
                "doses": cast(Any, result.doses()).to_dict("records"),
                "specificity": result.specificity().to_dict("records"),
            }
        )
        return
    terminal.show_validation(result)
    terminal.say(f"Saved to {path}. Next: headscope report {run}")
