"""What a trace holds: what ran, when, where, how it ended, and how much of it there is."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("trace", metavar="TRACE", help="trace folder")
    parser.add_argument("--json", action="store_true", help="write all that the manifest says as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the facts of a manifest; no part is read."""
    from ringtape.analysis.summary import as_json, facts, size_cells
    from ringtape.schemas.folder import TraceFolder

    folder = TraceFolder.open(args.trace)
    if args.json:
        print(json.dumps(as_json(folder), indent=2))
        return 0
    from ringtape.analysis.render import Cells, console, print_facts, print_table
    from ringtape.schemas.escape import escape

    target = console()
    print_facts(target, [("trace", escape(str(folder.path))), *facts(folder)])
    target.print()
    print_table(target, Cells(*size_cells(folder)))
    return 0
