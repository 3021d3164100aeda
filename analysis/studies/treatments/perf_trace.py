"""perf trace: a line of text per call, from perf's ring instead of ptrace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ringtape.analysis.studies.tallying import Tallies, lines
from ringtape.analysis.studies.treatments import Limit, Outcome, Tool, needs
from ringtape.analysis.studies.treatments.perf_record import PACKAGES

_LINE = re.compile(rb"\s*[\d.?]+ \(\s*(?:(\d{1,15})\.(\d{3}) ms)?\s*\): .{0,40}?/(\d{1,10}) +(\.\.\. \[continued\]: )?(\w+)\(")
_ENDED = re.compile(rb".*\)\s+= (?:(-?\d{1,20})(?!\d)|0x([0-9a-f]{1,16}))", re.DOTALL)
_THREADS = 1 << 22
"""Most threads that Linux has at once."""
_LOST = re.compile(rb"LOST (\d{1,18}) events!")


def _wrap(options: Sequence[str], output: Path, command: Sequence[str]) -> list[str]:
    return ["perf", "trace", "-o", str(output), *options, "--", *command]


def _outcome(output: Path, detailed: bool) -> Outcome:
    tallies, lost = Tallies(), 0
    begun: dict[bytes, tuple[bytes, ...]] = {}  # by thread: calls that it has shown the beginning of
    disordered: set[bytes] = set()
    for line in lines(output):
        if not (match := _LINE.match(line)):
            if gone := _LOST.search(line):
                lost += int(gone[1])
            continue
        whole, part, thread, continued, name = match.groups()
        duration = _signed(int(whole) * 1_000_000 + int(part) * 1_000) if whole else 0
        before = begun.pop(thread, ())
        if duration < 0:
            # An end that came too late: the beginning of this call has a line of its own, above or below.
            begun[thread] = before
            disordered.add(thread)
        elif not continued:
            tallies.begin(name)
            if not whole and line.endswith(b"...\n") and len(begun) < _THREADS:
                begun[thread] = (*before[:1], name) if thread in disordered else (name,)
            disordered.discard(thread)
        elif name in before:
            begun[thread] = tuple(one for one in before if one != name)
        elif whole:
            tallies.begin(name)  # an end whose beginning it never got
        if whole and detailed:
            ended = _ENDED.match(line, match.end())  # of some calls it shows no result, of getpgid for one
            result = None if not ended else int(ended[1]) if ended[1] else int(ended[2], 16)
            tallies.end(name, result, duration)
    return Outcome(tallies.count, lost, output.stat().st_size, tallies.calls() if detailed else {})


def _signed(duration: int) -> int:
    """Return a duration that it shows: one below 0, of records out of order, it shows as just below 2**64 ns."""
    return duration - (1 << 64) if duration >= 1 << 63 else duration


_LIMITS = (
    Limit("count", False, "of some calls it shows neither entry nor exit, and says of no loss", "burst"),
    Limit("count", True, "entries and exits that come out of order it shows as halves of two calls", "threads"),
    Limit("errors", False, "of some calls it shows the entry alone, without a result", "calls"),
    Limit("bytes", False, "of some calls it shows the entry alone, without a result", "calls"),
    Limit("time", False, "it measures in the kernel, and cuts off what is below a microsecond", "calls"),
)
TOOL = Tool("perf trace", "perf trace -o FILE: a line per call, with its duration.", _wrap, _outcome, needs("perf", PACKAGES), limits=_LIMITS)
