"""What a sample leaves open: intervals of quantiles, and what is met at any instant."""

from fractions import Fraction
from math import comb

import numpy as np
import polars as pl
import pytest

from ringtape.analysis.sampling import averages, met_at_any_instant, quantile_interval
from ringtape.datasets import load


@pytest.mark.parametrize(("q", "n"), [(Fraction(1, 2), 30), (Fraction(9, 10), 80), (Fraction(1, 10), 80), (Fraction(99, 100), 500)])
def test_an_interval_holds_the_quantile_as_often_as_it_says(q, n):
    low, high = quantile_interval(pl.Series(range(1, n + 1)), q)
    # The quantile lies above the low-th and below the high-th value when from low to high - 1 of n values lie below it.
    chance = sum(comb(n, below) * q**below * (1 - q) ** (n - below) for below in range(low, high))
    assert chance >= Fraction(95, 100)
    narrower = sum(comb(n, below) * q**below * (1 - q) ** (n - below) for below in range(low + 1, high - 1))
    assert narrower < Fraction(95, 100)


def test_both_ends_of_p99_are_known_from_368_calls_on_and_of_p99_9_from_3688():
    for q, least in ((Fraction(99, 100), 368), (Fraction(999, 1000), 3688)):
        assert quantile_interval(pl.Series(range(least - 1)), q)[1] is None
        assert quantile_interval(pl.Series(range(least)), q)[1] is not None
        assert (1 - Fraction(1, 40)) + q ** (least - 1) > 1 > (1 - Fraction(1, 40)) + q**least


def test_an_empty_sample_bounds_nothing_and_a_quantile_is_between_0_and_1():
    assert quantile_interval(pl.Series([], dtype=pl.Int64), 0.5) == (None, None)
    for q in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            quantile_interval(pl.Series([1]), q)
        with pytest.raises(ValueError, match="above 0 and below 1"):
            met_at_any_instant(pl.Series([1]), 1, q)


@pytest.mark.parametrize("q", [Fraction(1, 2), Fraction(9, 10), Fraction(99, 100)])
def test_what_is_met_at_any_instant_is_what_somebody_meets_who_comes_at_each(q):
    random = np.random.default_rng(7)
    durations = random.integers(1, 400, 40)
    gaps = random.integers(0, 100, 40)
    # One wait for each of the instants, counted one by one.
    waits = np.concatenate([np.concatenate([np.zeros(gap), np.arange(duration, 0, -1)]) for gap, duration in zip(gaps, durations, strict=True)])
    met = met_at_any_instant(pl.Series(durations), len(waits), q)
    longer = [int((waits > wait).sum()) for wait in (met, met - 2)]
    assert longer[0] <= (1 - q) * len(waits) < longer[1]


def test_where_most_of_the_time_is_free_nothing_is_met():
    assert met_at_any_instant(pl.Series([10, 20]), 10_000, Fraction(99, 100)) == 0
    assert met_at_any_instant(pl.Series([], dtype=pl.Int64), 10_000, Fraction(99, 100)) == 0


def test_calls_that_overlap_are_refused():
    with pytest.raises(ValueError, match="overlap"):
        met_at_any_instant(pl.Series([60, 60]), 100, 0.5)


def test_an_average_between_two_kinds_of_calls_is_true_of_hardly_any():
    trace = load("sqlite")
    found = averages(trace).filter(syscall="openat").row(0, named=True)
    durations = trace.collect(trace.scan("syscalls").filter(pl.col("nr") == 257, pl.col("kind") == 0).select("dur"))["dur"].to_numpy()
    assert found["calls"] == len(durations)
    assert found["average"] == durations.mean()
    assert found["near"] == np.mean(np.abs(durations - durations.mean()) <= 0.2 * durations.mean()) < 0.01
