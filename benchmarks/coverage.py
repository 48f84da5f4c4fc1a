"""Do intervals hold the truth as often as they say, and do tests find nothing where nothing is?

Experiments whose true effect is known are made up again and again. Beside paired_bootstrap stand
the other bootstrap intervals on the same experiments.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from math import exp, sqrt
from statistics import NormalDist

import numpy as np
from environment import describe
from scipy import stats

from headscope.evals.statistics import (
    Interval,
    benjamini_hochberg,
    empirical_p,
    holm,
    paired_bootstrap,
    paired_proportions,
    sign_flip_p,
    two_sample_bootstrap,
    two_way_bootstrap,
    wilson,
)

Rng = np.random.Generator
Sample = Callable[[Rng, int], tuple[np.ndarray, float]]  # differences of n prompts, true mean
EXACT, MANY, SOME = 20_000, 2000, 1000  # experiments of a case
DRAWN = 2000  # resamples; fewer than users get, which can only cost cover


def main() -> None:
    describe()
    print(
        f"95 % intervals with {DRAWN} resamples. covers: share of experiments whose interval\n"
        "holds the truth, with its own 95 % interval; < marks shares below 93 % and > above 97 %.\n"
        "Beside paired_bootstrap: what other bootstraps cover; BCa is expanded as well."
    )
    head = f"\n{'':54}{'covers':>8}{'':17}{'width':>7}"
    print(head)
    for n in (12, 24, 48):
        row(f"wilson, random p, n {n}", MANY, lambda rng, n=n: proportion(rng, n))
    print(f"{head}    percentile  expanded   BCa  bootstrap-t")
    for name, sample in SHAPES.items():
        for n in (12, 24, 48):
            with_rivals(f"paired_bootstrap, {name}, n {n}", sample, n)
    print(head)
    for name, sample in SHAPES.items():
        for n in (12, 24, 48) if name.startswith("EM") else ():
            row(
                f"paired_proportions, {name}, n {n}",
                MANY,
                lambda rng, f=sample, n=n: held(f(rng, n), paired_proportions),
            )
    print(f"{head}\nstandard deviations are of prompts, sets and the rest")
    for draw, spread in (
        *product(("normal", "exponential"), SPREADS),
        ("normal", (0.0, 0.0, 1.0)),
    ):
        for size in SIZES:
            name = f"{draw} {spread}, {size[0]} sets, n {size[1]}"
            two_way(name, 1, partial(effects, draw, spread, size))
    for size in SIZES:
        two_way(f"EM, {size[0]} sets, n {size[1]}", -0.4, partial(matches, size))
    print(head)
    for name, sizes in (("alike", (24, 24)), ("unlike", (12, 48)), ("unlike", (48, 12))):
        row(f"two_sample_bootstrap, {name}, n {sizes}", MANY, lambda r, s=sizes: two_sample(r, s))
    false_positives()


def row(name: str, count: int, once: Callable[[Rng], tuple[bool, Interval]], end: str = "") -> None:
    rng = np.random.default_rng(0)
    found = [once(rng) for _ in range(count)]
    covers = sum(inside for inside, _ in found)
    width = float(np.mean([high - low for _, (low, high) in found]))
    print(f"{name:54}{share(covers, count)}{width:>7.2f}{end}", flush=True)


def share(hits: int, count: int, low: float = 0.93, high: float = 0.97) -> str:
    mark = "<" if hits / count < low else ">" if hits / count > high else " "
    edges = wilson(hits, count)
    return f"{hits / count:>7.1%}{mark} [{edges[0]:.1%}, {edges[1]:.1%}]"


# ---- what differences may look like ------------------------------------------------------------


def exact_match(lost: float, gained: float) -> Sample:
    def sample(rng: Rng, n: int) -> tuple[np.ndarray, float]:
        odds = [lost, 1 - lost - gained, gained]
        return rng.choice([-1.0, 0.0, 1.0], n, p=odds), gained - lost

    return sample


def any_exact_match(rng: Rng, n: int) -> tuple[np.ndarray, float]:
    return exact_match(float(rng.uniform(0, 1)), 0)(rng, n)


SHAPES: dict[str, Sample] = {
    "normal": lambda rng, n: (rng.normal(0, 1, n), 0),
    "lognormal": lambda rng, n: (rng.lognormal(0, 0.5, n), exp(0.125)),
    "exponential": lambda rng, n: (rng.exponential(1, n), 1),
    "Student's t, 3 df": lambda rng, n: (rng.standard_t(3, n), 0),
    "EM .5 lost": exact_match(0.5, 0),
    "EM .3 lost .1 gained": exact_match(0.3, 0.1),
    "EM .1 lost": exact_match(0.1, 0),
    "EM random lost": any_exact_match,
}
SPREADS = ((1.0, 0.3, 1.0), (1.0, 0.1, 0.3), (0.5, 0.5, 0.5), (0.3, 1.0, 0.3))
SIZES = ((19, 12), (19, 24), (99, 24))


# ---- intervals ---------------------------------------------------------------------------------


def within(interval: Interval, truth: float) -> bool:
    return interval[0] - 1e-9 <= truth <= interval[1] + 1e-9


def held(
    made: tuple[np.ndarray, float], interval: Callable[[np.ndarray], Interval]
) -> tuple[bool, Interval]:
    found = interval(made[0])
    return within(found, made[1]), found


def proportion(rng: Rng, n: int) -> tuple[bool, Interval]:
    p = float(rng.uniform())
    found = wilson(int(rng.binomial(n, p)), n)
    return within(found, p), found


def with_rivals(name: str, sample: Sample, n: int) -> None:
    rng, hits = np.random.default_rng(0), np.zeros(4, int)
    for seed in range(SOME):
        differences, truth = sample(rng, n)
        hits += [within(other, truth) for other in rivals(differences, seed)]
    rest = "".join(f"{hit / SOME:>10.1%}" for hit in hits)
    row(
        name,
        MANY,
        lambda rng: held(sample(rng, n), lambda x: paired_bootstrap(x, resamples=DRAWN)),
        rest,
    )


def rivals(x: np.ndarray, seed: int) -> Iterator[Interval]:
    """Percentile, expanded percentile, BCa (so expanded) and plain bootstrap-t."""
    n, mean = len(x), float(x.mean())
    if np.ptp(x) == 0:
        yield from ((mean, mean),) * 4
        return
    drawn = x[np.random.default_rng(seed).integers(n, size=(DRAWN, n))]
    means, errors = drawn.mean(1), drawn.std(1, ddof=1)
    edge = float(stats.norm.cdf(-sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)))
    below = float((means < mean - 1e-9).mean() + (means < mean + 1e-9).mean()) / 2
    bias = NormalDist().inv_cdf(min(max(below, 1e-3), 1 - 1e-3))
    skew = float(((x - mean) ** 3).sum() / (6 * ((x - mean) ** 2).sum() ** 1.5))
    z = bias + stats.norm.ppf([edge, 1 - edge])
    for levels in ([0.025, 0.975], [edge, 1 - edge], stats.norm.cdf(bias + z / (1 - skew * z))):
        low, high = np.quantile(means, levels)
        yield float(low), float(high)
    # A resample of equal values is infinitely many standard errors away.
    far = np.where(
        errors > 0, (means - mean) / np.maximum(errors, 1e-9), np.sign(means - mean) / 1e-9
    )
    low, high = np.quantile(far, [0.025, 0.975]) * x.std(ddof=1)
    yield float(mean - high), float(mean - low)


def effects(
    draw: str, spread: tuple[float, float, float], size: tuple[int, int], rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """Of a tested set on prompts, one more than those of control sets on the same prompts."""

    def some(n: int) -> np.ndarray:
        return rng.normal(size=n) if draw == "normal" else rng.exponential(size=n) - 1

    of_prompts, of_sets, rest = spread
    tested = 1 + of_prompts * some(size[1])
    return tested, of_sets * some(size[0])[:, None] + rest * rng.normal(size=size)


def matches(size: tuple[int, int], rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Answers lost: half of them by the tested set, by a control set 10 % on average."""
    shares = rng.beta(2, 18, size[0])[:, None]
    hard = rng.uniform(size=size[1])
    return -1.0 * (hard < 0.5), -1.0 * (rng.uniform(size=size) < shares)


