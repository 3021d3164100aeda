"""Windows of time against plain Python; trends and periods that were put in, and noise in which there is none."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis.analyses.drift import drift, pictures
from ringtape.analysis.analyses.windows import pictures as window_pictures
from ringtape.analysis.analyses.windows import windows
from ringtape.analysis.series import trend
from ringtape.schemas.errors import UsageError
from tests.factory import T0, make

READ, WRITE = 0, 1
MS, S = 10**6, 10**9
QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}
calls = st.lists(
    st.fixed_dictionaries(
        {
            "nr": st.sampled_from([READ, WRITE]),
            "pid": st.integers(1, 2),
            "ts": st.integers(T0, T0 + S - 1),
            "dur": st.one_of(st.integers(2, 300), st.integers(2, 10**8)),
            "lost": st.booleans(),
        }
    ),
    min_size=1,
    max_size=60,
)


def opened(folder: Path, rows: list[dict[str, Any]], **more: Any) -> ringtape.Trace:
    return ringtape.open(make(folder, syscalls=rows, **more))


def nth(values: list[int], q: float) -> int:
    return sorted(values)[max(math.ceil(round(q * 100) * len(values) / 100), 1) - 1]


@settings(max_examples=20, deadline=None)
@given(calls, st.booleans())
def test_every_window_is_as_in_plain_python_and_holds_the_truth_under_losses(rows: list[dict[str, Any]], lossy: bool) -> None:
    rows = rows if lossy else [{**row, "lost": False} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        result = windows(opened(Path(folder) / "t", rows), by="syscall", width="100ms")
    seen = 0
    for found in result.iter_rows(named=True):
        at = (found["begin"] - T0) // (100 * MS)
        # The last window also holds what returned after the end of the recording.
        mine = [row for row in rows if ("read", "write")[row["nr"]] == found["syscall"] and min((row["ts"] + row["dur"] - T0) // (100 * MS), 9) == at]
        kept = [row["dur"] for row in mine if not row["lost"]]
        seen += len(kept)
        assert (found["calls"], found["rate_low"]) == (len(kept), pytest.approx(len(kept) * 10))
        assert found["rate"] == (None if found["lost"] else pytest.approx(len(kept) * 10))
        assert found["rate_low"] <= len(mine) * 10 <= found["rate_high"] * (1 + 1e-9)
        every = [row["dur"] for row in mine]
        for name, q in QUANTILES.items():
            if not lossy:
                assert found[name] == (nth(kept, q) if kept else None)
            elif every and found[f"{name}_low"] is not None:
                assert found[f"{name}_low"] <= nth(every, q) <= found[f"{name}_high"]
            else:
                assert not kept
    assert seen == sum(not row["lost"] for row in rows if not lossy or any(not other["lost"] and other["nr"] == row["nr"] for other in rows))


def test_a_window_without_length_and_too_many_of_them_are_refused(folder: Path) -> None:
    trace = opened(folder, [{"nr": READ, "pid": 1, "dur": 5}])
    with pytest.raises(UsageError, match="no length"):
        windows(trace, width="0s")
    with pytest.raises(UsageError, match="1,000,000 windows"):
        windows(trace, width="1us")


def steady(rng: np.random.Generator, number: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    return np.sort(rng.integers(0, S - MS, number)), np.exp(rng.normal(8, 0.3, number))


def rows_of(ts: np.ndarray, dur: np.ndarray, nr: int = READ) -> list[dict[str, Any]]:
    return [{"ts": T0 + int(at), "nr": nr, "pid": 1, "dur": int(took)} for at, took in zip(ts, dur, strict=True)]


def test_a_rise_of_half_is_found_with_its_size(folder: Path) -> None:
    ts, dur = steady(np.random.default_rng(1))
    found = drift(opened(folder, rows_of(ts, dur * (1 + 0.5 * ts / S)))).row(0, named=True)
    assert found["drift"] == "rises"
    assert found["change"] == pytest.approx(0.5 / 1.25, abs=0.08)
    assert found["p50_last"] > 1.2 * found["p50_first"]


def test_stalls_every_fifty_milliseconds_are_found_with_their_period(folder: Path) -> None:
    rng = np.random.default_rng(2)
    ts, dur = steady(rng)
    at = np.arange(20 * MS, S - MS, 50 * MS) + rng.normal(0, MS / 2, 20).astype(int)
    trace = opened(folder, [*rows_of(ts, dur), *rows_of(at, np.full(20, 900_000))])
    found = drift(trace).row(0, named=True)
    assert (found["stalling"], found["drift"]) == ("periodic", "none shown")
    assert found["period"] == pytest.approx(50 * MS, rel=0.01)
    assert found["strength"] > 0.9
    assert [picture.name for picture in pictures(trace)] == ["latency-stalls"]
    assert [picture.name for picture in window_pictures(trace)] == ["latency-windows"]


def test_noise_a_burst_and_a_rhythm_of_the_calls_themselves_are_no_periodic_stalls(folder: Path) -> None:
    rng = np.random.default_rng(4)
    shown = 0
    for trial in range(3):
        ts, dur = steady(rng, 2000)
        slow = rng.random(len(ts)) < 0.02
        burst = np.sort(rng.integers(700 * MS, 900 * MS, 100))
        rhythm = np.repeat(np.arange(0, S - MS, 20 * MS), 40) + np.tile(np.arange(40) * 10_000, 50)
        kinds = (
            rows_of(ts, np.where(slow, dur * 10, dur)),
            rows_of(np.append(ts, burst), np.append(dur, np.full(100, 50_000))),
            rows_of(rhythm, np.where(rng.random(len(rhythm)) < 0.05, 60_000, 3000)),
        )
        for place, rows in enumerate(kinds):
            found = drift(opened(folder / f"{trial}-{place}", rows)).row(0, named=True)
            shown += found["stalling"] == "periodic"
    assert shown <= 1


def test_without_a_trend_one_in_a_hundred_is_shown_even_where_neighbours_resemble_one_another() -> None:
    rng = np.random.default_rng(5)
    for memory, most in ((0.0, 12), (0.5, 25)):
        shown = 0
        for _ in range(400):
            noise = rng.normal(size=60)
            for at in range(1, 60):
                noise[at] += memory * noise[at - 1]
            found = trend(np.arange(60.0), noise)
            assert found is not None
            shown += found.p < 0.01
        assert shown <= most


def test_the_trend_test_is_kendalls_where_nothing_depends() -> None:
    from scipy.stats import kendalltau, theilslopes

    values = np.random.default_rng(6).normal(size=30) + np.arange(30) * 0.05
    found = trend(np.arange(30.0), values)
    assert found is not None
    assert found.slope == pytest.approx(theilslopes(values)[0])
    assert found.p >= kendalltau(np.arange(30), values, method="asymptotic").pvalue * 0.9


def test_few_calls_have_neither_and_none_gives_the_same_columns(folder: Path, tmp_path: Path) -> None:
    one = opened(folder, [{"nr": READ, "pid": 1, "dur": 9}])
    found = drift(one).row(0, named=True)
    assert (found["drift"], found["stalling"], found["windows"]) == ("too few windows", "too few stalls", 1)
    empty = opened(tmp_path / "empty", [])
    assert drift(empty).schema == drift(one).schema
    assert (len(drift(empty)), len(windows(empty)), list(pictures(empty))) == (0, 0, [])
    assert [picture.name for picture in window_pictures(empty)] == ["latency-windows"]
