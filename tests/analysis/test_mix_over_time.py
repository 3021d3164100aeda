"""The mix in windows of time, beside a plain reference."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis.analyses.mix_over_time import mix_over_time, picture, pictures
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.schemas.errors import UsageError
from tests.factory import T0, make

NAMES = {0: "read", 1: "write", 257: "openat", 35: "nanosleep"}
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "ts": st.integers(0, 1000).map(lambda at: T0 + at),
            "nr": st.sampled_from(sorted(NAMES)),
            "pid": st.sampled_from([10, 11]),
            "dur": st.integers(2, 900),
            "ret": st.sampled_from([0, -2]),
            "kind": st.sampled_from([0, 0, 0, 3]),
        }
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(CALLS, st.sampled_from([7, 100, 333, 5000]))
def test_each_window_holds_the_calls_entered_in_it_and_the_time_that_lies_in_it(rows: list[dict[str, Any]], width: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trace = ringtape.open(make(Path(folder) / "t", syscalls=rows, footer={"detached_at": T0 + 100}))
        result = mix_over_time(trace, window=f"{width}ns", top=4)
        whole = {row["syscall"]: row for row in syscall_mix(trace).iter_rows(named=True)}
    for row in result.iter_rows(named=True):
        begin, end = row["begin"], row["end"]
        mine = [call for call in rows if NAMES[call["nr"]] == row["group"]]
        inside = [call for call in mine if begin <= call["ts"] < end or (call["ts"] == end == result["end"].max())]
        assert row["calls"] == row["calls_low"] == row["calls_high"] == len(inside)
        assert row["errors"] == sum(call["ret"] < 0 for call in inside)
        assert row["time"] == sum(max(0, min(end, call["ts"] + call["dur"]) - max(begin, call["ts"])) for call in mine)
    for name, rows_of in result.group_by("group"):
        assert rows_of["calls"].sum() == whole[name[0]]["calls"]
        assert rows_of["time"].sum() == whole[name[0]]["time"]
        assert rows_of["errors"].sum() == whole[name[0]]["errors"]


@settings(max_examples=40, deadline=None)
@given(CALLS, st.lists(st.booleans(), min_size=30, max_size=30), st.sampled_from([50, 400, 3000]))
def test_the_bounds_hold_the_truth_where_calls_were_lost(rows: list[dict[str, Any]], lost: list[bool], width: int) -> None:
    made = [{**row, "kind": 0, "lost": gone} for row, gone in zip(rows, lost, strict=False)]
    with tempfile.TemporaryDirectory() as folder:
        trace = ringtape.open(make(Path(folder) / "t", syscalls=made, footer={"detached_at": T0 + 2000}))
        result = mix_over_time(trace, window=f"{width}ns", top=4)
    for row in result.iter_rows(named=True):
        mine = [call for call in rows if NAMES[call["nr"]] == row["group"]]
        calls = sum(row["begin"] <= call["ts"] < row["end"] for call in mine)
        time = sum(max(0, min(row["end"], call["ts"] + call["dur"]) - max(row["begin"], call["ts"])) for call in mine)
        assert row["calls_low"] <= calls <= row["calls_high"]
        assert row["time_low"] <= time <= row["time_high"]
    if width == 3000:  # one window: nothing is left open
        assert result["calls"].sum() == len(rows)
        assert result["time"].sum() == sum(row["dur"] for row in rows)


def test_small_groups_are_one(folder: Path) -> None:
    rows = [{"ts": T0, "nr": nr, "pid": 1, "dur": 100 - nr} for nr in range(5) for _ in range(nr + 1)]
    trace = ringtape.open(make(folder, syscalls=rows))
    found = mix_over_time(trace, window="1s", top=2)
    rest = 100 + 2 * 99 + 3 * 98
    assert found.select("group", "calls", "time").rows() == [("stat", 5, 480), ("close", 4, 388), ("(others)", 6, rest)]
    by_calls = mix_over_time(trace, window="1s", top=4, order="calls")
    assert by_calls["calls"].to_list() == [5, 4, 3, 2, 1]  # one alone is no rest


def test_by_process_thread_and_command(folder: Path) -> None:
    events = [{"ts": T0, "pid": 5, "kind": 1, "comm": b"five"}, {"ts": T0, "pid": 6, "kind": 1, "comm": b"six"}]
    rows = [{"ts": T0 + at, "nr": 0, "pid": 5 + at % 2, "tid": 50 + at % 2, "dur": 10} for at in range(3)] + [
        {"ts": T0 + 9, "pid": 5, "dur": 4, "lost": True}
    ]
    trace = ringtape.open(make(folder, syscalls=rows, processes=events))
    for by, names in (("process", ["5", "6"]), ("thread", ["50", "51"]), ("command", ["?"])):
        found = mix_over_time(trace, by=by, window="2s")  # type: ignore[arg-type]
        assert found["group"].to_list() == [*names, "(lost)"]
        assert found["time"].sum() == 34


def test_a_narrowed_trace_counts_what_was_entered_and_holds_what_went_on(folder: Path) -> None:
    rows = [{"ts": T0 + 10, "nr": 0, "pid": 1, "dur": 100}, {"ts": T0 + 60, "nr": 0, "pid": 1, "tid": 2, "dur": 100}]
    found = mix_over_time(ringtape.open(make(folder, syscalls=rows)).between("50ns", "90ns"), window="20ns")
    assert found.select("begin", "end", "calls", "time").rows() == [(T0 + 50, T0 + 70, 1, 30), (T0 + 70, T0 + 90, 0, 40)]


def test_an_empty_and_a_one_event_trace(folder: Path, tmp_path: Path) -> None:
    empty = mix_over_time(ringtape.open(make(folder)))
    assert (len(empty), empty.schema["calls"]) == (0, pl.Int64)
    one = mix_over_time(ringtape.open(make(tmp_path / "one", syscalls=[{"nr": 0, "pid": 1, "dur": 0}])))
    assert one["calls"].sum() == 1
    for trace in (folder, tmp_path / "one"):
        assert [each.name for each in pictures(ringtape.open(trace))] == ["mix-over-time", "calls-over-time"]
    assert picture(one).axes


@pytest.mark.parametrize("wrong", [{"by": "syscall,process"}, {"by": "x"}, {"window": "0s"}, {"window": "1ns"}, {"window": "x"}, {"top": 0}])
def test_what_cannot_be_done_is_said(folder: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        mix_over_time(ringtape.open(make(folder, syscalls=[{"pid": 1}])), **wrong)
