"""Stays on CPUs against what the kernel counts itself, and the time ledger of threads that do known things."""

import contextlib
import os
import subprocess
import sys
from collections import Counter
from typing import NamedTuple

import polars as pl
import pytest

import ringtape
from ringtape.analysis.analyses.cpu import cpu
from ringtape.analysis.analyses.ledger import ledger
from ringtape.analysis.analyses.offcpu import offcpu
from ringtape.analysis.analyses.runq_latency import runq_latency
from ringtape.analysis.analyses.timeline import timeline
from ringtape.analysis.analyses.wakeups import wakeups
from ringtape.analysis.schedule import lives, stays
from ringtape.analysis.time_ledger import TimeLedger
from tests.kernel.recording import ringtape as run_verb
from tests.kernel.recording import wait_for
from tests.kernel.test_killed import recovered

ALL = ("--tables", "sched,syscalls")
MS = 1_000_000


class Account(NamedTuple):
    """What a thread of programs/sched.c read of itself between two instants."""

    tid: int
    begin: int
    end: int
    voluntary: int
    involuntary: int
    run: int
    wait: int


def accounts(said):
    return [Account(*map(int, line.split())) for line in said.decode().splitlines()]


def check_sums(trace):
    """The ledger of every thread adds up to its life, to the nanosecond, and nothing of it is negative."""
    found = TimeLedger(trace)
    times = found.entries.group_by("thread").agg(pl.col("time").sum())
    sums = found.threads.join(times, on="thread", how="left").with_columns(pl.col("time").fill_null(0))
    assert sums.filter(pl.col("time") != pl.col("end") - pl.col("begin")).rows() == []
    assert len(found.entries.filter(pl.col("time") <= 0)) == 0
    whole = int((found.threads["end"] - found.threads["begin"]).sum())
    for by in ("process", "thread", "command"):
        assert ledger(trace, by=by)["time"].sum() == whole
    return ledger(trace, by="thread")


def inside(trace, account):
    """Return the thread's stays that overlap with an account."""
    rows = stays(trace).filter(pl.col("tid") == account.tid)
    return rows.filter(pl.col("end") > account.begin, pl.col("ts") < account.end)


def check_account(trace, account, one_cpu):
    """Switches are equal (one may fall on each edge), times agree within 0.5 % and 1 ms.

    A wait begins at the waking here, and at the enqueueing in the kernel's own sum: a microsecond or two later on the waker's own
    CPU, but after an inter-processor interrupt on another one, which takes a virtual machine as long as its host pleases.
    """
    rows = inside(trace, account)
    left = rows.filter(pl.col("end").is_between(account.begin, account.end))
    runnable = (pl.col("state") == 0) | (pl.col("preempt") == 1)
    assert abs(len(left.filter(~runnable)) - account.voluntary) <= 1
    assert abs(len(left.filter(runnable)) - account.involuntary) <= 1
    assert abs(left["run"].sum() - account.run) <= 0.005 * account.run + MS
    waited = rows.filter(pl.col("ts") >= account.begin)["wait"].sum()
    allowed = 0.005 * account.wait + 2 * MS + 2_000 * (account.voluntary + account.involuntary)
    assert waited >= account.wait - allowed
    if one_cpu:
        assert waited <= account.wait + allowed


@pytest.mark.parametrize("one_cpu", [True, False])
@pytest.mark.parametrize(("what", "amount"), [("spin", 200), ("sleep", 3), ("futex", 2000), ("pipe", 2000), ("child", 30)])
def test_switches_and_times_are_those_that_the_kernel_counts(record, programs, what, amount, one_cpu):
    pinned = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if one_cpu else []
    done = record(*ALL, "--", *pinned, programs("sched"), what, str(amount))
    trace = ringtape.open(done.path)
    done.trace.check()
    told = accounts(done.stdout)
    assert told
    for account in told:
        check_account(trace, account, one_cpu)
    check_sums(trace)


def time_of(entries, **wanted):
    return entries.filter(*(pl.col(name) == value for name, value in wanted.items()))["time"].sum()


