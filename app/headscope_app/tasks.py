"""What can be started from the page, and the command that it is."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headscope.errors import HeadscopeError
from headscope.heads import label, parse_heads

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_CALLED = {"k": "The number of heads", "controls": "The number of random sets"}
_MOST = {"samples": 1000, "k": 1000, "controls": 99, "seed": 2**31, "length": 2**20}


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A command that writes into a run folder; its fields are checked before it becomes one.

    Attributes:
        samples: prompts, or questions of each eval; the command's own number if left out.
        lengths: of prompts, in tokens; likewise.
        seed: of prompts and intervals.
    """

    samples: int | None = None
    lengths: tuple[int, ...] = ()
    seed: int | None = None

    @abstractmethod
    def arguments(self, folder: Path) -> list[str]:
        """Of `python -m headscope`, for a run folder.

        Raises:
            HeadscopeError: a field makes no sense.
        """

    def _shared(self, *, seeded: bool = True) -> list[str]:
        check_number("samples", self.samples, 1, needed=False)
        check_number("seed", self.seed, 0, needed=False)
        for length in self.lengths:
            check_number("length", length, 1)
        given: list[str] = ["--json", "--progress=json"]
        if self.samples is not None:
            given.append(f"--samples={self.samples}")
        if self.lengths:
            given.append(f"--lengths={','.join(map(str, self.lengths))}")
        if self.seed is not None and seeded:
            given.append(f"--seed={self.seed}")
        return given


@dataclass(frozen=True, kw_only=True)
class Scan(Task):
    """Score every head of a model.

    Attributes:
        model: as for `headscope scan`; which ones may be named `check_model` says.
        probes: names; all if left out.
    """

    model: str
    probes: tuple[str, ...] = ()

    def arguments(self, folder: Path) -> list[str]:
        probes = ",".join(_words("probe", self.probes)) or "all"
        # What follows "--" is no option, whatever it looks like.
        return [
            "scan", *self._shared(), f"--probes={probes}", f"--out={folder}", "--", self.model,
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Validate(Task):
    """Ablate heads of a run, and random ones.

    Attributes:
        role, k: the top heads of a role or a score.
        heads: instead of them.
        tasks, spared: evals; needles and none if left out.
        controls: random sets of each kind.
        part: which rows are ablated.
    """

    role: str = "retrieval"
    k: int = 5
    heads: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    controls: int = 19
    part: Literal["all", "prefill", "decode", "answer"] = "all"

    def arguments(self, folder: Path) -> list[str]:
        check_number("k", self.k, 1)
        check_number("controls", self.controls, 1)
        (role,) = _words("role or score", [self.role])
        if self.part not in ("all", "prefill", "decode", "answer"):
            raise HeadscopeError(f"There are no rows {self.part!r} to ablate; choose all.")
        given = ["validate", *self._shared(), f"--controls={self.controls}", f"--part={self.part}"]
        if self.heads:
            given.append(f"--heads={','.join(map(label, parse_heads(self.heads)))}")
        else:
            given += [f"--role={role}", f"--k={self.k}"]
        for flag, names in (("tasks", self.tasks), ("spared", self.spared)):
            if names:
                given.append(f"--{flag}={','.join(_words('eval', names))}")
        return [*given, "--", str(folder)]


@dataclass(frozen=True, kw_only=True)
class Measure(Task):
    """Measure what heads lose under rules, which plans are then made of.

    Attributes:
        rules: as typed for `headscope plan`; its own if left out.
        timed: whether attention is timed too, on this machine.
    """

    rules: str = ""
    timed: bool = False

    def arguments(self, folder: Path) -> list[str]:
        if self.rules and not re.fullmatch(r"[a-z0-9_:=,;. ]{1,500}", self.rules):
            raise HeadscopeError(
                f"{self.rules[:80]!r} names no rules; write streaming:sink=4,window=64;full."
            )
        given = [f"--rules={self.rules}"] if self.rules else []
        budget = "latency=1" if self.timed else "kv=1"
        return [
            "plan",
            *self._shared(seeded=False),
            *given,
            f"--budget={budget}",
            "--",
            str(folder),
        ]


def check_name(name: str) -> None:
    """Refuse what is no plain name of a new folder.

    Raises:
        HeadscopeError: it has other characters, or is too long.
    """
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise HeadscopeError(
            "Name the run with letters, digits, dots, hyphens and underscores, at most 80 of them, "
            "beginning with a letter or a digit."
        )


def check_model(spec: str, folders: Sequence[Path], known: Sequence[str]) -> None:
    """Refuse models that lie elsewhere on this machine than the given folders.

    Args:
        folders: the ones that may be read.
        known: models of runs that are there.

    Raises:
        HeadscopeError: it is none of those, and no id of the hub.
    """
    if spec == "smollm2" or spec in known:
        return
    if not spec.strip():
        raise HeadscopeError("Name a model: smollm2, a Hugging Face id, or one of the runs'.")
    path = Path(os.path.expanduser(spec))
    try:
        here, real = path.exists(), path.resolve()
    except (OSError, ValueError, RuntimeError):
        here, real = False, path
    if here and any(real.is_relative_to(folder.resolve()) for folder in folders):
        return
    if here or not _HUB.fullmatch(spec):
        raise HeadscopeError(
            "A model is smollm2, a Hugging Face id, one that a run here was made with, or a folder "
            "inside the runs folder; scan others from the command line."
        )


def check_number(name: str, value: Any, least: int, *, needed: bool = True) -> None:
    """Refuse a number that is too small or too large.

    Raises:
        HeadscopeError: it is, or is no whole number, or is missing and needed.
    """
    if value is None and not needed:
        return
    most = _MOST[name]
    if type(value) is not int or not least <= value <= most:
        given = "nothing" if value is None else f"{value!r:.40}"
        raise HeadscopeError(
            f"{_CALLED.get(name, name)} is a whole number from {least} to {most:,}, not {given}."
        )


def _words(what: str, names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if not _WORD.fullmatch(name):
            raise HeadscopeError(
                f"{name[:80]!r} is the name of no {what}; choose one from the list."
            )
    return names


def numbers(text: str | None) -> tuple[int, ...]:
    """ "256, 512" -> (256, 512); nothing -> ().

    Raises:
        HeadscopeError: it is no list of whole numbers.
    """
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if any(not (part.isascii() and part.isdigit()) or len(part) > 9 for part in parts):
        raise HeadscopeError(f"{(text or '')[:80]!r} are no lengths; write them as 256,512.")
    return tuple(map(int, parts))


def names(text: str | None) -> tuple[str, ...]:
    """ "L1H2, L3H4" -> ("L1H2", "L3H4"); nothing -> ()."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
