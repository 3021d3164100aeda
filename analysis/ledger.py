"""What the loss ledger says about calls that were made and not recorded."""

from __future__ import annotations

import polars as pl

from ringtape.analysis.naming import syscall_name
from ringtape.analysis.trace import Trace

FOREVER = (1 << 63) - 1
RING_FULL, NO_STORAGE, ELSEWHERE = 0, 1, 4
NO_RETURN, AT_ATTACH, UNFINISHED, CHILD = 1, 2, 3, 4
CLONES = ("clone", "clone3", "fork", "vfork")
EXITS = ("exit", "exit_group")
SCHEMA = pl.Schema({"nr": pl.Int32, "abi": pl.Int8, "lost": pl.Int64, "time": pl.Int64, "low": pl.Int64, "high": pl.Int64, "child": pl.Boolean})


def lost_calls(trace: Trace) -> pl.DataFrame:
    """Return the calls that were made and not recorded.

    Parameters
    ----------
    trace : Trace
        The recording.

    Returns
    -------
    DataFrame
        One row per call number and duration bucket: ``nr``, ``abi``, ``lost`` (calls), ``time`` (exact sum of their
        durations, ns; 0 where the ledger could not know them), ``low`` and ``high`` (ns; every duration lies between them,
        ends included), ``child`` (true for the return of a clone in the new thread, which is no call of its own). Losses
        that are counted but stand in no ledger row have ``nr`` -1; so have those of which it is not known whether they belong
        to what the trace was narrowed to.

    Notes
    -----
    Bucket b of the ledger holds durations from 2**b to 2**(b+1) - 1, bucket 0 those of 0 and 1 ns. Calls for which the
    kernel had no task storage (cause 1) were counted at entry, and those that another tool lost (cause 4) were not seen by ringtape:
    nothing is known of their durations.
    """
    empty = pl.DataFrame(schema=SCHEMA)
    if "losses" in trace.tables:
        query = trace.scan("losses").filter(pl.col("table") == "syscalls", pl.col("cause").is_in([RING_FULL, NO_STORAGE, ELSEWHERE]))
        # Of what was lost across an edge of the window, or by which process, nothing is known: it may lie in it or not.
        inside = trace.narrowing.certain()
        number = pl.when(inside).then(pl.col("nr")).otherwise(-1).cast(pl.Int32).alias("nr")
        rows = trace.collect(query.group_by(number, "abi", "bucket", "cause").agg(pl.col("count", "sum").sum()))
        timed = pl.col("cause") == RING_FULL
        bucket = pl.col("bucket").cast(pl.Int64).clip(0, 62)
        edge = pl.lit(2, pl.Int64).pow(bucket).cast(pl.Int64)
        frame = rows.select(
            "nr",
            "abi",
            pl.col("count").alias("lost"),
            pl.col("sum").alias("time"),
            pl.when(timed & (bucket > 0)).then(edge).otherwise(0).alias("low"),
            # Twice the edge less one, without passing through 2**63.
            pl.when(timed).then(edge - 1 + edge).otherwise(FOREVER).alias("high"),
            (timed & (bucket == 0) & syscall_name().is_in(CLONES)).fill_null(False).alias("child"),
        )
        ringed = int(rows.filter(pl.col("cause") != NO_STORAGE)["count"].sum())
    else:
        frame, ringed = empty, 0
    unlocated = min(trace.lost().get("syscalls", 0) - ringed, FOREVER)
    if unlocated > 0:
        row = {"nr": -1, "abi": 0, "lost": unlocated, "time": 0, "low": 0, "high": FOREVER, "child": False}
        frame = pl.concat([frame.cast(SCHEMA), pl.DataFrame([row], schema=SCHEMA)])
    return frame.cast(SCHEMA).filter(pl.col("lost") > 0).sort("nr", "abi", "low", "high")


def goes_on(trace: Trace) -> pl.Expr:
    """Return the expression that is true for calls that go on at some time in the window of a trace."""
    end = pl.when(pl.col("kind") == NO_RETURN).then(FOREVER).otherwise(pl.col("ts") + pl.col("dur"))
    # A clone's return in the new thread goes on from the thread's beginning.
    start = pl.when(pl.col("kind") == CHILD).then(0).otherwise(pl.col("ts"))
    return trace.narrowing.touches(start, end)


def timed_losses(trace: Trace) -> pl.DataFrame:
    """Return the rows of `lost_calls` that may be calls with a latency: no clone children, no calls that never return.

    What took less than 2 ns has no latency: it is the return of a clone in the new thread, or an intercepted call.
    """
    return lost_calls(trace).filter(pl.col("high") > 1, ~syscall_name().is_in(EXITS).fill_null(False))


def unreturned_at_most(trace: Trace) -> int | None:
    """Return how many lost calls may have been cut short, so that the ledger holds a time for them that is no latency.

    A thread is cut short inside at most one call, and was inside at most one when the probes were attached. What the table
    ``processes`` and the calls that were recorded do not account for may be among the lost; None if there is no telling.
    """
    if "processes" not in trace.tables:
        return None
    events = trace.collect(trace.scan("processes").filter(pl.col("kind").is_in([0, 3])).select(pl.len().cast(pl.Int64))).item()
    seen = trace.collect(trace.scan("syscalls").filter(pl.col("kind").is_in([NO_RETURN, AT_ATTACH])).select(pl.len().cast(pl.Int64))).item()
    exits = lost_calls(trace).filter(syscall_name().is_in(EXITS))["lost"].sum()
    return max(0, int(events) + trace.lost().get("processes", 0) - int(seen) - int(exits))
