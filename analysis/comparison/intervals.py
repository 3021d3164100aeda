"""Estimates with confidence intervals in which the run, not the event, is replicated.

Events of one run depend on each other (a busy machine slows thousands of them), so a test over events calls any two runs
different (Kalibera and Jones 2013, Rigorous Benchmarking in Reasonable Time). Here a run gives one number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Method = Literal["t", "rank"]
LEAST = {"t": 3, "rank": 4}
"""Runs on each side below which no interval is given. With 3 + 3 runs the rank method cannot reach 95 % (2 / C(6, 3) = 10 %)."""
LEAST_PAIRS = {"t": 3, "rank": 6}
"""Pairs below which no interval is given. With 5 pairs the exact Wilcoxon interval cannot reach 95 % (2 / 2**5 = 6 %)."""


@dataclass(frozen=True)
class Estimate:
    """A difference between two sides: ``value`` with the ends of its interval, and the two-sided ``p`` of no difference.

    ``low``, ``high`` and ``p`` are None where there are too few runs.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def rounding(values: Sequence[float], step: float) -> float:
    """Return the variance that rounding to a step alone gives the logarithms of values: (step / value)**2 / 12, on average.

    The error of rounding is uniform over a step (Sheppard 1898), and d log(x) = dx / x. That of equal values is the same: more of
    them do not make their mean surer.

    >>> f"{rounding([100.0, 100.0], 1.0):.3g}"
    '8.33e-06'
    """
    return math.fsum((step / value) ** 2 for value in values) / len(values) / 12


def difference(
    base: Sequence[float], other: Sequence[float], method: Method = "t", level: float = 0.95, least: tuple[float, float] = (0.0, 0.0)
) -> Estimate:
    """Estimate by how much ``other`` lies above ``base``; of logarithms, that is the logarithm of a ratio.

    Parameters
    ----------
    base, other : sequence of float
        One value per run, at least one each.
    method : {"t", "rank"}
        ``t``: difference of means, Welch's interval (Welch 1947). ``rank``: Hodges-Lehmann shift, the median of all pairwise
        differences, with the interval of the exact Mann-Whitney test (Hodges and Lehmann 1963; Bauer 1972).
    level : float
        Confidence level.
    least : tuple of float
        Variance that the mean of each side has at the least, for ``t``: what is read in steps may be the same in every run and
        still not be known better than to a step, however many runs there are. See `rounding`.

    Returns
    -------
    Estimate
        In the unit of the values.

    Notes
    -----
    ``tests/analysis/test_comparison.py`` simulates runs with skewed noise and known differences: the intervals of both methods
    cover as often as they claim. The percentile bootstrap does not below about 30 runs, and is not offered.

    Examples
    --------
    >>> difference([1.0, 2.0, 3.0], [3.0, 4.0, 5.0]).value
    2.0
    """
    left, right = np.asarray(base, np.float64), np.asarray(other, np.float64)
    if method == "rank":
        shifts = np.sort((right[:, None] - left[None, :]).ravel())
        value = float(np.median(shifts))
        if min(len(left), len(right)) < LEAST["rank"]:
            return Estimate(value)
        from scipy import stats

        cut = _mann_whitney_rank(len(left), len(right), 1 - level)
        p = float(stats.mannwhitneyu(right, left, alternative="two-sided", method="auto").pvalue)
        if cut is None:
            return Estimate(value, p=p)
        return Estimate(value, float(shifts[cut]), float(shifts[-1 - cut]), p)
    value = float(right.mean() - left.mean())
    if min(len(left), len(right)) < LEAST["t"]:
        return Estimate(value)
    errors = [max(float(side.var(ddof=1)) / len(side), floor) for side, floor in zip((left, right), least, strict=True)]
    spread = sum(errors)
    freedom = spread**2 / sum(error**2 / (len(side) - 1) for error, side in zip(errors, (left, right), strict=True)) if spread else 1.0
    return _student(value, spread, freedom, level)


