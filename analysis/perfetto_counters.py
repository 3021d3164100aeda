"""What a Perfetto trace counts over time, what was lost, and what was recorded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.perfetto_packets import BYTES_UNIT, COUNT_UNIT, Packets, track
from ringtape.analysis.perfetto_threads import Threads
from ringtape.analysis.pieces import batches
from ringtape.analysis.summary import command_line
from ringtape.analysis.trace import Trace
from ringtape.schemas.escape import escape

Ints = npt.NDArray[np.int64]
LOST, RECORDING = 2, 3
RESIDENT = {"anon": "RSS anonymous", "file": "RSS of files", "shmem": "RSS shared", "swap": "swap"}
STEPS, SHORTEST = 1000, 1_000_000
"""Stretches into which the recording is parted for rates, unless they would be shorter than this (ns)."""


def about(trace: Trace, packets: Packets) -> bytes:
    """Return a track that says what was recorded, from when to when, and what is missing."""
    end = trace.span[1]
    notes = {"command": command_line(trace.folder), "host": escape(str(trace.header.host.get("name", ""))), "state": trace.state}
    notes["lost"] = ", ".join(f"{count} of {table}" for table, count in sorted(trace.lost().items())) or "nothing"
    iids = packets.passing(list(notes.values()))
    told = [packets.named(name, iids[at : at + 1]) for at, name in enumerate(notes)]
    data = packets.instants(np.array([trace.span[0]]), RECORDING, packets.title("recording begins", "recording"), *told)
    if end is not None:
        data += packets.instants(np.array([end]), RECORDING, packets.title("recording ends", "recording"))
    return track(RECORDING, name="ringtape") + packets.interned() + data


def counters(trace: Trace, packets: Packets, threads: Threads) -> Iterator[bytes]:
    """Yield resident memory, calls and bytes per second by process, and by disk bytes per second and requests in the driver."""
    tracks = _Tracks(threads.beyond)
    if "memory" in trace.tables:
        yield from _memory(trace, packets, threads, tracks)
    width = _width(trace)
    sent = pl.when(pl.col("direction") == 0).then(pl.lit("sent")).otherwise(pl.lit("received"))
    way = pl.when(pl.col("operation") == 0).then(pl.lit("read")).otherwise(pl.lit("written"))
    done = pl.when(pl.col("operation").is_in([0, 1]), pl.col("kind") == 0).then(pl.col("bytes")).otherwise(0)
    for table, keys, value, name, unit in (
        ("syscalls", pl.lit("calls"), pl.lit(1), "system calls/s", "calls/s"),
        ("transfers", sent, pl.col("result").clip(0), "sockets: {}", "bytes/s"),
        ("block", way, done, "{}", "bytes/s"),
    ):
        if table in trace.tables:
            yield from _rates(trace, packets, threads, tracks, table, keys.alias("key"), value, name, unit, width)
    if "block" in trace.tables:
        yield from _depth(trace, packets, tracks)


class _Tracks:
    """Tracks of counters by what they count, described when first used."""

    def __init__(self, first: int) -> None:
        self._next, self._known = first, dict[tuple[int, str], int]()

    def of(self, parent: int, name: str, unit: int | str) -> tuple[int, bytes]:
        """Return a track, and the packet that describes it if it is new."""
        if (parent, name) in self._known:
            return self._known[parent, name], b""
        self._known[parent, name] = number = self._next
        self._next += 1
        return number, track(number, name=name, counter=unit, **({"parent_uuid": parent} if parent else {}))


def _memory(trace: Trace, packets: Packets, threads: Threads, tracks: _Tracks) -> Iterator[bytes]:

    last: dict[int, int] = {}

    def wanted(piece: Trace) -> pl.LazyFrame:
        return piece.scan("memory").filter(pl.col("kind") == 0, pl.col("pid") > 0).select("ts", "pid", *RESIDENT)

    for batch in batches(trace, "memory", wanted):
        for (pid,), rows in batch.group_by("pid", maintain_order=True):
            parent = int(threads.process(np.array([pid]))[0])
            for column, name in RESIDENT.items():
                number, described = tracks.of(parent, name, BYTES_UNIT)
                values = rows[column].to_numpy()
                changed = values != np.append(last.get(number, ~values[0]), values[:-1])
                last[number] = int(values[-1])
                yield described + packets.counters(rows["ts"].to_numpy()[changed], number, values[changed])


def _width(trace: Trace) -> int:
    begin, end = trace.span
    return max(SHORTEST, ((end if end is not None else begin) - begin) // STEPS)


def _rates(
    trace: Trace, packets: Packets, threads: Threads, tracks: _Tracks, table: str, key: pl.Expr, value: pl.Expr, name: str, unit: str, width: int
) -> Iterator[bytes]:
    """Yield sums per stretch of time as rates per second; after a stretch without any stands a 0."""
    begin = trace.span[0]
    who = pl.col("disk").alias("who") if table == "block" else pl.col("pid").alias("who")
    time = pl.col("ts") + pl.col("dur") if table == "block" else pl.col("ts")
    sums = trace.scan(table).select(who, key, ((time - begin) // width).alias("bin"), value.cast(pl.Int64).alias("value"))
    found = trace.collect(sums.group_by("who", "key", "bin").agg(pl.col("value").sum())).filter(pl.col("value") > 0).sort("who", "key", "bin")
    for (owner, text), rows in found.group_by("who", "key", maintain_order=True):
        bins, rate = rows["bin"].to_numpy(), rows["value"].to_numpy() * 1_000_000_000 // width
        silent = np.flatnonzero(np.append(bins[1:] != bins[:-1] + 1, True))
        at = np.concatenate([bins, bins[silent] + 1])
        values = np.concatenate([rate, np.zeros(len(silent), np.int64)])
        order = np.argsort(at, kind="stable")
        if table == "block":
            number, described = tracks.of(0, f"{_disk(owner)}: {text}", unit)
        else:
            number, described = tracks.of(int(threads.process(np.array([owner]))[0]), name.format(text), unit)
        yield described + packets.counters(begin + at[order] * width, number, values[order])


def _disk(name: object) -> str:
    return escape(name.split(b"\0", 1)[0]) if isinstance(name, bytes) else str(name)


def _depth(trace: Trace, packets: Packets, tracks: _Tracks) -> Iterator[bytes]:
    """Yield how many requests each disk's driver had at every change."""
    waiting: dict[bytes, tuple[Ints, Ints]] = {}
    levels: dict[bytes, int] = {}
    none = np.empty(0, np.int64)

    def done(piece: Trace) -> pl.LazyFrame:
        return piece.scan("block").filter(pl.col("issue") >= 0, pl.col("service") >= 0).select("ts", "disk", "issue", "service")

    def put(disk: bytes, ts: Ints, steps: Ints, until: int | None) -> bytes:
        order = np.argsort(ts, kind="stable")
        ts, steps = ts[order], steps[order]
        cut = len(ts) if until is None else int(np.searchsorted(ts, until, "left"))
        waiting[disk] = ts[cut:], steps[cut:]
        if not cut:
            return b""
        level = levels.get(disk, 0) + np.cumsum(steps[:cut])
        levels[disk] = int(level[-1])
        last = np.append(ts[1:cut] != ts[: cut - 1], True)
        number, described = tracks.of(0, f"{_disk(disk)}: requests in the driver", COUNT_UNIT)
        return described + packets.counters(ts[:cut][last], number, level[last])

    for batch in batches(trace, "block", done):
        until = int(batch["ts"][-1])
        for (disk,), rows in batch.group_by("disk", maintain_order=True):
            begin = (rows["ts"] + rows["issue"]).to_numpy()
            ts, steps = waiting.get(disk, (none, none))
            one = np.ones(len(begin), np.int64)
            yield put(disk, np.concatenate([ts, begin, begin + rows["service"].to_numpy()]), np.concatenate([steps, one, -one]), until)
    for disk, (ts, steps) in list(waiting.items()):
        yield put(disk, ts, steps, None)


