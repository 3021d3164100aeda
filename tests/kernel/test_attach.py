"""Recordings of what already runs: exactly the threads asked for, from the middle of their calls to the middle of their calls."""

import os
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from ringtape.recorder.options import cgroup_root
from tests.kernel.diary import AT_ATTACH, CHILD, UNFINISHED, Diary, as_recorded, as_written
from tests.kernel.recording import RINGTAPE, in_call, ringtape, wait_for

READ, WRITE, PAUSE, GETPPID, EXIT_GROUP = 0, 1, 34, 110, 231
COUNT = 50
PF_KTHREAD = 0x200000


class Running:
    """A program that runs before it is recorded and takes orders (programs/attached.c)."""

    def __init__(self, program, diary, name="attached", prefix=()):
        self.diary = diary
        self.process = subprocess.Popen([*prefix, program, name], stdin=subprocess.PIPE, env={**os.environ, **diary.env})
        self.waiter = wait_for(lambda: [tid for tid in diary.threads if tid not in (0, self.process.pid)], "its second thread begins")[0]
        wait_for(lambda: in_call(self.pid, self.waiter, READ), "its second thread waits")
        self.settle()

    @property
    def pid(self):
        return self.process.pid

    def settle(self):
        wait_for(lambda: in_call(self.pid, self.pid, READ), "it waits for an order")

    def order(self, letters):
        for letter in letters:
            before = len(self.diary.entries)
            self.process.stdin.write(letter.encode())
            self.process.stdin.flush()
            wait_for(lambda before=before: len(self.diary.entries) > before, "the order is taken")
            self.settle()

    def quit(self):
        self.process.stdin.write(b"q")
        self.process.stdin.flush()
        return self.process.wait(timeout=60)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        with self.process:
            pass

    def written(self, tid, since):
        """Entries of calls begun after a time, the one running then included."""
        return [entry for entry in self.diary.threads[tid] if entry.before >= since or entry.after == 0 or entry.after >= since or entry.after == -1]


@pytest.fixture
def run(programs, open_folder):
    made = []

    def one(name="attached", prefix=()):
        made.append(Running(programs("attached"), Diary(open_folder / f"diary-{uuid.uuid4().hex}"), name, prefix))
        return made[-1]

    yield one
    for running in made:
        running.end()


def check_from_middle_to_middle(trace, running):
    """All threads of the process, from a call that ran at the start to a call that ran at the end."""
    attached = trace.folder.header.attached_at
    for tid in running.diary.threads:
        entries = running.written(tid, attached)
        calls = [call for call in trace.calls if call.tid == tid]
        if not entries:
            continue
        expected = [list(as_written(entry)) for entry in entries]
        if tid in (running.pid, running.waiter):
            expected[0][2] = AT_ATTACH
            assert calls[0].ts <= attached
            assert calls[0].ts > entries[0].before
        if entries[-1].after in (0, -1) and entries[-1].nr in (READ, PAUSE):
            expected[-1][2:4] = [UNFINISHED, 0]
        assert [list(as_recorded(call)) for call in calls] == expected
    assert {call.tid for call in trace.calls} <= set(running.diary.threads)


def test_a_process_is_recorded_from_the_middle_of_its_calls_to_the_middle_of_its_calls(start, run):
    running, other = run(), run()
    recorder = start("--pid", str(running.pid)).wait_until_recording()
    running.order("cwtfc")
    wait_for(lambda: in_call(running.pid, running.waiter, PAUSE), "the second thread waits for ever")
    other.order("c")
    done = recorder.stop(signal.SIGINT)
    assert done.status == 0, done.stderr
    trace = done.trace.check()
    check_from_middle_to_middle(trace, running)
    kinds = {call.kind for call in trace.calls}
    assert {AT_ATTACH, UNFINISHED, CHILD} <= kinds
    (waited,) = [call for call in trace.threads[running.waiter] if call.kind == AT_ATTACH]
    assert (waited.nr, waited.ret, waited.args[2]) == (READ, 1, 1)
    unfinished = [call for call in trace.calls if call.kind == UNFINISHED]
    assert sorted((call.tid, call.nr) for call in unfinished) == sorted([(running.pid, READ), (running.waiter, PAUSE)])
    assert all(trace.footer.detached_at - 2_000_000_000 < call.ts + call.dur for call in unfinished)
    assert running.quit() == 9


