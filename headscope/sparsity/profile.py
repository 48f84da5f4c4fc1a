"""The sparse profile: one rule for every query head, as a file."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from headscope import storage
from headscope.errors import HeadscopeError
from headscope.fingerprint import fingerprint
from headscope.heads import Head, check_heads, label, parse_heads
from headscope.kept import Kept
from headscope.patterns.base import Pattern
from headscope.patterns.full import Full
from headscope.patterns.rules import Rule, rule_of
from headscope.patterns.selectors.base import Selector
from headscope.patterns.streaming import Streaming

if TYPE_CHECKING:
    from headscope.backends.base import Backend
    from headscope.headmap import HeadMap
    from headscope.model import HeadModel
    from headscope.viz.chart import Chart

SCHEMA = 1
_ROW = re.compile(r"\[\n\s*\d+(?:,\n\s*\d+)*\n\s*\]")  # strings in JSON hold no line breaks


class ProfiledModel(BaseModel):
    """The model that a profile is for; a fingerprint of None fits any model of the shape.

    `windowed` says that some of its layers see a window or chunk only, whatever the profile says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    fingerprint: str | None = None
    layers: tuple[int, ...] = Field(min_length=1, max_length=1024)
    n_heads: int = Field(ge=1, le=1024)
    n_kv_heads: int = Field(ge=1, le=1024)
    d_head: int = Field(ge=1, le=65536)
    windowed: bool = False

    @model_validator(mode="after")
    def _grouped(self) -> "ProfiledModel":
        if self.n_heads % self.n_kv_heads:
            raise ValueError("the query heads do not divide into the KV heads")
        if list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise ValueError("layers are ascending numbers from 0 up")
        return self

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.n_heads // self.n_kv_heads

    @classmethod
    def of(cls, model: "HeadModel") -> "ProfiledModel":
        """The facts of an opened model."""
        return cls.behind(model.backend, model.name)

    @classmethod
    def behind(cls, backend: "Backend", name: str) -> "ProfiledModel":
        """The facts of a model that a backend stands before, which may have no tokenizer."""
        first = backend.layers[0]
        return cls(
            name=name,
            fingerprint=fingerprint(backend.parameters()),
            layers=tuple(found.layer for found in backend.layers),
            n_heads=first.n_heads,
            n_kv_heads=first.n_kv_heads,
            d_head=first.d_head,
            windowed=bool(backend.reach),
        )

    @classmethod
    def of_map(cls, head_map: "HeadMap", d_head: int | None = None) -> "ProfiledModel":
        """The facts that a head map has of its model.

        Raises:
            HeadscopeError: the map was imported, so that the width of heads is not known.
        """
        info = head_map.info.model
        width = info.d_head if d_head is None else d_head
        if width is None:
            raise HeadscopeError(
                f"How wide the heads of {info.name} are this imported map does not say; scan the "
                "model, or give d_head in Python, in numbers per head."
            )
        return cls(
            name=info.name,
            fingerprint=info.fingerprint,
            layers=tuple(info.layers),
            n_heads=info.n_heads,
            n_kv_heads=info.n_kv_heads,
            d_head=width,
            windowed=bool(info.reach),
        )


