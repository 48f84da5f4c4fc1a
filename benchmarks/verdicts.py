"""Published figures beside measured ones: the rules of a verdict, the same for every claim."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from environment import describe


@dataclass(frozen=True)
class Finding:
    """One figure beside a published one."""

    claim: str
    source: str
    measured: float
    low: float
    high: float
    verdict: str
    digits: int = 2

    def row(self) -> str:
        value, low, high = (f"{x:.{self.digits}f}" for x in (self.measured, self.low, self.high))
        return f"| {self.claim} | {self.source} | {value} [{low}, {high}] | {self.verdict} |"


def within(low: float, high: float, published: tuple[float, float]) -> str:
    """Reproduced if the interval lies inside a published range, not if it lies outside of it."""
    if published[0] <= low and high <= published[1]:
        return "reproduced"
    return "not reproduced" if high < published[0] or low > published[1] else "undecided"


def above(low: float, high: float, level: float) -> str:
    """Reproduced if the interval lies above a level, not if it lies below."""
    if low > level:
        return "reproduced"
    return "not reproduced" if high < level else "undecided"


def below(low: float, high: float, level: float) -> str:
    """Reproduced if the interval lies below a level, not if it lies above."""
    return above(-high, -low, -level)


def progress(task: str, done: int, total: int) -> None:
    """How far a measurement is, on stderr."""
    print(f"\r{task}: {done}/{total}", end="\n" if done == total else "", file=sys.stderr)


def print_findings(findings: Sequence[Finding]) -> None:
    """Command, versions and date, then a table with one row for each claim."""
    describe()
    print("| claim | source | measured, 95 % interval | verdict |\n|---|---|---|---|")
    for finding in findings:
        print(finding.row())
