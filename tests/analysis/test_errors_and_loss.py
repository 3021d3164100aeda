"""Failed calls, lost records and the recorder's own cost."""

from __future__ import annotations

from pathlib import Path

import pytest

import ringtape
from ringtape.analysis.analyses.errors import errors
from ringtape.analysis.analyses.loss import loss
from ringtape.analysis.analyses.overhead_self import overhead_self
from ringtape.schemas.errors import UsageError
from tests.factory import T0, make


def test_errors_count_share_and_first_example(folder: Path) -> None:
    calls = [
        {"ts": T0 + 30, "nr": 2, "pid": 4, "ret": -2},
        {"ts": T0 + 20, "nr": 2, "pid": 5, "ret": -2},
        {"ts": T0 + 10, "nr": 2, "pid": 5, "ret": 3},
        {"ts": T0 + 40, "nr": 2, "pid": 5, "ret": -13},
        {"ts": T0 + 50, "nr": 0, "pid": 5, "ret": -4096},
        {"ts": T0 + 60, "nr": 56, "pid": 6, "kind": 4},
    ]
    paths = [{"ts": T0 + 20, "pid": 5, "nr": 2, "value": b"/tmp/\x1b]0;x\x07\xff"}, {"ts": T0 + 30, "pid": 4, "nr": 2, "value": b"/later"}]
    events = [{"ts": T0, "pid": 5, "kind": 1, "comm": b"five"}]
    result = errors(ringtape.open(make(folder, syscalls=calls, paths=paths, processes=events)))
    columns = ("syscall", "errno", "count", "share", "first", "process", "command", "example")
    assert result.select(columns).rows() == [
        ("open", "ENOENT", 2, 0.5, T0 + 20, 5, "five", "/tmp/\\x1b]0;x\\x07\\xff"),
        ("open", "EACCES", 1, 0.25, T0 + 40, 5, "five", None),
    ]


FAILING = [
    {"ts": T0 + 100, "nr": 2, "pid": 4, "ret": -2},
    {"ts": T0 + 200, "nr": 2, "pid": 5, "tid": 6, "ret": -2},
    {"ts": T0 + 300, "nr": 0, "pid": 5, "ret": -11},
    {"ts": T0 + 400, "nr": 0, "pid": 5, "ret": 7},
    {"ts": T0 + 500, "nr": 2, "pid": 5, "ret": -13},
]


def test_errors_tell_the_last_example_and_the_rate(folder: Path) -> None:
    paths = [{"ts": T0 + 200, "pid": 5, "tid": 6, "nr": 2, "value": b"/last"}]
    events = [{"ts": T0, "pid": 5, "tid": 6, "kind": 1, "comm": b"six"}]
    trace = ringtape.open(make(folder, syscalls=FAILING, paths=paths, processes=events, footer={"detached_at": T0 + 500_000_000}))
    columns = ("syscall", "errno", "count", "per_second", "first", "process", "last", "last_process", "last_command", "last_example")
    assert errors(trace).select(columns).rows()[0] == ("open", "ENOENT", 2, 4.0, T0 + 100, 4, T0 + 200, 5, "six", "/last")


def test_errors_by_process_thread_command_errno_and_time(folder: Path) -> None:
    events = [{"ts": T0, "pid": pid, "kind": 1, "comm": b"p%d" % pid} for pid in (4, 5, 6)]
    trace = ringtape.open(make(folder, syscalls=FAILING, processes=events, footer={"detached_at": T0 + 600}))
    assert errors(trace, by="process").select("by_process", "count", "share").rows() == [(5, 3, 0.75), (4, 1, 1.0)]
    assert errors(trace, by="thread").select("by_thread", "count", "share").rows() == [(5, 2, 2 / 3), (4, 1, 1.0), (6, 1, 1.0)]
    assert sorted(errors(trace, by="command").select("by_command", "count").rows()) == [("p4", 1), ("p5", 2), ("p6", 1)]
    assert errors(trace, by="errno").select("errno", "count", "share").rows() == [("ENOENT", 2, 0.4), ("EACCES", 1, 0.2), ("EAGAIN", 1, 0.2)]
    assert errors(trace, by="errno,process").columns[:3] == ["errno", "by_process", "count"]
    found = errors(trace, by="syscall", window="400ns").select("window", "syscall", "count", "share", "per_second")
    assert found.rows() == [
        (T0, "open", 2, 1.0, 2e9 / 400),
        (T0, "read", 1, 1.0, 1e9 / 400),
        (T0 + 400, "open", 1, 1.0, 1e9 / 200),
    ]


