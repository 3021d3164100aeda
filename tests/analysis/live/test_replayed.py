"""A trace on a clock yields the rows of the trace, when they ended, at whatever speed; and the state's sums are those of the analyses."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

import ringtape
from ringtape.analysis.analyses.net_throughput import net_throughput
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.analysis.live.options import Options
from ringtape.analysis.live.play_clock import PlayClock
from ringtape.analysis.live.player import Player
from ringtape.analysis.live.replayed import Replayed
from ringtape.analysis.live.state import BIN, TABLES
from ringtape.analysis.live.view import View
from ringtape.schemas.folder import TraceFolder
from tests.factory import T0, make

DATASETS = Path(__file__).parents[3] / "datasets"
SECOND = 10**9


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(("name", "speed", "step"), [("demo", 1, 0.7), ("demo", 1000, 0.001), ("families", 0.1, 0.31), ("families", 20, 0.01)])
def test_a_replay_yields_each_row_once_and_not_before_it_ended(name: str, speed: float, step: float) -> None:
    trace, clock = ringtape.open(DATASETS / f"{name}.trace"), Clock()
    replay = Replayed(trace.path, TABLES, speed=speed, now=clock)
    found: dict[str, list[pl.DataFrame]] = {}
    while not replay.ended:
        before = replay.now
        for batch in replay.poll():
            if "dur" in batch.rows.columns and not replay.ended:
                ends = batch.rows["ts"] + batch.rows["dur"]
                assert ends.max() < replay.now
                assert before == trace.header.attached_at or ends.min() >= before
            found.setdefault(batch.table, []).append(batch.rows)
        clock.seconds += step
    assert clock.seconds == pytest.approx((replay.end - replay.begin) / SECOND / speed, abs=3 * step)
    for table in {*TABLES} & {*trace.tables}:
        assert pl.concat(found[table]).sort(pl.all()).equals(trace.collect(trace.scan(table)).sort(pl.all())), table


@pytest.mark.parametrize(("name", "speed"), [("demo", 0.5), ("demo", 3), ("demo", 250), ("families", 0.1), ("families", 1), ("families", 7)])
def test_totals_on_the_screen_are_those_of_the_analyses_over_the_same_window(name: str, speed: float) -> None:
    """Not yet ended calls apart, which nobody can know of at that time."""
    trace, clock = ringtape.open(DATASETS / f"{name}.trace"), Clock()
    player = Player(trace.path, Options(window=2 * SECOND, interval=SECOND), speed=speed, now=clock)
    length = (trace.span[1] or 0) - trace.span[0]
    pictures = 0
    for share in (0.13, 0.31, 0.5, 0.77, 1.01):
        clock.seconds = share * length / SECOND / speed
        player.look()
        found = player.snapshot()
        status, frames = player.shown(View())
        rows = trace.collect(trace.frame("syscalls", found.since, found.until).filter(pl.col("kind") != 4))
        if not player.ended:
            rows = rows.filter(pl.col("ts") + pl.col("dur") < found.until)
        assert found.until - found.since <= 2 * SECOND + BIN
        assert found.calls == rows.height
        assert found.errors == rows["errno"].is_not_null().sum()
        assert status.calls == found.calls / ((found.until - found.since) / SECOND)
        own = rows.group_by("syscall").agg(pl.len().cast(pl.Int64).alias("calls"), pl.col("dur").sum().alias("time"))
        shown = frames["syscalls"].select("syscall", "calls", "time")
        assert shown.sort("syscall").equals(own.sort("syscall"))
        by_process = rows.group_by("pid").agg(pl.len().cast(pl.Int64).alias("calls"))
        assert frames["processes"].filter(pl.col("calls") > 0).select("pid", "calls").sort("pid").equals(by_process.sort("pid"))
        returned = rows.filter(pl.col("kind") == 0)
        assert frames["slowest"]["dur"].max() == returned["dur"].max()
        pictures += found.calls > 0
    assert pictures >= 3
    assert player.ended
    mix = syscall_mix(trace.between(found.since - trace.header.attached_at, None)).select("syscall", "calls", "time", "errors")
    assert frames["syscalls"].select("syscall", "calls", "time", "errors").sort("syscall").equals(mix.sort("syscall"))


def test_bytes_of_processes_and_connections_are_those_of_the_analysis() -> None:
    trace, clock = ringtape.open(DATASETS / "families.trace"), Clock()
    player = Player(trace.path, Options(window=10 * SECOND, interval=SECOND), speed=1, now=clock)
    clock.seconds = 60
    player.look()
    found = player.snapshot()
    wanted = net_throughput(trace, by="process")
    sums = (
        found.frames["processes"].with_columns((pl.col("network") * found.seconds).round().cast(pl.Int64).alias("bytes")).filter(pl.col("bytes") > 0)
    )
    expected = wanted.select(pl.col("process").cast(pl.Int32).alias("pid"), (pl.col("sent") + pl.col("received")).alias("bytes")).filter(
        pl.col("bytes") > 0
    )
    assert sums.select("pid", "bytes").sort("pid").equals(expected.sort("pid"))
    assert found.frames["connections"]["bytes"].sum() == expected["bytes"].sum()


def test_quantiles_on_the_screen_are_within_two_per_cent_of_the_exact_ones() -> None:
    trace, clock = ringtape.open(DATASETS / "demo.trace"), Clock()
    player = Player(trace.path, Options(window=600 * SECOND, interval=SECOND), speed=1000, now=clock)
    clock.seconds = 1
    player.look()
    frame = player.snapshot().frames["syscalls"].filter(pl.col("calls") >= 100)
    for name, p50, p99 in frame.select("syscall", "p50", "p99").iter_rows():
        lengths = sorted(trace.collect(trace.syscalls.filter((pl.col("syscall") == name) & (pl.col("kind") == 0)).select("dur"))["dur"])
        for share, shown in ((50, p50), (99, p99)):
            exact = lengths[-(-len(lengths) * share // 100) - 1]
            assert shown == pytest.approx(exact, rel=0.016, abs=1), (name, share)


def test_after_a_jump_the_totals_are_those_of_the_window_before_the_new_time() -> None:
    trace = ringtape.open(DATASETS / "demo.trace")
    player = Player(trace.path, Options(window=2 * SECOND, interval=SECOND), speed=1, now=Clock())
    for at in (9 * SECOND, 3 * SECOND, 16 * SECOND):
        player.seek(trace.header.attached_at + at)
        found = player.snapshot()
        assert found.until == trace.header.attached_at + at
        assert found.since >= found.until - 2 * SECOND - BIN
        rows = trace.collect(trace.scan("syscalls", found.since, found.until).filter(pl.col("ts") + pl.col("dur") < found.until, pl.col("kind") != 4))
        assert found.calls == rows.height > 0


def test_a_jump_reads_only_the_parts_that_the_window_falls_into(tmp_path: Path) -> None:
    path = make(tmp_path / "long.trace", parts=10, syscalls=[{"ts": T0 + second * SECOND, "nr": 0, "pid": 7, "dur": 5} for second in range(1000)])
    folder = TraceFolder.open(path)
    for part in folder.parts("syscalls")[:8]:
        (path / part.file).unlink()
    replay = Replayed(path, TABLES, start=T0 + 900 * SECOND, history=10 * SECOND, now=Clock())
    (batch,) = [batch for batch in replay.poll() if batch.table == "syscalls"]
    assert batch.rows["ts"].to_list() == [T0 + second * SECOND for second in range(890, 900)]


def test_the_next_slow_call_is_the_one_that_ends_next_whenever_it_began(tmp_path: Path) -> None:
    calls = [(1, 900, 7), (100, 300, 8), (200, 20, 7), (500, 350, 9), (2000, 5, 7)]
    path = make(tmp_path / "slow.trace", syscalls=[{"ts": T0 + ts, "dur": dur, "pid": pid, "nr": 0} for ts, dur, pid in calls])
    replay = Replayed(path, TABLES, now=Clock())
    ends = []
    while (end := replay.next_slow(300)) is not None:
        ends.append(end - T0)
        replay.seek(end + 1)
        replay.poll()
    assert ends == [400, 850, 901]
    replay.seek(T0)
    replay.poll()
    assert replay.next_slow(300, pl.col("pid") == 9) == T0 + 850


def test_a_growing_trace_is_replayed_to_what_is_sealed_and_then_on(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole.trace", parts=4, end=None, syscalls=[{"ts": T0 + at * SECOND, "nr": 0, "pid": 7, "dur": 5} for at in range(40)])
    growing = tmp_path / "growing.trace"
    shutil.copytree(whole, growing)
    lines = (whole / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    manifest = growing / "manifest.jsonl"
    manifest.write_bytes(b"".join(lines[:3]))
    import fcntl

    clock = Clock()
    with open(manifest, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as a recorder does
        replay = Replayed(growing, TABLES, speed=1000, now=clock)
        seen: list[int] = []
        for more in (lines[3:4], lines[4:]):
            for _ in range(3):
                clock.seconds += 1
                seen += [ts for batch in replay.poll() if batch.table == "syscalls" for ts in batch.rows["ts"]]
            assert not replay.ended
            with open(manifest, "ab") as file:
                file.write(b"".join(more))
    for _ in range(3):
        clock.seconds += 1
        seen += [ts for batch in replay.poll() if batch.table == "syscalls" for ts in batch.rows["ts"]]
    assert seen == [T0 + at * SECOND for at in range(40)]
    assert replay.ended
    assert replay.gone


def test_the_clock_keeps_its_speed_within_bounds_and_never_runs_backwards() -> None:
    now = Clock()
    clock = PlayClock(0, 1000, now)
    clock.faster()
    assert clock.speed == 1000
    for _ in range(20):
        clock.faster(-1)
    assert clock.speed == 0.1
    now.seconds = 10
    assert clock.read() == SECOND
    now.seconds = 5
    assert clock.read() == SECOND
    clock.pause(True)
    now.seconds = 50
    assert clock.read() == SECOND
    clock.pause(False)
    now.seconds = 51
    assert clock.read() == SECOND + SECOND // 10
