"""strace: stops every traced thread twice at each call, and writes a line of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ringtape.analysis.studies.tallying import Tallies, lines
from ringtape.analysis.studies.treatments import Limit, Outcome, Tool, needs
from ringtape.schemas.errors import RingtapeError

# Options add the time, the time since the last call, the address and the name of the thread before it.
_BEFORE = rb"(?:\d+(?:<.{0,40}?>)? +)?(?:\d[\d:.]* +)?(?:\(\+ +[\d.]+\) +)?(?:\[ *[0-9a-f?]+\] +)*"
_BEGUN = re.compile(_BEFORE + rb"(?:(<\.\.\. )(\w+) resumed>|(\w+)\()")
_OTHER = re.compile(_BEFORE + rb"(?:---|\+\+\+|\[ Process |strace: |Process )")
# The last result in the line: strings in the arguments may hold anything but a line's end. With -y a descriptor has its path.
_ENDED = re.compile(
    rb".*\)\s+= (?:(-?\d{1,20})(?:<.{0,300}?>)?|0x([0-9a-f]{1,16})|\?)(?: (E[A-Z][A-Z0-9_]*))?(?: \([^()]*\))?(?: <(\d{1,12}\.\d{1,9})>)?\s*\Z",
    re.DOTALL,
)


def _wrap(options: Sequence[str], output: Path, command: Sequence[str]) -> list[str]:
    return ["strace", "-f", "-T", "-o", str(output), *options, "--", *command]


def _outcome(output: Path, detailed: bool) -> Outcome:
    tallies, strange = Tallies(), b""
    for line in lines(output):
        if not (begun := _BEGUN.match(line)):
            strange = strange or (b"" if _OTHER.match(line) else line.strip())
            continue  # a signal, an exit, the rest of a line that was cut
        name = begun[2] or begun[3]
        if not begun[1]:
            tallies.begin(name)
        if detailed and (ended := _ENDED.match(line, begun.end())):
            result = int(ended[1]) if ended[1] else int(ended[2], 16) if ended[2] else None
            whole, _, part = (ended[4] or b"0.0").partition(b".")
            # strace shows -1 and the name of the error; a call that will be restarted (ERESTARTSYS ...) has none yet.
            tallies.end(name, -1 if ended[3] and ended[1] else result, int(whole) * 1_000_000_000 + int(part.ljust(9, b"0")[:9]))
    if strange and not tallies.count:
        raise RingtapeError(f"no line of strace's output is a call: {strange[:80].decode('utf-8', 'backslashreplace')!r}")
    # It stops the traced program for every call: there is nothing that it could lose.
    return Outcome(tallies.count, 0, output.stat().st_size, tallies.calls() if detailed else {})


_LIMITS = (Limit("time", False, "it measures between its own stops of the thread, and the program waits for the stops as well", "calls"),)
TOOL = Tool("strace", "strace -f -T -o FILE: a line per call, with its duration.", _wrap, _outcome, needs("strace", "strace"), limits=_LIMITS)
