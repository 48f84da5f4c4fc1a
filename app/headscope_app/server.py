"""The web server: makes the app, says who may ask it, and runs until it is stopped."""

import logging
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dash
import flask
from dash import ClientsideFunction, Input, Output
from dash import State as Aside
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from headscope.errors import HeadscopeError
from headscope_app import engine, errors
from headscope_app.guard import LOCAL, Guard, check_address
from headscope_app.library import Library
from headscope_app.pages import PAGES
from headscope_app.shell import laid_out, shell
from headscope_app.state import State
from headscope_app.theme import stylesheet

_MOST = 2**25  # bytes of a request: the longest text and the largest selection are far below

_INDEX = """<!doctype html>
<html lang="en"{theme}>
<head>
{{%metas%}}
<meta name="color-scheme" content="light dark">
<title>{{%title%}}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
{{%css%}}
</head>
<body>{{%app_entry%}}<footer>{{%config%}}{{%scripts%}}{{%renderer%}}</footer></body>
</html>"""


class _App(dash.Dash):
    """Dash with a page that has its theme before anything is drawn."""

    def interpolate_index(self, **parts: Any) -> str:
        asked = flask.request.args.get("theme", "") if flask.has_request_context() else ""
        theme = f' data-theme="{asked}"' if asked in ("light", "dark") else ""
        page = _INDEX.format(theme=theme, style=stylesheet())
        for name, part in parts.items():
            page = page.replace(f"{{%{name}%}}", part)
        return page


def make_app(
    folders: Sequence[str | Path], *, host: str = "127.0.0.1", token: str | None = None
) -> dash.Dash:
    """The app over run folders; nothing outside the given folders can be read through it.

    Args:
        folders: each holds run folders, or is one.
        host: what it will be bound to; beyond this machine every request needs the token.

    Raises:
        HeadscopeError: a folder is not there.
    """
    library = Library.of(folders)
    app = _App(
        "headscope_app",
        title="headscope",
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
        suppress_callback_exceptions=True,  # pages come and go
        serve_locally=True,
        on_error=errors.show,
        enable_mcp=False,
        add_log_handler=False,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    app.server.config["MAX_CONTENT_LENGTH"] = _MOST
    app.layout = shell(PAGES)
    _route(app, library)
    for page in PAGES:
        page.register(app, library)
    Guard(host, token, _policy(app)).watch(app.server)
    return app


def _route(app: dash.Dash, library: Library) -> None:
    """From the address to the page; what happens in the browser alone is in assets/."""
    app.clientside_callback(
        ClientsideFunction("headscope", "address"),
        Output("state", "data"),
        Output("page", "data"),
        Input("url", "pathname"),
        Input("url", "search"),
        Aside("keys", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("headscope", "arrived"),
        Output("main", "data-arrived"),
        Input("main", "children"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("headscope", "tell"),
        Output("toast", "hidden"),
        Input("message", "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("nav", "children"),
        Output("main", "children"),
        Input("page", "data"),
        prevent_initial_call=True,
    )
    def show_page(page: dict[str, str]) -> tuple[Any, Any]:
        return laid_out(PAGES, library, str(page.get("path")), State.of(page))


def _policy(app: dash.Dash) -> str:
    """What a page may do: its own scripts and no others, no request to anywhere else."""
    scripts = " ".join(["'self'", *(f"'{each}'".replace("''", "'") for each in app.csp_hashes())])
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class _Handler(WSGIRequestHandler):
    """Requests are not printed, and who does not finish one is not waited for."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds without a byte of a request

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Nothing."""


def bound(app: dash.Dash, host: str, port: int) -> BaseWSGIServer:
    """A server that has its port and waits to be started.

    Raises:
        HeadscopeError: the port is taken, or the host is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise HeadscopeError(
            f"Nothing can listen on {host}, port {port} ({error.strerror or error}); choose "
            "another with --port, or 0 for any that is free."
        ) from error
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with listening:
        number = listening.getsockname()[1]
        return make_server(
            host, number, app.server, threaded=True, request_handler=_Handler,
            fd=listening.dup().detach(),
        )  # fmt: skip


def serve(
    folders: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8050,
    token: str | None = None,
    anywhere: bool = False,
    keep_jobs: bool = False,
) -> None:
    """Run the app until it is interrupted, and end what it started.

    Args:
        folders: see `make_app`.
        anywhere: whether a host beyond this machine is meant; a token is then needed.
        keep_jobs: leave scans and validations running that were started from the page.

    Raises:
        HeadscopeError: a folder is not there, the port is taken, or the host is not allowed.
    """
    check_address(host, anywhere, token)
    app = make_app(folders, host=host, token=token)
    server = bound(app, host, port)
    name = "localhost" if host in LOCAL else f"[{host}]" if ":" in host else host
    asked = f"?token={quote(token, safe='')}" if token else ""
    print(f"headscope app: http://{name}:{server.port}/{asked} (Ctrl-C stops it)", flush=True)
    # Being told to end is being interrupted: what was started ends too. A shell's background jobs
    # begin with interrupts ignored.
    for sent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        engine.stop(app, keep_jobs)
