"""The command that takes in what others found: import."""

from pathlib import Path
from typing import Annotated

import typer

from headscope.cli.base import Json, app, at_least, print_json, typed
from headscope.errors import HeadscopeError


@app.command("import")
def import_heads(
    path: Annotated[Path, typer.Argument(help="A file about heads, or a folder of them.")],
    out: Annotated[Path, typer.Option(help="The run folder to make.")],
    format_: Annotated[
        str | None, typer.Option("--format", help="What it is; recognised by default.")
    ] = None,
    heads: Annotated[
        int | None, typer.Option(help="Query heads a layer, where the file is about KV heads.")
    ] = None,
    kv_heads: Annotated[
        int | None, typer.Option(help="KV heads a layer, where the file is about query heads.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a run folder of what others' tools found about heads, to show and compare it."""
    from headscope import read_heads, terminal

    at_least("--heads", heads, 1)
    at_least("--kv-heads", kv_heads, 1)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HeadscopeError(f"--out takes a new or empty folder, and {out} is not one.")
    head_map = read_heads(path, format_, n_heads=heads, n_kv_heads=kv_heads, command=typed())
    head_map.save(out)
    source = head_map.info.source
    for what, stands in (source.assumed if source else {}).items():
        terminal.err.print(f"{what} is not in the file: {stands}.")
    if as_json:
        print_json({"run": str(out), "heads": head_map.to_pandas().to_dict("records")})
        return
    terminal.show_top(head_map, 3)
    terminal.say(f"Saved to {out}. Next: headscope show {out}")
