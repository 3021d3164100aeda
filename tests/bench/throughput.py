"""Ten million calls from one core with nothing lost: what the drain does per CPU second, and the memory that it takes."""

from __future__ import annotations

import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.figures import Figure, Row, Section, at_least, at_most, megabytes, number, octets, pair, share
from tests.bench.traces import Facts, facts
from tests.bench.workshop import ENVIRONMENT, Loop, Workshop, discard

CALLS = 10_000_000
REPEATS = 3
EMPTY = 3
PAUSE = 0.1


@dataclass(frozen=True)
class Resident:
    """Resident memory of a process by kind, in bytes: anonymous, of files, and of mapped BPF maps."""

    anonymous: int
    files: int
    rings: int


def resident(pid: int) -> Resident:
    """Return what /proc/PID/smaps says now."""
    anonymous = files = rings = 0
    in_ring = False
    rss = 0
    with open(f"/proc/{pid}/smaps") as lines:
        for line in lines:
            word, _, rest = line.partition(" ")
            if not word.endswith(":"):
                in_ring = "anon_inode:bpf-map" in rest
            elif word == "Rss:":
                rss = int(rest.split()[0]) * 1024
                if in_ring:
                    rings += rss
            elif word == "Anonymous:" and not in_ring:
                part = int(rest.split()[0]) * 1024
                anonymous += part
                files += rss - part
    return Resident(anonymous, files, rings)


def _record(shop: Workshop, calls: int) -> tuple[Facts, Loop]:
    trace = shop.new(".trace")
    (loop,) = shop.loop([*shop.beside(shop.record(trace)), "--"], calls)
    told = facts(trace)
    discard(trace)
    return told, loop


def _record_nothing(shop: Workshop) -> Facts:
    trace = shop.new(".trace")
    shop.run([*shop.beside(shop.record(trace)), "--", "true"])
    told = facts(trace)
    discard(trace)
    return told


def _record_mixed(shop: Workshop, calls: int) -> Facts:
    """Record one process whose calls are of ten kinds, with arguments and results that differ."""
    trace = shop.new(".trace")
    workload: list[str | Path] = ["taskset", "-c", str(shop.loop_cpu), shop.program("mixed_calls"), "1", str(calls // 10)]
    shop.run([*shop.beside(shop.record(trace)), "--", *workload], stdin=subprocess.DEVNULL)
    told = facts(trace)
    discard(trace)
    return told


def watch_memory(shop: Workshop, calls: int) -> tuple[Resident, Resident]:
    """Return the peaks of resident memory while a loop is recorded, and after it while the trace is closed."""
    trace = shop.new(".trace")
    command, result = shop.loop_command(calls)
    recorder = subprocess.Popen(
        [*shop.beside(shop.record(trace)), "--", *command],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    during: list[Resident] = []
    closing: list[Resident] = []
    while recorder.poll() is None:
        try:
            seen = resident(recorder.pid)
        except OSError:
            break
        (closing if _ended(result) else during).append(seen)
        time.sleep(PAUSE)
    if recorder.wait():
        raise RuntimeError(f"the recorder ended with status {recorder.returncode}")
    discard(trace)
    discard(result)
    during = [seen for seen in during if seen.rings] or during

    def peak(kept: list[Resident]) -> Resident:
        if not kept:
            return Resident(0, 0, 0)
        return max(kept, key=lambda one: one.anonymous + one.files)

    return peak(during), peak(closing)


def _ended(result: Path) -> bool:
    return result.exists() and result.stat().st_size > 0


def measure(shop: Workshop) -> Section:
    """Return the section."""
    calls, repeats = (300_000, 1) if shop.quick else (CALLS, REPEATS)
    section = Section("throughput", f"Throughput: {calls:,} consecutive null calls from one core, the recorder on the other")
    empty = [shop.quiet.run(lambda: _record_nothing(shop)) for _ in range(1 if shop.quick else EMPTY)]
    runs = [shop.quiet.run(lambda: _record(shop, calls)) for _ in range(repeats)]
    memory = [watch_memory(shop, calls) for _ in range(1 if shop.quick else 2)]
    mixed = [shop.quiet.run(lambda: _record_mixed(shop, calls)) for _ in range(1 if shop.quick else 2)]
    told = [one for one, _ in runs]
    idle = Figure.of([one.cpu for one in empty]).median
    rates = Figure.of([one.rows / max(one.cpu - idle, 1e-9) for one in told], more_is_better=True)
    varied = Figure.of([one.rows / max(one.cpu - idle, 1e-9) for one in mixed], more_is_better=True)
    whole = Figure.of([one.rows / one.cpu_whole for one in told], more_is_better=True)
    beyond = Figure.of([float(seen.anonymous + seen.files) for seen, _ in memory])
    closing = Figure.of([float(seen.anonymous + seen.files) for _, seen in memory])
    mapped = max(seen.rings for seen, _ in memory)
    section.remarks = [
        "Records per CPU second: rows of `syscalls` / (user + system time of the recorder process, all its threads,",
        "from the start of the drain to the last seal, as the table `recorder` holds it,",
        f"- the same of a recording of `true`, median {idle:.3f} s).",
        "Beyond the rings: resident anonymous and file pages without the mapped BPF maps (/proc/PID/smaps every 0.1 s);",
        "VmRSS counts those as well, and BPF ring buffers twice as they are mapped twice.",
    ]
    counts = f"{told[-1].rows:,} rows of {told[-1].attempted:,} attempted in the last run"
    speed = Figure.of([loop.calls / loop.wall * 1e9 for _, loop in runs], more_is_better=True)
    rings = f"rings take {megabytes(told[-1].ring_memory)}, mapped {megabytes(mapped)}"
    section.rows = [
        Row("records lost", pair(Figure.of([float(one.lost) for one in told])), number, at_most(0, "0"), counts),
        Row("rows of `syscalls` less than attempted", pair(Figure.of([float(one.attempted - one.rows) for one in told])), number, at_most(0, "0")),
        Row("calls per second while recorded", pair(speed), number),
        Row("records per CPU second, drain + encoding + sealed parts", pair(rates), number, at_least(5e6, ">= 5,000,000")),
        Row(
            "the same, of a loop over ten kinds of call",
            pair(varied),
            number,
            None,
            f"{mixed[-1].lost} lost, {mixed[-1].bytes_all / mixed[-1].rows:.2f} B each",
        ),
        Row("records per CPU second, start and closing merge included", pair(whole), number),
        Row("resident beyond the rings while recording", pair(beyond), megabytes, at_most(300e6, "< 300 MB"), rings),
        Row("resident beyond the rings while closing", pair(closing), megabytes, at_most(300e6, "< 300 MB")),
        Row("peak fill of the fullest ring", pair(Figure.of([one.ring_peak for one in told])), share),
        Row("bytes per event on disk, all tables", pair(Figure.of([one.bytes_all / one.rows for one in told])), octets),
    ]
    section.raw = {"runs": [{**asdict(one), "loop": asdict(loop)} for one, loop in runs], "empty": [asdict(one) for one in empty]}
    section.raw["mixed"] = [asdict(one) for one in mixed]
    section.raw["memory"] = [[asdict(one) for one in seen] for seen in memory]
    return section
