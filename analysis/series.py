"""Tests of a series over time: for a trend, and for instants that come back with a period."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FEWEST_WINDOWS = 10
FEWEST_STALLS = 6
CYCLES = 3
"""Times that a period has to fit into the recording."""
SHUFFLES = 199
_SHOWN = 0.05
"""Probability above which a period is not told at all."""
ALIKE = 0.8
"""Of frequencies whose power is at least this share of the greatest, the lowest is the period: the others are its multiples."""


@dataclass(frozen=True)
class Trend:
    """A trend: ``slope`` per step, and the probability ``p`` of one as clear by chance."""

    slope: float
    p: float


@dataclass(frozen=True)
class Period:
    """A period in steps of the grid, its ``strength`` (0: none, 1: every instant at the same phase), the probability ``p`` by chance."""

    length: float
    strength: float
    p: float


def trend(places: Floats, values: Floats) -> Trend | None:
    """Test whether values rise or fall.

    Parameters
    ----------
    places, values : arrays
        Positions in time, ascending, and values.

    Returns
    -------
    Trend or None
        None for fewer than `FEWEST_WINDOWS` values.

    Notes
    -----
    The slope is that of Theil and Sen, the median of the slopes of all pairs. The test is that of Mann and Kendall with the variance that
    Hamed and Rao (1998, Journal of Hydrology 204:182) give for values that depend on their neighbours: only significant autocorrelations
    of the ranks of what is left without the trend count, and they never make the variance smaller.
    """
    from scipy.stats import norm, rankdata, theilslopes

    n = len(values)
    if n < FEWEST_WINDOWS:
        return None
    score = sum(float(np.sign(values[at + 1 :] - values[at]).sum()) for at in range(n - 1))
    ties = np.unique(values, return_counts=True)[1].astype(float)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    slope = float(theilslopes(values, places)[0])
    if variance <= 0:
        return Trend(0.0, 1.0)
    ranks = rankdata(values - slope * places)
    centred = ranks - ranks.mean()
    power = float((centred**2).sum())
    factor = 1.0
    if power > 0:
        lags = np.arange(1, n - 2)
        correlation = np.array([float((centred[:-lag] * centred[lag:]).sum()) for lag in lags]) / power
        significant = np.abs(correlation) > 1.96 / np.sqrt(n)
        weights = (n - lags) * (n - lags - 1.0) * (n - lags - 2.0)
        factor += 2 / (n * (n - 1.0) * (n - 2.0)) * float((weights * correlation * significant).sum())
    spread = np.sqrt(variance * max(1.0, factor))
    z = max(0.0, abs(score) - 1) / spread
    return Trend(slope, float(2 * norm.sf(z)))


def period(stalls: Ints, calls: Ints, seed: int = 0) -> Period | None:
    """Test whether instants come back with a period.

    Parameters
    ----------
    stalls : array of int
        Steps of the grid in which a stall ended, ascending.
    calls : array of int
        How many calls there were in each step of the grid.
    seed : int
        Of the shuffles.

    Returns
    -------
    Period or None
        The period with most power; None for fewer than `FEWEST_STALLS` stalls, or if none is clearer than chance allows.

    Notes
    -----
    The power of frequency f is that of the point process (Bartlett 1963, JRSS B 25:264), ``|sum(exp(2 pi i f t))|**2 / n``. For
    instants without a period it exceeds x with probability exp(-x) (Rayleigh), which is multiplied by the number of frequencies that were
    looked at. As calls themselves may come in a rhythm, which stalls can only follow, the stalls are also drawn anew, `SHUFFLES` times, among
    the calls: the share of draws with as much power bounds p from below.
    A burst of stalls is no rhythm: strength, the length of the mean of the phases, and the probability that is given count each cycle once.
    Periods from 16 steps of the grid to a third of it are looked at.
    """
    n, steps = len(stalls), len(calls)
    if n < FEWEST_STALLS:
        return None
    pad = 4 * steps
    low, high = max(2, CYCLES * pad // steps), pad // 16
    # A period shorter than a quarter of the mean distance of stalls would be a fit to noise.
    high = min(high, int(4 * n * pad / steps))

    def power(instants: Ints) -> Floats:
        series = np.bincount(instants, minlength=steps).astype(float)
        return np.asarray(np.abs(np.fft.rfft(series, pad)[low:high]) ** 2 / len(instants), np.float64)

    found = power(stalls)
    most = float(found.max())
    if len(found) * float(np.exp(-most)) > _SHOWN:
        return None
    at = int(np.flatnonzero(found >= ALIKE * most)[0])
    while at + 1 < len(found) and found[at + 1] > found[at]:
        at += 1
    length = _refined(stalls, (at + low) / pad, 1 / pad)
    strength, cycles = _strength(stalls, length)
    by_chance = min(1.0, len(found) * float(np.exp(-cycles * strength**2)))
    if by_chance > _SHOWN:
        return None
    rng = np.random.default_rng(seed)
    share = calls / calls.sum()
    floor = calls > 0
    drawn = min(n, int(floor.sum()))
    as_clear = 0
    for _ in range(SHUFFLES):
        chosen = rng.choice(steps, drawn, replace=False, p=share)
        as_clear += float(power(chosen).max()) >= most
        if as_clear / SHUFFLES > _SHOWN:
            # No further draw makes it less: most of what has no period is told by a few.
            return None
    return Period(length, strength, max(by_chance, as_clear / SHUFFLES))


def _strength(stalls: Ints, length: float) -> tuple[float, int]:
    """Return the length of the mean of the phases when each cycle counts once, and the number of cycles that have a stall."""
    turns = stalls / length
    centre = float(np.angle(np.exp(2j * np.pi * turns).sum()) / (2 * np.pi))
    # Cycles reach from one half before the common phase to one half behind it.
    cycle = np.floor(turns - centre + 0.5).astype(np.int64)
    _, place, counts = np.unique(cycle, return_inverse=True, return_counts=True)
    phases = np.exp(2j * np.pi * turns)
    means = (np.bincount(place, phases.real) + 1j * np.bincount(place, phases.imag)) / counts
    return float(abs(means.mean())), len(counts)


def _refined(stalls: Ints, frequency: float, step: float) -> float:
    """Return the period whose frequency, within a step of the one found, has most power."""
    near = frequency + np.linspace(-step, step, 401)
    near = near[near > 0]
    phases = np.exp(2j * np.pi * np.outer(near, stalls))
    return float(1 / near[int(np.argmax(np.abs(phases.sum(axis=1))))])
