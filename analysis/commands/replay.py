"""Show a recording on the live screen again, on a clock: at any speed, from any time, call by call.

Keys, beside those of `ringtape top`: Space pauses, + and - change the speed, . steps, n goes to the next slow call, g to a time.
Totals and rates cover the window before the clock's time (--window); after a jump as well. With --print the calls are written as
`ringtape print` writes them, at the pace at which they were made. Without a terminal (or with --once, --json) it prints snapshots.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ringtape.schemas.errors import UsageError

if TYPE_CHECKING:
    from ringtape.schemas.folder import TraceFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``ringtape replay``."""
    from ringtape.analysis.live.options import add_options

    parser.epilog = (__doc__ or "").partition("\n\n")[2].replace("%", "%%")
    parser.add_argument("trace", metavar="TRACE", help="the folder that `ringtape record` made, or is making")
    parser.add_argument("--speed", metavar="X", default="1", help="seconds of the recording per second, 0.1 to 1000 (default: %(default)s)")
    parser.add_argument("--from", dest="start", metavar="TIME", help="where to begin, since the recording began, such as 90s or 2min")
    parser.add_argument("--slow", metavar="TIME", default="10ms", help="what the key n takes for a slow call (default: %(default)s)")
    parser.add_argument("--print", dest="lines", action="store_true", help="write the calls as lines of text instead of the screen")
    parser.add_argument("--syscall", metavar="NAMES", action="append", default=[], help="with --print: only these calls, separated by commas")
    parser.add_argument("--until-end", action="store_true", help="leave the screen when the end is reached")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Replay."""
    from ringtape.analysis.live.options import read_options
    from ringtape.schemas.folder import TraceFolder
    from ringtape.schemas.units import parse_duration

    speed = _speed(args.speed)
    folder = TraceFolder.open(args.trace)
    start = None if args.start is None else folder.header.attached_at + parse_duration(args.start)
    if args.lines:
        return _print(folder, args, speed, start)
    if args.syscall:
        raise UsageError("--syscall without --print", "on the screen, the key f shows one system call only")
    from ringtape.analysis.live.player import Player
    from ringtape.analysis.live.show import show

    options = read_options(args)
    if options.once and start is None:
        # Whoever wants one snapshot wants to see something: the last window, not the moment before anything happened.
        start = folder.footer.detached_at if folder.footer else max((part.max_ts for part in folder.manifest.parts), default=None)
    player = Player(args.trace, options, speed=speed, start=start, slow=parse_duration(args.slow), until_end=args.until_end)
    return show(player, options)


def _speed(text: str) -> float:
    from ringtape.analysis.live.play_clock import FASTEST, SLOWEST

    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not SLOWEST <= speed <= FASTEST:
        raise UsageError(f"--speed {text!r} is not a speed", f"write a number from {SLOWEST:g} to {FASTEST:g}")
    return speed


def _print(folder: TraceFolder, args: argparse.Namespace, speed: float, start: int | None) -> int:
    from ringtape.analysis.decode.lines import Clock, TextLines
    from ringtape.analysis.decode.select import Selection, timed
    from ringtape.analysis.live.paced import write_paced
    from ringtape.analysis.live.play_clock import PlayClock
    from ringtape.schemas.escape import escape

    header = folder.header
    begin = header.attached_at if start is None else start
    selection = Selection.of(
        header.abi,
        syscalls=[word for text in args.syscall for word in text.split(",") if word],
        processes=args.process,
        threads=[],
        since=-(1 << 63) + 1 if start is None else start,
        until=(1 << 63) - 1,
        min_duration=0,
        failed=False,
    )
    lines = TextLines(Clock("relative", header.attached_at, header.clock.wall - header.clock.mono))
    write_paced(timed(folder, selection, lines), PlayClock(begin, speed), _write)
    if folder.state == "recording":
        print(f"ringtape: note: {escape(args.trace)}: the recording goes on; printed is what was there at the beginning", file=sys.stderr)
    return 0


def _write(lines: list[str]) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    text = "\n".join(lines) + "\n"
    if encoding.lower().replace("-", "") != "utf8":
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    sys.stdout.write(text)
    sys.stdout.flush()
