"""Tails against plain Python, and against data whose tail index is known."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis import tails
from ringtape.analysis.analyses.tail import pictures, tail
from ringtape.schemas.table import tables
from tests.factory import make

READ, WRITE = 0, 1
calls = st.lists(
    st.fixed_dictionaries(
        {
            "nr": st.sampled_from([READ, WRITE]),
            "pid": st.integers(1, 3),
            "dur": st.one_of(st.integers(2, 300), st.integers(2, 10**7), st.integers(2, 10**12)),
            "lost": st.booleans(),
        }
    ),
    min_size=1,
    max_size=150,
)


def opened(folder: Path, rows: list[dict[str, Any]], **more: Any) -> ringtape.Trace:
    return ringtape.open(make(folder, syscalls=rows, **more))


def reference(durations: list[int]) -> dict[str, float | None]:
    ordered = sorted(durations, reverse=True)
    n, total = len(ordered), sum(ordered)
    p99 = sorted(durations)[math.ceil(n * 99 / 100) - 1]
    longer = [value - p99 for value in durations if value > p99]
    return {
        "calls": n,
        "time": total,
        "slowest_1": sum(ordered[: math.ceil(n / 100)]) / total,
        "slowest_01": sum(ordered[: math.ceil(n / 1000)]) / total,
        "p99": p99,
        "mean_excess": sum(longer) / len(longer) if longer else None,
        "max": ordered[0],
    }


@settings(max_examples=30, deadline=None)
@given(calls)
def test_without_losses_all_is_as_in_plain_python(rows: list[dict[str, Any]]) -> None:
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in rows:
        groups[("read", "write")[row["nr"]], row["pid"]].append(row["dur"])
    with tempfile.TemporaryDirectory() as folder:
        result = tail(opened(Path(folder) / "t", [{**row, "lost": False} for row in rows]), by=["syscall", "process"])
    assert len(result) == len(groups)
    for found in result.iter_rows(named=True):
        for name, value in reference(groups[found["syscall"], found["process"]]).items():
            assert found[name] == (None if value is None else pytest.approx(value, rel=1e-12)), name


@settings(max_examples=40, deadline=None)
@given(calls, st.booleans())
def test_under_losses_intervals_hold_the_truth(rows: list[dict[str, Any]], spared: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Without the table of processes any lost call may have been cut short.
        more = {"header": {"tables": {name: tables()[name].version for name in ("syscalls", "losses")}}} if spared else {"processes": []}
        trace = opened(Path(folder) / "t", rows, **more)
        for by, key in (("syscall", "nr"), ("process", "pid")):
            truth: dict[int, list[int]] = defaultdict(list)
            for row in rows:
                truth[row[key]].append(row["dur"])
            for found in tail(trace, by=by).iter_rows(named=True):  # type: ignore[arg-type]
                values = reference(truth[{"read": READ, "write": WRITE}.get(found[by], found[by])])
                for name in ("slowest_1", "slowest_01", "p99", "max"):
                    assert found[f"{name}_low"] <= values[name] * (1 + 1e-12), name  # type: ignore[operator]
                    assert found[f"{name}_high"] >= values[name] * (1 - 1e-12), name  # type: ignore[operator]
                assert found["index"] is None or not found["lost"]


def test_hills_estimator_of_four_values_by_hand() -> None:
    values = np.array([100, *(100 * 2**power for power in range(1, 51))], np.int64)[:51]
    found = tails.fit(values, np.ones(51, np.int64))
    assert found is not None
    assert (found.threshold, found.above) == (100, 50)
    assert found.index == pytest.approx(50 / sum(power * math.log(2) for power in range(1, 51)))


def test_the_interval_covers_a_known_index_and_the_test_keeps_its_level() -> None:
    """Pareto values: of 300 samples about 95 % of intervals hold the index, and about 5 % of the fits are refuted."""
    rng = np.random.default_rng(7)
    held, refuted = 0, 0
    for _ in range(300):
        values = np.sort((1e6 * (1 - rng.random(tails.FEWEST + 1)) ** (-1 / 1.5)).astype(np.int64))
        found = tails.fit(*np.unique(values, return_counts=True))
        assert found is not None
        held += found.low <= 1.5 <= found.high
        refuted += not found.plausible
    assert 270 <= held <= 298
    assert refuted <= 30


def test_a_pareto_tail_is_found_and_an_exponential_one_is_refuted(folder: Path) -> None:
    rng = np.random.default_rng(3)
    heavy = 1e5 * (1 - rng.random(20_000)) ** (-1 / 1.2)
    light = 1e5 * (5 + rng.exponential(size=20_000))
    rows = [{"nr": nr, "pid": 1, "dur": int(value)} for nr, values in ((READ, heavy), (WRITE, light)) for value in values]
    found = {row["syscall"]: row for row in tail(opened(folder, rows)).iter_rows(named=True)}
    assert found["read"]["ci_low"] < 1.2 < found["read"]["ci_high"]
    assert found["read"]["pareto"]
    assert found["write"]["index"] > 5


def test_too_few_calls_and_calls_of_one_duration_have_no_index(folder: Path) -> None:
    rows = [{"nr": READ, "pid": 1, "dur": 10 * at} for at in range(1, 499)] + [{"nr": WRITE, "pid": 1, "dur": 77} for _ in range(2000)]
    assert tail(opened(folder, rows))["index"].to_list() == [None, None]


def test_one_call_and_none(folder: Path, tmp_path: Path) -> None:
    one = tail(opened(folder, [{"nr": READ, "pid": 1, "dur": 9}])).row(0, named=True)
    assert (one["slowest_1"], one["max"], one["mean_excess"], one["index"]) == (1.0, 9, None, None)
    empty = opened(tmp_path / "empty", [])
    assert len(tail(empty)) == 0
    assert [picture.name for picture in pictures(empty)] == ["latency-tail"]


def test_ten_thousand_threads(folder: Path) -> None:
    result = tail(opened(folder, [{"nr": READ, "pid": 1, "tid": 100 + at, "dur": at + 1} for at in range(10_000)]), by="thread")
    assert len(result) == 10_000
    assert result["max"].sum() == 10_000 * 10_001 // 2
