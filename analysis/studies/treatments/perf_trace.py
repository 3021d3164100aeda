"""perf trace: a line of text per call, from perf's ring instead of ptrace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ringtape.analysis.studies.tallying import Tallies, lines
from ringtape.analysis.studies.treatments import Outcome, Tool, needs
from ringtape.analysis.studies.treatments.perf_record import PACKAGES

_LINE = re.compile(rb"\s*[\d.?]+ \(\s*(?:(\d+)\.(\d{3}) ms)?\s*\): .{0,40}?/\d+ +(\.\.\. \[continued\]: )?(\w+)\(")
_ENDED = re.compile(rb".*\)\s+= (?:(-?\d+)|0x([0-9a-f]+))", re.DOTALL)
_LOST = re.compile(rb"LOST (\d{1,18}) events!")


def _wrap(options: Sequence[str], output: Path, command: Sequence[str]) -> list[str]:
    return ["perf", "trace", "-o", str(output), *options, "--", *command]


def _outcome(output: Path, detailed: bool) -> Outcome:
    tallies, lost = Tallies(), 0
    for line in lines(output):
        if not (match := _LINE.match(line)):
            if gone := _LOST.search(line):
                lost += int(gone[1])
            continue
        if not match[3]:
            tallies.begin(match[4])
        if match[1] and (ended := _ENDED.match(line, match.end())):
            result = int(ended[1]) if ended[1] else int(ended[2], 16)
            tallies.end(match[4], result, int(match[1]) * 1_000_000 + int(match[2]) * 1_000)
    return Outcome(tallies.count, lost, output.stat().st_size, tallies.calls() if detailed else {})


TOOL = Tool("perf trace", "perf trace -o FILE: a line per call, with its duration.", _wrap, _outcome, needs("perf", PACKAGES))