def paired(differences: Sequence[float], method: Method = "t", level: float = 0.95, least: float = 0.0) -> Estimate:
    """Estimate the centre of paired differences (other - base of the same block).

    Parameters
    ----------
    differences : sequence of float
        One per block.
    method : {"t", "rank"}
        ``t``: mean with Student's interval. ``rank``: Hodges-Lehmann, the median of the Walsh averages, with the interval of the
        exact Wilcoxon signed-rank test (Hollander, Wolfe and Chicken 2013, section 3.3).
    level : float
        Confidence level.
    least : float
        Variance that the mean has at the least, for ``t``.
    """
    values = np.asarray(differences, np.float64)
    if method == "rank":
        first, second = np.triu_indices(len(values))
        walsh = np.sort((values[first] + values[second]) / 2)
        value = float(np.median(walsh))
        if len(values) < LEAST_PAIRS["rank"]:
            return Estimate(value)
        from scipy import stats

        p = 1.0 if not values.any() else float(stats.wilcoxon(values).pvalue)
        cut = _signed_rank(len(values), 1 - level)
        return Estimate(value, p=p) if cut is None else Estimate(value, float(walsh[cut]), float(walsh[-1 - cut]), p)
    value = float(values.mean())
    if len(values) < LEAST_PAIRS["t"]:
        return Estimate(value)
    return _student(value, max(float(values.var(ddof=1)) / len(values), least), len(values) - 1, level)


def _student(value: float, variance: float, freedom: float, level: float) -> Estimate:
    """Return the estimate of a mean with a variance of so many degrees of freedom."""
    if not variance:
        # Counts that are the same in every run: any difference is there in all of them.
        return Estimate(value, value, value, 1.0 if value == 0 else 0.0)
    from scipy import stats

    error = math.sqrt(variance)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return Estimate(value, value - half, value + half, 2 * float(stats.t.sf(abs(value) / error, freedom)))


def superiority(base: Sequence[float], other: Sequence[float]) -> float:
    """Return how likely a run of ``other`` lies above one of ``base``, ties counting half: A of Vargha and Delaney (2000).

    >>> superiority([1, 2], [2, 3])
    0.875
    """
    left, right = np.asarray(base, np.float64)[None, :], np.asarray(other, np.float64)[:, None]
    return float((right > left).mean() + (right == left).mean() / 2)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Correct p values for their number (Holm 1979): at a level, the chance of any false difference among all is at most that level.

    >>> holm([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    known = sorted((value, place) for place, value in enumerate(p) if value is not None)
    result: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        result[place] = highest
    return result


def _cut(counts: list[int], alpha: float) -> int | None:
    """Return how many ordered values an interval leaves out at each end, given how many orders have each value of the statistic."""
    whole, gone, cut = sum(counts), 0, None
    for value, count in enumerate(counts):
        gone += count
        if 2 * gone > alpha * whole:
            break
        cut = value
    return cut


def _mann_whitney_rank(left: int, right: int, alpha: float) -> int | None:
    if left * right > 2_500:
        # The normal approximation (Hollander, Wolfe and Chicken 2013, 4.18): exact counting takes long, and changes nothing.
        from scipy import stats

        middle, spread = left * right / 2, (left * right * (left + right + 1) / 12) ** 0.5
        return max(0, round(float(middle - stats.norm.ppf(1 - alpha / 2) * spread)) - 1)
    # ways[i] = number of choices of some of the first values with rank sum i above the least possible.
    ways = [[0] * (left * right + 1) for _ in range(left + 1)]
    ways[0][0] = 1
    for number in range(1, left + right + 1):
        for chosen in range(min(left, number), 0, -1):
            for total in range(left * right + 1):
                before = total - (number - chosen)
                if before >= 0:
                    ways[chosen][total] += ways[chosen - 1][before]
    return _cut(ways[left], alpha)


def _signed_rank(pairs: int, alpha: float) -> int | None:
    counts = [1]
    for rank in range(1, pairs + 1):
        grown = [0] * (len(counts) + rank)
        for total, count in enumerate(counts):
            grown[total] += count
            grown[total + rank] += count
        counts = grown
    return _cut(counts, alpha)
