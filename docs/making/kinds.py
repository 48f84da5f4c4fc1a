"""What is particular to a kind of method: the facts above its page, and what runs it."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from making import commands
from making.docstrings import markdown

from headscope import catalog
from headscope.cli.evaluating import METRICS
from headscope.roles import RULES

_READS = {
    "answer": "the rows that made the model's own answer, on prompts that it answered rightly",
    "last": "the last rows of the prompt",
    "all": "every row",
}
Facts = Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """A family of methods.

    Attributes:
        folder: of its pages.
        title: of its index.
        lead: what methods of the kind are, above the list of them.
        registry: the methods by name.
        facts: what stands in the box at the top of a page.
        run: the code block that runs a method.
        more: further sections.
        without: a field that has a section of its own.
    """

    folder: str
    title: str
    lead: str
    registry: Callable[[], Mapping[str, type[Any]]]
    facts: Callable[[type[Any]], Facts]
    run: Callable[[type[Any]], str]
    more: Callable[[type[Any]], str] = lambda kind: ""
    without: str = ""


def _shell(*lines: str) -> str:
    return "```sh\n" + "\n".join(lines) + "\n```"


def _python(*lines: str) -> str:
    return "```python\n" + "\n".join(lines) + "\n```"


def _made(kind: type[Any]) -> str:
    return f"{kind.__name__}({'...' if commands.required(kind) else ''})"


def _note(kind: type[Any]) -> str:
    return "  # the parameters above" if dataclasses.fields(kind) else ""


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


# Probes


def _probe_facts(kind: type[Any]) -> Facts:
    reads = "passes of its own" if kind.alters else _READS[kind.rows]
    if kind.training:
        reads = "all prompts together: a study, which `--probes all` runs only with `--training`"
    return {
        "paper": markdown(kind.paper),
        "reads": reads,
        "cost": kind.cost,
        "prompts": f"the family `{kind().prompts.name}`; your own with `--prompts mine.jsonl`",
        "spans that a prompt needs": _listed(kind.spans),
        "gives": _listed(kind.outputs()),
        "a KV head's score": {
            "max": "the greatest of its query heads'",
            "mean": "the mean of its query heads'",
            "native": "its own: its query heads carry the same number",
        }[kind.kv_view],
    }


def _probe_more(kind: type[Any]) -> str:
    parts = []
    scores = [f"| `{name}` | {markdown(text)} |" for name, text in kind.scores.items()]
    scores += [f"| `{name}` (curve) | {markdown(text)} |" for name, text in kind.curves.items()]
    if scores:
        parts.append("## Further scores and curves\n\n| | |\n|---|---|\n" + "\n".join(scores))
    rules = [
        f"| `{role}` | {markdown(str(rule))} | {markdown(rule.source)} |"
        for role, rule in RULES.items()
        if set(rule.scores) & set(kind.score_names())
    ]
    if rules:
        head = (
            "## Roles that read it\n\n| role | rule | where the rule comes from |\n|---|---|---|\n"
        )
        parts.append(head + "\n".join(rules))
    else:
        parts.append("## Roles that read it\n\nNone: its scores are evidence beside the roles.")
    prompts = kind().prompts
    settings = [
        f"`{field.name}={getattr(prompts, field.name)!r}`" for field in dataclasses.fields(prompts)
    ]
    parts.append(f"## Prompts\n\n`{prompts.name}`, with {', '.join(settings)}.")
    return "\n\n".join(parts)


def _probe_run(kind: type[Any]) -> str:
    name = kind.name
    python = _python(
        "import headscope",
        "",
        'model = headscope.load("smollm2")',
        f'heads = headscope.scan(model, ["{name}"], out="runs/{name}")',
        f'print(heads.top("{name}", 5))',
    )
    return f"{_shell(commands.scan(name))}\n\n{python}"


# Interventions


def _intervention_facts(kind: type[Any]) -> Facts:
    part = any(field.name == "part" for field in dataclasses.fields(kind))
    return {
        "paper": markdown(kind.paper),
        "site": f"`{kind.site}`",
        "acts": "on the rows that `part` names" if part else f"in `{kind.phase}`",
        "causal": "yes: one full pass equals prefill and decode"
        if kind.causal
        else "no: a full pass differs from prefill and decode",
        "state": "kept for each sequence, gone when the scope closes" if kind.stateful else "none",
        "decides alone": ", ".join(sorted(kind.claims)),
        "may be given as a file": _listed(kind.files),
    }


def _intervention_run(kind: type[Any]) -> str:
    command = commands.changed_eval(kind)
    python = _python(
        f"from headscope.interventions import {kind.__name__}",
        "",
        f"with {_made(kind)}(model):{_note(kind)}",
        "    model.generate(ids, max_new_tokens=8)",
    )
    if command is None:
        return f"It takes things that cannot be typed, and so has no command line.\n\n{python}"
    return f"{_shell(command)}\n\n{python}"


# Patterns and selectors


def _rule_facts(kind: type[Any]) -> Facts:
    rule, facts = kind(), {"paper": markdown(kind.paper)}
    densities = {n: rule.density(n) for n in (1024, 8192, 32768)}
    told = ", ".join(f"{d:.3f} at {n:,}".replace(",", " ") for n, d in densities.items() if d)
    facts["share of causal pairs kept, by default"] = (
        f"{told} tokens" if told else "the text decides"
    )
    held = rule.held()
    facts["a KV cache may hold"] = (
        f"the first {held[0]} and the last {held[1]} keys" if held else "every key"
    )
    if hasattr(kind, "decodes"):
        facts["in decode steps"] = "chooses too" if kind.decodes else "sees everything"
    return facts


def _rule_run(kind: type[Any]) -> str:
    rule = kind()
    numbers = ", ".join(f"{f.name}={getattr(rule, f.name)!r}" for f in dataclasses.fields(kind))
    module = kind.__module__.rpartition(".")[0]
    module = module if kind.__name__ in _exported(module) else kind.__module__
    return (
        _python(
            f"from {module} import {kind.__name__}",
            "from headscope.interventions import SparseAttention",
            "from headscope.sparsity import SparseProfile",
            "",
            f"rule = {kind.__name__}({numbers})",
            'profile = SparseProfile.of(model, {"L18H6": rule})  # all other heads see everything',
            "with SparseAttention(profile)(model):",
            "    model(ids)",
            'profile.save("profile.json")',
        )
        + "\n\n"
        + _shell(commands.changed_eval(catalog.interventions()["sparse_attention"]) or "")
    )


def _exported(module: str) -> list[str]:
    return getattr(import_module(module), "__all__", [])


def _pattern_more(kind: type[Any]) -> str:
    said = f"Keys that rows of 160 tokens see under `{kind()}`: queries downwards, keys across"
    return f"## What it looks like\n\n![{said}]({kind.name}.svg)\n\n*{said}.*"


# Exporters and importers


def _format_facts(kind: type[Any]) -> Facts:
    return {
        "comes from": markdown(kind.paper),
        "one entry for each": kind.granularity,
        "can say": markdown(kind.expresses),
        "is loaded by": markdown(kind.loads),
        "what is different there": markdown(kind.loses),
        "files": _listed(kind.files) or "one file",
    }


def _format_run(kind: type[Any]) -> str:
    python = _python(
        f"from {kind.__module__} import {kind.__name__}",
        "from headscope.sparsity import SparseProfile",
        "",
        'profile = SparseProfile.load("profile.json")',
        f'{_made(kind)}.write(profile, "out"){_note(kind)}',
    )
    return f"{_shell(commands.write(kind))}\n\n{python}"


def _import_facts(kind: type[Any]) -> Facts:
    return {
        "comes from": markdown(kind.paper),
        "reads": markdown(kind.reads),
        "one number for each": kind.per,
    }


# Evals


def _eval_facts(kind: type[Any]) -> Facts:
    task = kind()
    return {
        "scored by": METRICS[task.metric],
        "tokens": ", ".join(map(str, task.lengths)) or "as long as the question is",
        "source of the idea": markdown(task.source),
        "licence of that": markdown(task.licence),
        "the answer stands in the prompt": "yes" if task.in_prompt else "no",
        "base figures": "[evals](../../evals.md)",
    }


KINDS = (
    Kind(
        "probes",
        "Probes",
        "A probe gives every query head a number on a prompt. `headscope scan MODEL --probes NAME` "
        "measures it, `headscope probes` lists the same; how scores become roles: "
        "[concepts](../../concepts.md).",
        catalog.probes,
        _probe_facts,
        _probe_run,
        _probe_more,
        without="prompts",
    ),
    Kind(
        "interventions",
        "Interventions",
        "An intervention changes what heads do for the length of a scope. `headscope eval MODEL "
        "--with NAME:...` holds it beside the plain model; `headscope interventions` lists them.",
        catalog.interventions,
        _intervention_facts,
        _intervention_run,
    ),
    Kind(
        "patterns",
        "Patterns",
        "A pattern says by positions alone which keys a row sees; profiles hold them as rules "
        "([profiles](../../profiles.md)).",
        catalog.patterns,
        _rule_facts,
        _rule_run,
        _pattern_more,
    ),
    Kind(
        "selectors",
        "Selectors",
        "A selector is a budget that is spent by looking at queries and keys "
        "([profiles](../../profiles.md)).",
        catalog.selectors,
        _rule_facts,
        _rule_run,
    ),
    Kind(
        "exporters",
        "Exporters",
        "Formats in which a profile leaves for the software that serves it, and comes back with "
        "`--from`. What a format cannot say is refused before anything is written.",
        catalog.profile_formats,
        _format_facts,
        _format_run,
    ),
    Kind(
        "importers",
        "Importers",
        "Others' findings about heads, read as a run: to be shown, compared and planned with.",
        catalog.formats,
        _import_facts,
        lambda kind: _shell(commands.read(kind.name)),
    ),
    Kind(
        "evals",
        "Evals",
        "Seeded questions with known answers, made offline. Base figures of the built-in model: "
        "[evals](../../evals.md).",
        catalog.evals,
        _eval_facts,
        lambda kind: _shell(commands.ask(kind.name)),
    ),
)
