"""What the rows of the last seconds come to: sums by process and call, kept small however many rows there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from ringtape.analysis.addresses import endpoint_text
from ringtape.analysis.live.follower import Batch
from ringtape.analysis.naming import comm_text, errno_name, is_error, syscall_name
from ringtape.schemas.escape import escape

BIN: Final = 250_000_000
"""Windows begin at multiples of this many ns: rows are summed up bin by bin as they come."""
_ENDPOINTS: Final = ("family", "protocol", "local_high", "local_low", "local_port", "peer_high", "peer_low", "peer_port")
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "syscalls": ("ts", "dur", "ret", "pid", "tid", "nr", "abi", "kind"),
    "processes": ("ts", "pid", "tid", "comm", "kind", "group_dead"),
    "sched": ("ts", "dur", "wait", "pid", "kind"),
    "block": ("ts", "dur", "bytes", "pid", "kind"),
    "transfers": ("ts", "pid", "result", "flags", "direction", *_ENDPOINTS),
    "memory": ("ts", "anon", "file", "shmem", "pid"),
    "paths": ("ts", "pid", "kind", "value"),
    "recorder": ("ts", "interval", "utime", "stime", "rss", "ring_peak"),
}
"""What is read of a trace: to decode the arguments of calls that nobody looks at takes ten times as long as all the rest."""
TABLES: Final = tuple(COLUMNS)
_CHILD: Final = 4
_SLOWEST: Final = 8
"""Calls that are kept of each process, system call and bin."""
_COMPACT: Final = 12


@dataclass(frozen=True)
class Snapshot:
    """What happened between two times.

    ``since`` and ``until`` (ns of CLOCK_MONOTONIC) are what every sum covers: rows whose ``ts`` lies there and that had come.
    ``frames`` maps ``syscalls``, ``processes``, ``connections``, ``slowest`` and ``files`` to their rows; ``calls`` and ``errors`` are
    sums; ``recorder`` is the recorder's own last row, if any.
    """

    since: int
    until: int
    frames: dict[str, pl.DataFrame]
    calls: int
    errors: int
    recorder: dict[str, Any] | None

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return max(self.until - self.since, 1) / 1e9


@dataclass
class _Tally:
    """Sums by keys and bin. Frames are put together when there are many of them."""

    keys: tuple[str, ...]
    reduce: Callable[[pl.LazyFrame], pl.LazyFrame]
    frames: list[pl.DataFrame] = field(default_factory=list)

    def add(self, rows: pl.LazyFrame, oldest: int) -> None:
        self.frames.append(self.reduce(rows).collect())
        if len(self.frames) > _COMPACT:
            self.frames = [self.reduce(pl.concat(self.frames).lazy().filter(pl.col("bin") >= oldest)).collect()]

    def since(self, first: int) -> pl.LazyFrame | None:
        return pl.concat(self.frames).lazy().filter(pl.col("bin") >= first) if self.frames else None


def _summed(*keys: str) -> _Tally:
    return _Tally(keys, lambda rows: rows.group_by("bin", *keys).agg(pl.all().sum()))


class State:
    """Sums over the last seconds, for a screen.

    Parameters
    ----------
    keep : int
        How many ns before the newest row are kept: the longest window of a snapshot.
    """

    def __init__(self, keep: int = 10 * 10**9) -> None:
        self._keep = keep
        self._newest = 0
        self._first: int | None = None
        self._calls = _summed("pid", "abi", "nr")
        self._lengths = _summed("pid", "abi", "nr", "bucket")
        self._slowest = _Tally(("pid", "abi", "nr"), _longest)
        self._use = _summed("pid")
        self._bytes = _summed("pid", *_ENDPOINTS)
        self._paths = _summed("pid", "value")
        self._memory: dict[int, tuple[int, int]] = {}
        self._names: dict[int, tuple[int, str]] = {}
        self._ended: dict[int, int] = {}
        self._recorder: dict[str, Any] | None = None

    def feed(self, batches: Sequence[Batch]) -> None:
        """Take rows."""
        for batch in batches:
            if batch.rows.height:
                take = getattr(self, f"_take_{batch.table}", None)
                if batch.table not in ("processes", "recorder"):
                    self._newest = max(self._newest, int(batch.rows["ts"].max()))  # type: ignore[arg-type]
                if take is not None:
                    take(batch.rows)
        self._forget()

    @property
    def _oldest(self) -> int:
        return (self._newest - self._keep) // BIN - 1

    def _take_syscalls(self, rows: pl.DataFrame) -> None:
        own = rows.lazy().filter(pl.col("kind") != _CHILD).with_columns((pl.col("ts") // BIN).alias("bin"))
        error = is_error().cast(pl.Int64).alias("errors")
        self._calls.add(own.select("bin", "pid", "abi", "nr", pl.lit(1, pl.Int64).alias("calls"), error, pl.col("dur").alias("time")), self._oldest)
        returned = own.filter(pl.col("kind") == 0)
        self._lengths.add(returned.select("bin", "pid", "abi", "nr", _bucket(), pl.lit(1, pl.Int64).alias("count")), self._oldest)
        self._slowest.add(returned.select("bin", "pid", "abi", "nr", "ts", "dur", "ret", "tid"), self._oldest)

    def _take_sched(self, rows: pl.DataFrame) -> None:
        # A stay may be long: what lies in each bin of it counts there. One over the whole window is enough.
        first = pl.max_horizontal(pl.col("ts") // BIN, pl.lit(self._oldest))
        stays = rows.lazy().filter(~pl.col("kind").is_in([3, 4]) & (pl.col("dur") >= 0))
        each = stays.with_columns(pl.int_ranges(first, (pl.col("ts") + pl.col("dur")) // BIN + 1).alias("bin")).explode("bin").drop_nulls("bin")
        low = pl.max_horizontal(pl.col("ts"), pl.col("bin") * BIN)
        high = pl.min_horizontal(pl.col("ts") + pl.col("dur"), (pl.col("bin") + 1) * BIN)
        self._count(each.select("bin", "pid", (high - low).clip(0).alias("cpu")))
        waits = rows.lazy().filter(pl.col("wait") > 0)
        self._count(waits.select((pl.col("ts") // BIN).alias("bin"), "pid", pl.col("wait")))

    def _take_block(self, rows: pl.DataFrame) -> None:
        done = rows.lazy().filter(pl.col("kind").is_in([0, 1]))
        self._count(done.select((pl.col("ts") // BIN).alias("bin"), "pid", pl.col("bytes").alias("disk")))

    def _take_transfers(self, rows: pl.DataFrame) -> None:
        moved = (pl.col("result") > 0) & ((pl.col("flags") & 0x2002) == 0)
        size = pl.col("result").cast(pl.Int64)
        each = rows.lazy().filter(moved).with_columns((pl.col("ts") // BIN).alias("bin"))
        self._count(each.select("bin", "pid", size.alias("network")))
        sent, received = (size * (pl.col("direction") == way).cast(pl.Int64) for way in (0, 1))
        self._bytes.add(each.select("bin", "pid", *_ENDPOINTS, sent.alias("sent"), received.alias("received")), self._oldest)

    def _count(self, rows: pl.LazyFrame) -> None:
        use = {"cpu": 0, "wait": 0, "disk": 0, "network": 0}
        have = rows.collect_schema().names()
        columns = [pl.col(name).cast(pl.Int64) if name in have else pl.lit(0, pl.Int64).alias(name) for name in use]
        self._use.add(rows.select("bin", "pid", *columns), self._oldest)

    def _take_paths(self, rows: pl.DataFrame) -> None:
        named = rows.lazy().filter((pl.col("kind") == 0) & (pl.col("value").bin.size() > 0))
        self._paths.add(named.select((pl.col("ts") // BIN).alias("bin"), "pid", "value", pl.lit(1, pl.Int64).alias("calls")), self._oldest)

    def _take_memory(self, rows: pl.DataFrame) -> None:
        total = (pl.col("anon") + pl.col("file") + pl.col("shmem")).alias("size")
        last = rows.lazy().sort("ts").group_by("pid").agg(pl.col("ts").last(), total.last()).collect()
        for pid, ts, size in last.iter_rows():
            if ts >= self._memory.get(pid, (ts, 0))[0]:
                self._memory[pid] = (ts, size)

    def _take_processes(self, rows: pl.DataFrame) -> None:
        for ts, pid, comm in rows.filter((pl.col("tid") == pl.col("pid")) & (pl.col("kind") != 3)).sort("ts").select("ts", "pid", "comm").iter_rows():
            if ts >= self._names.get(pid, (ts, ""))[0]:
                self._names[pid] = (ts, comm_text(comm))
                self._ended.pop(pid, None)
        for ts, pid in rows.filter((pl.col("kind") == 3) & (pl.col("group_dead") == 1)).select("ts", "pid").iter_rows():
            if ts >= self._names.get(pid, (ts, ""))[0]:
                self._ended[pid] = ts

    def _take_recorder(self, rows: pl.DataFrame) -> None:
        last = rows.filter(pl.col("interval") > 0).sort("ts").tail(1)
        if last.height:
            self._recorder = last.row(0, named=True)

    def _forget(self) -> None:
        """Forget processes that ended before the window: of weeks of them, names alone would fill the memory."""
        old = [pid for pid, ts in self._ended.items() if ts < self._newest - 2 * self._keep]
        for pid in old:
            for known in (self._ended, self._names, self._memory):
                known.pop(pid, None)

    def name(self, pid: int) -> str:
        """Return the command name of a process, as far as it is known."""
        return self._names.get(pid, (0, ""))[1]

    def snapshot(
        self, at: int, window: int, *, process: str | None = None, syscall: str | None = None, pid: int | None = None, top: int = 500, begin: int = 0
    ) -> Snapshot:
        """Return what happened in a window.

        Parameters
        ----------
        at : int
            Its end, in ns of CLOCK_MONOTONIC.
        window : int
            Its length in ns; it begins at a multiple of `BIN` up to that much earlier.
        process : str, optional
            Only processes whose name holds this text, or that have this number.
        syscall : str, optional
            Only calls of this name.
        pid : int, optional
            Only this process.
        top : int
            Rows of each frame at most.
        begin : int
            No window begins earlier: the recording's own beginning.
        """
        first = max(at - window, begin) // BIN
        since = max(first * BIN, begin)
        seconds = max(at - since, 1) / 1e9
        chosen = self._pids(process, pid)
        calls = _of(self._calls.since(first), chosen)
        named = None if calls is None else calls.with_columns(syscall_name())
        if named is not None and syscall is not None:
            named = named.filter(pl.col("syscall") == syscall)
        rows = named.collect() if named is not None else _EMPTY_CALLS
        lengths = _of(self._lengths.since(first), chosen)
        frames = {
            "syscalls": _syscalls(rows, lengths, seconds).head(top),
            "processes": self._processes(rows, first, chosen, seconds).head(top),
            "connections": self._connections(first, chosen, seconds).head(top),
            "slowest": self._slow(first, chosen, syscall, at).head(top),
            "files": self._files(first, chosen).head(top),
        }
        return Snapshot(since, at, frames, int(rows["calls"].sum()), int(rows["errors"].sum()), self._recorder)

    def _pids(self, process: str | None, pid: int | None) -> list[int] | None:
        if pid is not None:
            return [pid]
        if process is None:
            return None
        if process.isascii() and process.isdecimal():
            return [int(process)]
        return [number for number, (_, name) in self._names.items() if process in name]

    def _named(self, frame: pl.DataFrame) -> pl.DataFrame:
        pids = frame["pid"].unique().to_list()
        names = pl.DataFrame({"pid": pids, "comm": [self.name(one) or None for one in pids]}, schema={"pid": pl.Int32, "comm": pl.String})
        return frame.join(names, on="pid", how="left", maintain_order="left")

    def _processes(self, calls: pl.DataFrame, first: int, chosen: list[int] | None, seconds: float) -> pl.DataFrame:
        by = calls.group_by("pid").agg(pl.col("calls").sum(), pl.col("errors").sum())
        use = _of(self._use.since(first), chosen)
        used = (use.group_by("pid").agg(pl.col("cpu", "wait", "disk", "network").sum()) if use is not None else _EMPTY_USE).collect()
        memory = pl.DataFrame(
            {"pid": list(self._memory), "memory": [size for _, size in self._memory.values()]}, schema={"pid": pl.Int32, "memory": pl.Int64}
        )
        joined = by.join(used, on="pid", how="full", coalesce=True).join(memory, on="pid", how="left")
        sums = joined.with_columns(pl.col("calls", "errors", "cpu", "wait", "disk", "network").fill_null(0)).with_columns(
            (pl.col("calls") / seconds).alias("rate"),
            *((pl.col(name) / seconds / 1e9).alias(name) for name in ("cpu", "wait")),
            *((pl.col(name) / seconds).alias(name) for name in ("disk", "network")),
        )
        return self._named(sums.sort("calls", "pid", descending=[True, False]))

    def _connections(self, first: int, chosen: list[int] | None, seconds: float) -> pl.DataFrame:
        found = _of(self._bytes.since(first), chosen)
        if found is None:
            return _EMPTY_CONNECTIONS
        sums = (
            found.group_by("pid", *_ENDPOINTS)
            .agg(pl.col("sent", "received").sum())
            .with_columns((pl.col("sent") + pl.col("received")).alias("bytes"))
        )
        most = sums.sort("bytes", descending=True).head(500).collect()
        texts = most.with_columns(endpoint_text("local"), endpoint_text("peer"))
        rates = texts.with_columns((pl.col("sent") / seconds).alias("sent"), (pl.col("received") / seconds).alias("received"))
        return self._named(rates.select("pid", "family", "protocol", "local", "peer", "sent", "received", "bytes"))

    def _slow(self, first: int, chosen: list[int] | None, syscall: str | None, at: int) -> pl.DataFrame:
        found = _of(self._slowest.since(first), chosen)
        if found is None:
            return _EMPTY_SLOWEST
        rows = found.sort("dur", "ts", descending=[True, False]).with_columns(syscall_name())
        if syscall is not None:
            rows = rows.filter(pl.col("syscall") == syscall)
        text = pl.coalesce(errno_name(), pl.col("ret").cast(pl.String)).alias("result")
        return self._named(rows.head(500).with_columns(text, (at - pl.col("ts")).alias("ago")).collect())

    def _files(self, first: int, chosen: list[int] | None) -> pl.DataFrame:
        found = _of(self._paths.since(first), chosen)
        if found is None:
            return _EMPTY_FILES
        rows = found.group_by("value").agg(pl.col("calls").sum()).sort("calls", "value", descending=[True, False]).head(500).collect()
        return rows.with_columns(pl.Series("path", [escape(value) for value in rows["value"]], pl.String)).drop("value")


_EMPTY_CALLS: Final = pl.DataFrame(
    schema={
        "bin": pl.Int64,
        "pid": pl.Int32,
        "abi": pl.Int8,
        "nr": pl.Int32,
        "calls": pl.Int64,
        "errors": pl.Int64,
        "time": pl.Int64,
        "syscall": pl.String,
    }
)
_EMPTY_USE: Final = pl.LazyFrame(schema={"pid": pl.Int32, "cpu": pl.Int64, "wait": pl.Int64, "disk": pl.Int64, "network": pl.Int64})
_EMPTY_CONNECTIONS: Final = pl.DataFrame(
    schema={"pid": pl.Int32, "comm": pl.String, "local": pl.String, "peer": pl.String, "sent": pl.Float64, "received": pl.Float64, "bytes": pl.Int64}
)
_EMPTY_SLOWEST: Final = pl.DataFrame(
    schema={
        "pid": pl.Int32,
        "tid": pl.Int32,
        "ts": pl.Int64,
        "dur": pl.Int64,
        "syscall": pl.String,
        "result": pl.String,
        "ago": pl.Int64,
        "comm": pl.String,
    }
)
_EMPTY_FILES: Final = pl.DataFrame(schema={"path": pl.String, "calls": pl.Int64})


def _of(rows: pl.LazyFrame | None, pids: list[int] | None) -> pl.LazyFrame | None:
    return rows if rows is None or pids is None else rows.filter(pl.col("pid").is_in(pids))


def _longest(rows: pl.LazyFrame) -> pl.LazyFrame:
    keys = ("bin", "pid", "abi", "nr")
    # To sort all of them takes three times as long as to find the few first.
    few = rows.filter(pl.col("dur") >= pl.col("dur").top_k(_SLOWEST).min().over(keys))
    return few.sort("dur", descending=True).group_by(keys, maintain_order=True).head(_SLOWEST)


def _bucket() -> pl.Expr:
    """Return the expression for the bucket of a duration: 32 to each power of two, so that its middle is within 1.6 % of it."""
    dur = pl.col("dur").clip(0)
    shift = (dur.clip(1).log(2).floor().cast(pl.Int64) - 5).clip(0)
    return (shift * 64 + dur // (pl.lit(2, pl.Int64).pow(shift))).cast(pl.Int32).alias("bucket")


def _middle() -> pl.Expr:
    """Return the expression for the middle of a bucket."""
    width = pl.lit(2, pl.Int64).pow(pl.col("bucket").cast(pl.Int64) // 64)
    return (pl.col("bucket").cast(pl.Int64) % 64) * width + (width - 1) / 2


def _syscalls(rows: pl.DataFrame, lengths: pl.LazyFrame | None, seconds: float) -> pl.DataFrame:
    sums = rows.group_by("abi", "nr", "syscall").agg(pl.col("calls", "errors", "time").sum())
    sums = sums.with_columns((pl.col("calls") / seconds).alias("rate"), (pl.col("calls") / pl.col("calls").sum()).alias("share"))
    if lengths is None:
        empty = pl.lit(None, pl.Float64)
        return sums.with_columns(empty.alias("p50"), empty.alias("p99"))
    by = lengths.group_by("abi", "nr", "bucket").agg(pl.col("count").sum()).sort("bucket")
    ranked = by.with_columns(pl.col("count").cum_sum().over("abi", "nr").alias("rank"), pl.col("count").sum().over("abi", "nr").alias("all"))

    def quantile(share: float) -> pl.Expr:
        return _middle().filter(pl.col("rank") >= (pl.col("all") * share).ceil()).first()

    found = ranked.group_by("abi", "nr", maintain_order=True).agg(quantile(0.5).alias("p50"), quantile(0.99).alias("p99")).collect()
    return sums.join(found, on=["abi", "nr"], how="left").sort("calls", "syscall", descending=[True, False])
