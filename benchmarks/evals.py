"""Base figures of a model on every eval at three lengths, as docs/evals.md keeps them.

    python benchmarks/evals.py > docs/evals.md

Evals that are short by nature stand behind prose where a length is asked for, and are measured
without any beside it. Each length has SAMPLES questions of its own.
"""

import dataclasses
import sys

import pandas as pd
from environment import describe

import headscope
from headscope.catalog import evals
from headscope.errors import HeadscopeError
from headscope.evals.base import Eval
from headscope.evals.measured import check_items
from headscope.model import HeadModel

SAMPLES = 12
LENGTHS = ((256, 512, 1024), (384, 768, 1536), (512, 1024, 2048))
METRICS = {
    "answer": "nats of the answer",
    "choice": "margin of the right answers, nats",
    "tokens": "nats a token",
}
INTRODUCTION = """# Evals

What every eval asks, and what SmolLM2-135M-Instruct scores on it as it is, made by
`python benchmarks/evals.py > docs/evals.md`.

`headscope evals` lists the same with sources and licences; all questions are generated offline,
from seeds, in headscope's own words. The answer is forced by its first words and scored first by
its log-probability, then by whether it is right. "answer": every token of it is the most likely
one, so that greedy decoding would say it. "choice": the right answers are likelier than the wrong
ones. Intervals are 95 %: Wilson for shares, bootstrap over questions for nats. `guess` is what
guessing would get of a choice."""


def fitting(model: HeadModel, kind: type[Eval]) -> Eval:
    """The eval at three lengths that its prompts can have."""
    for lengths in LENGTHS:
        task = kind(samples=SAMPLES * len(lengths), lengths=lengths)
        try:
            check_items(model, task, task.items(model.tokenizer))
        except HeadscopeError as error:
            said = error
            continue
        return task
    raise said


def lines(model: HeadModel, task: Eval) -> list[str]:
    result = headscope.evaluate(model, [task])
    rows = result.by("length").to_dict("records")
    found = []
    for row in rows:
        length = str(row["length"]) if row["length"] else "as it is"
        right = "–"
        if not pd.isna(row["exact"]):
            right = f"{row['exact']:.2f} [{row['exact.low']:.2f}, {row['exact.high']:.2f}]"
        guess = f"{row['chance']:.2f}" if row["chance"] > 0 else ""
        value = f"{row['value']:.2f} [{row['value.low']:.2f}, {row['value.high']:.2f}]"
        found.append(
            f"| `{task.name}` | {length} | {row['questions']} | {right} | {guess} | {value} |"
        )
    return found


def main() -> None:
    print(INTRODUCTION + "\n\n```")
    describe()
    model = headscope.load("smollm2", dtype="float32")
    print(model, "```\n", sep="\n")
    names = sys.argv[1:]
    measured: dict[str, list[str]] = {metric: [] for metric in METRICS}
    asked = []
    for name, kind in evals().items():
        if name == "own" or (names and name not in names):
            continue
        print(name, file=sys.stderr)
        first = " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split())
        asked.append(f"| `{name}` | {first} | {kind.source} | {kind.licence} |")
        if kind().lengths == ():
            measured[kind.metric] += lines(model, dataclasses.replace(kind(), samples=SAMPLES))
        measured[kind.metric] += lines(model, fitting(model, kind))
    print("| eval | what it asks | source of the idea | licence of that |", "|---|---|---|---|",
          *asked, sep="\n")  # fmt: skip
    for metric, what in METRICS.items():
        print(f"\n## Scored by: {metric}\n")
        print(f"| eval | tokens | questions | right | guess | {what} |")
        print("|---|---|---|---|---|---|", *measured[metric], sep="\n")


if __name__ == "__main__":
    main()
