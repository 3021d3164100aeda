"""List the tracepoints of this kernel, and their fields."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringtape.schemas.events import Event

EPILOG = """\
Examples:
  sudo ringtape events 'sched:*'
  sudo ringtape events -v signal:signal_generate
  sudo ringtape record --event signal:signal_generate -- COMMAND

A name or a glob such as 'block:*'; quote it, or the shell may take it for a file's. A single event is shown with its fields.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    parser.add_argument("patterns", nargs="*", metavar="GLOB", help="only these (default: all)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the fields of each")
    parser.add_argument("--json", action="store_true", help="write them with their fields as JSON lines")


def run(args: argparse.Namespace) -> int:
    """Print a line per event."""
    from ringtape.recorder.events import list_events
    from ringtape.recorder.tracefs import read_events
    from ringtape.schemas.escape import escape
    from ringtape.schemas.events import Event, describe_events

    place, names = list_events(args.patterns)
    fields = args.verbose or args.json or (len(names) == 1 and bool(args.patterns))
    unreadable = 0
    if not fields:
        print("\n".join(map(escape, names)))
        return 0
    for name, event in read_events(place, names):
        if not isinstance(event, Event):
            unreadable += 1
            reason = event.strerror if isinstance(event, OSError) else event
            print(f"ringtape: {escape(name)}: its format file cannot be read: {escape(str(reason))}", file=sys.stderr)
        elif args.json:
            print(json.dumps({"event": name, **describe_events([event])[name]}))
        else:
            print("\n".join([escape(name), *_lines(event)]))
    return 1 if unreadable else 0


def _lines(event: Event) -> Iterator[str]:
    from ringtape.schemas.escape import escape

    for field in event.fields:
        kind, _, count = field.type.partition("[") if field.shape == "array" else (field.type, "", "")
        space = "" if kind.endswith("*") else " "
        text = f"    {kind}{space}{field.name}{'[' + count if count else ''}"
        if field.string >= 0:
            text += "  (its string is recorded)"
        if field.symbols is not None:
            shown = [escape(name) for _, name in field.symbols.names]
            text += f"  ({'flags' if field.symbols.flags else 'values'}: {' '.join(shown[:12])}{' ...' if len(shown) > 12 else ''})"
        yield text
