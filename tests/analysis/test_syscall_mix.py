"""Counts and sums, exact also where records were lost."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.schemas.errors import RingtapeError, UsageError
from tests.factory import HEADER, T0, make

NAMES = {0: "read", 1: "write", 257: "openat"}
rows_of_calls = st.lists(
    st.fixed_dictionaries(
        {
            "nr": st.sampled_from(sorted(NAMES)),
            "pid": st.sampled_from([10, 11, 12]),
            "cpu": st.integers(0, 3),
            "dur": st.integers(2, 10**12),
            "ret": st.sampled_from([0, 5, -2, -11, -4095, -4096]),
            "lost": st.booleans(),
        }
    ),
    max_size=50,
)


@settings(max_examples=60, deadline=None)
@given(rows_of_calls)
def test_counts_and_times_are_exact_with_losses_or_without(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = syscall_mix(ringtape.open(make(Path(folder) / "t", syscalls=rows)))
    found = {row["syscall"]: row for row in result.iter_rows(named=True)}
    assert set(found) == {NAMES[row["nr"]] for row in rows}
    for nr, name in NAMES.items():
        mine = [row for row in rows if row["nr"] == nr]
        if mine:
            assert found[name]["calls"] == len(mine)
            assert found[name]["time"] == sum(row["dur"] for row in mine)
            assert found[name]["lost"] == sum(row["lost"] for row in mine)
            assert found[name]["errors"] == sum(-4095 <= row["ret"] < 0 for row in mine if not row["lost"])
            assert found[name]["share_calls"] == pytest.approx(len(mine) / len(rows))


@settings(max_examples=40, deadline=None)
@given(rows_of_calls)
def test_by_process_lost_calls_stand_alone_and_the_total_stays_exact(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = syscall_mix(ringtape.open(make(Path(folder) / "t", syscalls=rows)), by="process")
    expected = Counter(None if row["lost"] else row["pid"] for row in rows)
    assert dict(result.select("process", "calls").iter_rows()) == dict(expected)
    assert result["time"].sum() == sum(row["dur"] for row in rows)


def test_errors_are_listed_most_frequent_first(folder: Path) -> None:
    rets = [-2, -2, -11, 3, -4000]
    trace = ringtape.open(make(folder, syscalls=[{"nr": 0, "pid": 1, "dur": 1, "ret": ret} for ret in rets]))
    assert syscall_mix(trace)["errnos"].to_list() == ["ENOENT 2, E4000 1, EAGAIN 1"]


def test_the_child_of_a_clone_is_no_call_of_its_own_but_is_shown(folder: Path) -> None:
    rows = [
        {"nr": 56, "pid": 1, "dur": 700, "ret": 2},
        {"nr": 56, "pid": 2, "kind": 4},
        {"nr": 56, "pid": 3, "kind": 4, "lost": True},
    ]
    found = syscall_mix(ringtape.open(make(folder, syscalls=rows))).row(0, named=True)
    assert (found["syscall"], found["calls"], found["time"], found["children"], found["lost"]) == ("clone", 1, 700, 2, 0)


def test_unfinished_calls_count_as_calls_and_their_time_as_time(folder: Path) -> None:
    rows = [{"nr": 0, "pid": 1, "dur": 10, "kind": kind} for kind in (0, 1, 2, 3)]
    found = syscall_mix(ringtape.open(make(folder, syscalls=rows))).row(0, named=True)
    assert (found["calls"], found["time"], found["unfinished"]) == (4, 40, 3)


def test_a_call_of_another_abi_keeps_its_own_name(folder: Path) -> None:
    rows = [{"nr": 3, "abi": 1, "pid": 1, "dur": 2}, {"nr": 3, "abi": 2, "pid": 1, "dur": 1}, {"nr": 9999, "abi": 4, "pid": 1}]
    assert syscall_mix(ringtape.open(make(folder, syscalls=rows)))["syscall"].to_list() == ["close", "read@i386", "syscall_9999@arm64"]


def test_a_command_name_is_the_one_in_force_when_the_call_was_entered(folder: Path) -> None:
    events = [
        {"ts": T0, "pid": 5, "kind": 1, "comm": b"sh"},
        {"ts": T0 + 100, "pid": 5, "kind": 2, "comm": b"ca\x1b[31mt"},
        {"ts": T0 + 300, "pid": 5, "kind": 3, "comm": b"ca\x1b[31mt"},
        {"ts": T0 + 400, "pid": 5, "kind": 1, "comm": b"caf\xc3\xa9\xff", "start": T0 + 400},
    ]
    calls = [{"ts": T0 + at, "nr": 0, "pid": 5, "dur": 10} for at in (-50, 99, 100, 299, 400, 999)] + [{"ts": T0, "nr": 0, "pid": 6, "dur": 1}]
    trace = ringtape.open(make(folder, processes=events, syscalls=calls))
    found = dict(syscall_mix(trace, by="command").select("command", "calls").iter_rows())
    assert found == {"sh": 2, "ca\\x1b[31mt": 2, "café\\xff": 2, "?": 1}
    assert trace.syscalls.sort("ts").select("comm").collect()["comm"].to_list() == ["sh", None, "sh", *["ca\\x1b[31mt"] * 2, *["café\\xff"] * 2]


def test_counts_beyond_32_bits_are_summed_in_64(folder: Path) -> None:
    losses = [
        {"ts": T0 + cpu, "until": T0 + cpu, "count": 3 << 31, "sum": 3 << 40, "nr": 0, "cpu": cpu, "abi": 1, "bucket": 9, "table": "syscalls"}
        for cpu in (0, 1)
    ]
    found = syscall_mix(ringtape.open(make(folder, syscalls=[], losses=losses))).row(0, named=True)
    assert (found["calls"], found["time"]) == (6 << 31, 6 << 40)


def test_a_table_that_was_not_recorded_is_named(folder: Path) -> None:
    trace = ringtape.open(make(folder, header={"tables": {"processes": "1.0"}}))
    with pytest.raises(RingtapeError, match="'syscalls' was not recorded") as caught:
        syscall_mix(trace)
    assert "--tables syscalls" in str(caught.value.hint)
    assert HEADER.tables == {}


def test_a_call_by_a_negative_number_has_a_name(folder: Path) -> None:
    trace = ringtape.open(make(folder, syscalls=[{"pid": 7, "nr": -1, "ret": -38}, {"pid": 7, "nr": -1, "abi": 2, "ret": -38}]))
    assert sorted(syscall_mix(trace)["syscall"]) == ["unknown (-1)", "unknown (-1)@i386"]


@pytest.mark.parametrize(("by", "what"), [("syscall,syscall", "by names 'syscall' twice"), ((), "by names nothing")])
def test_what_cannot_be_grouped_by_is_said(folder: Path, by: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        syscall_mix(ringtape.open(make(folder, syscalls=[])), by=by)  # type: ignore[arg-type]
