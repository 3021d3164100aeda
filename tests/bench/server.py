"""All families at once on a real server under load: what a request costs more, beside strace -c."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ringtape.schemas.folder import TraceFolder
from tests.bench.event_size import NO_REDIS, redis
from tests.bench.figures import Figure, Pair, Row, Section, at_most, difference, number, octets, ratio, said, times
from tests.bench.rounds import interleave
from tests.bench.workshop import ENVIRONMENT, Workshop, discard

ROUNDS = 5
REQUESTS = 200_000
SLOW_REQUESTS = 6_000
"""Under strace a request takes tens of times as long."""
BARE, AGAIN, DEFAULT, ALL, STRACE = "bare", "bare again", "ringtape, default tables", "ringtape --tables all", "strace -f -c"


@dataclass(frozen=True)
class Served:
    """Requests of a redis server: how long they took as the client saw it, CPU ns of the server; rows and losses of a recorder."""

    requests: int
    wall: float
    cpu: float
    rows: int = 0
    lost: int = 0
    size: int = 0
    tables: int = 0

    @property
    def per_request(self) -> float:
        """Wall ns per request."""
        return self.wall * 1e9 / self.requests


def measure(shop: Workshop) -> Section:
    """Return the section."""
    section = Section("server", "All families at once on a redis server under load")
    if not (shutil.which("redis-server") and shutil.which("redis-benchmark")):
        section.rows.append(said("redis server", NO_REDIS))
        return section
    requests, slow, rounds = (4_000, 500, 1) if shop.quick else (REQUESTS, SLOW_REQUESTS, ROUNDS)
    section.remarks = [
        f"redis-benchmark: 50 clients on the loopback, SET and GET, {requests:,} requests a run ({slow:,} under strace), recorded by --pid;",
        "added = wall ns per request - bare, as the clients see it.",
    ]
    variants: dict[str, Callable[[], Served]] = {
        BARE: lambda: _bare(shop, requests),
        AGAIN: lambda: _bare(shop, requests),
        DEFAULT: lambda: _ringtape(shop, requests, ()),
        ALL: lambda: _ringtape(shop, requests, ("--tables", "all")),
    }
    if shutil.which("strace"):
        variants[STRACE] = lambda: _strace(shop, slow)
    results = interleave(variants, rounds, shop.quiet)
    wall = {name: Figure.of([run.per_request for run in runs]) for name, runs in results.items()}
    added = {name: difference(figure, wall[BARE]) for name, figure in wall.items()}
    section.rows.append(Row("a request, bare", Pair(wall[BARE].best, wall[BARE].median, rounds), _microseconds))
    section.rows.append(Row("noise (bare again - bare)", added[AGAIN], _microseconds))
    for name in (DEFAULT, ALL, STRACE):
        if name in results:
            rows = Figure.of([run.rows / run.requests for run in results[name]]).median
            size = Figure.of([run.size / run.rows if run.rows else 0.0 for run in results[name]]).median
            beside = f"{rows:.1f} rows of {results[name][0].tables} tables a request, {octets(size)} a row" if rows else "a table of totals"
            section.rows.append(Row(f"{name}: added per request", added[name], _microseconds, None, beside))
    if STRACE in results:
        section.rows.append(Row(f"{ALL} / {STRACE}", ratio(added[ALL], added[STRACE]), times, at_most(0.05)))
    for name in (DEFAULT, ALL):
        lost = Figure.of([float(run.lost) for run in results[name]])
        section.rows.append(Row(f"{name}: records lost", Pair(lost.best, lost.median, rounds), number, at_most(0, "0")))
    section.raw = {name: [asdict(run) for run in runs] for name, runs in results.items()}
    return section


def _microseconds(value: float) -> str:
    return f"{value / 1000:.2f} µs"


def _load(pid: int, port: int, requests: int) -> Served:
    command = ["redis-benchmark", "-p", str(port), "-c", "50", "-n", str(requests // 2), "-t", "set,get", "-d", "64", "--csv"]
    before, began = _cpu(pid), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    elapsed = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"redis-benchmark ended with status {done.returncode}: {done.stderr[-300:]}")
    rates = [float(rate) for rate in re.findall(r'^"[A-Z]+","([0-9.]+)"', done.stdout, re.MULTILINE)]
    wall = sum(requests / 2 / rate for rate in rates) if len(rates) == 2 else elapsed
    return Served(requests, wall, _cpu(pid) - before)


def _cpu(pid: int) -> float:
    return float(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def _bare(shop: Workshop, requests: int) -> Served:
    with redis(shop) as (pid, port):
        return _load(pid, port, requests)


@contextlib.contextmanager
def _beside(command: Sequence[str | Path], ready: Callable[[], bool]) -> Iterator[None]:
    """Run a recorder beside the load."""
    recorder = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not ready():
            if recorder.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not start")
            time.sleep(0.01)
        yield
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait()


def _ringtape(shop: Workshop, requests: int, options: Sequence[str]) -> Served:
    trace = shop.new(".trace")
    with redis(shop) as (pid, port):
        manifest = trace / "manifest.jsonl"
        with _beside(shop.record(trace, *options, "--pid", str(pid)), lambda: manifest.exists() and manifest.stat().st_size > 0):
            served = _load(pid, port, requests)
    folder = TraceFolder.open(trace)
    assert folder.footer is not None
    size = sum(part.bytes for name in folder.tables for part in folder.parts(name))
    lost = sum(folder.footer.lost.values())
    rows = sum(folder.footer.rows.values())
    discard(trace)
    return Served(served.requests, served.wall, served.cpu, rows, lost, size, sum(1 for count in folder.footer.rows.values() if count))


def _strace(shop: Workshop, requests: int) -> Served:
    with redis(shop) as (pid, port):

        def traced() -> bool:
            return "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text()

        with _beside(["strace", "-f", "-c", "-o", shop.new(".txt"), "-p", str(pid)], traced):
            return _load(pid, port, requests)