@pytest.mark.parametrize("rows", [[], [{"nr": 0, "pid": 1}]])
def test_no_error_is_an_empty_result_with_every_column(folder: Path, rows: list[dict[str, int]]) -> None:
    trace = ringtape.open(make(folder, syscalls=rows))
    assert errors(trace).is_empty()
    assert errors(trace, by="errno", window="1s").columns[:3] == ["window", "errno", "count"]


@pytest.mark.parametrize("by", ["syscall,syscall", "errno,x", ()])
def test_what_errors_cannot_be_told_apart_by_is_said(folder: Path, by: str) -> None:
    with pytest.raises(UsageError):
        errors(ringtape.open(make(folder)), by=by)  # type: ignore[arg-type]


def test_loss_by_cpu_accounts_for_every_attempt(folder: Path) -> None:
    calls = [{"ts": T0 + at, "pid": 1, "cpu": at % 2, "dur": 100, "lost": at in (2, 4, 5)} for at in range(8)]
    result = loss(ringtape.open(make(folder, syscalls=calls)))
    columns = ("table", "cpu", "attempted", "recorded", "lost", "share", "unaccounted", "time", "since", "until")
    assert result.select(columns).rows() == [
        ("syscalls", 0, 4, 2, 2, 0.5, 0, 200, T0 + 102, T0 + 104),
        ("syscalls", 1, 4, 3, 1, 0.25, 0, 100, T0 + 105, T0 + 105),
    ]


def test_loss_by_system_call_names_what_was_lost(folder: Path) -> None:
    calls = [{"nr": 0, "pid": 1, "dur": 4}, {"nr": 0, "pid": 1, "dur": 9, "lost": True}, {"nr": 1, "pid": 1, "dur": 1}]
    result = loss(ringtape.open(make(folder, syscalls=calls)), by="syscall")
    assert result.select("syscall", "recorded", "lost", "time").rows() == [("read", 1, 1, 9)]


def test_records_that_are_missing_without_a_reason_are_unaccounted(folder: Path) -> None:
    path = make(folder, syscalls=[{"pid": 1}], footer={"attempted": {"syscalls": {"0": 9}}})
    assert loss(ringtape.open(path)).select("attempted", "recorded", "lost", "unaccounted").rows() == [(9, 1, 0, 8)]


def test_without_a_footer_the_number_attempted_is_unknown(folder: Path) -> None:
    path = make(folder, syscalls=[{"pid": 1}, {"pid": 1, "lost": True}], end=None)
    assert loss(ringtape.open(path)).select("attempted", "recorded", "lost").rows() == [(None, 1, 1)]


def test_the_recorders_cost_is_told_from_the_footer_and_its_table(folder: Path) -> None:
    rows = [
        {"ts": T0 + 10**9, "interval": 10**9, "utime": 10**8, "stime": 10**8, "rss": 50, "ring_resident": 7, "ring_peak": 125, "written": 5},
        {"ts": T0 + 2 * 10**9, "interval": 10**9, "utime": 3 * 10**8, "stime": 0, "rss": 40, "ring_resident": 7, "ring_peak": 20, "written": 6},
    ]
    cost = {"user_seconds": 0.5, "system_seconds": 0.25, "elapsed_seconds": 3.0, "max_rss": 90.0}
    path = make(folder, recorder=rows, syscalls=[{"pid": 1}] * 4, footer={"cost": cost})
    found = overhead_self(ringtape.open(path)).row(0, named=True)
    assert (found["elapsed"], found["user"], found["share_cpu"], found["busiest"]) == (2 * 10**9, 4 * 10**8, 0.25, 0.3)
    assert (found["memory"], found["ring_peak"], found["written"], found["rows"]) == (90, 0.125, 11, 6)
    assert found["rows_per_cpu_second"] == pytest.approx(12)
    assert found["startup"] == 25 * 10**7


def test_windows_of_a_recording_that_begins_and_ends_at_0(folder: Path) -> None:
    trace = ringtape.open(make(folder, syscalls=[], header={"attached_at": 0}, footer={"detached_at": 0}))
    assert errors(trace, window="1s").is_empty()
