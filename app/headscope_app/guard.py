"""Who may ask: this machine by its own name, or whoever holds the token."""

import hmac
import sys
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlsplit

from flask import Flask, Response, abort, redirect, request
from werkzeug.exceptions import HTTPException

from headscope.errors import HeadscopeError

LOCAL = ("127.0.0.1", "localhost", "::1")
_SHORTEST_TOKEN = 16


def check_address(host: str, anywhere: bool, token: str | None) -> None:
    """Refuse to be reached from other machines without being told so, and without a token.

    Raises:
        HeadscopeError: the host is not this machine and flag or token is missing, or the token
            can be guessed.
    """
    plain = token is None or (token.isascii() and token.isprintable())
    if token is not None and (len(token) < _SHORTEST_TOKEN or not plain):
        raise HeadscopeError(
            f"A token takes at least {_SHORTEST_TOKEN} plain characters, so that it cannot be "
            "guessed; `python -c 'import secrets; print(secrets.token_urlsafe())'` makes one."
        )
    if host in LOCAL:
        return
    if not anywhere or token is None:
        raise HeadscopeError(
            f"{host} can be reached by other machines, which could then read the runs and start "
            "scans; if that is meant, add --allow-remote and --token TOKEN (or HEADSCOPE_TOKEN in "
            "the environment)."
        )


@dataclass(frozen=True)
class Guard:
    """Looks at every request before it is answered, and at every answer before it leaves.

    Attributes:
        host: what the server is bound to.
        token: what the first request of a browser has to bring in its URL; the others bring a
            cookie that was made from it.
        policy: what a page may load and run, as a Content-Security-Policy.
    """

    host: str
    token: str | None
    policy: str

    def watch(self, server: Flask) -> None:
        server.before_request(self.admit)
        server.after_request(self.seal)
        server.register_error_handler(Exception, refuse)

    def admit(self) -> Response | None:
        """Let a request in, or answer it here."""
        # A page of elsewhere may have its name point to this machine (DNS rebinding); the browser
        # then still names that page as host.
        if self.host in LOCAL and _hostname(f"//{request.host}") not in LOCAL:
            abort(Response("This server answers to its own name only.", 403))
        origin = request.headers.get("Origin")
        if origin and _place(origin) != request.host:
            abort(Response("Pages of other servers may not ask this one.", 403))
        if request.method == "POST" and not _is_a_question():
            abort(Response("This is no question that a page of headscope asks.", 400))
        return self._admit_by_token() if self.token is not None else None

    def _admit_by_token(self) -> Response | None:
        name, ticket = _cookie(self.token or "")
        if _same(request.cookies.get(name, ""), ticket):
            return None
        if not _same(request.args.get("token", ""), self.token or ""):
            abort(Response("Open the address with ?token=… that the terminal printed.", 401))
        # Taken out of the address, so that it is not copied with a link.
        rest = "&".join(
            part
            for part in request.query_string.decode("ascii", "replace").split("&")
            if not part.startswith("token=")
        )
        # Browsers leave out a tab: unquoted, "/", tab, "/elsewhere" would be another server.
        answer = redirect(quote(request.path) + (f"?{rest}" if rest else ""))
        answer.set_cookie(name, ticket, httponly=True, samesite="Strict", secure=request.is_secure)
        return answer  # type: ignore[return-value]

    def seal(self, response: Response) -> Response:
        """Say what a browser may do with an answer."""
        response.headers["Content-Security-Policy"] = self.policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Frame-Options"] = "DENY"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response


def refuse(error: Exception) -> Response | HTTPException:
    """Answer what came to no callback: those say themselves what goes wrong in them."""
    if isinstance(error, HTTPException):
        return error
    print(f"headscope app: {request.path} ({type(error).__name__}: {error})", file=sys.stderr)
    return Response("There is nothing here that answers to this.", 400)


def _cookie(token: str) -> tuple[str, str]:
    """(name, content) of the cookie that stands for a token.

    Browsers give a host's cookies to every port of it. So two servers of one machine need two
    names, and whoever else listens there is not told the token itself.
    """
    name, content = (
        hmac.new(token.encode(), use, sha256).hexdigest() for use in (b"name", b"content")
    )
    return f"headscope_{name[:12]}", content


def _same(given: str, wanted: str) -> bool:
    # Takes as long for a wrong token as for the right one.
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _place(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _is_a_question() -> bool:
    """Whether a request has the form that Dash's own script gives it."""
    try:
        body = request.get_json()
    except RecursionError:
        return False
    return (
        isinstance(body, dict)
        and isinstance(body.get("output"), str)
        and isinstance(body.get("outputs"), dict | list)
        and _are_properties(body.get("inputs"))
        and _are_properties(body.get("state", []))
        and isinstance(body.get("changedPropIds", []), list)
    )


def _are_properties(given: Any) -> bool:
    """Objects, and lists of objects where a callback takes all of a pattern."""
    return isinstance(given, list) and all(
        isinstance(each, dict)
        or (isinstance(each, list) and all(isinstance(p, dict) for p in each))
        for each in given
    )
