"""Rounds in which every contender is timed once, and medians of what was found in them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from headscope.bench.meters import Call, Meter
from headscope.errors import HeadscopeError


class Spread(BaseModel):
    """A median, and the quartiles around it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if len(values) == 1:
            return cls(median=values[0], low=values[0], high=values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median=median, low=low, high=high)


@dataclass(frozen=True)
class Timings:
    """Milliseconds by contender and round.

    Attributes:
        ms: of each contender, in the order of rounds.
    """

    ms: Mapping[str, tuple[float, ...]]

    def of(self, name: str) -> Spread:
        """Milliseconds of one contender."""
        return Spread.of(self.ms[name])

    def ratio(self, one: str, other: str, times: float = 1.0) -> Spread:
        """How many times as long one contender takes as the other, round by round.

        Args:
            times: what each ratio is multiplied by.
        """
        pairs = zip(self.ms[one], self.ms[other], strict=True)
        return Spread.of([times * a / b for a, b in pairs])

    def fastest(self, names: Sequence[str]) -> str:
        """The one of some contenders whose median is least."""
        return min(names, key=lambda name: self.of(name).median)


def interleaved(calls: Mapping[str, Call], rounds: int, meter: Meter) -> Timings:
    """Time all contenders in turn, again and again.

    Each round begins with another one, so that none always runs after the heaviest.

    Raises:
        HeadscopeError: there are no rounds.
    """
    if rounds < 1:
        raise HeadscopeError(f"Something is timed in one round at least, not in {rounds}.")
    names = list(calls)
    meter.warm([calls[name] for name in names])
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        order = names[first:] + names[:first]
        for name, ms in zip(order, meter.round([calls[name] for name in order]), strict=True):
            found[name].append(ms)
    return Timings({name: tuple(ms) for name, ms in found.items()})
