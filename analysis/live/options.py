"""The options that `top` and `replay` share."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from ringtape.schemas.errors import UsageError
from ringtape.schemas.units import format_duration, parse_duration


@dataclass(frozen=True)
class Options:
    """How a trace is shown: ``window`` and ``interval`` in ns; ``process`` narrows it from the beginning; ``form`` is how it is written."""

    window: int
    interval: int
    process: str | None = None
    form: str = "screen"
    once: bool = False
    rows: int = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("--window", metavar="TIME", default="10s", help="the last seconds that rates and totals cover (default: %(default)s)")
    parser.add_argument("--interval", metavar="TIME", default="1s", help="time between two pictures or snapshots (default: %(default)s)")
    parser.add_argument("--process", metavar="PID|COMM", action="append", default=[], help="only this process, or those whose name holds this text")
    parser.add_argument("--once", action="store_true", help="print one snapshot as text and end")
    parser.add_argument("--json", action="store_true", help="print a JSON object per interval instead of the screen")
    parser.add_argument("--top", metavar="N", type=int, default=10, help="rows of each table in a printed snapshot (default: %(default)s)")


def read_options(args: argparse.Namespace) -> Options:
    """Check them.

    Raises
    ------
    UsageError
        If one cannot be read.
    """
    from ringtape.analysis.live.terminal import interactive

    window, interval = parse_duration(args.window), parse_duration(args.interval)
    if not 10**9 <= window <= 600 * 10**9:
        raise UsageError(f"--window {args.window} is not between 1 s and {format_duration(600e9)}", "choose some seconds, such as 10s")
    if not 10**8 <= interval <= 3600 * 10**9:
        raise UsageError(f"--interval {args.interval} is not between 100 ms and 1 h", "choose a time such as 1s")
    if args.top < 1:
        raise UsageError(f"--top {args.top} shows nothing", "name how many rows to print")
    if len(args.process) > 1:
        raise UsageError("--process was given twice", "name one; on the screen the key f changes it")
    form = "json" if args.json else "text" if args.once or not interactive() else "screen"
    return Options(window, interval, args.process[0] if args.process else None, form, args.once, args.top)
