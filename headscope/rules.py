"""How a role is decided from scores: thresholds, and shares of the heads."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from headscope.scores import joined

Kind = Literal["threshold", "quantile"]

_COMPARE = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}


@dataclass(frozen=True)
class Measured:
    """Means of one score, to be judged.

    Attributes:
        values: [..., layer, head]; each map of leading axes is judged by itself.
        n_kv_heads: of a layer.
        kv_view: how query heads make their kv_head's score.
    """

    values: np.ndarray
    n_kv_heads: int
    kv_view: str


class Condition(ABC):
    """What one score has to pass."""

    score: str
    kind: ClassVar[Kind]

    @property
    @abstractmethod
    def below(self) -> bool:
        """Whether it asks for low scores, so that the lowest rank first."""

    @abstractmethod
    def passes(self, measured: Measured) -> np.ndarray:
        """Which heads pass, [..., layer, head]."""

    @abstractmethod
    def cut(self, measured: Measured) -> float | None:
        """Where one map's scores are cut, [layer, head]; None where no head is told apart."""


@dataclass(frozen=True)
class Threshold(Condition):
    """A score beside a fixed number."""

    kind: ClassVar[Kind] = "threshold"

    score: str
    sign: Literal[">", ">=", "<", "<="]
    limit: float

    @property
    def below(self) -> bool:
        return self.sign in ("<", "<=")

    def passes(self, measured: Measured) -> np.ndarray:
        return _COMPARE[self.sign](measured.values, self.limit)

    def cut(self, measured: Measured) -> float | None:
        return self.limit

    def __str__(self) -> str:
        sign = {">=": "≥", "<=": "≤"}.get(self.sign, self.sign)
        return f"{self.score} {sign} {self.limit:g}"


@dataclass(frozen=True)
class Quantile(Condition):
    """A place among the highest, or lowest, heads or kv_heads of the whole model.

    It imposes how many heads have the role. Heads that are equal at the cut are all left out,
    so that none is chosen for its number, and never more than half pass. With kv_heads, a group
    passes as a whole.

    Attributes:
        share: of all heads; rounded, at least one.
        count: of heads, in place of a share.
    """

    kind: ClassVar[Kind] = "quantile"

    score: str
    share: float | None = None
    count: int | None = None
    lowest: bool = False
    of: Literal["heads", "KV heads"] = "heads"

    def __post_init__(self) -> None:
        if (self.share is None) == (self.count is None):
            raise ValueError("a quantile rule takes a share or a count of heads")

    @property
    def below(self) -> bool:
        return self.lowest

    def passes(self, measured: Measured) -> np.ndarray:
        values, limit = self._ranked(measured)
        chosen = values > limit[..., None, None]
        group = measured.values.shape[-1] // chosen.shape[-1]
        return np.repeat(chosen, group, axis=-1)

    def cut(self, measured: Measured) -> float | None:
        values, limit = self._ranked(measured)
        passing = values[values > limit]
        return None if not len(passing) else float(-passing.min() if self.lowest else passing.min())

    def _ranked(self, measured: Measured) -> tuple[np.ndarray, np.ndarray]:
        """The scores that are ranked, [..., layer, head], and the highest that does not pass."""
        values = measured.values
        if self.of == "KV heads":
            values = joined(values, measured.n_kv_heads, measured.kv_view)
        values = -values if self.lowest else values
        flat = values.reshape(*values.shape[:-2], -1)
        n = flat.shape[-1]
        wanted = self.count if self.count is not None else round((self.share or 0) * n)
        left_out = n - 1 - min(max(1, wanted), n // 2)
        return values, np.partition(flat, left_out, axis=-1)[..., left_out]

    def __str__(self) -> str:
        side = "lowest" if self.lowest else "top"
        much = f"{self.count} {self.of}" if self.share is None else f"{self.share:.0%} of {self.of}"
        return f"{side} {much.replace('%', ' %')} by {self.score}"


@dataclass(frozen=True)
class Rule:
    """A head has the role if it passes.

    Attributes:
        main: the condition whose score ranks heads for the role.
        source: where the rule comes from; one that headscope made up says so.
        also: a second condition, and whether both have to be passed or one of them.
    """

    main: Condition
    source: str
    also: Condition | None = None
    word: Literal["and", "or"] = "and"

    @property
    def parts(self) -> tuple[Condition, ...]:
        return (self.main,) if self.also is None else (self.main, self.also)

    @property
    def kind(self) -> Kind:
        """ "quantile" where the rule imposes how many heads pass, at least in part."""
        return "quantile" if any(part.kind == "quantile" for part in self.parts) else "threshold"

    @property
    def score(self) -> str:
        return self.main.score

    @property
    def scores(self) -> tuple[str, ...]:
        """All scores that have to be measured."""
        return tuple(dict.fromkeys(part.score for part in self.parts))

    def passes(self, measured: Mapping[str, Measured]) -> np.ndarray:
        """Which heads have the role, [..., layer, head], from the scores by name."""
        passed = [part.passes(measured[part.score]) for part in self.parts]
        return (np.logical_and if self.word == "and" else np.logical_or).reduce(passed)

    def __str__(self) -> str:
        return f" {self.word} ".join(map(str, self.parts))
