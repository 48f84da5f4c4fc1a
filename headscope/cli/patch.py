"""The command that patches heads between pairs of prompts: patch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    resumable,
    typed,
)
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.joint import JointEffect
    from headscope.patch_map import PatchMap


@app.command()
def patch(
    model: Model,
    task: Annotated[
        str, typer.Option(help="An eval with clean and corrupt prompts, such as ioi.")
    ] = "ioi",
    direction: Annotated[
        Literal["denoising", "noising"],
        typer.Option(help="Clean outputs into the corrupt run (what suffices), or the reverse."),
    ] = "denoising",
    samples: Annotated[
        int, typer.Option(help="Pairs to find heads on, and as many others to test them on.")
    ] = 24,
    top: Annotated[int, typer.Option(help="How many heads to print.")] = 15,
    k: Annotated[
        int, typer.Option(help="How many top heads are tested together: named beforehand.")
    ] = 5,
    controls: Annotated[int, typer.Option(help="Random sets of each kind, up to 99.")] = 99,
    lengths: Lengths = None,
    backend: Backend = None,
    dtype: Dtype = None,
    device: Device = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder; runs/MODEL-patching/TASK-DIRECTION-SETTINGS by default."),
    ] = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Patch every head alone between clean and corrupt prompts, then the top ones together.

    Heads are found on the split "detect" and tested on "test", beside random sets of as many heads.
    """
    from headscope import terminal
    from headscope.config import as_integers
    from headscope.evals.controls import layer_matched_sets, uniform_sets
    from headscope.evals.evaluate import chosen_evals
    from headscope.loading import load
    from headscope.patching import joint_effect, patch_heads
    from headscope.places import patching_path

    for flag, value, least in (("--seed", seed, 0), ("--samples", samples, 1), ("--top", top, 1),
                               ("--k", k, 1), ("--controls", controls, 0)):  # fmt: skip
        at_least(flag, value, least)
    if controls > 99:
        raise HeadscopeError(f"--controls takes 0 to 99 sets of each kind, not {controls}.")
    if out is not None and out.is_file():
        raise HeadscopeError(f"--out takes a folder, and {out} is a file.")
    (test,) = chosen_evals([task], as_integers(lengths, "--lengths"), samples, seed)
    test, detect = replace(test, split="test"), replace(test, split="detect")
    opened = load(model, backend=backend, dtype=dtype, device=device)
    if k >= len(opened.heads):
        raise HeadscopeError(
            f"{opened.name} has {len(opened.heads)} heads; --k takes fewer than that."
        )
    folder = out or patching_path(opened, detect, direction, seed)
    with resumable((folder / "map.json").exists), terminal.bars(quiet) as bars:
        common: dict[str, Any] = {"direction": direction, "seed": seed or 0, "command": typed()}

        def shown(what: str) -> Callable[[int, int], None]:
            return lambda done, total: bars.family(what, done, total)

        found = patch_heads(
            opened, detect, out=folder / "map.json", progress=shown("each head"), **common
        )
        heads = found.leading(k)
        joint: list[JointEffect] = []
        kinds = {"uniform": uniform_sets, "layer-matched": layer_matched_sets}
        for kind, draw in kinds.items() if controls else [("random", uniform_sets)]:
            sets = draw(opened.heads, heads, controls, seed or 0)
            if controls and not sets:
                terminal.err.print(
                    f"There are no {kind} sets: some layer has fewer other heads than tested "
                    "ones; a smaller --k may have some."
                )
                continue
            path = folder / f"joint-{kind}-{k}-{len(sets)}.json"
            joint.append(
                joint_effect(
                    opened,
                    test,
                    heads,
                    sets,
                    kind=kind,
                    found_on=found,
                    out=path,
                    progress=shown(f"{kind} sets"),
                    **common,
                )
            )
    if as_json:
        print_json(_plain(found, joint, top, folder))
        return
    columns = ("name", "effect", "low", "high", "change", "p", "q")
    title = f"{opened.name}: {direction} of one head at a time, {found.done} pairs of {task}"
    terminal.show_frame(found.top(top), title, columns)
    terminal.say(found.claim())
    for each in joint:
        terminal.say(each.claim())
    terminal.say(f"Saved to {folder}.")


def _plain(found: "PatchMap", joint: list["JointEffect"], top: int, folder: Path) -> dict[str, Any]:
    from headscope.heads import label

    tests = []
    for each in joint:
        (effect, (low, high)), (more, (least, most)) = each.effect(), each.difference()
        tests.append(
            {"controls": each.controls, "sets": len(each.sets) - 1, "p": each.p()}
            | {"effect": effect, "low": low, "high": high}
            | {"difference": more, "difference.low": least, "difference.high": most}
        )
    return {
        "saved": str(folder),
        "claims": [found.claim(), *(each.claim() for each in joint)],
        "pairs": found.done,
        "told_apart": found.told_apart,
        "top": found.top(top).to_dict("records"),
        "tested": [label(head) for head in joint[0].tested] if joint else [],
        "joint": tests,
    }
