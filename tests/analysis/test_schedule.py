"""Where threads were, worked out by hand: stays, segments, the time ledger, and what the analyses make of them."""

from fractions import Fraction
from pathlib import Path

import polars as pl
import pytest

import ringtape
from ringtape.analysis.analyses.cpu import cpu
from ringtape.analysis.analyses.ledger import ledger
from ringtape.analysis.analyses.offcpu import offcpu
from ringtape.analysis.analyses.runq_latency import runq_latency
from ringtape.analysis.analyses.timeline import timeline
from ringtape.analysis.analyses.wakeups import wakeups
from ringtape.analysis.analyses.where import where
from ringtape.analysis.order_statistics import FOREVER, bounded_quantiles
from ringtape.analysis.schedule import cut, lives, segments, stays
from ringtape.analysis.time_ledger import TimeLedger
from ringtape.analysis.timeline import over_time
from ringtape.schemas.errors import RingtapeError
from tests.factory import T0, make

READ, NANOSLEEP, EXIT, FUTEX = 0, 35, 231, 202
SLEEP, DISK, DEAD = 1, 2, 128


def stay(tid, number, at, length, wait=0, state=0, **more):
    return {"ts": T0 + at, "dur": length, "wait": wait, "slice": number, "state": state, "pid": 10, "tid": tid, "run": length, **more}


def call(tid, nr, at, length, **more):
    return {"ts": T0 + at, "dur": length, "nr": nr, "abi": 1, "pid": 10, "tid": tid, **more}


def born(tid, at, kind=1):
    return {"ts": T0 + at, "kind": kind, "pid": 10, "tid": tid, "comm": b"prog"}


@pytest.fixture
def trace(tmp_path):
    """Two threads of a process, the second made at 100: see the comments, which are worked out by hand."""
    first = [
        stay(10, 0, 0, 50, 0, SLEEP),  # 0-50 on, then asleep until 80
        stay(10, 1, 90, 60, 10, 0),  # woken at 80, on 90-150, pushed off
        stay(10, 2, 170, 30, 20, DISK, cpu=1, migrations=1),  # waits 150-170, on 170-200, blocked until 300
        stay(10, 3, 300, 100, 0, DEAD, cpu=1, waker=11, waker_pid=10),  # on 300-400
    ]
    second = [stay(11, 0, 120, 180, 20, DEAD, cpu=1, waker=10, waker_pid=10)]  # runnable at 100, on 120-300
    calls = [
        call(10, NANOSLEEP, 40, 55),  # 40-95: on 40-50, asleep 50-80, waits 80-90, on 90-95
        call(10, READ, 180, 130),  # 180-310: on 180-200, blocked 200-300, on 300-310
        call(10, EXIT, 390, 5, kind=1),  # no return: to the end at 400
        call(11, FUTEX, 130, 20),
    ]
    return ringtape.open(make(tmp_path / "a.trace", sched=first + second, syscalls=calls, processes=[born(10, 0, 0), born(11, 99)]))


def test_the_life_of_a_thread_is_parted_without_gap_or_overlap(trace):
    rows = stays(trace)
    known = lives(trace, rows)
    assert known.select("tid", pl.col("begin") - T0, pl.col("end") - T0).rows() == [(10, 0, 400), (11, 100, 300)]
    parts = segments(rows, known)
    first = parts.filter(pl.col("thread") == 0).select(pl.col("start") - T0, pl.col("stop") - T0, "kind").rows()
    assert first == [(0, 50, 0), (50, 80, 2), (80, 90, 1), (90, 150, 0), (150, 170, 1), (170, 200, 0), (200, 300, 3), (300, 400, 0)]
    shown = timeline(trace).filter(pl.col("thread") == 11).select(pl.col("start") - T0, "time", "what", "cpu").rows()
    assert shown == [(100, 20, "run queue", None), (120, 180, "on CPU", 1)]


