"""Record the system calls and processes of a command, or of what already runs, into a trace folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringtape.schemas.table import Table

EPILOG = """\
Examples:
  sudo ringtape record -- tar cf /tmp/x.tar /usr/include
  sudo ringtape record --pid 1234 --duration 10s -o server.trace
  sudo ringtape record --all --syscall fsync,fdatasync --min-duration 1ms
  sudo ringtape record --all --keep 10m --max-size 2GB --when 'fsync > 100ms'
  sudo ringtape record --event 'signal:*,sched:sched_process_exit' -- make

The command runs as the user who called sudo, with his environment, and its exit status is passed on.
Ctrl-C ends the recording; the trace is complete up to then.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    from ringtape.schemas.table import tables

    rings = [one for one in tables().values() if one.origin == "ring"]
    default = ",".join(one.name for one in rings if one.default)
    parser.epilog = EPILOG + _costs(rings)
    parser.usage = "ringtape record [options] -- COMMAND [ARG ...]"
    parser.add_argument("-o", "--output", type=Path, metavar="TRACE", help="trace folder to make (default: a name from command and time, here)")
    what = parser.add_argument_group("what to record (or a command after --)")
    what.add_argument("--pid", action="append", default=[], metavar="PID", help="a running process, its threads, and what they start; several: 1,2")
    what.add_argument("--comm", action="append", default=[], metavar="NAME", help="threads whose command name is NAME, while it is (repeatable)")
    what.add_argument("--uid", action="append", default=[], metavar="USER", help="threads with this effective user, name or number (repeatable)")
    what.add_argument("--cgroup", type=Path, metavar="FOLDER", help="threads in this cgroup (version 2) and those below it")
    what.add_argument("--all", action="store_true", help="every thread of the machine but the recorder's own")
    what.add_argument("--tables", metavar="LIST", help=f"tables to record, or all (default: {default})")
    what.add_argument("--syscall", action="append", default=[], metavar="LIST", help="only these system calls")
    what.add_argument(
        "--event",
        action="append",
        default=[],
        metavar="LIST",
        help="tracepoints, such as sched:sched_process_exit or 'signal:*' (see `ringtape events`)",
    )
    what.add_argument("--min-duration", metavar="TIME", default="0", help="only calls that take at least this long, such as 10ms")
    what.add_argument("--profile", metavar="HZ", type=int, help="also the stack of whatever runs, HZ times a second on each CPU (table samples)")
    what.add_argument(
        "--offcpu-stacks",
        metavar="MIN",
        nargs="?",
        const="1ms",
        help="also the stack of each thread that leaves its CPU for MIN (1ms) or longer (table samples)",
    )
    how = parser.add_argument_group("how")
    how.add_argument("--duration", metavar="TIME", help="end the recording after this time")
    how.add_argument("--ring-size", metavar="SIZE", help="ring memory of each table for all CPUs together, such as 64M, or TABLE=SIZE,...")
    how.add_argument("--no-wait", action="store_true", help="end with the command, not with the last of its descendants")
    how.add_argument("--no-merge", action="store_true", help="leave the parts as they were sealed")
    how.add_argument(
        "--live",
        action="store_true",
        help="show the recording on this terminal meanwhile, as `ringtape top` does; what the command writes to the terminal comes after it,"
        " and it reads nothing from it; q closes the screen and lets the recording go on",
    )
    how.add_argument("-q", "--quiet", action="store_true", help="no progress line and no summary")
    keep = parser.add_argument_group("flight recorder: keep the last minutes, and save them when something happens")
    keep.add_argument("--keep", metavar="TIME", help="drop parts that are older, such as 10m")
    keep.add_argument("--max-size", metavar="SIZE", help="drop the oldest parts so that the trace folder never takes more, such as 2GB")
    keep.add_argument(
        "--when",
        action="append",
        default=[],
        metavar="CONDITION",
        help="save a snapshot when it comes true: 'fsync > 100ms', 'openat fails EMFILE', 'lost > 0' (repeatable); SIGUSR1 does at any time",
    )
    keep.add_argument("--snapshots", type=Path, metavar="FOLDER", help="where snapshots go (default: beside the trace, TRACE with .snapshots)")
    keep.add_argument("--snapshot-last", metavar="TIME", help="how far a snapshot reaches back (default: --keep, or 5m)")
    keep.add_argument("--every", metavar="TIME", help="at least so much time between two snapshots that conditions ask for (default: 1m)")
    keep.add_argument("--max-snapshots", type=int, metavar="N", help="delete the oldest snapshot before there are more (default: 8)")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help=argparse.SUPPRESS)


