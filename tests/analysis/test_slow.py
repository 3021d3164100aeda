"""What surrounds slow calls, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ringtape
from ringtape.analysis.surroundings import slowest, surroundings
from ringtape.cli import main
from ringtape.schemas.errors import UsageError
from ringtape.schemas.table import tables
from tests.factory import T0, make

READ, WRITE, FSYNC = 0, 1, 74
MS = 1_000_000


def story(folder: Path) -> Path:
    """One slow fsync from 10 to 20 ms: 1 ms on the CPU, 6 blocked, 1 waiting, 2 on the CPU."""
    calls = [
        {"ts": T0 + 5 * MS, "dur": MS, "nr": READ, "pid": 7, "ret": 3},
        {"ts": T0 + 9 * MS, "dur": MS // 2, "nr": WRITE, "pid": 7, "ret": 4},
        {"ts": T0 + 10 * MS, "dur": 10 * MS, "nr": FSYNC, "pid": 7, "arg0": 4},
        {"ts": T0 + 21 * MS, "dur": MS, "nr": WRITE, "pid": 7, "ret": 5},
        {"ts": T0 + 12 * MS, "dur": MS, "nr": WRITE, "pid": 8, "ret": 6},
    ]
    sched = [
        {"ts": T0, "dur": 11 * MS, "pid": 7, "slice": 1, "state": 2, "cpu": 1},
        {"ts": T0 + 18 * MS, "dur": 12 * MS, "wait": MS, "pid": 7, "slice": 2, "state": 1, "waker": 8, "waker_pid": 8},
        {"ts": T0 + 12 * MS, "dur": MS, "pid": 8, "slice": 1, "state": 1},
    ]
    block = [
        {"ts": T0 + 11 * MS, "dur": 5 * MS, "issue": MS, "service": 4 * MS, "sector": 8, "bytes": 4096, "disk": b"sda", "pid": 9, "operation": 1}
    ]
    events = [{"ts": T0 - 9, "pid": 7, "kind": 0, "comm": b"db"}]
    return make(folder, syscalls=calls, sched=sched, block=block, processes=events, paths=[])


def test_the_time_of_a_call_divides_exactly_and_its_surroundings_have_their_phase(folder: Path) -> None:
    (slow,) = surroundings(ringtape.open(story(folder)), syscall="fsync", around=2 * MS)
    assert (slow.call.dur, slow.call.comm, slow.call.shown) == (10 * MS, "db", "fsync(4)")
    assert slow.spent == {"blocked: disk": 6 * MS, "on CPU": 3 * MS, "waiting for a CPU": MS}
    assert [(phase, one.table, one.ts - T0) for phase, one in slow.around] == [
        ("during", "sched", 0),
        ("before", "syscalls", 9 * MS),
        ("during", "block", 11 * MS),
        ("during", "sched", 17 * MS),
        ("during", "sched", 18 * MS),
        ("after", "syscalls", 21 * MS),
    ]
    texts = [one.text for _, one in slow.around]
    assert texts[2] == "sda WRITE 4.00 KiB at sector 8: queue 1.00 ms, device 4.00 ms, of thread 9"
    assert texts[3] == "can run and waits for a CPU (woken by thread 8 of process 8)"
    assert texts[0] == "runs on CPU 1, then sleeps, cannot be interrupted"


def test_what_exceeds_the_limit_is_counted_and_the_nearest_is_kept(folder: Path) -> None:
    calls = [{"ts": T0 + at, "dur": 5, "nr": READ, "pid": 7} for at in range(0, 1000, 10)]
    calls += [{"ts": T0 + 1000, "dur": 500, "nr": FSYNC, "pid": 7}, {"ts": T0 + 1600, "dur": 5, "nr": READ, "pid": 7}]
    (slow,) = surroundings(ringtape.open(make(folder, syscalls=calls)), top=1, around=300, limit=2)
    assert [(phase, one.ts - T0) for phase, one in slow.around] == [("before", 980), ("before", 990), ("after", 1600)]
    assert slow.left_out == {"syscalls": 28}  # those that ended from 700 on: 700 to 970
    assert slow.spent is None


def test_the_slowest_come_first_and_those_without_a_return_took_at_least_so_long(folder: Path) -> None:
    calls = [
        {"ts": T0 + at, "dur": dur, "nr": READ, "pid": at, "kind": kind}
        for at, dur, kind in ((1, 10, 0), (2, 30, 3), (3, 20, 2), (4, 99, 1), (5, 98, 4))
    ]
    trace = ringtape.open(make(folder, syscalls=calls))
    assert slowest(trace, top=9)["dur"].to_list() == [30, 20, 10]
    assert [slow.call.whole for slow in surroundings(trace)] == [False, False, True]


def test_a_window_chooses_the_calls_and_not_what_surrounds_them(folder: Path) -> None:
    trace = ringtape.open(story(folder)).between("9.9ms", "12.5ms")
    (slow,) = surroundings(trace, syscall="fsync", around=2 * MS)
    assert slow.spent is not None
    assert sum(slow.spent.values()) == 10 * MS
    assert ("before", "syscalls") in [(phase, one.table) for phase, one in slow.around]


def test_an_empty_trace_has_none_and_nonsense_is_refused(folder: Path) -> None:
    trace = ringtape.open(make(folder))
    assert surroundings(trace) == []
    for wrong in ({"top": 0}, {"top": 1001}, {"around": -1}, {"limit": 0}):
        with pytest.raises(UsageError):
            surroundings(trace, **wrong)
    with pytest.raises(UsageError, match="unknown system call"):
        surroundings(trace, syscall="fsnyc")


def test_the_verb_shows_relative_times_and_says_what_was_not_recorded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = story(folder)
    assert main(["slow", str(path), "--syscall", "fsync", "--around", "2ms"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "#1  10.0 ms  fsync(4) = 0"
    assert "blocked: disk 6.00 ms (60.0 %), on CPU 3.00 ms (30.0 %), waiting for a CPU 1.00 ms (10.0 %)" in lines[2]
    assert any(line.split() == ["end", "+1.00", "ms", "1.00", "ms", "syscalls", "write(0,", "NULL,", "0)", "=", "5"] for line in lines)
    bare = make(
        folder.parent / "bare",
        syscalls=[{"ts": T0, "dur": 9, "nr": READ, "pid": 1, "lost": at == 1} for at in (0, 1)],
        header={"tables": {name: tables()[name].version for name in ("syscalls", "losses")}},
    )
    assert main(["slow", str(bare), "--format", "json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (len(found["calls"]), found["not_recorded"][0], found["calls"][0]["spent"]) == (1, "sched", None)
    assert found["lost"] == {"syscalls": 1}
    assert "1 record of syscalls lost" in captured.err
    assert main(["slow", str(bare), "--strict"]) == 1


def test_a_hostile_name_does_not_reach_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = [{"ts": T0, "dur": 9, "nr": FSYNC, "pid": 1}]
    block = [{"ts": T0, "dur": 9, "pid": 1, "disk": b"\x1b[2J", "service": 1}]
    path = make(folder, syscalls=calls, block=block, processes=[{"pid": 1, "comm": b"\x1b]0;x\x07"}])
    assert main(["slow", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
