"""The command that shows runs in a browser: app."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from headscope.cli.base import app
from headscope.errors import HeadscopeError


@app.command("app")
def open_app(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of run folders; nothing else can be read.")
    ],
    port: Annotated[int, typer.Option(help="Where it listens; 0 for any that is free.")] = 8050,
    host: Annotated[str, typer.Option(help="The address it is bound to.")] = "127.0.0.1",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let --host be one that others can reach.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="HEADSCOPE_TOKEN",
            help="What every browser has to bring, once, as ?token=… Where others use this machine "
            "too, set it in the environment: they see command lines, and could reach the app.",
        ),
    ] = None,
    keep_jobs: Annotated[
        bool,
        typer.Option("--keep-jobs", help="Leave scans that were started from the page running."),
    ] = False,
) -> None:
    """Show runs in a browser: head maps, single heads, comparisons, tests, plans."""
    if not 0 <= port < 65536:
        raise HeadscopeError(f"--port takes a number from 0 to 65535, not {port}.")
    if missing := [name for name in ("dash", "plotly") if find_spec(name) is None]:
        raise HeadscopeError(
            f"The app needs {' and '.join(missing)}, which are not installed; run "
            '`pip install "headscope[app]"`.'
        )
    # Questions are answered side by side; threads of numpy's own would wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from headscope_app.server import serve

    serve(
        folders,
        host=host,
        port=port,
        token=token,
        anywhere=allow_remote,
        keep_jobs=keep_jobs,
    )
