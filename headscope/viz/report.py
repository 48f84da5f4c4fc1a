"""A run as one HTML file that needs nothing else: no network, no server, no other file."""

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import numpy as np

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.evals.validation import Validation
from headscope.headmap import HeadMap
from headscope.viz import report_figures as charts
from headscope.viz.causal import causal_section
from headscope.viz.heads_section import map_section, roles_section
from headscope.viz.markup import Markup, el
from headscope.viz.packing import packed
from headscope.viz.palette import LEVELS
from headscope.viz.run_results import Result, fingerprint_of
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
    "scores": "Scores",
    "agreement": "Agreement",
    "curves": "Curves",
    "comparison": "Another run",
    "evals": "Evals",
    "patching": "Patching",
    "profiles": "Profiles",
    "caveats": "Caveats",
    "rules": "Rules",
    "prompts": "Prompts",
    "reproduce": "Reproduce",
}


def report_html(
    head_map: HeadMap,
    validations: Sequence[Validation] = (),
    results: Sequence[Result] = (),
    other: HeadMap | None = None,
) -> str:
    """The report of a run, as one HTML document.

    Its only script is headscope's own, which its content security policy allows by hash; with it
    the same policy forbids the page to load anything.

    Args:
        validations: causal tests of the same model.
        results: of the same model, what else was measured or planned; validations among them are
            causal tests too.
        other: a run to compare with, of any model.

    Raises:
        HeadscopeError: a result was made with other weights than the head map, or the other run
            shares no role with it.
    """
    model = head_map.info.model
    tests = [*validations, *(each for each in results if isinstance(each, Validation))]
    validations = list({id(each): each for each in tests}.values())
    for each in (*validations, *results):
        _check(each, head_map)
    view = View.of(head_map)
    tested = {head for validation in validations for head in validation.tested}
    script = _asset("report.js")
    sections = {
        "map": map_section(view, tested),
        "tests": causal_section(view, validations),
        "roles": roles_section(view),
        "scores": charts.scores_section(head_map),
        "agreement": charts.agreement_section(head_map),
        "curves": charts.curves_section(head_map),
        "comparison": charts.comparison_section(head_map, other),
        "evals": charts.evals_section(results),
        "patching": charts.patches_section(results),
        "profiles": charts.profiles_section(results),
        "caveats": caveat_section(view),
        "rules": rules_section(view),
        "prompts": prompts_section(head_map.info),
        "reproduce": reproduce_section(head_map.info, validations),
    }
    there = [key for key, section in sections.items() if section]
    nav = el("nav", *(el("a", _LINKS[key], href=f"#{key}") for key in there), aria_label="Sections")
    body = el(
        "body",
        header(view, len(validations)),
        nav,
        el("main", *sections.values()),
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


def write_report(
    head_map: HeadMap,
    validations: Sequence[Validation],
    path: str | Path,
    results: Sequence[Result] = (),
    other: HeadMap | None = None,
) -> Path:
    """Write the report of a run; see `report_html`.

    Raises:
        HeadscopeError: the file cannot be written, or as `report_html`.
    """
    path = Path(path)
    storage.write(path, report_html(head_map, validations, results, other).encode())
    return path


def _check(result: Result, head_map: HeadMap) -> None:
    model, mark = head_map.info.model, fingerprint_of(result)
    if mark in (None, model.fingerprint):
        return
    about = getattr(result, "model", None)
    name = about if isinstance(about, str) else getattr(about, "name", "another model")
    raise HeadscopeError(
        f"A {type(result).__name__.lower()} is of {name}, with other weights than {model.name} of "
        "this head map; leave it out, or make it again with the same model."
    )


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
    names = sorted({role for cell in view.cells for role in cell.roles})
    content = {
        "layers": head_map.layers,
        "heads": head_map.n_heads,
        "kvHeads": head_map.n_kv_heads,
        "start": view.cells.index(best) if best else 0,
        "names": names,
        "roles": [[names.index(role) for role in cell.roles] for cell in view.cells],
        "scores": {
            name: packed(np.array([cell.scores[name] for cell in view.cells]))
            for name in head_map.scores
        },
    }
    written = json.dumps(content, separators=(",", ":"))
    # Inside a script only these could end it or begin another.
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return Markup(written)
