"""Modes that were put in, and noise in which there are none; the taut string against its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis.analyses.modes import modes, pictures
from ringtape.analysis.taut_string import modes as taut_modes
from ringtape.analysis.taut_string import radius, string
from tests.factory import make

READ, WRITE = 0, 1


def opened(folder: Path, rows: list[dict[str, Any]], **more: Any) -> ringtape.Trace:
    return ringtape.open(make(folder, syscalls=rows, **more))


def rows_of(values: np.ndarray, **more: Any) -> list[dict[str, Any]]:
    return [{"nr": READ, "pid": 1, "dur": int(value), **more} for value in values]


def test_two_modes_are_found_with_place_weight_and_valley(folder: Path) -> None:
    rng = np.random.default_rng(1)
    values = np.append(np.exp(rng.normal(np.log(2000), 0.3, 3000)), np.exp(rng.normal(np.log(1e6), 0.4, 1000)))
    result = modes(opened(folder, rows_of(values)))
    assert result["modes"].to_list() == [2, 2]
    first, second = result.iter_rows(named=True)
    assert first["peak"] == pytest.approx(2000, rel=0.15)
    assert second["peak"] == pytest.approx(1e6, rel=0.2)
    assert (first["weight"], second["weight"]) == (0.75, 0.25)
    assert (first["begin"], first["end"]) == (int(values[:3000].min()), int(values[:3000].max()))
    assert 5000 < first["valley"] < 300_000
    assert first["depth"] < 0.1
    assert (second["valley"], second["depth"]) == (None, None)
    assert [picture.name for picture in pictures(opened(folder.parent / "again", rows_of(values[:50])))] == ["latency-modes"]


def test_of_a_hundred_samples_with_one_mode_few_show_more() -> None:
    rng = np.random.default_rng(2)
    more = 0
    for _ in range(100):
        counts, edges = np.histogram(rng.normal(size=2000), 60)
        more += len(taut_modes(counts.astype(np.int64), np.diff(edges), radius(2000))) > 1
    assert more <= 5


def test_the_steps_of_a_clock_are_no_modes(folder: Path) -> None:
    rng = np.random.default_rng(3)
    values = np.round(np.exp(rng.normal(np.log(300), 0.2, 5000)) / 10) * 10
    assert modes(opened(folder, rows_of(values)))["modes"].to_list() == [1]


def test_lost_calls_make_a_small_mode_uncertain(folder: Path) -> None:
    values = np.append(np.full(900, 1000), np.full(100, 10**6))
    assert len(modes(opened(folder, rows_of(values)))) == 2
    lossy = opened(folder.parent / "lossy", [*rows_of(values), *rows_of(np.full(300, 50_000), lost=True)])
    assert modes(lossy).select("modes", "lost").rows() == [(1, 300)]


counts = st.lists(st.integers(0, 60), min_size=1, max_size=25)


@settings(max_examples=200, deadline=None)
@given(counts, st.floats(0.01, 0.4))
def test_the_string_stays_in_the_band_and_no_wider_band_has_more_modes(values: list[int], distance: float) -> None:
    numbers = np.asarray(values, np.int64)
    if not numbers.sum():
        assert taut_modes(numbers, np.ones(len(values)), distance) == []
        return
    share = np.append(0.0, np.cumsum(numbers) / numbers.sum())
    lower, upper = np.clip(share - distance, 0, 1), np.clip(share + distance, 0, 1)
    lower[0], upper[0], lower[-1], upper[-1] = 0, 0, 1, 1
    places = np.arange(len(share), dtype=float)
    knots, heights = string(places, lower, upper)
    path = np.interp(places, knots, heights)
    assert np.all(path >= lower - 1e-9)
    assert np.all(path <= upper + 1e-9)
    assert np.all(np.diff(path) >= -1e-9)
    # Where it bends it touches: down at the lower boundary, up at the upper one. That makes it the shortest path.
    slopes = np.diff(heights) / np.diff(knots)
    for at, knot in enumerate(knots[1:-1]):
        if slopes[at + 1] < slopes[at] - 1e-9:
            assert path[knot] == pytest.approx(lower[knot])
        elif slopes[at + 1] > slopes[at] + 1e-9:
            assert path[knot] == pytest.approx(upper[knot])
    fewer = len(taut_modes(numbers, np.ones(len(values)), distance))
    assert 1 <= fewer <= len(taut_modes(numbers, np.ones(len(values)), distance / 4))
    raw = np.concatenate([[0], numbers[np.append(True, np.diff(numbers) != 0)], [0]])
    peaks = int(((raw[1:-1] > raw[:-2]) & (raw[1:-1] > raw[2:])).sum())
    assert fewer <= max(1, peaks)


def test_one_call_none_and_ten_thousand_threads(folder: Path, tmp_path: Path) -> None:
    assert modes(opened(folder, rows_of(np.array([7])))).select("modes", "peak", "begin", "end", "weight").rows() == [(1, 7, 7, 7, 1.0)]
    empty = opened(tmp_path / "empty", [])
    assert len(modes(empty)) == 0
    assert [picture.name for picture in pictures(empty)] == ["latency-modes"]
    many = modes(opened(tmp_path / "many", [{"nr": READ, "pid": 1, "tid": 5 + at, "dur": 2 + at} for at in range(10_000)]), by="thread")
    assert (len(many), many["peak"].sum()) == (10_000, sum(range(2, 10_002)))
