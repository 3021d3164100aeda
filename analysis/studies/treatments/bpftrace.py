"""bpftrace: a histogram of the durations of all calls of the machine, or a script of one's own."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from ringtape.analysis.file_calls import RETURN_BYTES
from ringtape.analysis.studies.tallying import NAMES, lines
from ringtape.analysis.studies.treatments import Limit, Outcome, Tally, Tool, needs
from ringtape.schemas.abi.syscalls import names, native_abi

PROGRAM = """
tracepoint:raw_syscalls:sys_enter { @began[tid] = nsecs; }
tracepoint:raw_syscalls:sys_exit /@began[tid]/ { @latency = hist(nsecs - @began[tid]); delete(@began[tid]); }
END { clear(@began); }
"""
_BUCKET = re.compile(rb"\[[^\]]{1,40}[\])]\s+(\d{1,18}) \|")
_VALUE = re.compile(rb"@(calls|errors|time|bytes)\[(\d{1,9})\]: (-?\d{1,18})\s*\Z")
_LOST = re.compile(rb"Lost (\d{1,18}) events")


def _wrap(options: Sequence[str], output: Path, command: Sequence[str]) -> list[str]:
    program = list(options) if options else ["-e", PROGRAM]
    line = " ".join(command)
    if line != shlex.join(command):
        # bpftrace parts the text after -c at blanks and knows no quotation marks. The calls of this shell are seen as well.
        script = output.with_name("command.sh")
        script.write_text(f"exec {shlex.join(command)}\n", encoding="utf-8")
        line = f"/bin/sh {script}"
    return ["bpftrace", "-o", str(output), *program, "-c", line]


def _outcome(output: Path, detailed: bool) -> Outcome:
    """Read histograms, and the maps ``@calls``, ``@errors``, ``@time`` and ``@bytes`` by number of the call, if a script has them."""
    known = names(native_abi())
    lost, events = 0, 0
    values: dict[str, dict[int, int]] = {name: {} for name in ("calls", "errors", "time", "bytes")}
    for line in lines(output):
        if bucket := _BUCKET.match(line):
            events += int(bucket[1])
        elif (value := _VALUE.match(line)) and len(values["calls"]) < NAMES:
            values[value[1].decode()][int(value[2])] = int(value[3])
        elif gone := _LOST.search(line):
            lost += int(gone[1])
    found: dict[str, Tally] = {}
    for number, count in values["calls"].items():
        name = known.get(number, f"syscall_{number}")
        errors, time, moved = (values[what].get(number, 0) if values[what] else None for what in ("errors", "time", "bytes"))
        found[name] = Tally(count, errors, time, moved if name in RETURN_BYTES else None)
    return Outcome(events or sum(values["calls"].values()), lost, output.stat().st_size, found if detailed else {})


def _missing() -> str | None:
    if why := needs("bpftrace", "bpftrace")():
        return why
    return None if os.geteuid() == 0 else "bpftrace runs as root only"


_LIMITS = (
    Limit("count", True, "the shell that it starts the command with makes calls as well", "calls"),
    Limit("time", False, "it measures in the kernel, from entry to exit; the truth is measured around the call in the program", "calls"),
)
TOOL = Tool(
    "bpftrace", "bpftrace: a histogram of the durations of all calls of the machine; options: a script.", _wrap, _outcome, _missing, limits=_LIMITS
)
