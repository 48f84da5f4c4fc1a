"""A head map with everything that is drawn of it worked out once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headscope.headmap import HeadMap
from headscope.heads import Head
from headscope.roles import RULES, Rule, assign
from headscope.viz.palette import LEVELS, Style, styles

Interval = tuple[float, float, float]  # mean, low, high


@dataclass(frozen=True)
class Cell:
    """One head.

    Attributes:
        roles: all that it has, the primary one first.
        level: confidence in the primary one. 0 if the interval reaches below the threshold; from
            there in equal steps of the way from the threshold to the highest possible score.
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
    """All heads of a map, layer by layer, and the rules that could be applied to it."""

    head_map: HeadMap
    cells: tuple[Cell, ...]
    rules: Mapping[str, Rule]
    styles: Mapping[str, Style]

    @classmethod
    def of(cls, head_map: HeadMap) -> "View":
        table = head_map.to_pandas()
        tops = {name: max(1.0, float(table[name].to_numpy().max())) for name in head_map.scores}
        cells = []
        rows = zip(table.to_dict("records"), assign(table).to_dict("records"), strict=True)
        for scores, role in rows:
            cells.append(
                Cell(
                    layer=int(role["layer"]),
                    head=int(role["head"]),
                    kv_head=int(role["kv_head"]),
                    name=role["name"],
                    roles=tuple(role["roles"].split(",")) if role["roles"] else (),
                    level=_level(role, tops),
                    scores={
                        name: (scores[name], scores[f"{name}.low"], scores[f"{name}.high"])
                        for name in head_map.scores
                    },
                )
            )
        rules = {role: rule for role, rule in RULES.items() if rule.score in head_map.scores}
        return cls(head_map, tuple(cells), rules, styles(RULES))

    def count(self, role: str) -> int:
        """Heads whose primary role it is; "" for those without any."""
        return sum(cell.role == role for cell in self.cells)

    def having(self, role: str) -> list[Cell]:
        """Heads that pass the role's rule, whatever their primary role."""
        return [cell for cell in self.cells if role in cell.roles]

    def ranked(self, score: str) -> list[Cell]:
        """All heads, the highest first."""
        return sorted(self.cells, key=lambda cell: -cell.scores[score][0])

    def summary(self) -> str:
        """How many heads have which primary role, in words."""
        counts = {role: self.count(role) for role in self.rules}
        parts = [f"{n} {words(role)}" for role, n in counts.items() if n]
        return ", ".join([*parts, f"{self.count('')} without a role"])


def words(name: str) -> str:
    """The name of a role, score or condition as it is read."""
    return name.replace("_", " ")


def _level(role: Mapping[str, Any], tops: Mapping[str, float]) -> int:
    if not role["sure"]:
        return 0
    rule = RULES[role["role"]]
    room = tops[rule.score] - rule.threshold
    way = (role["score"] - rule.threshold) / room
    return 1 + min(int(way * (len(LEVELS) - 1)), len(LEVELS) - 2)
