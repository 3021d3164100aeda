"""strace -c: stops every traced thread twice at each call, and keeps a table only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ringtape.analysis.studies.tallying import NAMES, lines
from ringtape.analysis.studies.treatments import Outcome, Tally, Tool, needs

_ROW = re.compile(rb"\s*[\d.]+\s+\d+\.\d+\s+\d*\s+(\d{1,18})\s+(?:(\d{1,18})\s+)?(\w+)\s*\Z")


def _wrap(options: Sequence[str], output: Path, command: Sequence[str]) -> list[str]:
    return ["strace", "-f", "-c", "-o", str(output), *options, "--", *command]


def _outcome(output: Path, detailed: bool) -> Outcome:
    found: dict[str, Tally] = {}
    for line in lines(output):
        if (row := _ROW.match(line)) and row[3] != b"total" and len(found) < NAMES:
            # Its seconds are CPU time of the system, not durations.
            found[row[3].decode()] = Tally(int(row[1]), int(row[2] or 0))
    return Outcome(sum(tally.count for tally in found.values()), 0, output.stat().st_size, found if detailed else {})


TOOL = Tool("strace -c", "strace -f -c -o FILE: a table of counts.", _wrap, _outcome, needs("strace", "strace"))
