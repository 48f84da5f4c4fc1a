"""A head map with everything that is drawn of it worked out once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headscope.headmap import HeadMap
from headscope.heads import Head
from headscope.roles import RULES
from headscope.rules import Condition, Rule, Threshold
from headscope.viz.palette import LEVELS, Style, styles

_STEPS = len(LEVELS) - 1  # of a role that a head surely has

Interval = tuple[float, float, float]  # mean, low, high


@dataclass(frozen=True)
class Cell:
    """One head.

    Attributes:
        roles: all that it has, the primary one first.
        level: how strongly it has the primary one. 0 if other prompts might decide otherwise; from
            there in equal steps of the way from the cut to the highest possible score, or to the
            lowest where low scores speak for the role.
        scores: every score with its interval.
    """

    layer: int
    head: int
    kv_head: int
    name: str
    roles: tuple[str, ...]
    level: int
    scores: Mapping[str, Interval]

    @property
    def role(self) -> str:
        return self.roles[0] if self.roles else ""

    @property
    def key(self) -> Head:
        return self.layer, self.head


@dataclass(frozen=True, eq=False)
class View:
    """All heads of a map, layer by layer, and the rules that could be applied to it.

    Attributes:
        cuts: by role, where its score is cut on this map; None where no head is told apart.
    """

    head_map: HeadMap
    cells: tuple[Cell, ...]
    rules: Mapping[str, Rule]
    cuts: Mapping[str, float | None]
    styles: Mapping[str, Style]

    @classmethod
    def of(cls, head_map: HeadMap, intervals: bool = True) -> "View":
        """All of a map.

        Args:
            intervals: whether scores come with theirs, which take a while where there are many
                heads; NaN without.
        """
        rules = head_map.rules()
        cuts = {role: head_map.cut(rule.main) for role, rule in rules.items()}
        ways = {role: _way(head_map, rule.main, cuts[role]) for role, rule in rules.items()}
        cells = []
        scores = _scores(head_map, intervals)
        for index, role in enumerate(head_map.roles().to_dict("records")):
            way = ways[role["role"]][index] if role["sure"] else None
            level = 0 if way is None else 1 + min(int(way * _STEPS), _STEPS - 1)
            cells.append(
                Cell(
                    layer=int(role["layer"]),
                    head=int(role["head"]),
                    kv_head=int(role["kv_head"]),
                    name=role["name"],
                    roles=tuple(role["roles"].split(",")) if role["roles"] else (),
                    level=level,
                    scores={name: each[index] for name, each in scores.items()},
                )
            )
        return cls(head_map, tuple(cells), rules, cuts, styles(RULES))

    def count(self, role: str) -> int:
        """Heads whose primary role it is; "" for those without any."""
        return sum(cell.role == role for cell in self.cells)

    def having(self, role: str) -> list[Cell]:
        """Heads that pass the role's rule, whatever their primary role."""
        return [cell for cell in self.cells if role in cell.roles]

    def ranked(self, score: str) -> list[Cell]:
        """All heads, the highest first."""
        return sorted(self.cells, key=lambda cell: _unknown_last(-cell.scores[score][0]))

    def leading(self, role: str) -> list[Cell]:
        """All heads, those first for which the score behind a role speaks most."""
        score, main = self.rules[role].score, self.rules[role].main
        sign = 1 if main.below else -1
        return sorted(self.cells, key=lambda cell: _unknown_last(sign * cell.scores[score][0]))

    def conditions(self, score: str) -> list[tuple[float, bool]]:
        """Where rules cut a score, and whether they ask for lower ones; each cut once."""
        return conditions(self.head_map, score)

    def summary(self) -> str:
        """How many heads have which primary role, in words."""
        counts = {role: self.count(role) for role in self.rules}
        parts = [f"{n} {words(role)}" for role, n in counts.items() if n]
        if none := self.count(""):
            parts.append(f"{none} without a role")
        return f"by their first role {', '.join(parts)}"


def _unknown_last(value: float) -> tuple[bool, float]:
    return value != value, value


def words(name: str) -> str:
    """The name of a role, score or condition as it is read."""
    return name.replace("_", " ")


def conditions(head_map: HeadMap, score: str) -> list[tuple[float, bool]]:
    """Where rules cut a score, and whether they ask for lower ones; each cut once."""
    found = {
        (cut, part.below)
        for rule in head_map.rules().values()
        for part in rule.parts
        if part.score == score and (cut := head_map.cut(part)) is not None
    }
    return sorted(found)


def _scores(head_map: HeadMap, intervals: bool) -> dict[str, list[Interval]]:
    """By score, a mean and its interval for every head."""
    found = {}
    for name, score in head_map.scores.items():
        mean = score.mean().ravel()
        low, high = score.interval(head_map.info.seed) if intervals else (None, None)
        edges = (
            np.full_like(mean, np.nan) if edge is None else edge.ravel() for edge in (low, high)
        )
        found[name] = list(zip(mean.tolist(), *(edge.tolist() for edge in edges), strict=True))
    return found


def _way(head_map: HeadMap, main: Condition, cut: float | None) -> np.ndarray:
    """How far every head's score lies from the cut to the end that speaks for the role, 0 to 1."""
    scores = head_map[main.score].mean().ravel()
    if cut is None:
        return np.zeros_like(scores)
    known = scores[np.isfinite(scores)]
    if not len(known):
        return np.zeros_like(scores)
    end = known.min() if main.below else known.max()
    if isinstance(main, Threshold):
        end = min(end, 0.0) if main.below else max(end, 1.0)
    room = end - cut
    way = np.clip((scores - cut) / room, 0, 1) if room else np.ones_like(scores)
    return np.where(np.isfinite(scores), way, 0.0)