def losses(trace: Trace, packets: Packets) -> Iterator[bytes]:
    """Yield what the ledger says: an instant for each stretch in which records of a table were lost, and their sum so far."""
    if "losses" not in trace.tables:
        return
    lost = trace.scan("losses").filter(pl.col("cause").is_in([0, 1]))
    found = trace.collect(lost.group_by("table", "ts", "until").agg(pl.col("count").sum(), pl.col("sum").sum()).sort("until", "ts", "table"))
    if not len(found):
        return
    yield track(LOST, name="lost records")
    for at, ((table,), rows) in enumerate(found.group_by("table", maintain_order=True)):
        ts, count = rows["until"].to_numpy(), rows["count"].to_numpy()
        notes = [packets.noted("records", count), packets.noted("time", rows["sum"].to_numpy()), packets.noted("since", rows["ts"].to_numpy())]
        data = packets.instants(ts, LOST, packets.title(f"lost: {escape(str(table))}", "loss"), *notes)
        yield packets.interned() + data
        number = LOST + 2 + at
        if number < 16:
            total = np.cumsum(count)
            last = np.append(ts[1:] != ts[:-1], True)
            yield track(number, name=f"lost {escape(str(table))}", counter=COUNT_UNIT, parent_uuid=LOST) + packets.counters(
                ts[last], number, total[last]
            )