def test_a_sleep_a_child_a_futex_and_a_pipe_are_found_where_they_belong(record, programs):
    entries = check_sums(ringtape.open(record(*ALL, "--", programs("sched"), "sleep", "5").path))
    assert time_of(entries, where="blocked", reason="sleep") >= 10 * 5 * MS
    trace = ringtape.open(record(*ALL, "--", programs("sched"), "child", "40").path)
    entries = check_sums(trace)
    assert time_of(entries, where="blocked", reason="child", syscall="wait4") >= 30 * MS
    pairs = wakeups(trace, by="thread").filter(pl.col("slept") >= 30 * MS).sort("slept")
    # The timer wakes the child, the child its parent: the chain behind the parent's sleep ends at the interrupt.
    assert {row[0] == "interrupt" for row in pairs.select("waker").iter_rows()} == {True, False}
    assert pairs.filter(pl.col("waker") != "interrupt")["chain"].str.ends_with("← interrupt").all()
    trace = ringtape.open(record(*ALL, "--", programs("sched"), "futex", "3000").path)
    entries = check_sums(trace)
    assert time_of(entries, where="blocked", reason="lock", syscall="futex") > 0
    blocked = offcpu(trace, by="thread").filter(pl.col("syscall") == "futex")
    woken = wakeups(trace, by="thread").filter(pl.col("waker").str.starts_with("sched"), pl.col("woken").str.starts_with("sched"))
    assert woken["wakeups"].sum() >= blocked["count"].sum() - 2 > 0
    entries = check_sums(ringtape.open(record("--tables", "sched,syscalls,paths", "--", programs("sched"), "pipe", "3000").path))
    assert time_of(entries, where="blocked", reason="pipe", syscall="read") > 0
    assert time_of(entries, where="blocked", reason="other", syscall="read") == 0


LOOPBACK = """
import os, socket
door = socket.create_server(("127.0.0.1", 0))
child = os.fork()
if child:
    mine, _ = door.accept()
else:
    mine = socket.create_connection(door.getsockname())
    mine.send(b"x")
for _ in range(1000):
    mine.recv(1)
    mine.send(b"x")
if child:
    mine.recv(1)
    print(os.getpid(), child)
    os.waitpid(child, 0)
"""


def test_a_message_over_loopback_is_a_wake_up_by_its_sender(record):
    done = record(*ALL, "--", sys.executable, "-c", LOOPBACK)
    pids = set(map(int, done.stdout.split()))
    receiving = pl.col("pid").is_in(pids) & (pl.col("state").shift().over("tid") != 0) & (pl.col("wait") >= 0) & (pl.col("kind") == 0)
    woken = ringtape.open(done.path).sched.sort("ts").filter(receiving & (pl.col("slice") > 0)).collect()
    peers = woken.filter(pl.col("waker").is_in(pids), pl.col("waker") != pl.col("pid"))
    # How often a receiver sleeps is the machine's affair; by whom it is woken is not.
    assert len(peers) > 100
    assert set(peers["context"]) == {0}
    assert len(woken.filter(pl.col("context") == 1)) <= 0.02 * len(woken)


def test_two_hogs_on_one_cpu_wait_for_each_other(record, programs):
    cpu_number = str(max(os.sched_getaffinity(0)))
    script = f'taskset -c {cpu_number} "$1" spin 400 & taskset -c {cpu_number} "$1" spin 400; wait'
    done = record(*ALL, "--", "sh", "-c", script, "sh", programs("sched"))
    trace = ringtape.open(done.path)
    told = accounts(done.stdout)
    assert len(told) == 2
    begin, end = max(one.begin for one in told), min(one.end for one in told)
    rows = stays(trace)
    ons = []
    for one in told:
        mine = rows.filter(pl.col("tid") == one.tid, pl.col("end") > begin, pl.col("ts") < end)
        ons.append(mine.select(pl.min_horizontal("end", end) - pl.max_horizontal("ts", begin)).to_series().sum())
        assert set(mine.filter(pl.col("kind") == 0)["cpu"]) == {int(cpu_number)}
    waits = [rows.filter(pl.col("tid") == one.tid, pl.col("ts").is_between(begin, end))["wait"].sum() for one in told]
    # While one runs the other waits: what each waited is at least what the other ran, but for a stretch cut off at the edges.
    for waited, other in zip(waits, reversed(ons), strict=True):
        assert waited >= other - 20 * MS
    assert abs(ons[0] - ons[1]) <= 0.3 * (end - begin)
    shares = runq_latency(trace, by="thread").filter(pl.col("thread").is_in([one.tid for one in told]))["share"]
    assert shares.min() > 0.3
    check_sums(trace)


