"""Where the cells of a head map lie, for any number of layers and heads."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

_WIDTH, _HEIGHT = 900, 640  # what the cells fill at most, in px, as long as they can be told apart
_LARGEST, _SMALLEST = 30.0, 8.0
_LETTER_FROM = 13.0  # px; a letter in a smaller cell is a smudge
_STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100)


@dataclass(frozen=True)
class Grid:
    """Layers from left to right, heads from top to bottom, KV groups set apart. In px."""

    layers: Sequence[int]
    n_heads: int
    n_kv_heads: int
    top: float

    @property
    def pitch(self) -> float:
        fit = min(_WIDTH / len(self.layers), _HEIGHT / self.n_heads)
        return float(int(max(_SMALLEST, min(_LARGEST, fit))))

    @property
    def cell(self) -> float:
        return self.pitch - max(1.0, round(self.pitch * 0.08, 0))

    @property
    def corner(self) -> float:
        return float(min(3, round(self.pitch * 0.15)))

    @property
    def letter(self) -> float:
        """Font size of the letter in a cell; 0 for none."""
        return round(self.pitch * 0.45, 1) if self.pitch >= _LETTER_FROM else 0.0

    @property
    def grouped(self) -> bool:
        """Whether query heads share KV heads."""
        return self.n_kv_heads < self.n_heads

    @property
    def group(self) -> int:
        return self.n_heads // self.n_kv_heads

    @property
    def group_gap(self) -> float:
        return max(3.0, round(self.pitch * 0.24, 0)) if self.grouped else 0.0

    @property
    def left(self) -> float:
        return 72.0 if self.grouped else 46.0

    @property
    def width(self) -> float:
        return self.pitch * len(self.layers)

    @property
    def height(self) -> float:
        return self.y(self.n_heads - 1) + self.pitch - self.top

    def x(self, row: int) -> float:
        """Left edge of the row-th layer."""
        return self.left + row * self.pitch

    def y(self, head: int) -> float:
        """Top edge of a head."""
        return self.top + head * self.pitch + head // self.group * self.group_gap

    def span(self, kv_head: int) -> tuple[float, float]:
        """Top and bottom of a KV group's cells."""
        first = kv_head * self.group
        return self.y(first), self.y(first + self.group - 1) + self.cell

    def separators(self) -> list[float]:
        """Where lines between KV groups go."""
        ends = [(self.span(kv - 1)[1], self.span(kv)[0]) for kv in range(1, self.n_kv_heads)]
        return [(above + below) / 2 for above, below in ends]

    def layer_ticks(self) -> list[tuple[float, int]]:
        """Where to write which layer's number, as many as there is room for."""
        digits = len(str(max(self.layers)))
        step = _step(digits * 7 + 8, self.pitch)
        return [
            (self.x(row) + self.cell / 2, layer)
            for row, layer in enumerate(self.layers)
            if row % step == 0
        ]

    def head_ticks(self) -> list[tuple[float, int]]:
        """Where to write which head's number, as many as there is room for."""
        step = _step(11, self.pitch)
        return [(self.y(h) + self.cell / 2, h) for h in range(0, self.n_heads, step)]


def _step(needed: int, pitch: float) -> int:
    least = ceil(needed / pitch)
    return next((step for step in _STEPS if step >= least), least)
