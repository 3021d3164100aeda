"""Save the last minutes of a recording, also while it goes on, as a trace of their own."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """\
Examples:
  ringtape snapshot server.trace -o slow.trace --last 5m
  sudo ringtape snapshot                      the one recording that goes on

A recording that goes on is not disturbed: the snapshot waits for the next parts (a second at most), so that the last
second is in it, and has them by hard link.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    parser.add_argument("trace", type=Path, nargs="?", metavar="TRACE", help="trace folder (default: the one that is being recorded)")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="trace folder to make (default: a name from trace and time, here)")
    parser.add_argument("--last", metavar="TIME", default="5m", help="how far it reaches back (default: 5m)")


def run(args: argparse.Namespace) -> int:
    """Take it, and say where it is."""
    import os
    import time

    from ringtape.recorder.privileges import drop, import_while_readable
    from ringtape.recorder.recover import owner_of
    from ringtape.schemas.errors import RecordingError, UsageError
    from ringtape.schemas.escape import escape
    from ringtape.schemas.units import format_duration, parse_duration

    last = parse_duration(args.last)
    if last == 0:
        raise UsageError("--last 0 saves nothing", "give it a time such as 5m")
    trace = args.trace or _recording()
    owner = owner_of(trace)
    output = args.output or Path(f"{trace.stem}-{time.strftime('%Y%m%d-%H%M%S')}.trace")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import_while_readable(owner, "ringtape.recorder.snapshot")
    drop(owner)
    from ringtape.recorder.snapshot import take, wait_for_seal

    try:
        wait_for_seal(trace)
        taken = take(trace, output, last, {"trigger": "ringtape snapshot"})
    except OSError as error:
        raise RecordingError(f"{output}: {(error.strerror or str(error)).lower()}", "make room, or name another place with --output") from None
    how = "; parts were copied, not linked" if taken.copied else ""
    print(f"{escape(str(taken.path))}: {taken.rows:,} rows, the last {format_duration(taken.span)}{how}")
    return 0


def _recording() -> Path:
    """Return the trace that is being recorded, if it is one.

    Raises
    ------
    UsageError
        If it is none, or several.
    """
    from ringtape.recorder import journal
    from ringtape.schemas.errors import RingtapeError, UsageError
    from ringtape.schemas.folder import TraceFolder

    named = [found for path in journal.left_behind() if (found := journal.trace_of(path))]
    going: dict[Path, None] = {}
    for path in [*named, *sorted(Path().glob("*.trace"))]:
        try:
            if TraceFolder.open(path).state == "recording":
                going[path.resolve()] = None
        except (RingtapeError, OSError):
            continue  # of somebody else, or none any more
    if not going:
        raise UsageError("no recording that goes on was found", "name the trace; only root sees those outside of the current folder")
    if len(going) > 1:
        raise UsageError(f"{len(going)} recordings go on: {', '.join(map(str, going))}", "name one of them")
    return next(iter(going))