def test_a_thousand_threads_and_a_burst_of_processes_are_all_there(record, programs):
    trace = ringtape.open(record(*ALL, "--", programs("sched"), "threads", "1000").path)
    assert len(lives(trace, stays(trace))) == 1001
    check_sums(trace)
    # A kernel may hide switches of some threads, and with them the only coming of a short process: on busy CPUs that is not rare.
    with contextlib.ExitStack() as stack:
        for _ in range(2 * len(os.sched_getaffinity(0))):
            stack.callback(stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"])).kill)
        done = record(*ALL, "--", programs("sched"), "processes", "5000")
    done.trace.check()
    trace = ringtape.open(done.path)
    known = lives(trace, stays(trace))
    assert len(known) == 5001
    check_sums(trace)
    ended = trace.processes.filter(pl.col("kind") == 3).collect()
    assert len(ended) == 5001


def test_a_running_program_is_recorded_from_the_middle_to_the_middle(start, programs, tmp_path):
    with subprocess.Popen([programs("sched"), "futex", "100000000"], stdout=subprocess.DEVNULL) as program:
        with subprocess.Popen(["sleep", "1000"]) as sleeper:
            recorder = start(*ALL, "--pid", f"{program.pid},{sleeper.pid}").wait_until_recording()
            wait_for(lambda: any(line.get("table") == "sched" for line in recorder.manifest()), "stays are sealed")
            done = recorder.stop()
            sleeper.kill()
        program.kill()
    trace = ringtape.open(done.path)
    done.trace.check()
    entries = check_sums(trace)
    begin, end = trace.header.attached_at, trace.footer.detached_at
    # Who slept all the time is there with all of it; the last look at threads is a moment after the probes are detached.
    slept = time_of(entries, process=sleeper.pid)
    assert end - begin <= slept <= end - begin + 2_000 * MS
    assert time_of(entries, process=sleeper.pid, where="blocked", reason="sleep") == slept
    assert entries.filter(pl.col("process") == program.pid)["thread"].n_unique() == 2
    kinds = Counter(trace.sched.collect()["kind"].to_list())
    assert sum(kinds[kind] for kind in (2, 3, 4)) == 3  # each thread once, where it was at the end


def test_everything_of_the_machine_is_recorded_and_each_nanosecond_accounted_for(start, programs):
    recorder = start(*ALL, "--all").wait_until_recording()
    subprocess.run([programs("sched"), "pipe", "500"], check=True, stdout=subprocess.DEVNULL)
    done = recorder.stop()
    done.trace.check()
    trace = ringtape.open(done.path)
    check_sums(trace)
    parts = timeline(trace)
    for _, rows in parts.group_by("process", "thread"):
        ordered = rows.sort("start")
        assert ((ordered["start"] + ordered["time"]).shift(1).drop_nulls() <= ordered["start"].slice(1)).all()
    # One CPU runs one thread at a time.
    for (number,), rows in stays(trace).filter(pl.col("kind") == 0).group_by("cpu"):
        ordered = rows.sort("ts")
        assert (ordered["end"].shift(1).drop_nulls() <= ordered["ts"].slice(1)).all(), number


def test_lost_stays_are_counted_located_and_part_of_the_ledger(record, programs):
    done = record(*ALL, "--ring-size", "sched=8K,syscalls=8K", "--", programs("sched"), "pipe", "20000")
    done.trace.check_books()
    trace = ringtape.open(done.path)
    lost = trace.lost()
    assert lost["sched"] > 0
    entries = check_sums(trace)
    assert time_of(entries, where="lost") > 0
    told = accounts(done.stdout)
    # Counts with what was lost are exact: every voluntary switch of the two is a stay that was recorded or lost.
    found = cpu(trace)
    assert found["stays"].sum() + found["lost"].sum() >= sum(one.voluntary for one in told)
    # Of a lost stay the time between its two switches is known, which differs from what the kernel accounts by less than 1 µs each.
    run = sum(one.run for one in told)
    assert found["time"].sum() >= run - 0.005 * run - 2 * MS - 1000 * lost["sched"]
    quantile = runq_latency(trace)
    assert (quantile["p50_low"] <= quantile["p50_high"]).all()


def test_a_killed_recorder_s_stays_are_recovered(start, programs, tmp_path):
    with subprocess.Popen([programs("sched"), "pipe", "100000000"], stdout=subprocess.DEVNULL, start_new_session=True) as program:
        recorder = start(*ALL, "--pid", str(program.pid)).wait_until_recording()
        wait_for(lambda: any(line.get("table") == "sched" for line in recorder.manifest()), "stays are sealed")
        recorder.process.kill()
        recorder.process.wait()
        os.killpg(program.pid, 9)
    trace = recovered(recorder.path)
    assert trace.table("sched").num_rows > 0
    check_sums(ringtape.open(recorder.path))


def test_the_verbs_say_which_table_is_missing(record):
    path = record("--", "true").path
    for verb in ("cpu", "runq-latency", "offcpu", "ledger", "wakeups", "where", "timeline"):
        done = run_verb(verb, path)
        assert done.status == 1
        assert "--tables sched" in done.stderr
