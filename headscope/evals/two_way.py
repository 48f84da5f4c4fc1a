"""Bootstrap interval of an effect against control sets, over prompts and over sets."""

from math import nan
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from headscope.errors import HeadscopeError
from headscope.evals.bootstrap import RESAMPLES, Interval, Resampled, finite, smoothed, tail

Drawn = Float[np.ndarray, " resample"]


def two_way_bootstrap(
    effects_tested: Float[np.ndarray, " prompt"],
    effects_controls: Float[np.ndarray, "set prompt"],
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of mean tested effect - mean control effect, over prompts and over control sets.

    Both are samples: other prompts would give other effects, and so would other random sets. Each
    resample draws prompts and, independently of them, sets: the pigeonhole bootstrap. Alone it is
    too narrow for few prompts or sets, and too wide where neither differ much, since a resample
    counts the variance of the rest three times. Both are put right as in `paired_bootstrap`: each
    resample is divided by its own standard error, and prompts and sets have noise added. With
    controls that do nothing the two intervals are the same.

    The squared standard error is that of the set means plus that of the prompt means less that of
    the rest, which is in both; neither is taken as less than the rest. Where prompts and sets do
    not differ at all the interval is therefore a little wide (benchmarks/results/coverage.txt).

    Args:
        effects_tested: of the tested set on each prompt, in any unit.
        effects_controls: of each control set on the same prompts, in the same unit.
        seed, confidence, resamples: as in `paired_bootstrap`.

    Returns:
        (low, high) in that unit; (nan, nan) for a single prompt or a single set.

    Raises:
        HeadscopeError: there are no prompts or no sets, the prompts are not as many in both, or
            not all effects are finite.

    Source: Owen 2007, "The pigeonhole bootstrap"; variances of a two-way layout: Searle, Casella
    & McCulloch 1992, "Variance Components", chapter 4. Studentising the one with the other is
    headscope's own.
    """
    tested, controls, edge = finite(effects_tested), finite(effects_controls), tail(confidence)
    if controls.shape[1] != len(tested):
        raise HeadscopeError(
            f"The tested set has effects on {len(tested)} prompts and the controls on "
            f"{controls.shape[1]}; give those of the same prompts."
        )
    table = tested - controls
    n_sets, n_prompts = table.shape
    if min(table.shape) < 2:
        return nan, nan
    mean = float(table[0, 0] if np.ptp(table) == 0 else table.mean())
    table = table - mean
    rng = np.random.default_rng(seed)
    own = _layout(table, np.ones((1, n_sets)), np.ones((1, n_prompts)))
    for_sets, for_prompts = (float(max(e[0], own.rest[0])) for e in (own.sets, own.prompts))
    drawn = _layout(table, _counts(n_sets, rng, resamples), _counts(n_prompts, rng, resamples))
    nothing = np.zeros(resamples)
    squares = drawn.sets * (n_sets * (n_sets - 1)), drawn.prompts * (n_prompts * (n_prompts - 1))
    noise, of_sets = smoothed(nothing, squares[0], for_sets, n_sets, rng)
    means, of_prompts = smoothed(drawn.means, squares[1], for_prompts, n_prompts, rng)
    noisy = _Layout(means + noise, of_sets, of_prompts, drawn.rest)
    return Resampled(mean, float(own.error[0]), noisy.means, noisy.error).interval(edge)


class _Layout(NamedTuple):
    """Means of tables [set, prompt], and the squared standard errors that each margin gives it."""

    means: Drawn
    sets: Drawn
    prompts: Drawn
    rest: Drawn

    @property
    def error(self) -> Drawn:
        return np.maximum(self.sets, self.rest) + np.maximum(self.prompts, self.rest) - self.rest


def _layout(
    table: Float[np.ndarray, "set prompt"],
    sets: Float[np.ndarray, "resample set"],
    prompts: Float[np.ndarray, "resample prompt"],
) -> _Layout:
    """What tables give that have each set and each prompt so many times; none of them is made."""
    n_sets, n_prompts = table.shape
    by_prompt, by_set = sets @ table / n_sets, prompts @ table.T / n_prompts
    means = (prompts * by_prompt).sum(1) / n_prompts
    of_sets = (sets * (by_set - means[:, None]) ** 2).sum(1)
    of_prompts = (prompts * (by_prompt - means[:, None]) ** 2).sum(1)
    everything = (prompts * (sets @ table**2)).sum(1) - n_sets * n_prompts * means**2
    rest = (everything - n_prompts * of_sets - n_sets * of_prompts).clip(min=0)
    return _Layout(
        means,
        of_sets / (n_sets * (n_sets - 1)),
        of_prompts / (n_prompts * (n_prompts - 1)),
        rest / (n_sets * (n_sets - 1) * n_prompts * (n_prompts - 1)),
    )


def _counts(n: int, rng: np.random.Generator, resamples: int) -> Float[np.ndarray, "resample n"]:
    """How often each resample has each of n."""
    cells = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=resamples * n)
    return counts.reshape(resamples, n).astype(np.float64)
