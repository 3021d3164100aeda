"""The time ledger: every nanosecond of every thread in exactly one place, from the tables ``sched`` and ``syscalls``."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ringtape.analysis.ledger import CHILD, NO_RETURN, RING_FULL, goes_on
from ringtape.analysis.schedule import (
    LOST,
    OFF,
    ON,
    ON_LOSSY,
    SLEEP,
    STOPPED,
    UNINTERRUPTIBLE,
    WAIT,
    Clock,
    cut,
    lives,
    mark_lossy,
    segments,
    stays,
)
from ringtape.analysis.trace import Trace
from ringtape.analysis.waiting import Waiting

BATCH = 1_000_000
"""Calls that are looked up at a time."""
SCHEMA = pl.Schema(
    {
        "thread": pl.Int64,
        "bin": pl.Int64,
        "where": pl.String,
        "nr": pl.Int32,
        "abi": pl.Int8,
        "waited": pl.String,
        "uninterruptible": pl.Boolean,
        "time": pl.Int64,
    }
)
USER, CALL, QUEUE, BLOCKED, FAULT, STOP, UNKNOWN, MISSING = "user", "syscall", "run queue", "blocked", "fault", "stopped", "unknown", "lost"


class TimeLedger:
    """The ledger of a trace by thread.

    Parameters
    ----------
    trace : Trace
        The recording; needs ``sched``.
    bins : int
        Equal stretches of time that are told apart.

    Attributes
    ----------
    threads : DataFrame
        ``thread``, ``tid``, ``pid``, ``begin``, ``end`` (see `schedule.lives`).
    entries : DataFrame
        ``thread``, ``bin``, ``where``, ``nr`` and ``abi`` (of the call, else null), ``waited`` and ``uninterruptible`` (of what blocked in a call,
        else null; see `waiting.reason`) and ``time`` (ns, above 0). The times of a thread add up to ``end - begin`` exactly.

    edges : list of int
        Where the bins begin and end, ns of CLOCK_MONOTONIC.

    Notes
    -----
    On a CPU and in no call is ``user``: the program itself, with its page faults and the interrupts that came meanwhile. Blocked
    without being interruptible and in no call is ``fault``. While calls were lost on a CPU, time there that no recorded call
    accounts for is ``unknown``; so is being away, in no call, for anything else.
    """

    def __init__(self, trace: Trace, bins: int = 1) -> None:
        rows = stays(trace)
        self.threads = lives(trace, rows)
        begin, end = (int(self.threads["begin"].min()), int(self.threads["end"].max())) if len(self.threads) else (0, 1)  # type: ignore[arg-type]
        self.edges = [begin + (end - begin) * at // bins for at in range(bins + 1)]
        parts = mark_lossy(trace.narrowing.clip(segments(rows, self.threads), "start", "stop"), _lossy(trace))
        clock = Clock(parts)
        pieces = cut(parts, "start", "stop", self.edges)
        total = pieces.group_by("thread", "bin", "kind").agg((pl.col("stop") - pl.col("start")).sum().alias("time"))
        inside = self._calls(trace, clock, parts)
        self.entries = self._settle(total, inside, bool(trace.lost().get("syscalls", 0)))

    def _calls(self, trace: Trace, clock: Clock, parts: pl.DataFrame) -> pl.DataFrame:
        """Sum, by thread and call, the time of each kind inside of calls."""
        keys = ["thread", "bin", "nr", "abi", "waited"]
        empty = pl.DataFrame(schema={**{name: SCHEMA[name] for name in keys}, "kind": pl.Int8, "time": pl.Int64})
        found = [clock.spent(cut(calls, "ts", "end", self.edges), "ts", "end", keys) for calls in self.located(trace, parts)]
        return pl.concat([empty, *found]).group_by(*keys, "kind").agg(pl.col("time").sum())

    def located(self, trace: Trace, parts: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Yield the calls with their threads in batches: ``thread``, ``nr``, ``abi``, ``waited``, ``ts``, ``end``, cut to the life of the thread."""
        if "syscalls" not in trace.tables:
            return
        wanted = trace.whole.scan("syscalls").select(*Waiting.COLUMNS, "dur", "kind").filter(goes_on(trace))
        threads = self.threads.select("tid", "thread", "begin", "end", "seen").sort("seen")
        away = parts.filter(pl.col("kind").is_in([SLEEP, UNINTERRUPTIBLE, OFF])).select("thread", "start", "stop").sort("stop")
        waiting = Waiting(trace)
        for start in range(0, trace.rows("syscalls"), BATCH):
            calls = trace.collect(wanted.slice(start, BATCH)).sort("ts")
            batch = calls.join_asof(threads, left_on="ts", right_on="seen", by="tid", check_sortedness=False)
            begin = pl.when(pl.col("kind") == CHILD).then(pl.col("begin")).otherwise(pl.col("ts"))
            over = pl.when(pl.col("kind") == NO_RETURN).then(pl.col("end")).otherwise(pl.col("ts") + pl.col("dur"))
            batch = batch.filter(pl.col("thread").is_not_null()).with_columns(
                pl.max_horizontal(begin, "begin").alias("from"),
                pl.max_horizontal(pl.min_horizontal(over, "end"), pl.max_horizontal(begin, "begin")).alias("to"),
            )
            waited = _waited(waiting, batch, away)
            yield batch.select("thread", "nr", "abi", waited, pl.col("from").alias("ts"), pl.col("to").alias("end"))

    @staticmethod
    def _settle(total: pl.DataFrame, inside: pl.DataFrame, lossy: bool) -> pl.DataFrame:
        in_calls = inside.group_by("thread", "bin", "kind").agg(pl.col("time").sum().alias("inside"))
        rest = total.join(in_calls, on=["thread", "bin", "kind"], how="left").with_columns(pl.col("time") - pl.col("inside").fill_null(0))
        kind = pl.col("kind")
        anywhere = pl.when(kind == WAIT).then(pl.lit(QUEUE)).when(kind == STOPPED).then(pl.lit(STOP)).when(kind == LOST).then(pl.lit(MISSING))
        outside = (
            anywhere.when(kind == ON)
            .then(pl.lit(USER))
            .when(kind == UNINTERRUPTIBLE)
            .then(pl.lit(UNKNOWN if lossy else FAULT))
            .otherwise(pl.lit(UNKNOWN))
        )
        within = anywhere.when(kind.is_in([ON, ON_LOSSY])).then(pl.lit(CALL)).when(kind.is_in([SLEEP, UNINTERRUPTIBLE, OFF])).then(pl.lit(BLOCKED))
        nothing = (pl.lit(None, pl.Int32).alias("nr"), pl.lit(None, pl.Int8).alias("abi"), pl.lit(None, pl.String).alias("waited"))
        located = pl.col("where").is_in([CALL, BLOCKED])
        rows = pl.concat(
            [
                inside.select(
                    "thread", "bin", within.alias("where"), "nr", "abi", "waited", (kind == UNINTERRUPTIBLE).alias("uninterruptible"), "time"
                ),
                rest.select("thread", "bin", outside.alias("where"), *nothing, pl.lit(None, pl.Boolean).alias("uninterruptible"), "time"),
            ]
        ).with_columns(
            pl.when(located).then(pl.col("nr")).alias("nr"),
            pl.when(located).then(pl.col("abi")).alias("abi"),
            pl.when(pl.col("where") == BLOCKED).then(pl.col("waited")).alias("waited"),
            pl.when(pl.col("where") == BLOCKED).then(pl.col("uninterruptible")).alias("uninterruptible"),
        )
        keys = ["thread", "bin", "where", "nr", "abi", "waited", "uninterruptible"]
        return rows.group_by(keys).agg(pl.col("time").sum()).filter(pl.col("time") != 0).cast(SCHEMA).sort(keys)


