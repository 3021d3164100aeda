"""Times between calls against plain Python, with and without losses, and in slices."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis import arrivals
from ringtape.analysis.analyses.inter_arrival import inter_arrival, pictures
from ringtape.analysis.analyses.latency import QUANTILES
from tests.factory import T0, make

READ, WRITE = 0, 1
calls = st.lists(
    st.fixed_dictionaries(
        {
            "nr": st.sampled_from([READ, WRITE]),
            "pid": st.integers(1, 2),
            "ts": st.one_of(st.integers(T0, T0 + 500), st.integers(T0, T0 + 10**9)),
            "dur": st.integers(2, 10**6),
            "lost": st.booleans(),
        }
    ),
    min_size=1,
    max_size=80,
)
HARD = [
    # All that is known of the reads is one time of 1 ns, in a stretch in which only writes were lost.
    {"nr": READ, "pid": 2, "ts": T0, "dur": 2, "lost": False},
    {"nr": READ, "pid": 2, "ts": T0 + 1, "dur": 2, "lost": False},
    {"nr": WRITE, "pid": 1, "ts": T0, "dur": 5, "lost": True},
    {"nr": WRITE, "pid": 1, "ts": T0 + 500, "dur": 5, "lost": False},
]


def opened(folder: Path, rows: list[dict[str, Any]], **more: Any) -> ringtape.Trace:
    return ringtape.open(make(folder, syscalls=rows, **more))


def between(rows: list[dict[str, Any]], key: str) -> dict[int, list[int]]:
    times: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        times[row[key]].append(row["ts"])
    return {group: [late - early for early, late in zip(sorted(ts), sorted(ts)[1:], strict=False)] for group, ts in times.items()}


def nth(values: list[int], q: Any) -> int:
    return sorted(values)[max(math.ceil(q * len(values)), 1) - 1]


@settings(max_examples=40, deadline=None)
@given(calls, st.integers(1, 3))
def test_without_losses_all_is_as_in_plain_python_in_one_part_or_several(rows: list[dict[str, Any]], parts: int) -> None:
    rows = [{**row, "lost": False} for row in rows]
    truth = {("read", "write")[group]: gaps for group, gaps in between(rows, "nr").items() if gaps}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrivals, "BATCH", 7)
        result = inter_arrival(opened(Path(folder) / "t", rows, parts=parts))
    assert set(result["syscall"]) == set(truth)
    for found in result.iter_rows(named=True):
        gaps = truth[found["syscall"]]
        assert found["gaps"] == len(gaps)
        for name, q in QUANTILES.items():
            assert found[name] == nth(gaps, q)
        mean = sum(gaps) / len(gaps)
        assert found["mean"] == pytest.approx(mean)
        if mean:
            spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
            assert found["rate"] == pytest.approx(1e9 / mean)
            assert found["cv"] == pytest.approx(spread / mean, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(calls)
@example(HARD)
def test_under_losses_the_interval_holds_the_truth(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trace = opened(Path(folder) / "t", rows)
        for by, key in (("syscall", "nr"), ("process", "pid")):
            truth = between(rows, key)
            for found in inter_arrival(trace, by=by).iter_rows(named=True):  # type: ignore[arg-type]
                gaps = truth[{"read": READ, "write": WRITE}.get(found[by], found[by])]
                for name, q in QUANTILES.items():
                    assert found[f"{name}_low"] is None or found[f"{name}_low"] <= nth(gaps, q) <= found[f"{name}_high"], (by, name)
                assert found["cv"] is None or not found["lost"]
                mean = sum(gaps) / len(gaps)
                assert found["mean_low"] <= mean * (1 + 1e-9), by
                assert found["mean_high"] is None or mean <= found["mean_high"] * (1 + 1e-9), by
                assert found["rate_low"] is None or found["rate_low"] * mean <= 1e9 * (1 + 1e-9), by
                assert found["rate_high"] is None or found["rate_high"] * mean * (1 + 1e-9) >= 1e9, by
                assert (found["rate"], found["mean"]) == (None, None) if found["lost"] else found["mean"] == pytest.approx(mean)


def test_burstiness_of_steps_and_of_bursts_by_hand(folder: Path) -> None:
    steps = [{"nr": READ, "pid": 1, "ts": T0 + 100 * at} for at in range(11)]
    bursts = [{"nr": WRITE, "pid": 1, "ts": T0 + 1000 * (at // 5) + at % 5} for at in range(50)]
    found = {row["syscall"]: row for row in inter_arrival(opened(folder, steps + bursts)).iter_rows(named=True)}
    assert (found["read"]["p50"], found["read"]["cv"], found["read"]["burstiness"]) == (100, 0.0, -1.0)
    gaps = [1] * 40 + [996] * 9
    mean = sum(gaps) / 49
    r = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / 49) / mean
    expected = (math.sqrt(50) * r - math.sqrt(48)) / ((math.sqrt(50) - 2) * r + math.sqrt(48))
    assert found["write"]["burstiness"] == pytest.approx(expected)
    assert found["write"]["burstiness"] > 0.3


def test_calls_without_a_known_beginning_do_not_count(folder: Path) -> None:
    rows = [{"nr": READ, "pid": 1, "ts": T0 + at, "kind": kind} for at, kind in ((0, 2), (10, 0), (30, 1), (35, 4), (60, 3))]
    found = inter_arrival(opened(folder, rows)).row(0, named=True)
    assert (found["gaps"], found["p50"], found["max"]) == (2, 20, 30)


def test_one_call_none_and_ten_thousand_threads(folder: Path, tmp_path: Path) -> None:
    assert len(inter_arrival(opened(folder, [{"nr": READ, "pid": 1}]))) == 0
    empty = opened(tmp_path / "empty", [])
    assert len(inter_arrival(empty)) == 0
    assert [picture.name for picture in pictures(empty)] == ["inter-arrival"]
    many = opened(tmp_path / "many", [{"nr": READ, "pid": 1, "tid": 10 + at % 10_000, "ts": T0 + at} for at in range(20_000)])
    result = inter_arrival(many, by="thread")
    assert (len(result), result["p50"].unique().to_list()) == (10_000, [10_000])


def test_lost_calls_count_in_the_rate_by_hand(folder: Path) -> None:
    """101 calls in steps of 10 us, of which every other was lost: the recorded ones alone come half as often as the calls did."""
    rows = [{"nr": READ, "pid": 1, "ts": T0 + 10_000 * at, "dur": 5, "lost": at % 2 == 1} for at in range(101)]
    (found,) = inter_arrival(opened(folder, rows)).iter_rows(named=True)
    assert (found["gaps"], found["lost"], found["rate"], found["mean"]) == (50, 50, None, None)
    assert found["rate_high"] == pytest.approx(100_000)
    assert found["mean_low"] == pytest.approx(10_000)
    assert found["rate_low"] <= 100_000 < found["rate_high"] * 1.001