def test_a_thread_that_sleeps_through_the_whole_recording_is_still_told_of(start, run):
    running = run()
    recorder = start("--pid", str(running.pid)).wait_until_recording()
    running.order("c")
    trace = recorder.stop().trace.check()
    (call,) = trace.threads[running.waiter]
    assert call.nr == READ
    assert call.kind in (AT_ATTACH, UNFINISHED)
    assert call.ts <= trace.folder.header.attached_at


def test_the_recording_ends_when_the_last_of_the_named_processes_ends(start, run):
    first, second = run(), run()
    recorder = start("--pid", f"{first.pid},{second.waiter}").wait_until_recording()  # a thread stands for its process
    first.order("c")
    assert first.quit() == 9
    second.order("c")
    assert second.quit() == 9
    done = recorder.wait()
    assert done.status == 0
    trace = done.trace.check()
    for one in (first, second):
        assert sum(call.nr == GETPPID for call in trace.threads[one.pid]) == COUNT
        assert trace.threads[one.pid][-1].nr == EXIT_GROUP
    exits = {row["tid"] for row in trace.rows("processes") if row["kind"] == 3}
    assert exits == {first.pid, first.waiter, second.pid, second.waiter}


def test_by_command_name_while_a_thread_has_it(start, run):
    running, other = run("wanted-name"), run("other-name")
    recorder = start("--comm", "wanted-name").wait_until_recording()
    running.order("cf")
    other.order("c")
    running.order("rc")
    trace = recorder.stop().trace.check()
    assert {call.pid for call in trace.calls} <= {entry.pid for entry in running.diary.entries}
    assert sum(call.nr == GETPPID and call.tid == running.pid for call in trace.calls) == COUNT
    assert sum(call.nr == GETPPID for call in trace.calls) == 2 * COUNT


def test_by_user(start, run):
    running = run(prefix=("setpriv", "--reuid=23456", "--regid=23456", "--clear-groups"))
    other = run()
    recorder = start("--uid", "23456").wait_until_recording()
    running.order("cf")
    other.order("c")
    trace = recorder.stop().trace.check()
    check_from_middle_to_middle(trace, running)
    assert {row["uid"] for row in trace.rows("processes")} == {23456}


def test_by_cgroup_and_those_below_it(start, run):
    root = cgroup_root()
    if root is None:
        pytest.skip("no cgroup version 2 hierarchy is mounted")
    above = root / f"ringtape-{uuid.uuid4().hex}"
    below = above / "below"
    below.mkdir(parents=True)
    inside, deeper, other = run(), run(), run()
    try:
        (above / "cgroup.procs").write_text(str(inside.pid))
        (below / "cgroup.procs").write_text(str(deeper.pid))
        recorder = start("--cgroup", above).wait_until_recording()
        inside.order("cf")
        deeper.order("cf")
        other.order("c")
        trace = recorder.stop().trace.check()
        assert {call.pid for call in trace.calls} <= {entry.pid for one in (inside, deeper) for entry in one.diary.entries}
        assert sum(call.nr == GETPPID for call in trace.calls) == 4 * COUNT
        ids = {row["cgroup"] for row in trace.rows("processes")}
        assert ids == {above.stat().st_ino, below.stat().st_ino}
    finally:
        for one in (inside, deeper):
            one.end()
        wait_for(lambda: not (below / "cgroup.procs").read_text() and not (above / "cgroup.procs").read_text(), "the cgroups are empty")
        below.rmdir()
        above.rmdir()


def test_everything_but_the_recorder_itself(start, run):
    running = run()
    recorder = start("--all", "--ring-size", "64M").wait_until_recording()
    running.order("cf")
    done = recorder.stop()
    assert done.status == 0
    trace = done.trace
    trace.check_books()
    assert recorder.pid not in {call.pid for call in trace.calls}
    if not trace.footer.lost["syscalls"]:
        check = [call for call in trace.calls if call.tid == running.pid]
        assert sum(call.nr == GETPPID for call in check) == COUNT
        assert os.getpid() in {call.pid for call in trace.calls}


