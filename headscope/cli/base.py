"""What all commands share: the app, their options, and JSON. Nothing heavy is imported."""

import errno
import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from headscope import __version__
from headscope.errors import HeadscopeError


class _Commands(TyperGroup):
    """The commands; what typer says in boxes, or not at all, becomes one sentence."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            code = super().main(*args, **options | {"standalone_mode": False})
        except Exception as error:
            # Depending on its version typer brings click along or imports it.
            if not hasattr(error, "format_message"):
                raise
            _refuse(error)
        raise SystemExit(code or 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise HeadscopeError("interrupted") from None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise HeadscopeError(
                "A path is too long for the file system; choose a shorter one."
            ) from error


def _refuse(error: Any) -> NoReturn:
    """Say what click has to say about how a command was typed."""
    said = error.format_message().replace("Value error, ", "").rstrip(".")
    if not said:  # it has printed the help
        raise SystemExit(error.exit_code)
    help_ = f"; {error.ctx.command_path} --help says more" if error.ctx is not None else ""
    raise HeadscopeError(f"{said}{help_}.") from None


@contextmanager
def resumable(saved: Callable[[], bool]) -> Iterator[None]:
    """Where Ctrl-C leaves something to go on from, say so."""
    try:
        yield
    except KeyboardInterrupt:
        if not saved():
            raise HeadscopeError("interrupted before anything was measured") from None
        raise HeadscopeError(
            "interrupted; what was measured is saved; run the same command again to go on"
        ) from None


def _run_folder(path: Path) -> Path:
    """Refuse a run that is not there before anything heavy is imported to read it."""
    if not path.exists():
        raise HeadscopeError(f"There is no run folder {path}.")
    return path


app = typer.Typer(
    cls=_Commands,
    help="Find out what every attention head of a language model does, and prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="About models.", no_args_is_help=True)
app.add_typer(models, name="models")

MODEL = typer.Argument(help="smollm2, a Hugging Face id, a model folder or a .gguf file.")
Model = Annotated[str, MODEL]
Run = Annotated[
    Path, typer.Argument(help="A run folder, made by `headscope scan`.", callback=_run_folder)
]
Backend = Annotated[
    Literal["hf", "nnsight", "lens"] | None, typer.Option(help="How the model is opened.")
]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16, float16; by default as the device likes it.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")]
Seed = Annotated[
    int | None, typer.Option(help="Of prompts, control sets and intervals; 0 by default.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Told = Annotated[
    Literal["bars", "json"],
    typer.Option("--progress", help="How progress is told on stderr: bars, or JSON lines."),
]
Mode = Annotated[
    Literal["zero", "mean", "uniform", "resample"], typer.Option(help="How heads are ablated.")
]
Part = Annotated[
    Literal["all", "prefill", "decode", "answer"], typer.Option(help="Which rows are ablated.")
]
EvalOut = Annotated[
    Path | None, typer.Option(help="The file; runs/MODEL-evals/SETTINGS.json by default.")
]
Lengths = Annotated[
    str | None,
    typer.Option(help="Prompt lengths in tokens, joined by commas; by default those of each kind."),
]
Samples = Annotated[
    int | None, typer.Option(help="Prompts of each kind; by default each kind's own number.")
]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def typed() -> str:
    """The command as it was typed."""
    return shlex.join(["headscope", *sys.argv[1:]])


def print_json(value: Any) -> None:
    print(json.dumps(_plain(value), indent=2))


def at_least(flag: str, value: int | None, least: int) -> None:
    """Refuse a number that is too small."""
    if value is not None and value < least:
        raise HeadscopeError(f"{flag} takes a whole number from {least} up, not {value}.")


def no_folder(out: Path | None) -> None:
    """Refuse a folder where a file is to be written."""
    if out is not None and out.is_dir():
        raise HeadscopeError(f"--out takes a file, and {out} is a folder.")


def _plain(value: Any) -> Any:
    """Without NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