def test_every_nanosecond_is_in_one_place(trace):
    rows = ledger(trace, by="thread").filter(pl.col("thread") == 10).select("where", "syscall", "reason", "time").rows()
    assert set(rows) == {
        ("user", None, None, 40 + 55 + 10 + 80),
        ("syscall", "nanosleep", None, 15),
        ("syscall", "read", None, 30),
        ("syscall", "exit_group", None, 10),
        ("run queue", None, None, 30),
        ("blocked", "nanosleep", "sleep", 30),
        ("blocked", "read", "disk", 100),
    }
    assert sum(row[3] for row in rows) == 400
    whole = ledger(trace)
    assert whole["time"].sum() == 600
    assert whole.filter(pl.col("where") == "user")["threads"].item() == 2


def test_the_ledger_over_time_adds_up_in_every_stretch(trace):
    frame = over_time(trace, 4)
    assert frame.group_by("begin").agg(pl.col("time").sum()).sort("begin")["time"].to_list() == [100, 200, 200, 100]
    disk = frame.filter(pl.col("what") == "blocked: disk").select(pl.col("begin") - T0, "time").rows()
    assert disk == [(200, 100)]


def test_cpu_time_switches_and_migrations(trace):
    found = cpu(trace, by="thread").filter(pl.col("thread") == 10).row(0, named=True)
    assert (found["time"], found["stays"], found["longest"], found["voluntary"], found["involuntary"], found["migrations"]) == (240, 4, 100, 3, 1, 1)
    assert found["share"] == pytest.approx(240 / 400)
    by_cpu = cpu(trace, by="command", cpus=True).select("command", "cpu", "time").rows()
    assert by_cpu == [("prog", 1, 310), ("prog", 0, 110)]


def test_waits_for_a_cpu(trace):
    found = runq_latency(trace).row(0, named=True)
    assert (found["waits"], found["woken"], found["time"]) == (5, 4, 50)
    assert (found["p50"], found["p90"], found["max"]) == (10, 20, 20)
    assert found["share"] == pytest.approx(50 / (50 + 420))


def test_what_blocked_a_thread(trace):
    rows = offcpu(trace).select("state", "syscall", "reason", "count", "time", "max").rows()
    assert rows == [("uninterruptible", "read", "disk", 1, 100, 100), ("interruptible", "nanosleep", "sleep", 1, 30, 30)]


def test_who_woke_whom_and_the_chain_behind_it(trace):
    rows = wakeups(trace, by="thread").select("waker", "woken", "wakeups", "slept", "chain").rows()
    assert ("prog 11", "prog 10", 1, 100, "prog 11") in rows  # 11 was awake since before 10 fell asleep


def test_the_five_things(trace):
    frame = where(trace)
    assert frame["rank"].to_list() == [1, 2, 3, 4, 5, None]
    assert frame["time"].to_list()[:3] == [345, 100, 50]
    assert "computed" in frame["what"][0]
    assert "blocked in read (disk, once)" in frame["what"][1]
    assert frame["time"][5] == 30


def test_lost_stays_leave_a_time_of_which_nothing_is_known(tmp_path):
    rows = [stay(10, 0, 0, 50, 0, SLEEP), stay(10, 3, 500, 100, 20, DEAD)]
    trace = ringtape.open(make(tmp_path / "b.trace", sched=rows, syscalls=[], processes=[born(10, 0, 0)]))
    assert dict(ledger(trace).select("where", "time").iter_rows()) == {"lost": 450, "user": 150}
    found = runq_latency(trace).row(0, named=True)
    assert (found["lost"], found["p50"], found["p50_low"], found["p50_high"]) == (2, None, 0, 20)
    assert found["max_high"] == FOREVER


def test_a_number_that_is_used_again_is_another_thread(tmp_path):
    rows = [stay(10, 0, 0, 50, 0, DEAD), stay(10, 0, 200, 50, 0, SLEEP), stay(10, 1, 400, 10, 0, DEAD)]
    trace = ringtape.open(make(tmp_path / "c.trace", sched=rows, processes=[born(10, 0), born(10, 190)]))
    assert lives(trace, stays(trace)).select(pl.col("begin") - T0, pl.col("end") - T0).rows() == [(0, 50), (200, 410)]


