"""The tools side by side: each runs the loop, and says what it left behind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ringtape.recorder.compile import find_bcc
from ringtape.recorder.program import HEADERS
from tests.bench import floor
from tests.bench.traces import facts
from tests.bench.workshop import ENVIRONMENT, Loop, Workshop, discard

BPFTRACE = """
tracepoint:raw_syscalls:sys_enter {filter} {{ @began[tid] = nsecs; }}
tracepoint:raw_syscalls:sys_exit /@began[tid]/ {{ @latency = hist(nsecs - @began[tid]); delete(@began[tid]); }}
END {{ clear(@began); }}
"""
PERF_EVENTS = ("-e", "raw_syscalls:sys_enter", "-e", "raw_syscalls:sys_exit")


@dataclass(frozen=True)
class Run:
    """A loop under a tool; of tools that store events also how many events, lost ones and bytes.

    ``per_call`` is how many events make up one call: 2 where entry and exit are stored apart.
    """

    loop: Loop
    events: int | None = None
    lost: int | None = None
    size: int | None = None
    per_call: int = 1
    cpu: float | None = None


@dataclass(frozen=True)
class Tool:
    """Something that the loop is run under; ``first`` is how many calls it takes to find out how many are enough."""

    name: str
    run: Callable[[Workshop, int], Run]
    first: int = 200_000


@dataclass(frozen=True)
class Absent:
    """A peer that is not installed."""

    name: str
    packages: str


def perf_samples(shop: Workshop, data: Path) -> int:
    """Return how many samples a perf.data holds."""
    said = shop.run(["perf", "report", "--stats", "-i", data]).stdout.decode()
    found = re.search(r"SAMPLE events:\s+(\d+)", said)
    return int(found[1]) if found else 0


def _bare(shop: Workshop, calls: int) -> Run:
    (loop,) = shop.loop(shop.beside([]), calls)
    return Run(loop)


def _floor(name: str) -> Callable[[Workshop, int], Run]:
    def run(shop: Workshop, calls: int) -> Run:
        with floor.attached(name):
            return _bare(shop, calls)

    return run


def _ringtape(shop: Workshop, calls: int) -> Run:
    trace = shop.new(".trace")
    (loop,) = shop.loop([*shop.beside(shop.record(trace)), "--"], calls)
    told = facts(trace)
    discard(trace)
    return Run(loop, told.rows, told.lost, told.bytes_all, cpu=told.cpu_whole)


def _perf_record(*options: str) -> Callable[[Workshop, int], Run]:
    def run(shop: Workshop, calls: int) -> Run:
        data = shop.new(".perf.data")
        (loop,) = shop.loop(shop.beside(["perf", *options, "-o", data, "--"]), calls)
        # A few dozen events of the loop's own start are among the samples, so a handful of lost ones goes unseen.
        samples = perf_samples(shop, data)
        size = data.stat().st_size
        discard(data)
        return Run(loop, samples, max(0, 2 * calls - samples), size, 2)

    return run


def _text(*options: str) -> Callable[[Workshop, int], Run]:
    """Return a run of a tool that writes a line per call."""

    def run(shop: Workshop, calls: int) -> Run:
        lines = shop.new(".txt")
        (loop,) = shop.loop(shop.beside([*options, "-o", lines]), calls)
        with open(lines, "rb") as file:
            count = sum(1 for line in file if b"getppid" in line)
        size = lines.stat().st_size
        discard(lines)
        return Run(loop, count, max(0, calls - count), size)

    return run


def _bpftrace(only_command: bool) -> Callable[[Workshop, int], Run]:
    def run(shop: Workshop, calls: int) -> Run:
        command, result = shop.loop_command(calls)
        program = BPFTRACE.format(filter="/pid == cpid/" if only_command else "")
        shop.run(shop.beside(["bpftrace", "-e", program, "-c", " ".join(map(str, command))]), stdin=subprocess.DEVNULL)
        (loop,) = shop.read(result)
        return Run(loop)

    return run


def _bcc(shop: Workshop, calls: int) -> Run:
    command, result = shop.loop_command(calls)
    script = Path(__file__).with_name("bcc_callback.py")
    environment = {**ENVIRONMENT, "BCC_KERNEL_SOURCE": str(HEADERS)}
    line = shop.beside(["/usr/bin/python3", script, *command])
    done = subprocess.run(line, capture_output=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"bcc_callback.py: {done.stderr.decode(errors='replace')[-600:]}")
    (loop,) = shop.read(result)
    said = json.loads(done.stdout)
    return Run(loop, said["events"], said["lost"], cpu=said["cpu"])


BARE = Tool("bare", _bare, 2_000_000)
AGAIN = Tool("bare again", _bare, 2_000_000)
EMPTY = Tool("empty probes", _floor("empty"), 1_000_000)
FLOOR = Tool("floor", _floor("clock"), 1_000_000)
RINGTAPE = Tool("ringtape", _ringtape, 1_000_000)
PERF_RECORD = Tool("perf record", _perf_record("record", "-q", *PERF_EVENTS))
BPFTRACE_HIST = Tool("bpftrace hist()", _bpftrace(only_command=False))
STRACE = Tool("strace -f -o", _text("strace", "-f"), 2_000)


def tools() -> tuple[list[Tool], list[Absent]]:
    """Return what can be measured here, and what is absent."""
    found, absent = [BARE, AGAIN, EMPTY, FLOOR, RINGTAPE], []
    if shutil.which("perf"):
        found += [
            PERF_RECORD,
            Tool("perf record -m 64M", _perf_record("record", "-q", "-m", "64M", *PERF_EVENTS)),
            Tool("perf trace record", _perf_record("trace", "record")),
            Tool("perf trace -o", _text("perf", "trace"), 5_000),
        ]
    else:
        absent.append(Absent("perf", "linux-perf (Debian), linux-tools-generic (Ubuntu), perf (Fedora, Arch)"))
    if shutil.which("bpftrace"):
        found += [BPFTRACE_HIST, Tool("bpftrace hist(), one process", _bpftrace(only_command=True))]
    else:
        absent.append(Absent("bpftrace", "bpftrace"))
    if shutil.which("strace"):
        found.append(STRACE)
    else:
        absent.append(Absent("strace", "strace"))
    if find_bcc():
        found.append(Tool("BCC callback in Python", _bcc))
    else:
        absent.append(Absent("BCC", "python3-bpfcc (Debian, Ubuntu), python3-bcc (Fedora), python-bcc (Arch)"))
    return found, absent
