"""How long a person waits: for the first event, for the help, for a report on ten million events."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ringtape.recorder.compile import cache_folder
from tests.bench.figures import Figure, Row, Section, at_most, megabytes, pair, said, seconds
from tests.bench.traces import Facts, facts
from tests.bench.workshop import ENVIRONMENT, RINGTAPE, Workshop, discard

CALLS_A_ROUND = 10
PROCESSES = 4
EVENTS = 10_000_000


@dataclass(frozen=True)
class Waited:
    """A command's wall time in s, and the peak resident memory in bytes of it or its largest child."""

    wall: float
    peak: int


def timed(command: list[str | Path]) -> Waited:
    """Run a command and return what wait4(2) tells of it."""
    with open(os.devnull, "r+b") as nowhere:
        began = time.monotonic()
        process = subprocess.Popen(command, env=ENVIRONMENT, stdin=nowhere, stdout=nowhere, stderr=nowhere)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with status {process.returncode}")
    return Waited(wall, used.ru_maxrss * 1024)


def _first_event(shop: Workshop, prefix: list[str | Path]) -> float:
    """Return the s from before the fork of the recorder to the first recorded call of `true`."""
    trace = shop.new(".trace")
    began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    shop.run([*prefix, *shop.record(trace), "--", "true"])
    first = facts(trace).first
    discard(trace)
    return (first - began) / 1e9


def _cold() -> list[str | Path]:
    """Return what runs a command with an empty cache of bytecode: one of its own, so that nobody else's is touched."""
    script = 'mount -t tmpfs -o mode=700 none "$0" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, cache_folder()]


def _big_trace(shop: Workshop, events: int) -> tuple[Path, Facts]:
    trace = shop.new(".trace")
    rounds = events // CALLS_A_ROUND // PROCESSES
    shop.run([*shop.record(trace), "--", shop.program("mixed_calls"), str(PROCESSES), str(rounds)], stdin=subprocess.DEVNULL)
    return trace, facts(trace)


def measure(shop: Workshop) -> Section:
    """Return the section."""
    section = Section("response", "How long a person waits")
    section.remarks = [
        "First event: from before the fork of `ringtape record -- true` to the time of the first row.",
        "Cold: with an empty cache of bytecode (its own mount, whose making is in the time), so BCC compiles; the page cache is warm in both.",
        f"Report: `ringtape report` on a recording of ten kinds of call by {PROCESSES} processes, all CPUs; peak memory by wait4(2).",
    ]
    some, many, few = (1, 2, 1) if shop.quick else (9, 15, 5)
    _first_event(shop, [])
    warm = Figure.of([shop.quiet.run(lambda: _first_event(shop, [])) for _ in range(some)])
    section.rows.append(Row("first event, warm", pair(warm), seconds, at_most(0.6, "<= 0.6 s")))
    section.raw["warm"] = list(warm.values)
    if shutil.which("unshare"):
        cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        cold = Figure.of([_first_event(shop, _cold()) for _ in range(few)])
        section.rows.append(Row("first event, cold: BCC compiles", pair(cold), seconds))
        section.raw["cold"] = list(cold.values)
    else:
        section.rows.append(said("first event, cold", "unshare is absent; it comes with the package util-linux"))
    helped = [timed([*RINGTAPE, "--help"]) for _ in range(many)]
    section.rows.append(Row("`ringtape --help`", pair(Figure.of([one.wall for one in helped])), seconds, at_most(0.1, "<= 0.1 s")))
    trace, told = _big_trace(shop, 100_000 if shop.quick else EVENTS)
    reports = [timed([*RINGTAPE, "report", trace]) for _ in range(few)]
    holds = f"{told.rows:,} calls, {told.lost} lost, {told.bytes_all / told.rows:.2f} B each"
    section.rows += [
        Row("`ringtape report`", pair(Figure.of([one.wall for one in reports])), seconds, at_most(3, "<= 3 s"), holds),
        Row("`ringtape report`, peak memory", pair(Figure.of([float(one.peak) for one in reports])), megabytes, at_most(2e9, "<= 2 GB")),
    ]
    discard(trace)
    section.raw |= {"help": [asdict(one) for one in helped], "report": [asdict(one) for one in reports], "report on": asdict(told)}
    return section