def _waited(waiting: Waiting, calls: pl.DataFrame, away: pl.DataFrame) -> pl.Series:
    """Return what the descriptors of those calls say during which their thread was blocked; null for all others.

    ``calls`` have ``thread``, ``from`` and ``to``, ``away`` are the times in which threads were blocked, in order.
    """
    told = pl.Series("waited", [None], dtype=pl.String).new_from_index(0, len(calls))
    asked = calls.lazy().select("thread", "from", "to").with_row_index("row").collect().sort("from")
    next_away = asked.join_asof(
        away, left_on="from", right_on="stop", by="thread", strategy="forward", allow_exact_matches=False, check_sortedness=False
    )
    rows = next_away.filter(pl.col("start") < pl.col("to"))["row"].sort()
    return told.scatter(rows, waiting.told(calls[rows])) if len(rows) else told


def _lossy(trace: Trace) -> pl.DataFrame:
    schema = pl.Schema({"cpu": pl.Int16, "since": pl.Int64, "until": pl.Int64})
    if "losses" not in trace.tables:
        return pl.DataFrame(schema=schema)
    lost = trace.scan("losses").filter(pl.col("table") == "syscalls", pl.col("cause") == RING_FULL)
    # A lost call began before it was lost: as much before as it can have lasted.
    earliest = pl.col("ts") - pl.lit(2, pl.Int64).pow(pl.col("bucket").cast(pl.Int64).clip(0, 61) + 1).cast(pl.Int64)
    return trace.collect(lost.select("cpu", earliest.alias("since"), "until")).cast(schema)
