"""What a scan is asked for: flags over a run.json over defaults."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from headscope import storage
from headscope.catalog import families
from headscope.catalog import probes as all_probes
from headscope.errors import HeadscopeError
from headscope.probes.base import Probe
from headscope.registry import find
from headscope.runinfo import RunInfo


@dataclass(frozen=True)
class ScanConfig:
    """A scan before it is run."""

    model: str | None = None
    probes: Any = "all"
    lengths: tuple[int, ...] | None = None
    samples: int | None = None
    prompts: Path | None = None
    backend: Any = None
    dtype: str | None = None
    device: str | None = None
    revision: str | None = None
    seed: int | None = None

    @property
    def model_spec(self) -> str:
        if self.model is None:
            raise HeadscopeError("Name a model: headscope scan MODEL, or --config with a run.json.")
        return self.model

    def changed(self, **flags: Any) -> "ScanConfig":
        """The same with those flags that were given."""
        given = {name: value for name, value in flags.items() if value is not None}
        if isinstance(given.get("probes"), list) and self.probes != "all":
            # A probe that is described here keeps its parameters when it is named again.
            described = {probe.name: probe for probe in self.probes}
            given["probes"] = [described.get(name, name) for name in given["probes"]]
        if given.get("model", self.model) != self.model:
            given["revision"] = None  # it was the other model's
        return dataclasses.replace(self, **given)

    @classmethod
    def read(cls, path: Path) -> "ScanConfig":
        """What a run.json describes, its probes' parameters and prompts included.

        Raises:
            HeadscopeError: the file is missing, damaged, or names a probe that is not there.
        """
        path = path / "run.json" if path.is_dir() else path
        info = RunInfo.parse(storage.read(path), path)
        probes = [_probe(name, fields, path) for name, fields in info.probes.items()]
        # Prompts with seeds of their own keep them: a seed of the scan would take their place.
        own = any(probe.prompts.seed != info.seed for probe in probes)
        return cls(
            model=info.model.spec,
            probes=probes,
            backend=info.backend,
            dtype=info.dtype,
            revision=info.model.revision,
            seed=None if own else info.seed,
        )


def _probe(name: str, fields: dict[str, Any], path: Path) -> Probe:
    kind = find(all_probes(), name, "probe")
    given = dict(fields)
    try:
        source = dict(given.pop("prompts", {}))
        family = find(families(), str(source.pop("family", "")), "prompt family")
        return kind(prompts=family(**_typed(family, source)), **_typed(kind, given))
    except (ValueError, KeyError, TypeError) as error:  # pydantic's error is a ValueError
        raise HeadscopeError(
            f"{path}: the parameters of {name!r} do not fit this version of headscope."
        ) from error


def _typed(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    types: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(kind)}
    return {name: TypeAdapter(types[name]).validate_python(v) for name, v in values.items()}


def as_names(text: str | None, flag: str = "--probes", listed: str = "probes") -> Any:
    """ "a,b" -> ["a", "b"], "all" -> "all"; `headscope LISTED` says what there is."""
    if text is None or text == "all":
        return text
    names = split_names(text)
    if not names:
        one = listed.removesuffix("s")
        raise HeadscopeError(f"{flag} names no {one}; `headscope {listed}` lists them.")
    return names


def split_names(text: str) -> list[str]:
    """ "a, b" -> ["a", "b"]; empty parts are left out."""
    return [name.strip() for name in text.split(",") if name.strip()]


def as_integers(text: str | None, flag: str) -> tuple[int, ...] | None:
    """ "256,512" -> (256, 512)."""
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise HeadscopeError(
            f"{flag} takes whole numbers joined by commas, not {text!r}."
        ) from error
    if min(numbers) < 1:
        raise HeadscopeError(f"{flag} takes positive numbers, not {text!r}.")
    return numbers
