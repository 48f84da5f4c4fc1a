"""Small charts of a report, coloured by its style sheet."""

from dataclasses import dataclass
from math import floor, isfinite, log10, sqrt

import numpy as np

from headscope.viz.markup import Markup, el
from headscope.viz.view import Interval, View, words

_BINS = 40
_LABEL = 24.0  # px between the numbers of a histogram


@dataclass(frozen=True)
class Scale:
    """From numbers to px."""

    low: float
    high: float
    start: float
    width: float

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return self.start + self.width * (inside - self.low) / (self.high - self.low)

    def places(self, values: np.ndarray) -> np.ndarray:
        """The same for many; NaN stays."""
        inside = np.clip(np.asarray(values, np.float64), self.low, self.high)
        return self.start + self.width * (inside - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Three to six round numbers."""
        rough = (self.high - self.low) / 4
        power = 10.0 ** floor(log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first, last = floor(self.low / step), floor(self.high / step)
        return [i * step for i in range(first, last + 1) if i * step >= self.low - 1e-9 * step]

    def digits(self) -> int:
        """How many decimals tell its ticks apart."""
        ticks = self.ticks()
        near = 1e-6 * (self.high - self.low)
        return next(n for n in range(20) if all(abs(round(t, n) - t) <= near for t in ticks))


def score_scale(view: View, score: str, start: float, width: float) -> Scale:
    """0 to 1, or as far as a score's means go."""
    means = [mean for cell in view.cells if isfinite(mean := cell.scores[score][0])]
    return Scale(min([0.0, *means]), max([1.0, *means]), start, width)


def bar(value: Interval, scale: Scale, threshold: float | None) -> Markup:
    """A score as a bar, its interval as a whisker, the threshold as a tick."""
    mean, low, high = value
    known = isfinite(mean)
    start, stop = sorted((scale(0.0), scale(mean if known else 0.0)))
    end = scale.start + scale.width
    tick = "" if threshold is None else vertical(scale(threshold), 1.0, 15.0, "threshold")
    return el(
        "svg",
        el("rect", class_="track", x=scale.start, y=4, width=scale.width, height=8, rx=1.5),
        el("rect", class_="fill", x=start, y=4, width=stop - start, height=8, rx=1.5),
        tick,
        horizontal(scale(low), scale(high), 8.0, "whisker") if known else "",
        class_="bar",
        width=end + 1,
        height=16,
        aria_hidden="true",
    )


def histogram(view: View, score: str, width: float = 280.0, height: float = 34.0) -> Markup:
    """How many heads have which score; heights go by the square root, or rare heads would vanish.

    Holds a hidden mark, for the script to put where a head is.
    """
    scale = score_scale(view, score, 1.0, width - 2)
    conditions = view.conditions(score)
    limits = sorted({limit for limit, _ in conditions})
    counts = [0] * _BINS
    for mean in (cell.scores[score][0] for cell in view.cells):
        if not isfinite(mean):
            continue
        way = (scale(mean) - scale.start) / scale.width
        counts[min(int(way * _BINS), _BINS - 1)] += 1
    step = scale.width / _BINS
    bars = []
    for i, count in enumerate(counts):
        if count:
            middle = scale.low + (scale.high - scale.low) * (i + 0.5) / _BINS
            speaks = any(middle < cut if below else middle > cut for cut, below in conditions)
            tall = max(2.5, (height - 4) * sqrt(count / max(counts)))
            x, y = scale.start + i * step, height - tall
            look = "fill" if speaks else "rest"
            bars.append(el("rect", class_=look, x=x, y=y, width=step - 0.8, height=tall))
    mark = el(
        "g",
        vertical(0.0, 0.0, height, "at"),
        horizontal(0.0, 0.0, height - 3, "whisker"),
        class_="mark",
        hidden="",
    )
    ends: list[float] = []
    for end in (scale.low, scale.high, *limits):
        if all(abs(scale(end) - scale(other)) >= _LABEL for other in ends):
            ends.append(end)
    labels = [
        el("text", plain(end), x=scale(end), y=height + 11, text_anchor=_anchor(end, scale))
        for end in ends
    ]
    return el(
        "svg",
        el("title", f"{words(score)}: distribution over all heads"),
        *bars,
        *(vertical(scale(limit), 0.0, height, "threshold") for limit in limits),
        horizontal(scale.start, scale.start + scale.width, height, "axis"),
        *labels,
        mark,
        class_="histogram",
        viewBox=f"0 0 {width:g} {height + 14:g}",
        role="img",
        data_low=scale.low,
        data_high=scale.high,
    )


def with_interval(value: Interval, digits: int = 2) -> str:
    """A value and in brackets its interval, if it has one."""
    mean, low, high = (signed(each, digits) if isfinite(each) else "" for each in value)
    return f"{mean} [{low}, {high}]" if low else mean


def signed(value: float, digits: int = 2) -> str:
    """So many decimals at most, with a minus as long as a plus."""
    return plain(round(value, digits), digits).replace("-", "−")


def plain(value: float, digits: int = 2) -> str:
    written = f"{value:.{digits}f}" if value else "0"
    return written.rstrip("0").rstrip(".") if "." in written else written


def _anchor(value: float, scale: Scale) -> str:
    return {scale.low: "start", scale.high: "end"}.get(value, "middle")


def vertical(x: float, y1: float, y2: float, look: str) -> Markup:
    return el("line", class_=look, x1=x, x2=x, y1=y1, y2=y2)


def horizontal(x1: float, x2: float, y: float, look: str) -> Markup:
    return el("line", class_=look, x1=x1, x2=x2, y1=y, y2=y)
