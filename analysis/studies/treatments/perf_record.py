"""perf record: entry and exit of every call, into a binary file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ringtape.analysis.studies.tallying import Tallies, perf_counts
from ringtape.analysis.studies.treatments import Limit, Outcome, Tally, Tool, needs
from ringtape.schemas.abi.syscalls import names, native_abi
from ringtape.schemas.errors import RingtapeError

PACKAGES = "linux-perf (Debian), linux-tools-generic (Ubuntu), perf (Fedora, Arch)"
_LINE = re.compile(rb"\s*(\d{1,10}) +(\d{1,12})\.(\d{9}):\s+raw_syscalls:sys_(enter|exit): NR (\d{1,10}) (?:\(|= (-?\d{1,20}))")


def _wrap(options: Sequence[str], output: Path, command: Sequence[str]) -> list[str]:
    events = ["-e", "raw_syscalls:sys_enter", "-e", "raw_syscalls:sys_exit"]
    return ["perf", "record", "-q", *events, "-o", str(output), *options, "--", *command]


def _outcome(output: Path, detailed: bool) -> Outcome:
    samples, lost = perf_counts(output)
    return Outcome(samples, lost, output.stat().st_size, _calls(output) if detailed else {})


def _calls(output: Path) -> Mapping[str, Tally]:
    """Pair entries and exits of each thread, as `perf script` shows them."""
    known = names(native_abi())
    tallies = Tallies()
    begun: dict[bytes, tuple[bytes, int]] = {}
    line = ["perf", "script", "--ns", "-i", str(output), "-F", "tid,time,event,trace"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if not (match := _LINE.match(text)):
                continue
            thread, seconds, part, side, number, result = match.groups()
            at = int(seconds) * 1_000_000_000 + int(part)
            name = known.get(int(number), f"syscall_{int(number)}")
            if side == b"enter":
                tallies.begin(name)
                begun[thread] = number, at
            elif (last := begun.pop(thread, None)) and last[0] == number:
                tallies.end(name, int(result) if result else None, at - last[1])
    if process.returncode:
        raise RingtapeError(f"perf script cannot read what perf record wrote: status {process.returncode}")
    return tallies.calls()


_LIMITS = (
    Limit("count", False, "its ring buffer was full: what it says it lost", "burst"),
    Limit("count", True, "its file holds some records twice: same thread, CPU and nanosecond", "burst"),
    Limit("errors", False, "its ring buffer was full: what it says it lost", "perf record -m 1 on burst"),
    Limit("time", False, "it measures in the kernel, from entry to exit; the truth is measured around the call in the program", "calls"),
)
TOOL = Tool("perf record", "perf record of entry and exit of every call.", _wrap, _outcome, needs("perf", PACKAGES), limits=_LIMITS)
