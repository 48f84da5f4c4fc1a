"""A run as one HTML file that needs nothing else: no network, no server, no other file."""

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.evals.validation import Validation
from headscope.headmap import HeadMap
from headscope.viz.causal import causal_section
from headscope.viz.heads_section import map_section, roles_section
from headscope.viz.markup import Markup, el
from headscope.viz.palette import LEVELS
from headscope.viz.sections import (
    caveat_section,
    header,
    prompts_section,
    reproduce_section,
    rules_section,
)
from headscope.viz.view import View

_LINKS = {
    "map": "Head map",
    "tests": "Causal tests",
    "roles": "Roles",
    "caveats": "Caveats",
    "rules": "Rules",
    "prompts": "Prompts",
    "reproduce": "Reproduce",
}


def report_html(head_map: HeadMap, validations: Sequence[Validation] = ()) -> str:
    """The report of a run, as one HTML document.

    Its only script is headscope's own, which its content security policy allows by hash; with it
    the same policy forbids the page to load anything.

    Args:
        validations: causal tests of the same model.

    Raises:
        HeadscopeError: a validation was made with other weights than the head map.
    """
    model = head_map.info.model
    for validation in validations:
        if validation.fingerprint != model.fingerprint:
            raise HeadscopeError(
                f"A validation is of {validation.model}, with other weights than {model.name} of "
                "this head map; leave it out, or make it again with the same model."
            )
    view = View.of(head_map)
    tested = {head for validation in validations for head in validation.tested}
    script = _asset("report.js")
    nav = el("nav", *(el("a", name, href=f"#{key}") for key, name in _LINKS.items()))
    body = el(
        "body",
        header(view, len(validations)),
        nav,
        el(
            "main",
            map_section(view, tested),
            causal_section(view, validations),
            roles_section(view),
            caveat_section(view),
            rules_section(view),
            prompts_section(head_map.info),
            reproduce_section(head_map.info, validations),
        ),
        el("footer", f"Made by headscope {head_map.info.versions.get('headscope', '')}."),
        el("script", _data(view), type="application/json", id="data"),
        el("script", Markup(script)),
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("link", rel="icon", href="data:,"),
        el("title", f"Attention heads of {model.name}"),
        el("style", Markup(_role_colours(view) + _asset("report.css"))),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def write_report(head_map: HeadMap, validations: Sequence[Validation], path: str | Path) -> Path:
    """Write the report of a run.

    Raises:
        HeadscopeError: the file cannot be written, or a validation is of another model.
    """
    path = Path(path)
    storage.write(path, report_html(head_map, validations).encode())
    return path


def _asset(name: str) -> str:
    return files("headscope.viz").joinpath(name).read_text("utf-8")


def _policy(script: str) -> str:
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{digest}'"
    )


def _role_colours(view: View) -> str:
    """A class for each role that sets the colours of what is in it."""
    rules = {}
    for theme in ("light", "dark"):
        rules[theme] = "".join(
            f".role-{style.letter}{{--role:{style.on(theme)};"
            f"--letter:{style.text(len(LEVELS) - 1, theme)}}}"
            for style in view.styles.values()
        )
    return f"{rules['light']}\n@media screen and (prefers-color-scheme:dark){{{rules['dark']}}}\n"


def _data(view: View) -> Markup:
    """What the script shows: every head with its roles and scores."""
    head_map = view.head_map
    common = next((role for role in view.rules if view.count(role)), None)
    best = view.leading(common)[0] if common else None
    content = {
        "layers": head_map.layers,
        "heads": head_map.n_heads,
        "kvHeads": head_map.n_kv_heads,
        "start": view.cells.index(best) if best else 0,
        "roles": [cell.roles for cell in view.cells],
        "thousandths": {
            name: [[round(cell.scores[name][i] * 1000) for cell in view.cells] for i in range(3)]
            for name in head_map.scores
        },
    }
    written = json.dumps(content, separators=(",", ":"))
    # Inside a script only these could end it or begin another.
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return Markup(written)
