"""The parts of a report that are words: facts, prompts, rules, commands, caveats."""

import json
import re
from collections.abc import Sequence
from datetime import datetime

from headscope.evals.validation import Validation
from headscope.roles import RULES, SURE
from headscope.runinfo import RunInfo
from headscope.viz.causal import parameters, title
from headscope.viz.head_map import shape
from headscope.viz.heads_section import role_class, role_mark
from headscope.viz.markup import Markup, el, join
from headscope.viz.view import View, words


def header(view: View, tests: int) -> Markup:
    """What was measured, on what, when, and with which versions."""
    info = view.head_map.info
    model = info.model
    found = f"{shape(view.head_map)}: {view.summary()}. "
    causal = f"{tests} causal test{'' if tests == 1 else 's'}" if tests else "no causal test"
    mark, size, room, width = (
        model.fingerprint,
        model.parameters,
        model.context_length,
        model.d_head,
    )
    wide = f", d = {width}" if width else ""
    facts = {
        "Model": model.name,
        "Opened as": model.spec if model.spec != model.name else None,
        "Revision": model.revision,
        "Weights": el("code", mark[:12], title=mark) if mark else None,
        "Parameters": f"{size / 1e6:,.1f} M" if size else None,
        "Attention layers": _layers(model.layers),
        "Heads a layer": f"{model.n_heads} query, {model.n_kv_heads} KV{wide}",
        "Context": f"{room:,} tokens" if room else None,
        "Windows": " ".join(model.windows()) or None,
        "Backend": info.backend,
        "Precision": f"{info.dtype} on {info.device}" if info.dtype else None,
        "Seed": str(info.seed),
        "Measured": _when(info.created),
        "Took": _duration(sum(family.seconds for family in info.families.values())),
    }
    if info.source is not None:
        for name in ("Seed", "Took"):
            del facts[name]
        facts["Measured"] = f"by others; read {_when(info.created)}"
        facts["Read from"] = f"{info.source.path} ({info.source.format})"
        facts["After"] = _with_papers(info.source.paper)
    versions = ", ".join(f"{name} {number}" for name, number in info.versions.items())
    pairs = [_pair(name, fact) for name, fact in facts.items() if fact is not None]
    return el(
        "header",
        el("h1", "Attention heads of ", el("em", model.name)),
        el("p", found, el("a", causal, href="#tests"), ".", class_="lead"),
        el("dl", *pairs, el("div", el("dt", "Versions"), el("dd", versions), class_="long")),
    )


def prompts_section(info: RunInfo) -> Markup:
    """Which prompts which probes read, and how many of them the model answered."""
    names = ("prompts", "settings", "scores", "accepted", "time")
    rows = []
    for key, family in info.families.items():
        scores = [name for name, score in info.scores.items() if _read(info, score.probe, key)]
        rows.append(
            el(
                "tr",
                el("td", key, class_="name"),
                el("td", parameters(family.parameters)),
                el("td", ", ".join(map(words, scores))),
                el("td", _accepted(family.accepted, len(family.digests)), class_="number"),
                el("td", _duration(family.seconds), class_="number"),
            )
        )
    return el(
        "section",
        el("h2", "Prompts"),
        el(
            "div",
            el(
                "table",
                el("thead", el("tr", *(el("th", name) for name in names))),
                el("tbody", *rows),
            ),
            el(
                "p",
                "Where the model has to answer, only prompts that it answered rightly count.",
                class_="note",
            ),
            class_="card scroll",
        ),
        id="prompts",
    )


