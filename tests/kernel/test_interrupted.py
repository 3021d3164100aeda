"""Calls that sleep, that signals cut short, and that never return."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.kernel.diary import NO_RETURN, check_same
from tests.kernel.recording import in_call, wait_for

READ, POLL, RT_SIGRETURN, PAUSE, NANOSLEEP, GETPPID, FUTEX, RESTART, CLOCK_NANOSLEEP, EXIT_GROUP, PPOLL = (
    0,
    7,
    15,
    34,
    35,
    110,
    202,
    219,
    230,
    231,
    271,
)
EINTR, ERESTARTSYS, ERESTARTNOHAND, ERESTART_RESTARTBLOCK = 4, 512, 514, 516
EXIT = 3
TIMES = [1000, 50_000, 2_000_000, 60_000_000, 200_000_000]


@pytest.fixture
def begun(start, programs, diary):
    def begin(mode, **options):
        recorder = start("--", programs("interrupted"), mode, env=diary.env, **options)
        first = wait_for(lambda: [one for one in diary.entries if one.tid], "the program begins")[0]
        return recorder, first.pid

    return begin


def after_start(trace, diary):
    return [call for call in trace.calls if call.ts >= diary.entries[0].before and call.nr not in (39, 186)]


def test_calls_that_sleep_take_the_time_asked_for_and_no_more_than_their_caller_saw(record, programs, diary):
    trace = record("--", programs("interrupted"), "sleeps", env=diary.env).trace.check()
    check_same(trace, diary)  # which bounds each from above by the caller's own clock
    for nr in (NANOSLEEP, CLOCK_NANOSLEEP, FUTEX, PPOLL):
        slept = [call.dur for call in trace.calls if call.nr == nr]
        assert len(slept) == len(TIMES)
        assert all(asked <= took < asked + 1_000_000_000 for asked, took in zip(TIMES, slept, strict=True)), (nr, slept)
    assert [call.ret for call in trace.calls if call.nr == FUTEX] == [-110] * len(TIMES)


def test_a_handler_in_the_middle_shows_the_kernels_own_codes_and_the_return_from_the_handler(begun, diary):
    recorder, pid = begun("handled", stdin=subprocess.PIPE)
    for number, nr in enumerate((PAUSE, NANOSLEEP, READ, POLL, READ), 1):
        wait_for(lambda nr=nr: in_call(pid, pid, nr), f"the program sleeps in call {nr}")
        os.kill(pid, signal.SIGUSR1)
        diary.wait_for(GETPPID, number)
    recorder.process.stdin.write(b"x")
    recorder.process.stdin.flush()
    done = recorder.wait()
    assert done.status == 4
    found = [(call.nr, call.ret) for call in after_start(done.trace.check(), diary)]
    handler = (GETPPID, recorder.pid)
    assert [one for one in found if one[0] != 13] == [  # rt_sigaction is the program's own preparation
        (PAUSE, -ERESTARTNOHAND),
        handler,
        (RT_SIGRETURN, -EINTR),
        (NANOSLEEP, -ERESTART_RESTARTBLOCK),
        handler,
        (RT_SIGRETURN, -EINTR),
        (READ, -ERESTARTSYS),
        handler,
        (RT_SIGRETURN, -EINTR),
        (POLL, -ERESTART_RESTARTBLOCK),
        handler,
        (RT_SIGRETURN, -EINTR),
        (READ, -ERESTARTSYS),
        handler,
        (RT_SIGRETURN, READ),  # what it puts back is the number of the call to be made again
        (READ, 1),
        (EXIT_GROUP, 0),
    ]


def test_a_stopped_and_continued_sleep_goes_on_as_restart_syscall(begun, diary):
    recorder, pid = begun("stopped")
    wait_for(lambda: in_call(pid, pid, CLOCK_NANOSLEEP), "the program sleeps")
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the program is stopped")
    os.kill(pid, signal.SIGCONT)
    done = recorder.wait()
    calls = after_start(done.trace.check(), diary)
    assert [(call.nr, call.ret) for call in calls] == [(CLOCK_NANOSLEEP, -ERESTART_RESTARTBLOCK), (RESTART, 0), (EXIT_GROUP, 0)]
    assert calls[1].ts + calls[1].dur - calls[0].ts >= 400_000_000


def test_a_call_in_which_its_process_is_killed_returns_the_kernels_own_code_and_the_process_row_tells_the_signal(begun, diary):
    recorder, pid = begun("killed")
    wait_for(lambda: in_call(pid, pid, PAUSE), "the program sleeps")
    os.kill(pid, signal.SIGKILL)
    done = recorder.wait()
    trace = done.trace.check()
    check_same(trace, diary)
    assert (trace.calls[-1].nr, trace.calls[-1].ret) == (PAUSE, -ERESTARTNOHAND)
    (end,) = [row for row in trace.rows("processes") if row["kind"] == EXIT]
    assert (end["exit_signal"], end["exit_code"]) == (signal.SIGKILL, 0)
    assert trace.footer.exit_status == 128 + signal.SIGKILL
    assert done.status in (-signal.SIGKILL, 128 + signal.SIGKILL)


def test_exit_group_ends_the_calls_of_the_other_threads(record, programs, diary):
    done = record("--", programs("interrupted"), "group", env=diary.env)
    assert done.status == 4
    trace = done.trace.check()
    check_same(trace, diary)
    leave = next(call for call in trace.calls if call.nr == EXIT_GROUP)
    assert leave.kind == NO_RETURN
    ended = [call for call in trace.calls if call.nr in (READ, PAUSE, NANOSLEEP) and call.ts + call.dur > leave.ts]
    assert sorted((call.nr, call.ret) for call in ended) == [(READ, -ERESTARTSYS), (PAUSE, -ERESTARTNOHAND), (NANOSLEEP, -ERESTART_RESTARTBLOCK)]
    exits = [row for row in trace.rows("processes") if row["kind"] == EXIT]
    assert len(exits) == 4
    assert sum(row["group_dead"] for row in exits) == 1
