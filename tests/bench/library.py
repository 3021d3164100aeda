"""The analysis library on large traces, beside DuckDB over the same files and `perf script` piped to Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench.enlarged import enlarged
from tests.bench.figures import Figure, Pair, Row, Section, at_least, at_most, megabytes, pair, ratio, said, seconds, times
from tests.bench.response import Waited, timed
from tests.bench.rounds import interleave
from tests.bench.traces import facts
from tests.bench.workshop import ENVIRONMENT, RINGTAPE, ROOT, Workshop, discard

SIZES = (10_000_000, 100_000_000)
MOST = 200_000_000
ROUNDS = 5
PERF_CALLS = 400_000
PEERS = Path(__file__).with_name("peers_of_the_library")
OURS, THEIRS = "ringtape latency", "DuckDB"


def measure(shop: Workshop) -> Section:
    """Return the section."""
    section = Section("library", "The analysis library on large traces")
    section.remarks = [
        "Traces: the calls of datasets/demo.trace again and again, each time later by its length (tests/bench/enlarged.py).",
        "Wall time of whole processes, from start to the printed table, and their peak memory by wait4(2); page cache warm.",
        "In process: from the call to its result, in a new process that has imported what it needs; nothing is kept from before.",
        "ringtape checks the SHA-256 of every part that it reads and prints exact p50, p90, p99, p99.9 and maximum by system call;",
        "DuckDB counts and takes quantile_disc of 0.5, 0.99 and 0.999 and the maximum by system call over the same Parquet files.",
    ]
    sizes, rounds = ((200_000, 400_000), 1) if shop.quick else (SIZES, ROUNDS)
    for size in sizes:
        trace = enlarged(ROOT / "datasets" / "demo.trace", shop.new(".trace"), size)
        _beside_duckdb(shop, section, trace, rounds, last=size == sizes[-1])
        discard(trace)
    _twice(shop, section, sizes[-1] * 2 if shop.quick else MOST)
    _beside_perf(shop, section)
    return section


def _beside_duckdb(shop: Workshop, section: Section, trace: Path, rounds: int, last: bool) -> None:
    rows = facts(trace).rows
    variants = {OURS: lambda: timed([*RINGTAPE, "latency", trace])}
    if _has("duckdb"):
        variants[THEIRS] = lambda: timed([sys.executable, PEERS / "with_duckdb.py", trace / "syscalls"])
    results = interleave(variants, rounds, shop.quiet)
    wall = {name: Figure.of([run.wall for run in runs]) for name, runs in results.items()}
    what = f"{rows / 1e6:,.0f} million calls" if rows >= 1_000_000 else f"{rows:,} calls"
    first = at_most(20, "<= 20 s") if last else None
    section.rows.append(Row(f"{what}: `{OURS}`", pair(wall[OURS]), seconds, first, f"peak {megabytes(_peak(results[OURS]))}"))
    if last:
        section.rows.append(Row(f"{what}: peak memory of `{OURS}`", pair(_peaks(results[OURS])), megabytes, at_most(2e9, "<= 2 GB")))
    if THEIRS in results:
        section.rows.append(Row(f"{what}: {THEIRS}", pair(wall[THEIRS]), seconds, None, f"peak {megabytes(_peak(results[THEIRS]))}"))
        section.rows.append(Row(f"{what}: {OURS} / {THEIRS}, whole processes", ratio(pair(wall[OURS]), pair(wall[THEIRS])), times))
        inside = interleave({OURS: lambda: _inside(trace), THEIRS: lambda: _duckdb_inside(trace)}, rounds, shop.quiet)
        own, peer = (Figure.of(inside[name]) for name in (OURS, THEIRS))
        beside = f"{seconds(own.median)} and {seconds(peer.median)}"
        section.rows.append(Row(f"{what}: {OURS} / {THEIRS}, in process", ratio(pair(own), pair(peer)), times, at_most(1), beside))
        section.raw[f"{what}, in process"] = {name: list(values) for name, values in inside.items()}
    else:
        section.rows.append(said(THEIRS, "duckdb is not installed"))
    window = Figure.of([timed([*RINGTAPE, "latency", trace, "--between", "3s,4s"]).wall for _ in range(rounds)])
    within = Figure.of([_inside(trace, ".between('3s', '4s')") for _ in range(rounds)])
    section.rows.append(Row(f"{what}: a window of 1 s of it, from Python", pair(within), seconds, at_most(0.5, "<= 0.5 s") if last else None))
    section.rows.append(Row(f"{what}: the same, by the verb (with its start)", pair(window), seconds))
    section.raw[what] = {name: [asdict(run) for run in runs] for name, runs in results.items()} | {"window": list(window.values)}


def _duckdb_inside(trace: Path) -> float:
    done = subprocess.run([sys.executable, PEERS / "with_duckdb.py", trace / "syscalls"], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _inside(trace: Path, part: str = "") -> float:
    """Return the s from opening the trace to the table of it or of its window, in a process that has imported the library."""
    script = "import sys, time, ringtape; from ringtape.analysis.analyses.latency import latency; began = time.perf_counter()\n"
    script += f"latency(ringtape.open(sys.argv[1]){part}); print(time.perf_counter() - began)"
    done = subprocess.run([sys.executable, "-c", script, trace], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _twice(shop: Workshop, section: Section, size: int) -> None:
    trace = enlarged(ROOT / "datasets" / "demo.trace", shop.new(".trace"), size)
    rows = facts(trace).rows
    for verb in ("syscall-mix", "latency"):
        once = timed([*RINGTAPE, verb, trace])
        what = f"{rows / 1e6:,.0f} million calls: peak memory of `ringtape {verb}`"
        section.rows.append(Row(what, Pair(once.peak, once.peak, 1), megabytes, at_most(2e9, "<= 2 GB"), f"in {once.wall:.1f} s"))
    discard(trace)


def _beside_perf(shop: Workshop, section: Section) -> None:
    """Analyse what perf and ringtape recorded of the same program, time per call."""
    if shutil.which("perf") is None:
        section.rows.append(said("perf script piped to Python", "perf is not installed"))
        return
    calls = 4_000 if shop.quick else PERF_CALLS
    program = [shop.program("mixed_calls"), "1", str(calls // 10)]
    data = shop.new(".perf")
    events = ["-e", "raw_syscalls:sys_enter", "-e", "raw_syscalls:sys_exit"]
    shop.run(["perf", "record", "-q", *events, "-m", "64M", "-o", data, "--", *program])
    trace = shop.new(".trace")
    shop.run([*shop.record(trace), "--", *program])
    began = time.monotonic()
    script = subprocess.Popen(["perf", "script", "-i", data, "-F", "tid,time,event,trace"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    done = subprocess.run([sys.executable, PEERS / "of_perf_script.py"], stdin=script.stdout, capture_output=True, text=True, check=True)
    script.wait()
    elapsed = time.monotonic() - began
    found = int(done.stdout.split()[0])
    theirs = Pair(elapsed / found, elapsed / found, 1)
    many = enlarged(trace, shop.new(".trace"), 20_000 if shop.quick else SIZES[0])
    ours = Figure.of([timed([*RINGTAPE, "latency", many]).wall / facts(many).rows for _ in range(3)])
    per_call = ratio(theirs, pair(ours))
    section.rows += [
        Row("`perf script` | Python: latency per call", theirs, _microseconds, None, f"{found:,} calls, times to 1 µs or 1 ns as perf prints them"),
        Row("`ringtape latency`: the same program's calls, per call", pair(ours), _microseconds, None, f"{facts(many).rows:,} calls"),
        Row("`perf script` | Python / `ringtape latency`, per call", per_call, times, at_least(50, ">= 50")),
    ]
    for path in (data, trace, many):
        discard(path)


def _microseconds(value: float) -> str:
    return f"{value * 1e6:.3f} µs"


def _peaks(runs: Sequence[Waited]) -> Figure:
    return Figure.of([float(run.peak) for run in runs])


def _peak(runs: Sequence[Waited]) -> float:
    return _peaks(runs).median


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
