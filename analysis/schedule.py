"""Where threads were at every instant: stays on a CPU, and what lies between them, from the table ``sched``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from ringtape.analysis.trace import Trace

RUNNING_AT_ATTACH, RUNNING, WAITING, BLOCKED, UNSEEN = 1, 2, 3, 4, 5
ON, WAIT, SLEEP, UNINTERRUPTIBLE, STOPPED, OFF, LOST, ON_LOSSY = KINDS = range(8)
"""What a segment is: on a CPU, waiting for one, blocked (interruptible, uninterruptible, stopped, state unknown), not known because
stays were lost, on a CPU while system calls were being lost there."""
_INTERRUPTIBLE, _UNINTERRUPTIBLE, _STOPPED = 0x1, 0x2, 0x4 | 0x8
_IDLE = 0x402
_FORK, _EXEC, _EXIT, _EXISTING = 1, 2, 3, 0


def stays(trace: Trace) -> pl.DataFrame:
    """Return every stay on a CPU with what came before it in its thread, also outside of the window that a trace may be narrowed to.

    Parameters
    ----------
    trace : Trace
        The recording; needs the table ``sched``.

    Returns
    -------
    DataFrame
        One row per row of ``sched``, by thread and time: ``thread`` (0, 1, 2 ...: a thread number that is used again is another
        thread), ``tid``, ``pid``, ``ts``, ``end``, ``wait`` (ns, 0 where unknown), ``cpu``, ``state``, ``preempt``, ``kind``,
        ``waker``, ``waker_pid``, ``context``, ``migrations``, ``run``, ``before`` (end of the stay before; null for the first), ``left``
        (state left in then: 0 runnable; null for the first), ``gap`` (stays that were lost in between).
    """
    columns = ["tid", "pid", "ts", "dur", "wait", "cpu", "slice", "state", "preempt", "kind", "waker", "waker_pid", "context", "migrations", "run"]
    frame = trace.collect(trace.whole.scan("sched").select(columns)).sort("tid", "ts", "slice")
    frame = frame.with_columns((pl.col("ts") + pl.col("dur")).alias("end"), _began_anew(trace, frame))
    same = pl.col("tid") == pl.col("tid").shift()
    anew = ~same.fill_null(False) | (pl.col("slice") <= pl.col("slice").shift()) | pl.col("anew")
    frame = frame.with_columns((anew.cast(pl.Int64).cum_sum() - 1).alias("thread"))
    first = pl.col("thread") != pl.col("thread").shift().fill_null(-1)
    runnable = (pl.col("state") == 0) | (pl.col("preempt") == 1)
    return frame.with_columns(
        pl.col("wait").clip(0),
        pl.when(~first).then(pl.col("end").shift()).alias("before"),
        pl.when(~first).then(pl.when(runnable).then(0).otherwise(pl.col("state")).shift()).alias("left"),
        pl.when(first).then(0).otherwise(pl.col("slice") - pl.col("slice").shift() - 1).cast(pl.Int64).alias("gap"),
    ).drop("dur", "slice", "anew")


def unlocated(trace: Trace, rows: pl.DataFrame) -> int:
    """Return how many lost stays no gap of `stays` accounts for: they were the last of their threads, or all."""
    return max(0, trace.lost().get("sched", 0) - int(rows["gap"].sum()))


def _began_anew(trace: Trace, frame: pl.DataFrame) -> pl.Series:
    """Tell the first stay of a thread under a number that it has taken over by exec (from the leader of its process)."""
    nowhere = pl.Series("anew", [False]).new_from_index(0, len(frame))
    if "processes" not in trace.tables:
        return nowhere
    execs = trace.scan("processes").filter(pl.col("kind") == _EXEC, pl.col("creator") > 0, pl.col("creator") != pl.col("tid"))
    taken = trace.collect(execs.select("tid", pl.col("ts").alias("taken"))).sort("taken")
    if not len(taken):
        return nowhere
    # The stay in which it happened was written down when it ended, under the new number already.
    by_end = frame.select("tid", "ts", end=pl.col("ts") + pl.col("dur")).with_row_index().sort("end")
    found = by_end.join_asof(taken, left_on="end", right_on="taken", by="tid", check_sortedness=False).sort("index")
    return found.select((pl.col("taken").is_not_null() & (pl.col("taken") != pl.col("taken").shift().fill_null(-1))).alias("anew")).to_series()


def lives(trace: Trace, rows: pl.DataFrame) -> pl.DataFrame:
    """Return from when to when each thread of `stays` is known.

    Returns
    -------
    DataFrame
        One row per thread: ``thread``, ``tid``, ``pid``, ``begin`` (when it first became runnable; when the probes were attached,
        for one that was there) and ``end`` (when it left its CPU for ever, or the recording ended), ns of CLOCK_MONOTONIC; both cut
        at the window of the trace, if it has one; ``seen`` is the begin before the cut.
    """
    found = rows.group_by("thread", maintain_order=True).agg(
        pl.col("tid").first(),
        pl.col("pid").last(),
        pl.coalesce("before", pl.col("ts") - pl.col("wait")).first().alias("begin"),
        pl.col("end").last(),
    )
    if "processes" not in trace.tables:
        return trace.narrowing.clip(found.with_columns(seen="begin"), "begin", "end")
    events = trace.collect(trace.scan("processes").filter(pl.col("kind").is_in([_EXISTING, _FORK])).select("tid", "kind", "ts")).sort("ts")
    born = found.sort("begin").join_asof(events, left_on="begin", right_on="ts", by="tid", check_sortedness=False).sort("thread")
    # A thread that was there is known from its row on; one that was made is nothing to wait for until it is runnable.
    there = (pl.col("kind") == _EXISTING) & (pl.col("thread") == pl.col("thread").min().over("tid"))
    begin = pl.when(there).then(pl.min_horizontal("begin", "ts")).otherwise(pl.col("begin"))
    return trace.narrowing.clip(born.select("thread", "tid", "pid", begin.alias("begin"), "end", begin.alias("seen")), "begin", "end")


def segments(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Part the life of each thread into what it was doing, without gap or overlap.

    Parameters
    ----------
    rows, known : DataFrame
        Results of `stays` and `lives`.

    Returns
    -------
    DataFrame
        By thread and time: ``thread``, ``start``, ``stop``, ``kind`` (`ON`, `WAIT`, `SLEEP`, `UNINTERRUPTIBLE`, `STOPPED`, `OFF`, `LOST`),
        ``cpu`` (of what is `ON`, else null). Segments of no length are left out; the lengths of a thread's segments add up to its life.
    """
    stay = rows.join(known.select("thread", "begin"), on="thread", maintain_order="left")
    since = pl.coalesce("before", "begin")
    runnable = pl.max_horizontal(pl.col("ts") - pl.col("wait"), since)
    base = stay.select(
        "thread",
        "cpu",
        "ts",
        "end",
        since.alias("since"),
        runnable.alias("runnable"),
        pl.when(pl.col("gap") > 0).then(LOST).otherwise(_away()).alias("away"),
    )
    lost = pl.col("away") == LOST
    pieces = (
        # Of the time in which stays were lost nothing is known but that the thread lived.
        (pl.col("since"), pl.when(lost).then(pl.col("ts")).otherwise(pl.col("runnable")), pl.col("away")),
        (pl.when(lost).then(pl.col("ts")).otherwise(pl.col("runnable")), pl.col("ts"), pl.lit(WAIT)),
        (pl.col("ts"), pl.col("end"), pl.lit(ON)),
    )
    made = [
        base.select(
            "thread",
            start.alias("start"),
            stop.alias("stop"),
            kind.cast(pl.Int8).alias("kind"),
            (pl.col("cpu") if at == len(pieces) - 1 else pl.lit(None, pl.Int16)).cast(pl.Int16).alias("cpu"),
        ).filter(pl.col("stop") > pl.col("start"))
        for at, (start, stop, kind) in enumerate(pieces)
    ]
    return pl.concat(made).sort("thread", "start")


