"""The shape of the tail of a distribution: Hill's estimator with a threshold that the data choose, from the largest values alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
FEWEST = 50
"""Values above the threshold that an estimate needs (Clauset, Shalizi and Newman 2009, section 3.3)."""
MOST = 5000
SHARE = 10
"""The tail is sought among the largest one in so many."""
CANDIDATES = 40
CRITICAL = 1.094
"""Modified Kolmogorov-Smirnov statistic of exponential values with estimated mean that is exceeded with probability 5 % (Stephens 1974)."""


@dataclass(frozen=True)
class Fit:
    """A Pareto tail: P(X > x) = (``threshold`` / x) ** ``index`` of what is above the threshold.

    ``above`` values lie above it, ``low`` and ``high`` hold the index with 95 % confidence, ``distance`` is the largest distance
    between the distribution of these values and the fit, ``plausible`` whether a test at 5 % does not refute the fit.
    """

    index: float
    low: float
    high: float
    threshold: int
    above: int
    distance: float
    plausible: bool


def wanted(n: int) -> int:
    """Return how many of the largest of n values `fit` looks at; 0 where there are too few for an estimate."""
    k = min(n // SHARE, MOST)
    return k + 1 if k >= FEWEST else 0


def fit(values: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Fit | None:
    """Fit a Pareto tail to the largest values.

    Parameters
    ----------
    values, counts : arrays
        The largest distinct values, ascending, and how often each occurs.

    Returns
    -------
    Fit or None
        None if no threshold leaves `FEWEST` values above it.

    Notes
    -----
    The index is Hill's (1975): the k values above the threshold u give k / sum(log(x / u)). Of up to `CANDIDATES` thresholds, which
    leave from `FEWEST` to `MOST` values above them in geometric steps, the one is taken whose fit is nearest to the data in the
    Kolmogorov-Smirnov distance (Clauset, Shalizi and Newman 2009, SIAM Review 51:661, section 3.3). The interval is exact for
    independent values above a given threshold, of which k index / estimate follows a gamma distribution of shape k; calls that
    depend on one another, as neighbours in time do, make it too narrow.
    """
    from scipy.stats import gamma

    kept = values > 0
    values, counts = values[kept].astype(np.float64), counts[kept]
    if len(values) < 2:
        return None
    logs = np.log(values)
    above = np.cumsum(counts[::-1])[::-1] - counts  # of each value as threshold: how many are larger
    sums = np.cumsum((counts * logs)[::-1])[::-1] - counts * logs
    possible = np.flatnonzero((above >= FEWEST) & (above <= MOST))
    if not len(possible):
        return None
    grid = np.geomspace(above[possible[0]], above[possible[-1]], CANDIDATES)
    # ``above`` falls as the threshold rises: for each step the candidate that leaves about so many.
    chosen = np.unique(possible[np.clip(np.searchsorted(-above[possible], -grid), 0, len(possible) - 1)])
    best: tuple[float, int, float] | None = None
    for at in chosen:
        k = int(above[at])
        excess = sums[at] - k * logs[at]
        if excess <= 0:
            continue
        index = k / excess
        distance = _distance(logs[at + 1 :] - logs[at], counts[at + 1 :], index)
        if best is None or distance < best[0]:
            best = (distance, int(at), index)
    if best is None:
        return None
    distance, at, index = best
    k = int(above[at])
    low, high = (float(index * quantile / k) for quantile in gamma.ppf([0.025, 0.975], k))
    modified = (distance - 0.2 / k) * (np.sqrt(k) + 0.26 + 0.5 / np.sqrt(k))
    return Fit(float(index), low, high, int(values[at]), k, float(distance), bool(modified <= CRITICAL))


def _distance(excess: Floats, counts: npt.NDArray[np.int64], index: float) -> float:
    """Return the Kolmogorov-Smirnov distance between log excesses and the exponential distribution of that rate."""
    share = np.cumsum(counts) / counts.sum()
    fitted = -np.expm1(-index * excess)
    return float(max(np.max(share - fitted), np.max(fitted - np.append(0.0, share[:-1]))))
