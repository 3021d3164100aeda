"""Complete a trace whose recorder was killed, from the rings that still hold its last events."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("trace", type=Path, metavar="TRACE", help="trace folder without a footer")
    parser.epilog = "Needs the privilege to open the pinned rings: run it with sudo, as the recording was."


def run(args: argparse.Namespace) -> int:
    """Recover, and say what came back."""
    from ringtape.recorder.recover import recover
    from ringtape.schemas.errors import RecordingError
    from ringtape.schemas.escape import escape

    try:
        done = recover(args.trace)
    except OSError as error:
        raise RecordingError(
            f"{args.trace}: {(error.strerror or str(error)).lower()}", "make room, then run recover again: it goes on where it ended"
        ) from None
    orphans = f", {done.adopted} out of parts that the manifest did not name" if done.adopted else ""
    print(f"{escape(str(args.trace))}: {done.rows} rows came out of the rings{orphans}")
    if done.gone:
        print(f"{done.gone} rows had not reached the disk when the machine stopped, and are gone")
    if not done.journal:
        print("the rings are gone (the machine was restarted, or they were not pinned): what was in them is lost")
    return 0