def two_way(name: str, truth: float, made: Callable[[Rng], tuple[np.ndarray, np.ndarray]]) -> None:
    def once(rng: Rng) -> tuple[bool, Interval]:
        found = two_way_bootstrap(*made(rng), resamples=DRAWN)
        return within(found, truth), found

    row(f"two_way, {name}", SOME, once)


def two_sample(rng: Rng, sizes: tuple[int, int]) -> tuple[bool, Interval]:
    """Skewed against normal with half its spread."""
    a, b = rng.exponential(1, sizes[0]), rng.normal(0, 0.5, sizes[1])
    found = two_sample_bootstrap(a, b, resamples=DRAWN)
    return within(found, 1), found


# ---- tests where nothing is --------------------------------------------------------------------


def false_positives() -> None:
    print("\nFalse positives at 5 %, nothing being there; < marks shares below 3 % and > above 7 %")
    cases: dict[str, tuple[int, Callable[[Rng], float]]] = {
        "empirical_p, 19 exchangeable sets": (EXACT, lambda rng: against_sets(rng, 19)),
        "empirical_p, 99 exchangeable sets": (EXACT, lambda rng: against_sets(rng, 99)),
        "sign_flip_p, normal, n 12": (MANY, lambda rng: sign_flip_p(rng.normal(size=12))),
        "sign_flip_p, normal, n 24": (MANY, lambda rng: sign_flip_p(rng.normal(size=24))),
        "sign_flip_p, exponential, n 24": (
            MANY,
            lambda rng: sign_flip_p(rng.exponential(1, 24) - 1),
        ),
        "sign_flip_p, EM .2 lost .2 gained, n 24": (
            MANY,
            lambda rng: sign_flip_p(unchanged(rng, 24)),
        ),
        "any BH discovery, 270 heads": (MANY, lambda rng: least(benjamini_hochberg, rng, 270, 0)),
        "any BH discovery, half the variance shared": (
            MANY,
            lambda rng: least(benjamini_hochberg, rng, 270, 0.5),
        ),
        "any Holm rejection, 6 claims": (EXACT, lambda rng: least(holm, rng, 6, 0)),
        "any Holm rejection, half the variance shared": (
            EXACT,
            lambda rng: least(holm, rng, 6, 0.5),
        ),
    }
    for name, (count, p) in cases.items():
        rng = np.random.default_rng(0)
        hits = sum(p(rng) <= 0.05 for _ in range(count))
        print(f"{name:54}{share(hits, count, 0.03, 0.07)}", flush=True)


def against_sets(rng: Rng, sets: int) -> float:
    return empirical_p(float(rng.normal()), rng.normal(size=sets))


def unchanged(rng: Rng, n: int) -> np.ndarray:
    return exact_match(0.2, 0.2)(rng, n)[0]


def least(
    adjusted: Callable[[np.ndarray], np.ndarray], rng: Rng, tests: int, shared: float
) -> float:
    """Smallest of some t-tests on 24 prompts, which share a part of the variance."""
    own, prompts = rng.normal(size=(tests, 24)), rng.normal(size=24)
    differences = sqrt(1 - shared) * own + sqrt(shared) * prompts
    t = differences.mean(1) / differences.std(1, ddof=1) * sqrt(24)
    return float(adjusted(2 * stats.t.sf(np.abs(t), 23)).min())


if __name__ == "__main__":
    main()
