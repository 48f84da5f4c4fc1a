"""From numbers to colours, the same in every renderer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headscope.viz.palette import (
    AWAY,
    EMPTY,
    INK,
    SURFACE,
    TOWARDS,
    Pair,
    Theme,
    mix,
    seen_on,
)

_STEPS = 8


@dataclass(frozen=True)
class Ramp:
    """Colours from a lowest to a highest value.

    Attributes:
        stops: colours in their order.
        places: where each stands, ascending from 0 (`low`) to 1 (`high`).
        stepped: values are the indices of stops, and nothing lies between two.
        title: what the colour says; "" where no key is wanted.
        said: what is written at some values, where they are not themselves.
    """

    stops: tuple[Pair, ...]
    places: tuple[float, ...]
    low: float = 0.0
    high: float = 1.0
    stepped: bool = False
    title: str = ""
    said: tuple[tuple[float, str], ...] = ()

    def colours(self, values: np.ndarray, theme: Theme) -> np.ndarray:
        """[..., 3] uint8; NaN has the colour of an empty cell."""
        values = np.asarray(values, np.float64)
        channels = np.array([_channels(stop.on(theme)) for stop in self.stops], np.float64)
        known = np.isfinite(values)
        if self.stepped:
            found = channels[np.where(known, values, 0).astype(int)]
        else:
            way = self.way(np.where(known, values, self.low))
            found = np.stack([np.interp(way, self.places, column) for column in channels.T], -1)
        empty = _channels(EMPTY[theme])
        return np.where(known[..., None], found, empty).round().astype(np.uint8)

    def pairs(self, values: np.ndarray) -> list[Pair]:
        """The colours of [value]."""
        light, dark = (self.colours(values, theme) for theme in ("light", "dark"))
        return [
            Pair(f"#{bytes(a).hex()}", f"#{bytes(b).hex()}")
            for a, b in zip(light, dark, strict=True)
        ]

    def shades(self, most: int = 32) -> np.ndarray:
        """Values whose colours are evenly spaced along the ramp: all that a picture needs."""
        if self.stepped:
            return np.arange(len(self.stops), dtype=np.float64)
        even = np.linspace(0, len(self.stops) - 1, most)
        way = np.interp(even, np.arange(len(self.stops)), self.places)
        return self.low + way * (self.high - self.low)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """For each value the index of its shade; one more than there are for NaN."""
        shades, known = self.shades(), np.isfinite(np.asarray(values, np.float64))
        filled = np.where(known, values, shades[0])
        index = np.searchsorted((shades[1:] + shades[:-1]) / 2, filled)
        return np.where(known, index, len(shades))

    def way(self, values: np.ndarray) -> np.ndarray:
        """How far each value lies from `low` to `high`, 0 to 1."""
        return np.clip((values - self.low) / (self.high - self.low), 0, 1)

    def colorscale(self, theme: Theme) -> list[list[float | str]]:
        """As plotly writes it, for values from `limits`."""
        colours = [stop.on(theme) for stop in self.stops]
        if not self.stepped:
            return [[place, c] for place, c in zip(self.places, colours, strict=True)]
        n = len(colours)
        return [[(i + end) / n, c] for i, c in enumerate(colours) for end in (0, 1)]

    @property
    def limits(self) -> tuple[float, float]:
        """Values at the ends of `colorscale`."""
        return (-0.5, len(self.stops) - 0.5) if self.stepped else (self.low, self.high)


def sequential(low: float = 0.0, high: float = 1.0, *, root: bool = False, title: str = "") -> Ramp:
    """From the surface to ink through one hue: darker is more in print too.

    Args:
        root: shade by the square root, so that faint attention is seen.
    """
    light, dark = AWAY, seen_on(AWAY, SURFACE["dark"])
    stops = []
    for i in range(_STEPS + 1):
        way = i / _STEPS
        stops.append(
            Pair(_through(SURFACE["light"], light, INK["light"], way),
                 _through(SURFACE["dark"], dark, INK["dark"], way))
        )  # fmt: skip
    places = [(i / _STEPS) ** (2 if root else 1) for i in range(_STEPS + 1)]
    return Ramp(tuple(stops), tuple(places), low, high, title=title)


def diverging(most: float = 1.0, title: str = "") -> Ramp:
    """From -most in one colour over nothing at 0 to +most in another."""
    ends = [(AWAY, (1.0, 0.75, 0.5, 0.25)), (TOWARDS, (0.25, 0.5, 0.75, 1.0))]
    sides = [
        [
            Pair(mix(c, SURFACE["light"], a), mix(seen_on(c, SURFACE["dark"]), SURFACE["dark"], a))
            for a in amounts
        ]
        for c, amounts in ends
    ]
    stops = [*sides[0], Pair.named(SURFACE), *sides[1]]
    places = tuple(i / (len(stops) - 1) for i in range(len(stops)))
    return Ramp(tuple(stops), places, -most, most, title=title)


def stepped(colours: Sequence[Pair], title: str = "") -> Ramp:
    """One colour for each whole number from 0."""
    places = tuple(np.linspace(0, 1, len(colours)).tolist()) if len(colours) > 1 else (0.0,)
    return Ramp(tuple(colours), places, 0.0, float(max(len(colours) - 1, 1)), True, title)


def _through(start: str, middle: str, end: str, way: float) -> str:
    """From the surface to a hue, which is reached at two thirds, and on to the end."""
    turn = 2 / 3
    return (
        mix(middle, start, way / turn)
        if way < turn
        else mix(end, middle, 0.75 * (way - turn) / (1 - turn))
    )


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
