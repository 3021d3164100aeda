"""The time ledger: every nanosecond of every thread in exactly one place, from the tables ``sched`` and ``syscalls``."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ringtape.analysis.ledger import CHILD, NO_RETURN, RING_FULL, goes_on
from ringtape.analysis.naming import syscall_name
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

BATCH = 1_000_000
"""Calls that are looked up at a time."""
SCHEMA = pl.Schema(
    {"thread": pl.Int64, "bin": pl.Int64, "where": pl.String, "nr": pl.Int32, "abi": pl.Int8, "uninterruptible": pl.Boolean, "time": pl.Int64}
)
USER, CALL, QUEUE, BLOCKED, FAULT, STOP, UNKNOWN, MISSING = "user", "syscall", "run queue", "blocked", "fault", "stopped", "unknown", "lost"

REASONS = {
    "lock": ("futex", "futex_waitv", "futex_wait", "flock", "semop", "semtimedop"),
    "sleep": ("nanosleep", "clock_nanosleep", "pause", "rt_sigsuspend", "rt_sigtimedwait", "sigsuspend", "sched_yield", "restart_syscall"),
    "child": ("wait4", "waitid", "waitpid", "vfork", "clone", "clone3", "fork"),
    "poll": (
        "poll",
        "ppoll",
        "select",
        "pselect6",
        "_newselect",
        "epoll_wait",
        "epoll_pwait",
        "epoll_pwait2",
        "epoll_wait_old",
        "io_getevents",
        "io_uring_enter",
    ),
    "network": ("accept", "accept4", "connect", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg", "recv", "send", "socketcall"),
    "disk": ("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync"),
}
_REASON_OF = {name: reason for reason, names in REASONS.items() for name in names}


def reason() -> pl.Expr:
    """Return the expression for what a thread was blocked for, from the call (``nr``, ``abi``) and ``uninterruptible``.

    A call that waits by its nature says it itself; any other that cannot be interrupted waits for a disk (or for memory, or a lock
    of the kernel), one that can for a pipe, a terminal or a socket: ``other``.
    """
    known = syscall_name().replace_strict(list(_REASON_OF), list(_REASON_OF.values()), default=None, return_dtype=pl.String)
    return pl.coalesce(known, pl.when(pl.col("uninterruptible")).then(pl.lit("disk")).otherwise(pl.lit("other"))).alias("reason")


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
        ``thread``, ``bin``, ``where``, ``nr`` and ``abi`` (of the call, else null), ``uninterruptible`` (of what blocked in a call, else null) and
        ``time`` (ns, above 0). The times of a thread add up to ``end - begin`` exactly.

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
        inside = self._calls(trace, clock)
        self.entries = self._settle(total, inside, bool(trace.lost().get("syscalls", 0)))

    def _calls(self, trace: Trace, clock: Clock) -> pl.DataFrame:
        """Sum, by thread and call, the time of each kind inside of calls."""
        keys = ["thread", "bin", "nr", "abi"]
        empty = pl.DataFrame(schema={"thread": pl.Int64, "bin": pl.Int64, "nr": pl.Int32, "abi": pl.Int8, "kind": pl.Int8, "time": pl.Int64})
        found = [clock.spent(cut(calls, "ts", "end", self.edges), "ts", "end", keys) for calls in self.located(trace)]
        return pl.concat([empty, *found]).group_by(*keys, "kind").agg(pl.col("time").sum())

    def located(self, trace: Trace) -> Iterator[pl.DataFrame]:
        """Yield the calls with their threads in batches: ``thread``, ``nr``, ``abi``, ``ts``, ``end``, cut to the life of the thread."""
        if "syscalls" not in trace.tables:
            return
        wanted = trace.whole.scan("syscalls").select("tid", "ts", "dur", "nr", "abi", "kind").filter(goes_on(trace))
        threads = self.threads.select("tid", "thread", "begin", "end", "seen").sort("seen")
        for start in range(0, trace.rows("syscalls"), BATCH):
            calls = trace.collect(wanted.slice(start, BATCH)).sort("ts")
            batch = calls.join_asof(threads, left_on="ts", right_on="seen", by="tid", check_sortedness=False)
            begin = pl.when(pl.col("kind") == CHILD).then(pl.col("begin")).otherwise(pl.col("ts"))
            over = pl.when(pl.col("kind") == NO_RETURN).then(pl.col("end")).otherwise(pl.col("ts") + pl.col("dur"))
            yield batch.filter(pl.col("thread").is_not_null()).select(
                "thread",
                "nr",
                "abi",
                pl.max_horizontal(begin, "begin").alias("ts"),
                pl.max_horizontal(pl.min_horizontal(over, "end"), pl.max_horizontal(begin, "begin")).alias("end"),
            )

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
        nothing = (pl.lit(None, pl.Int32).alias("nr"), pl.lit(None, pl.Int8).alias("abi"))
        located = pl.col("where").is_in([CALL, BLOCKED])
        rows = pl.concat(
            [
                inside.select("thread", "bin", within.alias("where"), "nr", "abi", (kind == UNINTERRUPTIBLE).alias("uninterruptible"), "time"),
                rest.select("thread", "bin", outside.alias("where"), *nothing, pl.lit(None, pl.Boolean).alias("uninterruptible"), "time"),
            ]
        ).with_columns(
            pl.when(located).then(pl.col("nr")).alias("nr"),
            pl.when(located).then(pl.col("abi")).alias("abi"),
            pl.when(pl.col("where") == BLOCKED).then(pl.col("uninterruptible")).alias("uninterruptible"),
        )
        keys = ["thread", "bin", "where", "nr", "abi", "uninterruptible"]
        return rows.group_by(keys).agg(pl.col("time").sum()).filter(pl.col("time") != 0).cast(SCHEMA).sort(keys)


def _lossy(trace: Trace) -> pl.DataFrame:
    schema = pl.Schema({"cpu": pl.Int16, "since": pl.Int64, "until": pl.Int64})
    if "losses" not in trace.tables:
        return pl.DataFrame(schema=schema)
    lost = trace.scan("losses").filter(pl.col("table") == "syscalls", pl.col("cause") == RING_FULL)
    # A lost call began before it was lost: as much before as it can have lasted.
    earliest = pl.col("ts") - pl.lit(2, pl.Int64).pow(pl.col("bucket").cast(pl.Int64).clip(0, 61) + 1).cast(pl.Int64)
    return trace.collect(lost.select("cpu", earliest.alias("since"), "until")).cast(schema)