def _costs(rings: list[Table]) -> str:
    lines = [f"  {one.name:<10} {'*' if one.default else ' '} {one.doc}" + (f"\n{'':15}{one.cost}" if one.cost else "") for one in rings]
    return "\nTables (* without --tables):\n" + "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Record and return the command's exit status."""
    _occupy_standard_streams()
    from ringtape.recorder.events import choose_events
    from ringtape.recorder.flight import check_flight, choose_flight
    from ringtape.recorder.launcher import exit_as
    from ringtape.recorder.options import (
        DEFAULT_PROFILE,
        Options,
        Target,
        check_cgroup,
        check_comms,
        check_pids,
        check_profile,
        check_uids,
        choose_calls,
        choose_tables,
        parse_ring_sizes,
    )
    from ringtape.recorder.session import Session, default_output
    from ringtape.schemas.errors import UsageError
    from ringtape.schemas.units import parse_duration

    pids = [item for value in args.pid for item in value.split(",")]
    for pid in pids:
        if not (pid.isascii() and pid.isdecimal()):
            raise UsageError(f"{pid!r} is no process number", "`ps -e` lists the processes")
    target = Target(
        command=tuple(args.command),
        pids=check_pids([int(pid) for pid in pids]),
        comms=check_comms(args.comm),
        uids=check_uids([item for value in args.uid for item in value.split(",")]),
        cgroup=check_cgroup(args.cgroup) if args.cgroup else None,
        everything=args.all,
    )
    events = [name for value in args.event for name in value.split(",") if name]
    if args.event and not events:
        raise UsageError("--event names no event", "name some, such as sched:sched_process_exit; `ringtape events` lists them")
    stacks = args.profile is not None or args.offcpu_stacks is not None
    chosen = choose_tables(args.tables, (*(["events"] if events else []), *(["samples"] if stacks else [])))
    names = [name for value in args.syscall for name in value.split(",") if name]
    if args.syscall and not names:
        raise UsageError("--syscall names no system call", "name some, such as read,write; without --syscall all are recorded")
    if args.syscall and "syscalls" not in chosen:
        raise UsageError("--syscall without the table syscalls", "add syscalls to --tables")
    flight = choose_flight(args.keep, args.max_size, args.when, args.snapshots, args.snapshot_last, args.every, args.max_snapshots)
    options = Options(
        target=target,
        tables=chosen,
        calls=choose_calls(names),
        call_names=tuple(names),
        min_duration=parse_duration(args.min_duration),
        ring_sizes=parse_ring_sizes(args.ring_size, chosen),
        duration=parse_duration(args.duration) if args.duration else None,
        wait_for_descendants=not args.no_wait,
        # Parts of a flight recording stay small enough to go; the last merge would also need twice their room.
        merge=not args.no_merge and not (flight and flight.limits),
        flight=flight,
        events=choose_events(events),
        event_patterns=tuple(events),
        profile=check_profile(args.profile if stacks or "samples" not in chosen else DEFAULT_PROFILE),
        offcpu=parse_duration(args.offcpu_stacks) if args.offcpu_stacks is not None else None,
    )
    if flight:
        check_flight(flight, options.tables, options.calls, options.min_duration)
    if options.duration == 0:
        raise UsageError("--duration 0 records nothing", "give it a time such as 10s, or leave it out")
    output = args.output or default_output(options)
    outcome = Session(options, output, args.quiet, args.live).run()
    if not args.quiet and (sys.stderr.isatty() or args.output is None or outcome.lost):
        _summarise(outcome)
    if outcome.wait_status is not None:
        return exit_as(outcome.wait_status)
    return 128 + outcome.signal if outcome.signal and target.command else 0


def _occupy_standard_streams() -> None:
    """Stand in for standard streams that the caller has closed, or a file of ours would take their numbers and be written to.

    They close on exec: the command finds them closed, as it would without us.
    """
    import os

    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _summarise(outcome: object) -> None:
    import contextlib

    from ringtape.recorder.progress import count
    from ringtape.recorder.session import Outcome
    from ringtape.schemas.escape import escape
    from ringtape.schemas.units import format_size

    assert isinstance(outcome, Outcome)
    lost = f"{outcome.lost} LOST" if outcome.lost else "none lost"
    text = f"{count(outcome.rows)} events in {outcome.seconds:.1f} s, {lost}, {format_size(outcome.size)}: {escape(str(outcome.trace))}"
    if outcome.end != "complete":
        text += f" ({outcome.end})"
    with contextlib.suppress(OSError):
        print(f"ringtape: {text}", file=sys.stderr)