class SparseProfile(Kept):
    """Which keys every query head sees, as a rule for each, versioned JSON on disk.

    Attributes:
        model: which model it is for.
        rules: the different rules, each as its name and numbers.
        heads: [layer][query head] indices into `rules`.
        notes: how it was made, in words and numbers of whoever made it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())
    again: ClassVar[str] = "plan the profile again"

    schema_version: int = Field(default=SCHEMA, ge=SCHEMA, le=SCHEMA)
    kind: Literal["sparse_profile"] = "sparse_profile"
    model: ProfiledModel
    rules: tuple[dict[str, JsonValue], ...] = Field(min_length=1, max_length=4096)
    heads: tuple[tuple[int, ...], ...]
    notes: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _filled(self) -> "SparseProfile":
        rows = {len(row) for row in self.heads}
        if len(self.heads) != len(self.model.layers) or rows != {self.model.n_heads}:
            raise ValueError("its heads are not those of its model's layers")
        if any(not 0 <= index < len(self.rules) for row in self.heads for index in row):
            raise ValueError("a head has a rule that is not listed")
        try:
            self._rules  # noqa: B018 (unknown rules are refused where the file is read)
        except HeadscopeError as error:
            raise ValueError(str(error)) from error
        return self

    # ---- made ------------------------------------------------------------------------------

    @classmethod
    def of(
        cls,
        model: "HeadModel | ProfiledModel",
        rules: Mapping[Any, Rule] | Sequence[Sequence[Rule]],
        rest: Rule | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> "SparseProfile":
        """A profile from rules by head, (layer, head) or "L17H3", or from rows of rules by layer.

        Args:
            rest: of heads that are not named; they see everything if it is left out.

        Raises:
            HeadscopeError: the model has no such head.
        """
        facts = model if isinstance(model, ProfiledModel) else ProfiledModel.of(model)
        if isinstance(rules, Mapping):
            named = {parse_heads([head])[0]: rule for head, rule in rules.items()}
            if len(named) < len(rules):
                raise HeadscopeError("A head was named twice; give each query head one rule.")
            check_heads(named, facts.layers, facts.n_heads, facts.name)
            left = Full() if rest is None else rest
            grid = [
                [named.get((layer, head), left) for head in range(facts.n_heads)]
                for layer in facts.layers
            ]
        else:
            grid = [list(row) for row in rules]
            if len(grid) != len(facts.layers) or {len(row) for row in grid} != {facts.n_heads}:
                raise HeadscopeError(
                    f"Rules for {facts.name} are {len(facts.layers)} rows of {facts.n_heads}."
                )
        for rule in (rule for row in grid for rule in row):
            if not isinstance(rule, Pattern | Selector):
                raise HeadscopeError(f"A rule is a pattern or a selector, and not {rule!r}.")
        different = list(dict.fromkeys(rule for row in grid for rule in row))
        place = {rule: index for index, rule in enumerate(different)}
        return cls(
            model=facts,
            rules=tuple(rule.to_dict() for rule in different),
            heads=tuple(tuple(place[rule] for rule in row) for row in grid),
            notes=dict(notes or {}),
        )

    @classmethod
    def from_map(
        cls,
        head_map: "HeadMap",
        score: str = "retrieval",
        share: float = 0.5,
        rule: Rule | None = None,
        by: Literal["kv_head", "head"] = "kv_head",
        seed: int = 0,
        d_head: int | None = None,
    ) -> "SparseProfile":
        """Heads that a score speaks for least get a rule, all others see everything.

        Args:
            score: of a score or a role of the map.
            share: of heads that get the rule, 0 to 1, rounded to whole heads.
            rule: `Streaming(64, 256)` if left out, as in DuoAttention.
            by: whole KV heads by what `HeadMap.kv_heads` gives them, or query heads one by one.
            seed: of the order among heads that score the same.
            d_head: of the model, where the map was imported and does not know it.

        Raises:
            HeadscopeError: there is no such score, or the share is none.
        """
        from headscope.sparsity.ranking import least_spoken_for

        facts = ProfiledModel.of_map(head_map, d_head)
        chosen = least_spoken_for(head_map, score, share, by, seed)
        named = dict.fromkeys(chosen, Streaming(64, 256) if rule is None else rule)
        notes = {"by": score, "share": share, "of": by, "seed": seed}
        return cls.of(facts, named, notes=notes)

    # ---- read ------------------------------------------------------------------------------

    @cached_property
    def _rules(self) -> tuple[Rule, ...]:
        return tuple(rule_of(rule) for rule in self.rules)

    @cached_property
    def _used(self) -> tuple[Rule, ...]:
        """The rules that some head has."""
        return tuple(self._rules[i] for i in sorted({i for row in self.heads for i in row}))

    def rule(self, head: Head | str) -> Rule:
        """The rule of one query head.

        Args:
            head: "L17H3" or (17, 3).

        Raises:
            HeadscopeError: the model has no such head.
        """
        ((layer, number),) = parse_heads([head])
        check_heads([(layer, number)], self.model.layers, self.model.n_heads, self.model.name)
        return self.of_layer(layer)[number]

    def of_layer(self, layer: int) -> tuple[Rule, ...]:
        """The rules of one layer's query heads, in order."""
        if layer not in self.model.layers:
            raise HeadscopeError(f"The profile of {self.model.name} has no layer {layer}.")
        return tuple(self._rules[index] for index in self.heads[self.model.layers.index(layer)])

    @property
    def by_position(self) -> bool:
        """Whether no rule looks at queries and keys."""
        return all(isinstance(rule, Pattern) for rule in self._used)

    def at(self, n: int) -> "SparseProfile":
        """The profile for texts of n tokens: windows that grow stand still."""
        grid = [[rule.at(n) for rule in self.of_layer(layer)] for layer in self.model.layers]
        return SparseProfile.of(self.model, grid, notes=self.notes)

    def check(self, model: "HeadModel | ProfiledModel") -> None:
        """Refuse a model that it was not made for.

        Raises:
            HeadscopeError: the shape is another, or the weights are.
        """
        here = model if isinstance(model, ProfiledModel) else ProfiledModel.of(model)
        mine = self.model
        shape = ("layers", "n_heads", "n_kv_heads", "d_head")
        if any(getattr(here, name) != getattr(mine, name) for name in shape):
            raise HeadscopeError(
                f"The profile is for {mine.name}, {len(mine.layers)} layers of {mine.n_heads} "
                f"query heads on {mine.n_kv_heads} KV heads of {mine.d_head}; {here.name} has "
                f"{len(here.layers)} of {here.n_heads} on {here.n_kv_heads} of {here.d_head}. "
                "Plan one for this model."
            )
        if mine.fingerprint not in (None, here.fingerprint):
            raise HeadscopeError(
                f"The profile was made for {mine.name} with other weights than {here.name} has; "
                "plan one for this model."
            )

    def save(self, path: str | Path) -> Path:
        """Save it in one step, a layer a line, so that people can read and change it."""
        path = Path(path)
        text = _ROW.sub(lambda row: " ".join(row[0].split()), self.model_dump_json(indent=1))
        storage.write(path, (text + "\n").encode())
        return path

    # ---- what it costs ---------------------------------------------------------------------

    def density(self, n: int) -> float:
        """Share of all causal (query, key) pairs of n tokens that are computed, over all heads.

        Raises:
            HeadscopeError: n is below 1, or a rule's budget is decided by the text.
        """
        return float(self.densities(n).mean())

    def densities(self, n: int) -> Float[np.ndarray, "layer head"]:
        """The same by query head."""
        check_length(n)
        found = {rule: rule.density(n) for rule in self._used}
        for rule, density in found.items():
            if density is None:
                raise HeadscopeError(
                    f"How much {rule.name!r} computes the text decides; measure it with "
                    "headscope.sparsity.measure_recall."
                )
        return np.array(
            [[found[rule] for rule in self.of_layer(layer)] for layer in self.model.layers],
            dtype=float,
        )

    def held(self, layer: int) -> list[tuple[int, int] | None]:
        """(sink, window) of each KV head of a layer that its query heads may still see, or None.

        The widest of its group counts; None where one of them may see every key again.
        """
        rules, group = self.of_layer(layer), self.model.group
        found: list[tuple[int, int] | None] = []
        for kv in range(self.model.n_kv_heads):
            needs = [rule.held() for rule in rules[kv * group : (kv + 1) * group]]
            bounded = [need for need in needs if need is not None]
            whole = len(bounded) < len(needs)
            found.append(
                None if whole else (max(s for s, _ in bounded), max(w for _, w in bounded))
            )
        return found

    def held_keys(self, n: int) -> Int[np.ndarray, "layer kv_head"]:
        """Keys that each KV head holds after n tokens."""
        check_length(n)
        return np.array(
            [[held_tokens(need, n) for need in self.held(layer)] for layer in self.model.layers]
        )

    def kv_bytes(self, n: int, itemsize: int = 2, batch: int = 1) -> int:
        """Bytes of the keys and values that a `HeadCache` holds after n tokens.

        A layer's own window counts for nothing: full heads hold all keys there too.

        Args:
            itemsize: bytes of one number: 2 in bfloat16, 4 in float32.
            batch: sequences.
        """
        if itemsize < 1 or batch < 1:
            raise HeadscopeError("A number has a byte at least, and a batch a sequence.")
        return int(self.held_keys(n).sum()) * 2 * self.model.d_head * itemsize * batch

    def to_pandas(self) -> pd.DataFrame:
        """One row a query head: layer, head, kv_head, name, rule."""
        rows = [
            (layer, head, head // self.model.group, label((layer, head)), str(rule))
            for layer in self.model.layers
            for head, rule in enumerate(self.of_layer(layer))
        ]
        return pd.DataFrame(rows, columns=["layer", "head", "kv_head", "name", "rule"])

    def __str__(self) -> str:
        counts = np.bincount(np.array(self.heads).ravel(), minlength=len(self.rules))
        parts = [f"{n} {rule}" for n, rule in zip(counts, self._rules, strict=True) if n]
        return f"SparseProfile({self.model.name}: {', '.join(parts)})"

    __repr__ = __str__

    def __hash__(self) -> int:
        return hash((self.model, self.heads, tuple(self._rules)))

    @classmethod
    def given(cls, profile: "SparseProfile | str | Path") -> "SparseProfile":
        """A profile, or the one in a file."""
        return profile if isinstance(profile, cls) else cls.load(profile)  # pyright: ignore

    def chart(self) -> "Chart":
        """The rule of every head, darker where it computes more; `.interactive()` is plotly."""
        from headscope.viz.figures import profile

        return profile(self)

    def _repr_html_(self) -> str:
        from headscope.viz.notebook_results import profile_repr

        return profile_repr(self)


def held_tokens(need: tuple[int, int] | None, n: int) -> int:
    """Of n tokens those that a KV head holds, of which (sink, window) or everything is needed."""
    return n if need is None else min(n, sum(need))


def check_length(n: int) -> None:
    """Refuse what is no length of a text.

    Raises:
        HeadscopeError: it is below 1, or no whole number.
    """
    if not isinstance(n, int | np.integer) or n < 1:
        raise HeadscopeError(f"A text has one token at least, and whole ones: not {n!r}.")
