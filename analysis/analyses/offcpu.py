"""What threads were blocked in when they were off the CPU: by state and system call."""

from __future__ import annotations

import polars as pl

from ringtape.analysis.analyses.latency import QUANTILES
from ringtape.analysis.ledger import goes_on
from ringtape.analysis.naming import syscall_label
from ringtape.analysis.order_statistics import bounded_quantiles
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.schedule import OFF, SLEEP, STOPPED, UNINTERRUPTIBLE, lives, segments, stays
from ringtape.analysis.threads import GROUPS, KEYS, By, named
from ringtape.analysis.time_ledger import BATCH
from ringtape.analysis.trace import Trace
from ringtape.analysis.waiting import MEANING, Waiting, reason

_STATES = {SLEEP: "interruptible", UNINTERRUPTIBLE: "uninterruptible", STOPPED: "stopped", OFF: "unknown"}
_QUANTILES = {name: QUANTILES[name] for name in ("p50", "p99", "max")}


@analysis(
    tables=("sched",),
    groups=GROUPS,
    columns=(
        Result("state", pl.String, "interruptible, uninterruptible, stopped; unknown for what was blocked when the recording began"),
        Result("syscall", pl.String, "call in which the thread was blocked; null: in none, or calls were not recorded"),
        Result("reason", pl.String, f"what the call waited for: {MEANING}"),
        Result("count", pl.Int64, "times blocked", "count"),
        Result("time", pl.Int64, "time blocked; waiting for a CPU afterwards is not part of it (see runq_latency)", "ns"),
        Result("share", pl.Float64, "time / time of all rows", "share"),
        *(
            Result(f"{name}{end}", pl.Int64, f"{doc} {name} of the time blocked", "ns")
            for name in _QUANTILES
            for end, doc in (("", "exact"), ("_low", "least possible"), ("_high", "greatest possible"))
        ),
    ),
)
def offcpu(trace: Trace, *, by: By = "process") -> pl.DataFrame:
    """Tell how long threads were blocked, in which state and in which system call.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"process", "thread", "command"}
        What to tell apart.

    Returns
    -------
    DataFrame
        One row per group, state and call, most time first: ``state``, ``syscall``, ``reason``, ``count``, ``time`` (ns), ``share``, ``p50``,
        ``p99``, ``max`` (ns), each with ``_low`` and ``_high``.

    Raises
    ------
    RingtapeError
        If the table ``sched`` was not recorded.

    Notes
    -----
    A call is the one that the thread was in when it left the CPU. Quantiles are order statistics, as in the analysis ``latency``.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.offcpu import offcpu
    >>> trace = ringtape.open("datasets/families.trace")
    >>> offcpu(trace, by="command").select("command", "syscall", "reason", "count").rows()[:2]
    [('sh', 'wait4', 'child', 4), ('python3', 'poll', 'poll', 21)]
    """
    rows = stays(trace)
    threads = lives(trace, rows)
    away = trace.narrowing.clip(segments(rows, threads), "start", "stop").filter(pl.col("kind").is_in(list(_STATES)))
    blocked = _in_calls(trace, away, threads).rename({"thread": "number"})
    blocked = blocked.join(named(trace, threads, by), on="number", how="left").with_columns(
        pl.col("kind").replace_strict(list(_STATES), list(_STATES.values()), return_dtype=pl.String).alias("state"),
        (pl.col("kind") == UNINTERRUPTIBLE).alias("uninterruptible"),
        (pl.col("stop") - pl.col("start")).alias("length"),
    )
    called = pl.col("nr").is_not_null()
    blocked = blocked.with_columns(
        pl.when(called).then(syscall_label(trace.header.abi)).alias("syscall"), pl.when(called).then(reason()).alias("reason")
    )
    keys = [*KEYS[by], "state", "syscall", "reason"]
    sums = blocked.group_by(keys).agg(pl.len().cast(pl.Int64).alias("count"), pl.col("length").sum().alias("time"))
    missing = trace.lost().get("sched", 0)
    found = sums.join(bounded_quantiles(blocked, keys, "length", _QUANTILES, None, missing), on=keys, how="left", nulls_equal=True)
    whole = pl.col("time").sum()
    found = found.with_columns(pl.when(whole > 0).then(pl.col("time") / whole).otherwise(0.0).alias("share"))
    return found.sort("time", *keys, descending=[True, *(False for _ in keys)], nulls_last=True)


def _in_calls(trace: Trace, away: pl.DataFrame, threads: pl.DataFrame) -> pl.DataFrame:
    """Add the call that each thread was in (``nr``, ``abi``, and ``waited``: see `waiting.Waiting`); null where in none."""
    nothing = (pl.lit(None, pl.Int32).alias("nr"), pl.lit(None, pl.Int8).alias("abi"), pl.lit(None, pl.String).alias("waited"))
    if "syscalls" not in trace.tables or not len(away):
        return away.with_columns(nothing)
    placed = away.join(threads.select("thread", "tid", "seen"), on="thread", maintain_order="left").sort("start")
    calls = _that_blocked(trace, placed)
    found = placed.join_asof(calls, left_on="start", right_on="ts", by="tid", check_sortedness=False)
    # A call without a return lasts until its thread ends.
    inside = pl.col("over").is_not_null() & ((pl.col("over") >= pl.col("start")) | ((pl.col("kind_right") == 1) & (pl.col("ts") >= pl.col("seen"))))
    told = ("nr", "abi", "waited")
    return found.with_columns(pl.when(inside).then(pl.col(name)).alias(name) for name in told).select(*away.columns, *told)


def _that_blocked(trace: Trace, placed: pl.DataFrame) -> pl.DataFrame:
    """Return the calls during which their thread left its CPU: few of many, found a batch at a time."""
    over = (pl.col("ts") + pl.col("dur")).alias("over")
    wanted = trace.whole.scan("syscalls").filter(goes_on(trace)).select(*Waiting.COLUMNS, over, "kind")
    starts = placed.select("tid", "start").sort("start")
    found = [trace.collect(wanted.slice(0, 0))]
    for at in range(0, trace.rows("syscalls"), BATCH):
        batch = trace.collect(wanted.slice(at, BATCH)).sort("ts")
        batch = batch.join_asof(starts, left_on="ts", right_on="start", by="tid", strategy="forward", check_sortedness=False)
        found.append(batch.filter((pl.col("start") <= pl.col("over")) | (pl.col("kind") == 1)).drop("start"))
    calls = pl.concat(found).sort("ts")
    return calls.select("tid", "ts", "over", "nr", "abi", "kind", Waiting(trace).told(calls))
