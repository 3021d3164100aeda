"""Calls that seccomp answers before they begin are rows of their own kind, whatever the filter does with them."""

import subprocess
from collections import Counter

RETURNED, INTERCEPTED = 0, 5
MKDIR, UMASK, GETPPID, GETPGID, GETSID = 83, 95, 110, 121, 124


def of(trace, nr):
    return [call for call in trace.calls if call.nr == nr]


def test_a_denied_call_is_a_row_with_its_error_its_arguments_and_its_path(record, programs):
    trace = record("--", programs("seccomp"), "errno").trace.check()
    assert Counter((call.kind, call.ret, call.dur, call.args[1]) for call in of(trace, MKDIR)) == {(INTERCEPTED, -13, 0, 7): 100}
    assert Counter((call.kind, call.ret) for call in of(trace, GETPPID)) == {(INTERCEPTED, 0): 50}
    paths = [(row["tid"], row["ts"]) for row in trace.rows("paths") if row["value"] == b"/nowhere/denied"]
    assert paths == [(call.tid, call.ts) for call in of(trace, MKDIR)]
    assert {call.kind for call in trace.calls if call.nr not in (MKDIR, GETPPID, 231)} == {RETURNED}


def test_a_trapped_call_is_a_row(record, programs):
    trace = record("--", programs("seccomp"), "trap").trace.check()
    assert [(call.kind, call.args[0]) for call in of(trace, GETPGID)] == [(INTERCEPTED, 3)] * 20
    assert len(of(trace, 15)) == 20  # rt_sigreturn


def test_the_call_that_seccomp_kills_for_is_a_row(record, programs):
    done = record("--", programs("seccomp"), "kill")
    assert done.status == 128 + 31
    assert [(call.kind, call.args[0]) for call in of(done.trace.check(), UMASK)] == [(INTERCEPTED, 9)]
    trace = record("--", programs("seccomp"), "thread").trace.check()
    (call,) = of(trace, GETSID)
    assert (call.kind, call.args[0]) == (INTERCEPTED, 5)
    assert call.tid != call.pid


def test_the_first_denied_call_of_a_running_program_is_not_taken_for_a_long_one(start, programs, tmp_path):
    with subprocess.Popen([programs("seccomp"), "wait", tmp_path / "file"], stdout=subprocess.PIPE) as program:
        program.stdout.readline()
        trace = start("--pid", str(program.pid)).wait().trace.check()
    assert [(call.kind, call.dur, call.ret) for call in of(trace, MKDIR)] == [(INTERCEPTED, 0, -13)] * 10


def test_denied_calls_are_found_by_every_selection_and_by_none_that_does_not_mean_them(start, programs):
    chosen, other = start("--comm", "seccomp"), start("--comm", "nothing-else")
    chosen.wait_until_recording(), other.wait_until_recording()
    subprocess.run([programs("seccomp"), "errno"], check=True)
    subprocess.run([programs("seccomp"), "errno"], check=True)
    traces = [recorder.stop().trace for recorder in (chosen, other)]
    assert [len(of(trace, MKDIR)) for trace in traces] == [200, 0]
    assert {call.kind for call in of(traces[0], MKDIR)} == {INTERCEPTED}


def test_filters_by_call_and_duration_hold_for_denied_calls(record, programs):
    assert len(of(record("--syscall", "mkdir", "--", programs("seccomp"), "errno").trace.check(), MKDIR)) == 100
    trace = record("--syscall", "getppid", "--", programs("seccomp"), "errno").trace.check()
    assert Counter(call.nr for call in trace.calls) == {GETPPID: 50}
    trace = record("--min-duration", "1us", "--", programs("seccomp"), "errno").trace.check()
    assert not of(trace, MKDIR)
    assert trace.footer.filtered >= 150
