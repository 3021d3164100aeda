"""The process tree, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ringtape
from ringtape.analysis.analyses.processes import processes
from tests.factory import T0, make

EXISTING, FORK, EXEC, EXIT = 0, 1, 2, 3


def event(at: int, kind: int, pid: int, ppid: int, **more: Any) -> dict[str, Any]:
    more.setdefault("start", T0 - 10_000 + pid)
    return {"ts": T0 + at, "kind": kind, "pid": pid, "ppid": ppid, "comm": b"p%d" % pid, **more}


def tree(path: Path) -> list[tuple[Any, ...]]:
    return processes(ringtape.open(path)).select("process", "depth").rows()


def test_children_follow_their_parent_in_the_order_of_their_start(folder: Path) -> None:
    rows = [
        event(0, EXEC, 100, 1),
        event(10, FORK, 90, 100),
        event(20, FORK, 103, 100),
        event(15, FORK, 101, 90),
        event(30, FORK, 102, 90),
    ]
    assert tree(make(folder, processes=rows)) == [(100, 0), (90, 1), (101, 2), (102, 2), (103, 1)]


def test_lifetime_exit_and_totals_of_a_process_with_threads(folder: Path) -> None:
    rows = [
        event(0, FORK, 50, 1),
        event(100, EXEC, 50, 1, comm=b"app", argv=b"app\0two words\0\0it's\0\x1b[2J\0"),
        event(200, FORK, 50, 1, tid=51, start=T0),
        event(700, EXIT, 50, 1, tid=51, start=T0, exit_code=3, utime=5, stime=6),
        event(900, EXIT, 50, 1, comm=b"app", exit_code=3, utime=7, stime=8, maxrss=4096, group_dead=1),
    ]
    calls = [
        {"ts": T0 + 1, "pid": 50, "dur": 10, "ret": -2},
        {"ts": T0 + 300, "pid": 50, "tid": 51, "dur": 20},
        {"ts": T0 + 800, "pid": 50, "dur": 30, "kind": 1},
        {"ts": T0 + 50, "pid": 50, "kind": 4},
    ]
    found = processes(ringtape.open(make(folder, processes=rows, syscalls=calls))).row(0, named=True)
    assert {
        name: found[name]
        for name in ("command", "lifetime", "exit", "exit_code", "exit_signal", "threads", "calls", "time", "errors", "cpu", "maxrss")
    } == {
        "command": "app",
        "lifetime": 900,
        "exit": "3",
        "exit_code": 3,
        "exit_signal": 0,
        "threads": 2,
        "calls": 3,
        "time": 60,
        "errors": 1,
        "cpu": 26,
        "maxrss": 4096,
    }
    assert found["argv"] == "app 'two words' '' \"it's\" \\x1b[2J"


def test_a_process_killed_by_a_signal_shows_its_name(folder: Path) -> None:
    rows = [event(0, FORK, 5, 1), event(10, EXIT, 5, 1, exit_signal=9, group_dead=1)]
    found = processes(ringtape.open(make(folder, processes=rows))).row(0, named=True)
    assert (found["exit"], found["exit_code"], found["exit_signal"]) == ("SIGKILL", None, 9)


def test_a_first_thread_that_ends_early_does_not_end_its_process(folder: Path) -> None:
    rows = [event(0, FORK, 5, 1), event(1, FORK, 5, 1, tid=6, start=T0), event(10, EXIT, 5, 1), event(90, EXIT, 5, 1, tid=6, start=T0, group_dead=1)]
    assert processes(ringtape.open(make(folder, processes=rows)))["lifetime"].to_list() == [90]


def test_a_number_that_is_used_again_is_another_process_with_its_own_calls(folder: Path) -> None:
    rows = [
        event(0, FORK, 5, 1, start=T0),
        event(100, EXIT, 5, 1, start=T0, group_dead=1, exit_code=1),
        event(200, FORK, 5, 1, start=T0 + 200),
        event(300, EXIT, 5, 1, start=T0 + 200, group_dead=1, exit_code=2),
    ]
    calls = [{"ts": T0 + at, "pid": 5, "dur": at} for at in (10, 20, 210)]
    found = processes(ringtape.open(make(folder, processes=rows, syscalls=calls)))
    assert found.select("process", "lifetime", "exit", "calls", "time").rows() == [(5, 100, "1", 2, 30), (5, 100, "2", 1, 210)]


def test_a_process_that_ran_before_is_as_old_as_the_kernel_says(folder: Path) -> None:
    rows = [event(5, EXISTING, 5, 1, start=T0 - 1000, seq=-1), event(50, EXIT, 5, 1, start=T0 - 1000, group_dead=1)]
    assert processes(ringtape.open(make(folder, processes=rows)))["lifetime"].to_list() == [1050]


def test_calls_of_a_process_that_no_event_names_are_not_forgotten(folder: Path) -> None:
    found = processes(ringtape.open(make(folder, processes=[event(0, FORK, 5, 1)], syscalls=[{"pid": 8, "dur": 3}, {"pid": 9, "dur": 4}])))
    assert sorted(found.select("process", "calls").rows()) == [(5, 0), (8, 1), (9, 1)]


def test_parents_that_form_a_loop_do_not_hang_or_hide_anyone(folder: Path) -> None:
    rows = [event(0, FORK, 5, 6), event(1, FORK, 6, 5), event(2, FORK, 7, 7)]
    assert sorted(pid for pid, _ in tree(make(folder, processes=rows))) == [5, 6, 7]


def test_ten_thousand_generations_are_a_tree_too(folder: Path) -> None:
    rows = [event(at, FORK, 10 + at, 9 + at) for at in range(10_000)]
    assert tree(make(folder, processes=rows))[-1] == (10_009, 9999)


def test_without_calls_recorded_their_number_is_unknown_and_not_zero(folder: Path) -> None:
    path = make(folder, header={"tables": {"processes": "1.0"}}, processes=[event(0, FORK, 5, 1)])
    assert processes(ringtape.open(path)).select("calls", "time").rows() == [(None, None)]


def test_the_exec_that_a_command_begins_with_is_part_of_its_lifetime(folder: Path) -> None:
    path = make(
        folder,
        processes=[{"ts": T0 + 900, "kind": 2, "pid": 7}, {"ts": T0 + 5000, "kind": 3, "pid": 7, "group_dead": 1}],
        syscalls=[{"ts": T0 + 100, "dur": 1000, "nr": 59, "pid": 7}, {"ts": T0 + 1100, "dur": 3900, "nr": 231, "pid": 7, "kind": 1}],
    )
    ((start, lifetime, time),) = processes(ringtape.open(path)).select("start", "lifetime", "time").rows()
    assert (start, lifetime, time) == (T0 + 100, 4900, 4900)