def _away() -> pl.Expr:
    left = pl.col("left")
    return (
        pl.when(left.is_null())
        .then(OFF)
        .when(left & _STOPPED != 0)
        .then(STOPPED)
        .when((left & _UNINTERRUPTIBLE != 0) & (left & _IDLE != _IDLE))
        .then(UNINTERRUPTIBLE)
        .when(left & _INTERRUPTIBLE != 0)
        .then(SLEEP)
        .when(left == 0)
        .then(WAIT)
        .otherwise(SLEEP)
    )


def mark_lossy(parts: pl.DataFrame, windows: pl.DataFrame) -> pl.DataFrame:
    """Cut the stays out during which system calls were lost on their CPU (`ON_LOSSY`).

    Parameters
    ----------
    parts : DataFrame
        Result of `segments`.
    windows : DataFrame
        ``cpu``, ``since``, ``until``: when calls were lost.
    """
    if not len(windows):
        return parts
    merged: dict[int, list[list[int]]] = {}
    for cpu, since, until in windows.select("cpu", "since", "until").sort("cpu", "since").iter_rows():
        known = merged.setdefault(cpu, [])
        if known and since <= known[-1][1]:
            known[-1][1] = max(known[-1][1], until)
        else:
            known.append([since, until])
    flat = pl.DataFrame(
        [(cpu, *span) for cpu, spans in merged.items() for span in spans],
        schema={"cpu": pl.Int16, "since": pl.Int64, "until": pl.Int64},
        orient="row",
    )
    on = parts.filter(pl.col("kind") == ON).with_row_index("row")
    inside = on.join_where(flat, pl.col("cpu") == pl.col("cpu_right"), pl.col("start") < pl.col("until"), pl.col("stop") > pl.col("since"))
    if not len(inside):
        return parts
    inside = inside.sort("row", "since").with_columns(
        pl.max_horizontal("start", "since").alias("since"), pl.min_horizontal("stop", "until").alias("until")
    )
    first = pl.col("row") != pl.col("row").shift().fill_null(2**32 - 1)
    last = pl.col("row") != pl.col("row").shift(-1).fill_null(2**32 - 1)
    lossy = inside.select("thread", pl.col("since").alias("start"), pl.col("until").alias("stop"), pl.lit(ON_LOSSY, pl.Int8).alias("kind"), "cpu")
    before = inside.select(
        "thread", pl.when(first).then(pl.col("start")).otherwise(pl.col("until").shift()).alias("start"), pl.col("since").alias("stop"), "kind", "cpu"
    )
    after = inside.filter(last).select("thread", pl.col("until").alias("start"), "stop", "kind", "cpu")
    untouched = on.join(inside.select("row").unique(), on="row", how="anti").drop("row")
    made = pl.concat([parts.filter(pl.col("kind") != ON), untouched, lossy, before, after])
    return made.filter(pl.col("stop") > pl.col("start")).sort("thread", "start")


