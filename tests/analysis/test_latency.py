"""Quantiles against plain Python, with and without losses."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis import quantiles as module
from ringtape.analysis.analyses.latency import QUANTILES, latency
from ringtape.schemas.errors import UsageError
from tests.factory import T0, make

READ, WRITE, EXIT_GROUP, CLONE = 0, 1, 231, 56

durations = st.one_of(
    st.integers(0, 200),
    st.integers(0, 10**6),
    st.integers(0, 40).map(lambda bit: 1 << bit),
    st.integers(1, 40).map(lambda bit: (1 << bit) - 1),
    st.integers(0, 10**14),
)
calls = st.lists(
    st.fixed_dictionaries(
        {
            "nr": st.sampled_from([READ, WRITE]),
            "pid": st.sampled_from([10, 11]),
            "cpu": st.integers(0, 1),
            "dur": durations,
            "lost": st.booleans(),
        }
    ),
    min_size=1,
    max_size=60,
)


def nth(values: list[int], q: Fraction) -> int:
    """The definition, written down again: the ceil(q n)-th smallest, at least the first."""
    return sorted(values)[max(math.ceil(q * len(values)), 1) - 1]


def opened(folder: Path, rows: list[dict[str, Any]], **more: Any) -> ringtape.Trace:
    return ringtape.open(make(folder, syscalls=rows, **more))


@settings(max_examples=60, deadline=None)
@given(calls)
def test_without_losses_every_quantile_is_the_order_statistic(rows: list[dict[str, Any]]) -> None:
    kept = [{**row, "lost": False} for row in rows]
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in kept:
        groups[row["nr"], row["pid"]].append(row["dur"])
    with tempfile.TemporaryDirectory() as folder:
        result = latency(opened(Path(folder) / "t", kept), by=["syscall", "process"])
    assert len(result) == len(groups)
    for found in result.iter_rows(named=True):
        values = groups[{"read": READ, "write": WRITE}[found["syscall"]], found["process"]]
        assert found["calls"] == len(values)
        for name, q in QUANTILES.items():
            assert found[name] == found[f"{name}_low"] == found[f"{name}_high"] == nth(values, q)


@settings(max_examples=150, deadline=None)
@given(calls)
def test_under_losses_the_interval_holds_the_truth_of_every_group(rows: list[dict[str, Any]]) -> None:
    # No duration below 2 ns: the ledger's bucket 0 also stands for records that have none, and no real call is so short.
    rows = [{**row, "dur": max(row["dur"], 2)} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        trace = opened(Path(folder) / "t", rows)
        for by, key in (("syscall", "nr"), ("process", "pid")):
            truth: dict[int, list[int]] = defaultdict(list)
            for row in rows:
                truth[row[key]].append(row["dur"])
            for found in latency(trace, by=by).iter_rows(named=True):  # type: ignore[arg-type]
                values = truth[{"read": READ, "write": WRITE}.get(found[by], found[by])]
                for name, q in QUANTILES.items():
                    assert found[f"{name}_low"] <= nth(values, q) <= found[f"{name}_high"], (by, name)
                    if found[name] is not None:
                        assert found[name] == nth(values, q)


@settings(max_examples=60, deadline=None)
@given(calls, st.sampled_from([0, 2, module.LONG]))
def test_by_system_call_it_is_the_order_statistic_however_many_longer_durations_are_counted_one_by_one(rows: list[dict[str, Any]], most: int) -> None:
    kept = [{**row, "lost": False} for row in rows]
    with tempfile.TemporaryDirectory() as folder, patch.object(module, "LONG", most):
        result = latency(opened(Path(folder) / "t", kept))
    assert result["calls"].sum() == len(kept)
    for found in result.iter_rows(named=True):
        values = [row["dur"] for row in kept if row["nr"] == {"read": READ, "write": WRITE}[found["syscall"]]]
        assert [found[name] for name in QUANTILES] == [nth(values, q) for q in QUANTILES.values()]


@settings(max_examples=60, deadline=None)
@given(calls)
def test_the_interval_by_system_call_is_no_wider_than_the_ledger_leaves_it(rows: list[dict[str, Any]]) -> None:
    rows = [{**row, "dur": max(row["dur"], 2)} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        result = latency(opened(Path(folder) / "t", rows, processes=[]))
    for found in result.iter_rows(named=True):
        mine = [row for row in rows if row["nr"] == {"read": READ, "write": WRITE}[found["syscall"]]]
        edges = {row["dur"].bit_length() - 1 for row in mine if row["lost"]}
        low = [row["dur"] if not row["lost"] else 1 << (row["dur"].bit_length() - 1) for row in mine]
        high = [row["dur"] if not row["lost"] else (1 << row["dur"].bit_length()) - 1 for row in mine]
        for name, q in QUANTILES.items():
            assert (found[f"{name}_low"], found[f"{name}_high"]) == (nth(low, q), nth(high, q)), (name, edges)


def test_quantiles_of_one_to_a_hundred(folder: Path) -> None:
    rows = [{"nr": READ, "pid": 1, "dur": value} for value in range(1000, 101_000, 1000)]
    found = latency(opened(folder, rows)).row(0, named=True)
    assert [found[name] for name in QUANTILES] == [50_000, 90_000, 99_000, 100_000, 100_000]


def test_calls_cut_short_have_no_latency_and_are_counted_as_excluded(folder: Path) -> None:
    rows = [{"nr": READ, "pid": 1, "dur": 10, "kind": 0}, *({"nr": READ, "pid": 1, "dur": 10**9, "kind": kind} for kind in (1, 2, 3, 4))]
    found = latency(opened(folder, rows)).row(0, named=True)
    assert (found["calls"], found["excluded"], found["max"]) == (1, 3, 10)


def test_lost_returns_of_clone_in_the_child_and_lost_exits_are_no_latencies(folder: Path) -> None:
    rows = [
        {"nr": CLONE, "pid": 1, "dur": 500},
        {"nr": CLONE, "pid": 2, "kind": 4, "lost": True},
        {"nr": EXIT_GROUP, "pid": 2, "dur": 300, "kind": 1, "lost": True},
    ]
    result = latency(opened(folder, rows))
    assert result.select("syscall", "lost", "p50", "max").rows() == [("clone", 0, 500, 500)]


def test_a_lost_call_that_may_have_been_cut_short_widens_the_interval(folder: Path) -> None:
    """One thread ended that no recorded call accounts for: the lost call may be the one that it was killed in."""
    rows = [{"nr": READ, "pid": 1, "dur": 100}, {"nr": READ, "pid": 1, "dur": 5000, "lost": True}]
    events = [{"ts": T0 - 9, "pid": 1, "kind": 1}, {"ts": T0 + 9000, "pid": 1, "kind": 3, "exit_signal": 9}]
    found = latency(opened(folder, rows, processes=events)).row(0, named=True)
    assert (found["max"], found["max_low"], found["max_high"]) == (None, 100, 8191)


def test_losses_without_a_duration_leave_the_maximum_open(folder: Path) -> None:
    losses = [{"ts": T0, "until": T0, "count": 3, "nr": READ, "abi": 1, "cause": 1, "table": "syscalls"}]
    found = latency(opened(folder, [{"nr": READ, "pid": 1, "dur": 100}], losses=losses, processes=[])).row(0, named=True)
    assert (found["lost"], found["p50_low"], found["max_low"], found["max_high"]) == (3, 0, 100, (1 << 63) - 1)


def test_an_empty_trace_gives_the_same_columns(folder: Path, tmp_path: Path) -> None:
    full = latency(opened(folder, [{"nr": READ, "pid": 1, "dur": 5}]))
    empty = latency(opened(tmp_path / "empty", []))
    assert empty.schema == full.schema
    assert len(empty) == 0


def test_one_call_by_name_is_all_that_is_left(folder: Path) -> None:
    rows = [{"nr": READ, "pid": 1, "dur": 5}, {"nr": WRITE, "pid": 1, "dur": 6}, {"nr": WRITE, "pid": 1, "dur": 7, "lost": True}]
    trace = opened(folder, rows)
    assert latency(trace, syscall="read")["syscall"].to_list() == ["read"]
    with pytest.raises(UsageError, match="unknown system call 'raed'"):
        latency(trace, syscall="raed")


@pytest.mark.parametrize("by", ["", "cpu", ["syscall", "syscall"], []])
def test_an_unknown_way_to_group_is_refused(folder: Path, by: Any) -> None:
    with pytest.raises(UsageError, match="by"):
        latency(opened(folder, []), by=by)


@given(st.lists(durations, min_size=2, max_size=200))
def test_buckets_never_fall_as_durations_grow_and_are_narrow(values: list[int]) -> None:
    frame = pl.DataFrame({"dur": sorted(values)}, schema={"dur": pl.Int64}).select("dur", module.bucket(pl.col("dur")).alias("bucket"))
    assert frame["bucket"].is_sorted()
    for _, inside in frame.group_by("bucket"):
        low, high = inside["dur"].min(), inside["dur"].max()
        assert high - low <= low / 64  # type: ignore[operator]


def test_the_documented_correction_of_coordinated_omission_gives_the_figures_of_its_example(tmp_path, monkeypatch, capsys):
    """9,000 writes of 10 us, one each ms, and one stall of 1 s, in which 999 more were due; worked out without the library."""
    text = (Path(__file__).parents[2] / "docs" / "latency.md").read_text()
    program = next(block.partition("```")[0] for block in text.split("```python\n")[1:] if "server.trace" in block)
    calls = [{"ts": T0 + 1_000_000 * at, "nr": 1, "pid": 7, "dur": 10_000} for at in range(9000)]
    make(tmp_path / "server.trace", syscalls=[*calls, {"ts": T0 + 9 * 10**9, "nr": 1, "pid": 7, "dur": 10**9}])
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    due = sorted([10_000] * 9000 + [10**9 - 10**6 * at for at in range(1000)])
    assert capsys.readouterr().out.splitlines() == ["made 9001 10000", f"due 10000 {due[9899]}"]
    assert due[9899] == 900_000_000