def rules_section(view: View) -> Markup:
    """Every rule with its kind and source, and how many heads pass it."""
    rows = []
    for role, rule in RULES.items():
        passed = "not measured"
        if role in view.rules:
            decision = view.head_map.decision(rule)
            sure = (decision.confidence >= SURE).sum()
            passed = f"{decision.passes.sum()}, {sure} surely; " + (
                "{:.1%} of all [{:.1%}, {:.1%}]".format(*decision.share)
                if rule.kind == "threshold"
                else f"{decision.share[0]:.1%} of all, as the rule imposes"
            )
        rows.append(
            el(
                "tr",
                el("td", role_mark(view, role), words(role)),
                el("td", words(str(rule))),
                el("td", rule.kind),
                el("td", passed),
                el("td", _with_papers(rule.source)),
                class_=role_class(view, role),
            )
        )
    names = ("role", "rule", "kind", "heads", "source")
    head = el("thead", el("tr", *(el("th", name) for name in names)))
    return el(
        "section",
        el("h2", "Rules"),
        el(
            "div",
            el("table", head, el("tbody", *rows)),
            el(
                "p",
                "A head has every role whose rule it passes; the map shows the first of them in "
                f"this order. Surely: in {SURE:.1%} of bootstrap resamples of the prompts. A "
                "quantile rule takes the first heads of a ranking, however they score: how many "
                "there are says nothing about the model.",
                class_="note",
            ),
            class_="card scroll",
        ),
        id="rules",
    )


def caveat_section(view: View) -> Markup:
    """What the numbers do not say."""
    n = min(len(score.values) for score in view.head_map.scores.values())
    return el(
        "section",
        el("h2", "What a score is, and is not"),
        el(
            "p",
            "A score says where a head looked, or what it wrote, on these prompts, averaged over "
            "them. It is no evidence that the model needs the head: heads can look without being "
            "used, and others can do the same work. A role is a score on one side of a threshold, "
            "or a place in a ranking, and both are conventions. The 95 % intervals are "
            "bootstrapped over prompts "
            f"(at least {n} a score): they say how much the drawn prompts matter, are too narrow "
            "when prompts are few, and know nothing of other kinds of prompts. Of many heads, "
            "some come close to a threshold by chance. Only a causal test speaks about what the "
            "model uses, and only for its own prompts, way of ablation and positions.",
            class_="card prose",
        ),
        id="caveats",
    )


def reproduce_section(info: RunInfo, validations: Sequence[Validation]) -> Markup:
    """The commands again, and what stands in for one that was not typed."""
    parts = [_command("The scan", info.command, "headscope.scan")]
    parts += [_command(title(v), v.command, "headscope.validate") for v in validations]
    settings = json.dumps(info.probes, indent=1, ensure_ascii=False)
    return el(
        "section",
        el("h2", "How to reproduce"),
        el(
            "div",
            *parts,
            el("details", el("summary", "Parameters of every probe"), el("pre", settings)),
            class_="card",
        ),
        id="reproduce",
    )


def _command(name: str, command: str, function: str) -> Markup:
    if not command:
        return el("p", f"{name}: made from Python with ", el("code", function), ".")
    return el("figure", el("figcaption", name), el("pre", el("code", command), class_="copy"))


def _pair(name: str, fact: str) -> Markup:
    return el("div", el("dt", name), el("dd", fact))


def _layers(layers: list[int]) -> str:
    if layers == list(range(len(layers))):
        return str(len(layers))
    return f"{len(layers)}: {', '.join(map(str, layers))}"


def _read(info: RunInfo, probe: str, key: str) -> bool:
    """Whether a probe read the prompts of a family."""
    family = info.families[key]
    return info.probes.get(probe, {}).get("prompts") == {
        "family": family.family,
        **family.parameters,
    }


def _accepted(accepted: list[bool], samples: int) -> str:
    share = f" ({sum(accepted) / samples:.0%})" if samples else ""
    return f"{sum(accepted)} of {samples}{share}"


def _when(created: str) -> str:
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{when:%Y-%m-%d %H:%M} {when.tzname() or ''}".strip()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _with_papers(source: str) -> Markup:
    """A source, its arXiv number being a link."""
    before, *rest = re.split(r"arXiv (\d{4}\.\d{4,5})", source)
    parts = [before]
    for paper, after in zip(rest[::2], rest[1::2], strict=True):
        parts += [el("a", f"arXiv {paper}", href=f"https://arxiv.org/abs/{paper}"), after]
    return join(*parts)
