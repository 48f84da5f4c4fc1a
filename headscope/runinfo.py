"""`run.json`: everything that a result was made from, checked where it is read."""

import json
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from headscope import __version__, storage
from headscope.errors import HeadscopeError

SCHEMA = 1


class ModelInfo(BaseModel):
    """Which model it was, and its shape.

    What is None is not known: an imported map comes without the model.
    """

    model_config = ConfigDict(extra="forbid")

    spec: str
    name: str
    revision: str | None
    fingerprint: str | None
    layers: list[NonNegativeInt] = Field(min_length=1)
    n_heads: int = Field(ge=1)
    n_kv_heads: int = Field(ge=1)
    d_head: int | None = Field(ge=1)
    context_length: int | None
    parameters: int | None
    reach: dict[int, int] = {}  # how far back layers see that do not see everything, in tokens

    @model_validator(mode="after")
    def _grouped(self) -> "ModelInfo":
        if self.n_heads % self.n_kv_heads:
            raise ValueError("the query heads do not divide into the KV heads")
        return self

    def windows(self) -> list[str]:
        """A sentence for each sliding window or chunk, as scores mean something else under it."""
        layers: dict[int, list[str]] = {}
        for layer, tokens in self.reach.items():
            layers.setdefault(tokens, []).append(str(layer))
        return [
            f"Layers that see at most {tokens} tokens (window or chunk): {', '.join(those)}. "
            "Distances and attention far away are cut off there."
            for tokens, those in layers.items()
        ]


class FamilyInfo(BaseModel):
    """Prompts that some probes shared."""

    model_config = ConfigDict(extra="forbid")

    family: str
    parameters: dict[str, Any]
    digests: list[str]
    accepted: list[bool] = []
    seconds: float = 0.0


class ScoreInfo(BaseModel):
    """Where a score comes from, and how query heads make their kv_head's.

    "native": it was found per kv_head, and the query heads of a group all carry it.
    """

    model_config = ConfigDict(extra="forbid")

    probe: str  # or the format of an imported map
    kv_view: Literal["max", "mean", "native"]


class SourceInfo(BaseModel):
    """The files that an imported map was read from."""

    model_config = ConfigDict(extra="forbid")

    format: str
    paper: str
    path: str
    files: dict[str, str]  # name -> SHA-256
    assumed: dict[str, str] = {}  # field of the model that they do not give -> what stands there
    details: dict[str, JsonValue] = {}  # what else they say about how it was made


class RunInfo(BaseModel):
    """One scan, or what was read from others' files."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA
    kind: Literal["scan", "imported"] = "scan"
    state: Literal["running", "complete"] = "running"
    model: ModelInfo
    backend: str | None
    dtype: str | None
    device: str | None
    seed: int = Field(ge=0)
    probes: dict[str, dict[str, Any]]
    scores: dict[str, ScoreInfo]
    curves: dict[str, str] = {}  # name -> what its points are
    families: dict[str, FamilyInfo]
    left_out: dict[str, str] = {}  # probe -> why it could not be measured
    versions: dict[str, str]
    command: str
    created: str
    source: SourceInfo | None = None  # of an imported map

    @model_validator(mode="after")
    def _told(self) -> "RunInfo":
        if (self.kind == "imported") == (self.source is None):
            raise ValueError("an imported map has a source, and nothing else has")
        model = self.model
        facts = (model.fingerprint, model.d_head, model.context_length, model.parameters)
        if self.kind == "scan" and None in (*facts, self.backend, self.dtype, self.device):
            raise ValueError("a scan knows its model, backend, dtype and device")
        return self

    def passes(self) -> tuple[int, int]:
        """(forward passes over prompts, those that sharing them saved), answers not counted."""
        run = sum(len(family.digests) for family in self.families.values())
        apart = sum(
            len(family.digests)
            for fields in self.probes.values()
            for family in self.families.values()
            if fields.get("prompts") == {"family": family.family, **family.parameters}
        )
        return run, max(0, apart - run)

    def same_measurement(self, other: "RunInfo") -> list[str]:
        """What differs between two runs that would have to be one to be continued."""
        mine, theirs = self._identity(), other._identity()
        return [name for name in mine if mine[name] != theirs[name]]

    def _identity(self) -> dict[str, Any]:
        return {
            "model": self.model.fingerprint,
            "backend": self.backend,
            "dtype": self.dtype,
            "device": self.device,
            "seed": self.seed,
            "versions": self.versions,
            "probes": self.probes,
            "prompts": {name: family.digests for name, family in self.families.items()},
        }

    def write(self, folder: Path) -> None:
        storage.write(folder / "run.json", (self.model_dump_json(indent=2) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> "RunInfo":
        """A folder's run.json.

        Raises:
            HeadscopeError: it is missing, damaged, of another kind, or from a newer headscope.
        """
        path = folder / "run.json"
        if not folder.is_dir():
            raise HeadscopeError(f"There is no run folder {folder}.")
        if not path.is_file():
            inside = sorted(each.parent.name for each in folder.glob("*/run.json"))[:3]
            runs = f"; it holds the runs {', '.join(inside)}" if inside else ""
            raise HeadscopeError(f"{folder} holds no run.json, so it is no run of headscope{runs}.")
        return cls.parse(storage.read(path), path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> "RunInfo":
        try:
            raw = json.loads(content)
            schema = raw.get("schema_version")
            if isinstance(schema, int) and schema > SCHEMA:
                raise HeadscopeError(
                    f"{path} was written by a newer headscope (schema {schema}, this one reads "
                    f"up to {SCHEMA}); update headscope."
                )
            return cls.model_validate(raw)
        # What is nested too deep for the reader is no run either.
        except (ValueError, AttributeError, ValidationError, RecursionError) as error:
            raise HeadscopeError(
                f"{path} is damaged or not a scan's: {first_problem(error)}. Scan again into a new "
                "folder."
            ) from error


def versions() -> dict[str, str]:
    """Versions of what can change a number."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {"headscope": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "numpy", "transformer-lens", "nnsight"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def first_problem(error: Exception) -> str:
    """What is wrong, in a few words: of several things that pydantic found, the first."""
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        # A place can be a key of the file: anything at all, of any length.
        where = ".".join(str(part)[:40] for part in problem["loc"][:4]) or "its content"
        where = "".join(character if character.isprintable() else "?" for character in where)
        return f"{where}: {problem['msg'].lower()}"
    return str(error).splitlines()[0]
