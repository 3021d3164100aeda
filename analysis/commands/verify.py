"""Check a trace down to the last bit, and its numbers against each other."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("trace", metavar="TRACE", help="trace folder")


def run(args: argparse.Namespace) -> int:
    """Print one line for each problem; return 1 if there is any."""
    from ringtape.analysis.verification import verify
    from ringtape.schemas.escape import escape

    found = verify(args.trace)
    for note in found.notes:
        print(f"note: {escape(note)}")
    for problem in found.problems:
        print(f"{escape(problem.where)}: {escape(problem.reason)}")
    count = len(found.problems)
    verdict = (
        f"{count} {'problem' if count == 1 else 'problems'}" if count else "nothing is wrong" if found.parts else "nothing is wrong with the manifest"
    )
    print(f"{escape(args.trace)}: {found.parts:,} parts, {found.rows:,} rows checked: {verdict}")
    return 1 if count else 0