def cut(frame: pl.DataFrame, begin: str, end: str, edges: Sequence[int]) -> pl.DataFrame:
    """Cut intervals at edges (ascending, the first before and the last behind all intervals) and tell the ``bin`` of each piece."""
    if len(edges) == 2:
        return frame.with_columns(pl.lit(0, pl.Int64).alias("bin"))
    grid = np.asarray(edges, np.int64)
    first = np.clip(np.searchsorted(grid, frame[begin].to_numpy(), "right") - 1, 0, len(grid) - 2)
    last = np.clip(np.searchsorted(grid, frame[end].to_numpy(), "left") - 1, first, len(grid) - 2)
    lower, upper = pl.Series(grid[:-1]), pl.Series(grid[1:])
    pieces = frame.with_columns(pl.Series("_first", first), pl.Series("_last", last)).with_columns(
        pl.int_ranges(pl.col("_first"), pl.col("_last") + 1).alias("bin")
    )
    pieces = pieces.drop("_first", "_last").explode("bin")
    return pieces.with_columns(
        pl.max_horizontal(begin, lower.gather(pieces["bin"])).alias(begin), pl.min_horizontal(end, upper.gather(pieces["bin"])).alias(end)
    )


class Clock:
    """How long each thread was in each kind of segment during any interval: exact sums.

    Parameters
    ----------
    parts : DataFrame
        Result of `segments`.
    """

    def __init__(self, parts: pl.DataFrame) -> None:
        self._parts = parts.sort("start").with_row_index("segment")
        length = pl.col("stop") - pl.col("start")
        ordered = self._parts.sort("thread", "start")
        spent = {kind: pl.when(pl.col("kind") == kind).then(length).otherwise(0) for kind in KINDS}
        before = [(time.cum_sum().over("thread") - time).alias(str(kind)) for kind, time in spent.items()]
        self._before = ordered.with_columns(before).sort("segment")

    def spent(self, intervals: pl.DataFrame, begin: str, end: str, keys: Sequence[str]) -> pl.DataFrame:
        """Sum the time in each kind over intervals (rows with ``thread`` and two instants of its life).

        Returns
        -------
        DataFrame
            ``keys``, ``kind``, ``time`` (ns, above 0).
        """
        placed = intervals.select(*keys, "thread" if "thread" not in keys else pl.lit(0).alias("_"), begin, end)
        placed = placed.with_columns(self._segment(placed, begin).alias("_first"), self._segment(placed, end).alias("_last"))
        kinds = self._parts["kind"]
        inside = placed.filter(pl.col("_first") == pl.col("_last"))
        # Most calls lie inside one segment; the others are the difference of two running sums of each kind.
        single = inside.with_columns(kinds.gather(inside["_first"]).alias("kind")).group_by(*keys, "kind")
        found = [single.agg((pl.col(end) - pl.col(begin)).sum().alias("time"))]
        several = placed.filter((pl.col("_first") != pl.col("_last")).fill_null(True))
        if len(several):
            first, last = self._sums(several, "_first", begin), self._sums(several, "_last", end)
            times = pl.DataFrame([last[name] - first[name] for name in last.columns])
            long = pl.concat([several.select(keys), times], how="horizontal").unpivot(
                [str(kind) for kind in KINDS], index=list(keys), variable_name="kind", value_name="time"
            )
            found.append(long.with_columns(pl.col("kind").cast(pl.Int8)).group_by(*keys, "kind").agg(pl.col("time").sum()))
        return pl.concat(found).group_by(*keys, "kind").agg(pl.col("time").sum()).filter(pl.col("time") > 0)

    def _segment(self, intervals: pl.DataFrame, column: str) -> pl.Series:
        """Return the segment in which each instant lies; null before the first."""
        asked = intervals.select("thread", column).with_row_index("_row").sort(column)
        parts = self._parts.select("thread", "start", "segment")
        found = asked.join_asof(parts, left_on=column, right_on="start", by="thread", check_sortedness=False)
        return found.sort("_row")["segment"]

    def _sums(self, intervals: pl.DataFrame, segment: str, column: str) -> pl.DataFrame:
        """Return the time spent in each kind before each instant."""
        names = [str(kind) for kind in KINDS]
        at = self._before[intervals[segment].fill_null(0)].select("start", "stop", "kind", *names).with_columns(intervals[column].alias("_at"))
        gone = pl.min_horizontal("_at", "stop") - pl.col("start")
        sums = at.select((pl.col(name) + pl.when(pl.col("kind") == int(name)).then(gone).otherwise(0)).alias(name) for name in names)
        known = intervals[segment].is_not_null()
        return sums.select(pl.when(known).then(pl.col(name)).otherwise(0).alias(name) for name in names)