def test_threads_of_the_kernel_are_in_no_call(start, run):
    running = run()
    recorder = start("--all", "--ring-size", "64M").wait_until_recording()
    threads = {int(path.name) for path in Path("/proc").glob("[0-9]*") if is_kernel_thread(path)}
    assert 2 in threads, "kthreadd"
    trace = recorder.stop().trace
    inside = {call.tid for call in trace.calls if call.kind == UNFINISHED}
    assert running.pid in inside
    assert not inside & threads


def is_kernel_thread(path):
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[6]) & PF_KTHREAD
    except OSError:
        return False


def test_duration_ends_the_recording(start, run):
    running = run()
    recorder = start("--pid", str(running.pid), "--duration", "300ms").wait_until_recording()
    running.order("c")
    done = recorder.wait()
    assert done.status == 0
    trace = done.trace.check()
    took = trace.footer.detached_at - trace.folder.header.attached_at
    assert took >= 300_000_000
    assert running.process.poll() is None


def test_two_recorders_of_one_process_both_have_everything(start, run):
    running = run()
    recorders = [start("--pid", str(running.pid)) for _ in range(2)]
    for recorder in recorders:
        recorder.wait_until_recording()
    running.order("ctf")
    first, second = (recorder.stop().trace.check() for recorder in recorders)
    check_from_middle_to_middle(first, running)
    check_from_middle_to_middle(second, running)


def test_a_recorder_can_be_recorded(record, tmp_path):
    done = record("--", *RINGTAPE, "record", "-o", tmp_path / "inner.trace", "--ring-size", "1M", "--", "sh", "-c", "exit 8")
    assert done.status == 8
    done.trace.check()
    shown = ringtape("info", tmp_path / "inner.trace")
    assert shown.status == 0


def test_only_the_named_calls(record, programs, diary):
    trace = record("--syscall", "close,getppid", "--syscall", "openat", "--", programs("calls"), "plain", env=diary.env).trace.check()
    wanted = {3, GETPPID, 257}
    since = diary.entries[0].before
    assert [as_recorded(call) for call in trace.calls if call.ts >= since] == [as_written(entry) for entry in diary.entries if entry.nr in wanted]
    assert {call.nr for call in trace.calls} == wanted
    assert {row["nr"] for row in trace.rows("paths")} == {257}


def test_only_calls_that_took_long_enough(record, programs, diary):
    trace = record("--min-duration", "50ms", "--", programs("interrupted"), "sleeps", env=diary.env).trace.check()
    assert all(call.dur >= 50_000_000 for call in trace.calls)
    slept = [entry for entry in diary.entries if entry.nr in (35, 230, 202, 271)]
    starts = [call.ts for call in trace.calls]
    found = [any(entry.before <= ts <= entry.after for ts in starts) for entry in slept]
    assert len(slept) == 20  # four ways to sleep for each of five times, of which 60 ms and 200 ms are long enough
    assert all(found[12:])
    assert not any(seen for seen, entry in zip(found, slept, strict=True) if entry.after - entry.before < 50_000_000)
    whole = record("--", programs("interrupted"), "sleeps", env=Diary(diary.path).env).trace
    assert trace.footer.filtered + len(trace.calls) == len(whole.calls)


def test_tables_are_recorded_as_chosen(record):
    only = record("--tables", "processes", "--", "sh", "-c", "/bin/true; exit 2")
    assert only.status == 2
    trace = only.trace.check()
    assert set(trace.folder.tables) == {"descriptors", "processes", "losses", "recorder"}
    assert trace.rows("processes")
    needing = record("--tables", "paths", "--", "true").trace.check()
    assert set(needing.folder.tables) == {"descriptors", "paths", "syscalls", "losses", "recorder"}
    assert needing.calls
    assert set(record("--tables", "all", "--", "true").trace.check().folder.tables) >= {"paths", "syscalls", "processes"}
