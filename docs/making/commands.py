"""The command line that runs a method."""

import dataclasses
from typing import Any

# What a field that has no default may be given on the command line, on the built-in model.
_GIVEN = {
    "heads": "L18H6+L18H7",
    "streaming": "L10KV0+L12KV1",
    "span": "needle",
    "keys": "needle",
    "queries": "question",
    "count": "4",
    "factor": "0.5",
    "dose": "0.5",
}
_DOCUMENTS = ("attention_sorting", "attn_rank", "calibrated_attention", "calibrated_ranking",
              "focus_directions", "parallel_context")  # fmt: skip


def scan(name: str) -> str:
    """The command that measures a probe."""
    return f"headscope scan smollm2 --probes {name} --out runs/{name}"


def required(kind: type[Any]) -> list[str]:
    """Fields that have no default."""
    none = (dataclasses.MISSING, dataclasses.MISSING)
    return [
        field.name
        for field in dataclasses.fields(kind)
        if (field.default, field.default_factory) == none
    ]


def change(kind: type[Any]) -> str | None:
    """An intervention as `--with` takes it; None where it takes what cannot be typed.

    Trained things are paths of files.
    """
    given = []
    for name in required(kind):
        if name in kind.files:
            given.append(f"{name}={name}{_suffix(kind.files[name])}")
        elif name in _GIVEN:
            given.append(f"{name}={_GIVEN[name]}")
        else:
            return None
    return f"{kind.name}:{','.join(given)}".rstrip(":")


def _suffix(held: type[Any]) -> str:
    return ".json" if held.__name__ in ("SparseProfile", "SlotProfile") else ".safetensors"


def changed_eval(kind: type[Any]) -> str | None:
    """The command that asks questions with an intervention in force, beside the plain model."""
    text = change(kind)
    task = "documents" if kind.name in _DOCUMENTS else "needle"
    start = f"headscope eval smollm2 --tasks {task} --samples 6"
    return None if text is None else f"{start} --with {text}"


def ask(name: str) -> str:
    """The command that asks a model the questions of an eval."""
    if name == "own":
        return "headscope eval smollm2 --prompts mine.jsonl"
    return f"headscope eval smollm2 --tasks {name} --samples 6"


def write(kind: type[Any]) -> str:
    """The command that writes a profile in a format of others."""
    out = "out" if kind.files else "out.json"
    length = any(field.name == "length" for field in dataclasses.fields(kind))
    more = " --length 4096" if length else ""
    return f"headscope export profile.json --to {kind.name}{more} --out {out}"


def read(name: str) -> str:
    """The command that makes a run of others' findings."""
    return f"headscope import FILE --format {name} --out runs/{name}"
