r"""Print a trace's calls, process events and tracepoints line by line, as strace would.

Times in text are seconds since the recording began; --time wall prints UTC, --time mono the clock of the tables.
Process events and tracepoints (+++ ... +++) stand among the calls unless --syscall, --min-duration or --failed selects
calls, or --event tracepoints. Where a tracepoint was not met in a task's own context, it is said ([softirq] and so on):
thread and process are then those that were interrupted.
In JSON lines a string of the kernel is an object: "value" is the exact string if its bytes are UTF-8; otherwise "value"
shows it with \xNN escapes and "hex" holds the exact bytes. Nothing stored is left out.
"""

from __future__ import annotations

import argparse
import sys

from ringtape.analysis.verb import window
from ringtape.schemas.errors import UsageError
from ringtape.schemas.escape import escape
from ringtape.schemas.units import parse_duration

_END_OF_TIME = (1 << 63) - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``ringtape print``."""
    parser.epilog = (__doc__ or "").partition("\n\n")[2].replace("%", "%%")
    parser.add_argument("trace", metavar="TRACE", help="the folder that `ringtape record` made")
    parser.add_argument("--syscall", metavar="NAMES", action="append", default=[], help="only these calls, separated by commas")
    parser.add_argument(
        "--event", metavar="NAMES", action="append", default=[], help="only these tracepoints, separated by commas; globs such as 'sched:*'"
    )
    parser.add_argument("--process", metavar="PID|COMM", action="append", default=[], help="only this process, or those with this command name")
    parser.add_argument("--thread", metavar="TID", action="append", default=[], help="only this thread")
    parser.add_argument(
        "--between", metavar="FROM,TO", help="only calls entered between these times since the start, such as 1.5s,2s; either may be empty"
    )
    parser.add_argument("--min-duration", metavar="TIME", help="only calls that took at least this long, such as 10ms")
    parser.add_argument("--failed", action="store_true", help="only calls that returned an error")
    parser.add_argument("--limit", metavar="N", type=int, help="stop after N lines")
    parser.add_argument("--format", choices=("text", "jsonl", "csv"), default="text", help="how lines are written (default: %(default)s)")
    parser.add_argument("--time", choices=("relative", "wall", "mono"), default="relative", help="how times are written (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print the lines."""
    from itertools import islice

    from ringtape.analysis.decode.lines import FORMATS, Clock
    from ringtape.analysis.decode.select import Selection, select
    from ringtape.schemas.events import parse_events
    from ringtape.schemas.folder import TraceFolder

    if args.limit is not None and args.limit < 0:
        raise UsageError(f"--limit {args.limit} is negative", "name how many lines to print")
    folder = TraceFolder.open(args.trace)
    header = folder.header
    since, until = _window(args.between, header.attached_at)
    selection = Selection.of(
        header.abi,
        syscalls=_words(args.syscall),
        processes=_words(args.process),
        threads=_words(args.thread),
        since=since,
        until=until,
        min_duration=parse_duration(args.min_duration) if args.min_duration else 0,
        failed=args.failed,
        events=_words(args.event),
        recorded=parse_events(header.events),
    )
    lines = FORMATS[args.format](Clock(args.time, header.attached_at, header.clock.wall - header.clock.mono))
    if lines.header:
        _write([lines.header])
    left = args.limit
    found = False
    for block in select(folder, selection, lines):
        chunk = block if left is None else list(islice(block, left))
        _write(chunk)
        found = True
        if left is not None:
            left -= len(chunk)
            if not left:
                break
    if not found:
        print(f"ringtape: note: {escape(args.trace)}: {'no row is as selected' if _selects(args) else 'there are no rows'}", file=sys.stderr)
    return 0


def _selects(args: argparse.Namespace) -> bool:
    return bool(args.syscall or args.process or args.thread or args.between or args.min_duration or args.failed)


def _words(given: list[str]) -> list[str]:
    return [word.strip() for text in given for word in text.split(",") if word.strip()]


def _window(text: str | None, start: int) -> tuple[int, int]:
    """Return the bounds in ns of CLOCK_MONOTONIC; calls that were running at the attach stand at its time."""
    if text is None:
        return -_END_OF_TIME, _END_OF_TIME
    first, last = window(text)
    since = start + parse_duration(first) if first else -_END_OF_TIME
    until = start + parse_duration(last) if last else _END_OF_TIME
    if until <= since:
        raise UsageError(f"--between {text!r} ends before it begins", "write the earlier time first")
    return since, until


def _write(lines: list[str]) -> None:
    if not lines:
        return
    text = "\n".join(lines) + "\n"
    encoding = sys.stdout.encoding or "utf-8"
    if encoding.lower().replace("-", "") != "utf8":
        # A terminal that cannot show a letter of a file's name shows its escape.
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    sys.stdout.write(text)