def test_processes_under_one_number_keep_their_own_names(tmp_path):
    rows = [stay(10, 0, 0, 50, 0, DEAD), stay(10, 0, 500, 30, 0, DEAD), stay(11, 0, 510, 5, 0, DEAD)]
    lived = [born(10, 0), born(10, 499) | {"comm": b"other", "start": T0 + 499}, born(11, 505) | {"comm": b"thread", "start": T0 + 499}]
    trace = ringtape.open(make(tmp_path / "r.trace", sched=rows, syscalls=[], processes=lived))
    assert ledger(trace).select("process", "command", "time").rows() == [(10, "prog", 50), (10, "other", 35)]
    assert cpu(trace).select("command", "time").rows() == [("prog", 50), ("other", 35)]


def test_time_on_a_cpu_while_calls_were_lost_there_is_unknown(tmp_path):
    calls = [call(10, READ, 100, 50), call(10, READ, 200, 16, lost=True), call(10, READ, 900, 50)]
    trace = ringtape.open(make(tmp_path / "d.trace", sched=[stay(10, 0, 0, 1000, 0, DEAD)], syscalls=calls, processes=[born(10, 0, 0)]))
    entries = dict(ledger(trace).select("where", "time").iter_rows())
    assert sum(entries.values()) == 1000
    assert entries["syscall"] == 100
    assert entries["unknown"] >= 16
    assert entries["user"] >= 700


def test_intervals_are_cut_at_edges():
    frame = pl.DataFrame({"a": [0, 5, 20], "b": [5, 25, 30], "name": ["x", "y", "z"]})
    rows = cut(frame, "a", "b", [0, 10, 20, 30]).select("name", "a", "b", "bin").rows()
    assert rows == [("x", 0, 5, 0), ("y", 5, 10, 0), ("y", 10, 20, 1), ("y", 20, 25, 2), ("z", 20, 30, 2)]


def test_quantiles_with_missing_values_hold_the_true_one():
    rows = pl.DataFrame({"key": ["a"] * 4, "value": [1, 2, 3, 4], "gone": [0, 0, 2, 0]})
    found = bounded_quantiles(rows, ["key"], "value", {"p50": Fraction(1, 2)}, "gone").row(0, named=True)
    assert (found["p50"], found["p50_low"], found["p50_high"]) == (None, 1, 3)


def test_a_trace_without_a_stay_gives_empty_frames(tmp_path):
    trace = ringtape.open(make(tmp_path / "e.trace", syscalls=[call(10, READ, 0, 5)]))
    for analysis in (cpu, ledger, offcpu, runq_latency, timeline, wakeups, where):
        assert len(analysis(trace)) == 0, analysis
    assert len(TimeLedger(trace).entries) == 0


RECORDINGS = sorted((Path(__file__).parents[2] / "datasets").glob("*.trace"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_ledger_of_every_recording_there_is_adds_up(path):
    trace = ringtape.open(path)
    if "sched" not in trace.tables:
        with pytest.raises(RingtapeError, match="table 'sched' was not recorded"):
            ledger(trace)
        return
    for bins in (1, 50):
        found = TimeLedger(trace, bins)
        sums = dict(found.entries.group_by("thread").agg(pl.col("time").sum()).iter_rows())
        assert sums == {thread: end - begin for thread, begin, end in found.threads.select("thread", "begin", "end").iter_rows() if end > begin}
    whole = int((found.threads["end"] - found.threads["begin"]).sum())
    assert {ledger(trace, by=by)["time"].sum() for by in ("process", "thread", "command")} == {whole}
    # On a CPU by the ledger is on a CPU by the stays.
    on = found.entries.filter(pl.col("where").is_in(["user", "syscall"]))["time"].sum()
    assert on == cpu(trace)["occupied"].sum()
