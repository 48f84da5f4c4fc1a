"""The command that times a profile: bench."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headscope.cli.base import Json, Quiet, app, at_least, print_json, typed
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    import torch

    from headscope.bench.result import Bench
    from headscope.sparsity.profile import SparseProfile

_LONGEST = 2**31 - 2**16  # tokens that kernels count in 32 bits


@app.command()
def bench(
    profile: Annotated[Path, typer.Argument(help="A profile, made by `headscope plan`.")],
    lengths: Annotated[str, typer.Option(help="Tokens of a text, joined by commas.")] = (
        "8192,32768"
    ),
    against: Annotated[
        str,
        typer.Option(
            help="all, or some of cudnn, flash, two_launch, flex, flash_sparse_attn. Speed-ups are "
            "over the best dense kernel; cudnn and flash are measured if neither is named."
        ),
    ] = "all",
    batch: Annotated[str, typer.Option(help="Sequences that decode at once.")] = "1,8",
    part: Annotated[
        Literal["prefill", "decode", "all"], typer.Option(help="What is measured.")
    ] = "all",
    rounds: Annotated[
        int, typer.Option(help="In each of which every contender is timed once.")
    ] = 11,
    dtype: Annotated[
        Literal["bfloat16", "float16"], typer.Option(help="Of queries, keys and values.")
    ] = "bfloat16",
    quality: Annotated[
        str | None,
        typer.Option(help="Measure perplexity too: the profile's model, as for `scan`."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for bench.json and bench.svg; PROFILE-bench.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time a profile's attention beside the best dense kernels and stock alternatives, on a GPU."""
    import torch

    from headscope import storage, terminal
    from headscope.bench.baselines import chosen_baselines
    from headscope.bench.meters import GpuMeter
    from headscope.bench.running import bench as run
    from headscope.config import split_names
    from headscope.sparsity.profile import SparseProfile
    from headscope.viz.figures import kernel_speed

    at_least("--rounds", rounds, 1)
    tokens, batches = _counts(lengths, "--lengths"), _counts(batch, "--batch")
    named = chosen_baselines(split_names(against))
    given = SparseProfile.load(profile)
    folder = out or profile.with_name(f"{profile.stem}-bench")
    if folder.exists() and not folder.is_dir():
        raise HeadscopeError(f"--out takes a folder, and {folder} is a file.")
    wanted = getattr(torch, dtype)
    _check_device(given, wanted)
    saved = folder / "bench.json"
    with terminal.bars(quiet) as bars:
        known = _quality(given, profile, quality, tokens, bars.family)
        found = run(
            given,
            tokens,
            GpuMeter(_device()),
            named,
            name=profile.stem,
            part=part,
            batches=batches,
            rounds=rounds,
            dtype=wanted,
            command=typed(),
            quality=known,
            keep=lambda rows: rows.save(saved),
            progress=bars.family,
        )
    if found.prefill:
        storage.write(folder / "bench.svg", kernel_speed(found).svg().encode())
    if as_json:
        print_json(found.to_dict() | {"saved": str(saved)})
        return
    _show(found, rounds)
    terminal.say(f"Saved to {saved}.")


def _counts(text: str, flag: str) -> tuple[int, ...]:
    """Numbers from 1 to what kernels count."""
    from headscope.config import as_integers

    found = as_integers(text, flag)
    if not found:
        raise HeadscopeError(f"{flag} takes whole numbers joined by commas, not {text!r}.")
    for n in found:
        if n >= _LONGEST:
            raise HeadscopeError(
                f"{flag} goes up to {_LONGEST - 1}, as kernels count in 32 bits, not {n}."
            )
    return found


def _check_device(profile: "SparseProfile", dtype: "torch.dtype") -> None:
    """Refuse where nothing could be measured.

    Raises:
        HeadscopeError: there is no GPU, no Triton, or the kernels do not take the profile's heads.
    """
    import torch

    from headscope.kernels.choice import why_no_triton, why_not_these

    if not torch.cuda.is_available():
        raise HeadscopeError("There is no GPU here; run headscope bench on a machine that has one.")
    device = _device()
    like = torch.empty(1, 1, 1, profile.model.d_head, dtype=dtype, device=device)
    if reason := why_no_triton(device) or why_not_these(like):
        raise HeadscopeError(f"headscope's kernels cannot run this profile: {reason}.")


def _device() -> "torch.device":
    import torch

    return torch.device("cuda", torch.cuda.current_device())


def _quality(
    profile: "SparseProfile", path: Path, spec: str | None, lengths: tuple[int, ...], progress: Any
) -> dict[str, Any]:
    from headscope.bench.quality import measured_perplexity, planned_quality

    found = planned_quality(profile, str(path))
    if spec is not None:
        from headscope.loading import load

        found |= measured_perplexity(load(spec), profile, lengths, progress)
    return found


def _show(found: "Bench", rounds: int) -> None:
    """Tables of what was measured, and what was left out with the reason."""
    from headscope import terminal
    from headscope.bench.tables import decode_table, parts_table, prefill_table, sentences

    where = f"{found.profile} on {found.device}, {found.dtype}, medians of {rounds} rounds"
    if found.prefill:
        terminal.show_frame(
            prefill_table(found), f"Prefill: {where}; speed-ups over the best dense kernel"
        )
        terminal.show_frame(
            parts_table(found), "What it takes: milliseconds a layer, and peak memory"
        )
    if found.decode:
        terminal.show_frame(decode_table(found), f"Decode: {where}")
    for said in sentences(found):
        terminal.say(said)
