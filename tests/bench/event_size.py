"""Bytes on disk per event of real work: the demo's archive, and a redis server under load."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench.figures import Figure, Row, Section, at_most, number, octets, pair, ratio, said, times
from tests.bench.peers import PERF_EVENTS, perf_samples
from tests.bench.traces import Facts, facts
from tests.bench.workshop import ENVIRONMENT, ROOT, Workshop, discard

DEMO = ROOT / "datasets" / "demo.sh"
REPEATS = 3
LOAD_SECONDS = 3.0
PATIENCE = 60.0
NO_PERF = "perf is absent; it comes with the package linux-perf (Debian), linux-tools-generic (Ubuntu), perf (Fedora, Arch)"
NO_REDIS = (
    "redis-server or redis-benchmark is absent; they come with the packages redis-server and redis-tools (Debian, Ubuntu), redis or valkey (others)"
)


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {PATIENCE:.0f} s in vain: {what}")
        time.sleep(0.01)


def _workload(shop: Workshop) -> list[str | Path]:
    """Return the demo's workload, or a small piece of it."""
    return ["sh", "-c", "tar -C / -cf - usr/share/zoneinfo | gzip -c >t.gz; gzip -dc t.gz | tar -tf - >/dev/null"] if shop.quick else ["sh", DEMO]


def _demo(shop: Workshop) -> Facts:
    trace, work = shop.new(".trace"), shop.new(".work")
    work.mkdir()
    shop.run([*shop.record(trace), "--", *_workload(shop)], cwd=work)
    told = facts(trace)
    discard(work)
    discard(trace)
    return told


def _demo_perf(shop: Workshop) -> tuple[int, int]:
    """Return bytes and samples of a perf.data of the same."""
    data, work = shop.new(".perf.data"), shop.new(".work")
    work.mkdir()
    shop.run(["perf", "record", "-q", "-m", "64M", *PERF_EVENTS, "-o", data, "--", *_workload(shop)], cwd=work)
    told = data.stat().st_size, perf_samples(shop, data)
    discard(work)
    discard(data)
    return told


@contextlib.contextmanager
def redis(shop: Workshop) -> Iterator[tuple[int, int]]:
    """Run a redis server without persistence on a free port of the loopback; yield its process number and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    work = shop.new(".redis")
    work.mkdir()
    command: list[str | Path] = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", work]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def answers() -> bool:
        if server.poll() is not None:
            raise RuntimeError(f"redis-server ended with status {server.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False

    try:
        _until(answers, "redis-server does not answer")
        yield server.pid, port
    finally:
        server.terminate()
        server.wait()
        discard(work)


def _load(port: int, length: float) -> None:
    """Let 50 clients ask for a while, over and over the mix below."""
    command = [
        "redis-benchmark",
        "-p",
        str(port),
        "-c",
        "50",
        "-n",
        "20000",
        "-t",
        "ping,set,get,incr,lpush,rpop,hset",
        "-d",
        "64",
        "-r",
        "10000",
        "-l",
        "-q",
    ]
    load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        time.sleep(length)
        if load.poll() is not None:
            raise RuntimeError(f"redis-benchmark ended with status {load.returncode}")
    finally:
        load.kill()
        load.wait()


def _recorded_load(port: int, shop: Workshop, command: Sequence[str | Path], ready: Callable[[], bool]) -> None:
    """Start a recorder, wait until it records, load the server, end the recorder."""
    recorder = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert recorder.stderr is not None
    try:
        _until(lambda: ready() or recorder.poll() is not None, "the recorder does not start")
        _load(port, 0.5 if shop.quick else LOAD_SECONDS)
    finally:
        recorder.send_signal(signal.SIGINT)
        words = recorder.stderr.read().decode(errors="replace")
        recorder.wait()
    if recorder.returncode not in (0, 128 + signal.SIGINT, -signal.SIGINT):
        raise RuntimeError(f"{command[0]} ended with status {recorder.returncode}: {words[-300:]}")


def _redis(shop: Workshop) -> Facts:
    trace = shop.new(".trace")
    with redis(shop) as (pid, port):
        manifest = trace / "manifest.jsonl"
        _recorded_load(port, shop, shop.record(trace, "--pid", str(pid)), lambda: manifest.exists() and manifest.stat().st_size > 0)
    told = facts(trace)
    discard(trace)
    return told


def _redis_perf(shop: Workshop) -> tuple[int, int]:
    data = shop.new(".perf.data")
    with redis(shop) as (pid, port):
        command: list[str | Path] = ["perf", "record", "-q", "-m", "64M", *PERF_EVENTS, "-o", data, "-p", str(pid)]
        _recorded_load(port, shop, command, lambda: data.exists() and data.stat().st_size > 0)
    told = data.stat().st_size, perf_samples(shop, data)
    discard(data)
    return told


def measure(shop: Workshop) -> Section:
    """Return the section."""
    section = Section("event-size", "Bytes on disk per recorded call of real work, six arguments included")
    section.remarks = [
        "All parts of all tables (paths, processes, the recorder's own cost included), and of `syscalls` alone, / rows of `syscalls`.",
        "perf.data: its size / (samples / 2), as it stores entry and exit apart.",
        f"redis: recorded by --pid, 50 clients on the loopback for {LOAD_SECONDS:g} s.",
    ]
    perf = shutil.which("perf") is not None
    _measure(section, shop, "demo workload", 10, _demo, _demo_perf if perf else None)
    if shutil.which("redis-server") and shutil.which("redis-benchmark"):
        _measure(section, shop, "redis server", 6, _redis, _redis_perf if perf else None)
    else:
        section.rows.append(said("redis server", NO_REDIS))
    if not perf:
        section.rows.append(said("perf.data of the same", NO_PERF))
    return section


def _measure(
    section: Section, shop: Workshop, name: str, bound: float, record: Callable[[Workshop], Facts], perf: Callable[[Workshop], tuple[int, int]] | None
) -> None:
    repeats = 1 if shop.quick else REPEATS
    runs = [record(shop) for _ in range(repeats)]
    per_event = pair(Figure.of([one.bytes_all / one.rows for one in runs]))
    counts = f"{sum(one.rows for one in runs) / repeats:,.0f} calls a run, {sum(one.lost for one in runs)} lost"
    section.rows += [
        Row(f"{name}: all tables", per_event, octets, at_most(bound, f"<= {bound:g} B"), counts),
        Row(f"{name}: `syscalls` alone", pair(Figure.of([one.bytes_calls / one.rows for one in runs])), octets),
        Row(f"{name}: rows of `syscalls`", pair(Figure.of([float(one.rows) for one in runs], more_is_better=True)), number),
    ]
    section.raw[name] = [vars(one) for one in runs]
    if perf:
        others = [perf(shop) for _ in range(repeats)]
        beside = pair(Figure.of([size / (samples / 2) for size, samples in others]))
        section.rows += [Row(f"{name}: perf.data", beside, octets), Row(f"{name}: ringtape / perf.data", ratio(per_event, beside), times)]
        section.raw[f"{name}, perf"] = [list(other) for other in others]
