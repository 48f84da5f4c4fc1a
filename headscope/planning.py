"""Which probes a scan measures on which prompts: those that share prompts share a pass."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headscope.catalog import probes as all_probes
from headscope.errors import HeadscopeError
from headscope.model import HeadModel
from headscope.probes.base import Probe
from headscope.probes.study import _Study
from headscope.prompts.base import Prompt, PromptFamily, has_lengths, with_lengths
from headscope.prompts.jsonl import Jsonl
from headscope.registry import find


@dataclass(frozen=True, eq=False)
class Group:
    """Probes that read the same pass over the same prompts."""

    key: str
    family: PromptFamily
    probes: tuple[Probe, ...]
    prompts: tuple[Prompt, ...]

    @property
    def altering(self) -> Probe | None:
        """The probe that alters this pass and has it for itself."""
        return self.probes[0] if self.probes[0].alters else None


def choose(
    names: Any, prompts: Any, lengths: Any, samples: Any, seed: int | None, training: bool = False
) -> list[Probe]:
    """The probes that `scan` was asked for, on the prompts that it was given.

    Args:
        training: whether "all" probes are also those that take long.

    Raises:
        HeadscopeError: an argument is not what `scan` takes, or a probe does not go with it.
    """
    known = all_probes()
    wanted: Iterable[str | Probe] = [names] if isinstance(names, str | Probe) else names
    if names == "all":
        wanted = [name for name, kind in known.items() if training or not kind.training]
    chosen = [_probe(known, each) for each in wanted]
    if not chosen:
        raise HeadscopeError("Name at least one probe, or 'all'.")
    if isinstance(prompts, str | Path):
        prompts = Jsonl(path=str(prompts))
    if prompts is not None and not isinstance(prompts, PromptFamily):
        raise HeadscopeError("prompts= takes a family of prompts or the path of a JSONL file.")
    if samples is not None and not isinstance(samples, int):
        raise HeadscopeError(f"samples= takes a whole number, not {samples!r}.")
    listed = isinstance(lengths, Sequence) and not isinstance(lengths, str)
    if lengths is not None and not (listed and all(isinstance(n, int) for n in lengths)):
        raise HeadscopeError(f"lengths= takes a list of whole numbers, not {lengths!r}.")
    placed = []
    for probe in chosen:
        family = _seeded(prompts or probe.prompts, samples, seed)
        # Every probe was asked for, and the lengths are for those that have any.
        if lengths is not None and (names != "all" or prompts is not None or has_lengths(family)):
            family = with_lengths(family, lengths)
        placed.append(dataclasses.replace(probe, prompts=family))
    placed = list(dict.fromkeys(placed))
    names_ = [probe.name for probe in placed]
    twice = next((name for name in names_ if names_.count(name) > 1), None)
    if twice is not None:
        raise HeadscopeError(
            f"The probe {twice!r} is there twice with different parameters, and a run holds one "
            "score of a name; scan twice."
        )
    return placed


def _probe(known: dict[str, type[Probe]], given: Any) -> Probe:
    if isinstance(given, str):
        return find(known, given, "probe")()
    if isinstance(given, type) and issubclass(given, Probe):
        name = given.__name__
        raise HeadscopeError(f"{name} is the class of a probe; pass one of it, {name}().")
    if not isinstance(given, Probe):
        raise HeadscopeError(f"{given!r} is no probe; pass names, or probes such as Induction().")
    return given


def _seeded(family: PromptFamily, samples: int | None, seed: int | None) -> PromptFamily:
    changes: dict[str, Any] = {"seed": seed, "samples": samples}
    return dataclasses.replace(family, **{k: v for k, v in changes.items() if v is not None})


def grouped(
    probes: Sequence[Probe], model: HeadModel, lenient: bool
) -> tuple[list[Group], dict[str, str]]:
    """Put probes together that share a pass, and make their prompts.

    Args:
        lenient: leave out a probe that does not suit the model or its prompts, instead of refusing.

    Returns:
        The groups, and by name why a probe was left out.

    Raises:
        HeadscopeError: a probe does not suit the model or its prompts; if lenient, all of them.
    """
    made: dict[PromptFamily, tuple[Prompt, ...]] = {}
    shared: dict[tuple[PromptFamily, Probe | None], list[Probe]] = {}
    left_out: dict[str, str] = {}
    for probe in probes:
        try:
            probe.check_model(model)
            if probe.prompts not in made:
                made[probe.prompts] = tuple(probe.prompts.prompts(model.tokenizer))
            _check(probe, made[probe.prompts], model)
        except HeadscopeError as error:
            if not lenient:
                raise
            left_out[probe.name] = str(error)
            continue
        shared.setdefault((probe.prompts, probe if probe.alters else None), []).append(probe)
    if not shared:
        raise HeadscopeError(next(iter(left_out.values())))
    groups = [
        Group(f"{family.name}-{number}", family, tuple(members), made[family])
        for number, ((family, _), members) in enumerate(shared.items())
    ]
    return groups, left_out


def _check(probe: Probe, prompts: Sequence[Prompt], model: HeadModel) -> None:
    """Refuse prompts that a probe cannot read or that do not fit into the model."""
    if not prompts:
        raise HeadscopeError("Ask for at least one prompt (--samples).")
    for index, prompt in enumerate(prompts):
        try:
            probe.check(prompt)
        except HeadscopeError as error:
            where = f"Prompt {index + 1} of {probe.prompts.name}"
            raise HeadscopeError(f"{where}: {error}") from error
        try:
            model.check_prompt(prompt)
        except HeadscopeError as error:
            raise HeadscopeError(f"{str(error).rstrip('.')}, or leave out {probe.name}.") from error
    if isinstance(probe, _Study):
        probe.check_prompts(model, prompts)
