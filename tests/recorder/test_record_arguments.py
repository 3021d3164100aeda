"""The command line of `ringtape record`: what it asks of a recording, and one error with a hint for what makes no sense."""

import argparse
import os
from pathlib import Path

import pytest

from ringtape.recorder import session
from ringtape.recorder.commands import record
from ringtape.recorder.session import Outcome
from ringtape.schemas.errors import UsageError


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """Take the recording's place: keep what it was asked, end well."""
    kept = []

    class Stand:
        def __init__(self, options, output, quiet, live):
            kept.append((options, output, quiet))

        def run(self):
            return Outcome(kept[-1][1], "complete", None, 0, 12, 0, 1.5, 2048)

    monkeypatch.setattr(session, "Session", Stand)
    return kept


def run(*arguments):
    parser = argparse.ArgumentParser()
    record.add_arguments(parser)
    return record.run(parser.parse_args(arguments))


def refusal(*arguments):
    with pytest.raises(UsageError) as caught:
        run(*arguments)
    return caught.value


def test_every_flag_reaches_the_recording(asked):
    assert run("-q", "-o", "x.trace", "--syscall", "read,write", "--syscall", "fsync", "--min-duration", "10ms", "--duration", "2s", "--ring-size",
               "paths=1M", "--no-wait", "--no-merge", "--", "tar", "cf", "-") == 0  # fmt: skip
    ((options, output, quiet),) = asked
    assert (output, quiet) == (Path("x.trace"), True)
    assert options.target.command == ("tar", "cf", "-")
    assert options.call_names == ("read", "write", "fsync")
    assert (options.min_duration, options.duration) == (10_000_000, 2_000_000_000)
    assert options.ring_sizes == {"paths": 1 << 20}
    assert not options.wait_for_descendants
    assert not options.merge


def test_what_is_not_asked_is_as_the_help_says(asked):
    run("--all")
    ((options, output, quiet),) = asked
    assert options.target.everything
    assert (options.min_duration, options.duration, options.calls, options.ring_sizes) == (0, None, frozenset(), {})
    assert options.wait_for_descendants
    assert options.merge
    assert not quiet
    assert output.name.startswith("all-")


def test_flags_may_be_repeated_or_given_as_lists(asked):
    run("--pid", f"1,{os.getppid()}", "--pid", "1")
    run("--uid", "0,4", "--uid", "7")
    run("--comm", "a,b", "--comm", "c")
    assert set(asked[0][0].target.pids) == {1, os.getppid()}
    assert asked[1][0].target.uids == (0, 4, 7)
    assert asked[2][0].target.comms == ("a,b", "c")  # a command name may hold a comma


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        ([], "nothing to record was named", "-- COMMAND"),
        (["--all", "--", "true"], "a command and --all were named together", "one of them"),
        (["--pid", "1", "--uid", "0"], "--pid and --uid were named together", "one of them"),
        (["--pid", "init"], "'init' is no process number", "ps -e"),
        (["--pid", "1,"], "'' is no process number", "ps -e"),
        (["--pid", "-5"], "'-5' is no process number", "ps -e"),
        (["--pid", "4194309"], "no process 4194309", "ps -e"),
        (["--comm", ""], "empty command name", "ps -eo comm"),
        (["--uid", "no-such-user"], "no user 'no-such-user'", "number"),
        (["--cgroup", "/proc"], "", ""),
        (["--all", "--tables", "nosuch"], "unknown table 'nosuch'", "paths, processes"),
        (["--all", "--syscall", "opennat"], "opennat", "openat"),
        (["--all", "--tables", "processes", "--syscall", "read"], "--syscall without the table syscalls", "add syscalls"),
        (["--all", "--min-duration", "soon"], "'soon' is not a duration", "10ms"),
        (["--all", "--duration", "1 parsec"], "'1 parsec' is not a duration", "10ms"),
        (["--all", "--ring-size", "huge"], "'huge' is not a size", "64M"),
        (["--all", "--ring-size", "losses=1M"], "'losses', which is not recorded", "paths, processes, syscalls"),
        (["--all", "--ring-size", "1"], "a ring size of 1", "64 GiB"),
    ],
)
def test_what_makes_no_sense_is_one_error_with_a_hint_before_anything_is_touched(asked, arguments, what, hint):
    arguments = [f"{arguments[0]}={arguments[1]}", *arguments[2:]] if arguments[:2] == ["--pid", "-5"] else arguments
    error = refusal(*arguments)
    assert what in error.what
    assert error.hint
    assert hint in error.hint
    assert asked == []


@pytest.mark.parametrize("flag", ["--pid", "--uid"])
def test_digits_that_are_no_decimal_digits_are_refused(flag):
    refusal(flag, "\u00b2")


def test_a_list_of_calls_that_names_none_is_refused_instead_of_recording_all_calls():
    refusal("--all", "--syscall", ",")


def test_the_summary_says_what_was_recorded_and_where(capsys):
    run("--all")
    assert "12 events in 1.5 s, none lost, 2.00 KiB: all-" in capsys.readouterr().err
    run("--all", "-q")
    run("--all", "-o", "x.trace")  # not a terminal, and the user named the trace
    assert capsys.readouterr().err == ""


def test_losses_are_said_even_where_the_summary_is_not_wanted_for_itself(monkeypatch, capsys):
    monkeypatch.setattr(session.Session, "run", lambda self: Outcome(Path("x\x1b.trace"), "interrupted", None, 0, 12, 5, 1.5, 2048))
    run("--all", "-o", "x.trace")
    said = capsys.readouterr().err
    assert "5 LOST" in said
    assert "(interrupted)" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("status", "signal", "command", "result"),
    [(7 << 8, 0, True, 7), (0, 0, True, 0), (None, 2, False, 0), (None, 15, True, 143), (None, 0, False, 0), (3 << 8, 2, True, 3)],
)
def test_the_exit_status_is_the_command_s_or_tells_of_the_signal(monkeypatch, status, signal, command, result):
    monkeypatch.setattr(session.Session, "run", lambda self: Outcome(Path("x"), "complete", status, signal, 0, 0, 0.0, 0))
    assert run("-q", *(["--", "true"] if command else ["--all"])) == result
