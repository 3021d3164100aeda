"""Which calls, and which places in the time ledger, a changed total is made of."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ringtape.analysis.analyses.ledger import ledger
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.analysis.registry import Result, kind_of_result
from ringtape.analysis.runs import Runs
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError

COLUMNS = (
    Result("total", pl.String, "calls: time inside of system calls; ledger: wall time of all threads"),
    Result("what", pl.String, "system call, place in the time ledger, or (all)"),
    Result("base", pl.Float64, "mean time per run of the base side", "ns"),
    Result("other", pl.Float64, "mean time per run of the other side", "ns"),
    Result("change", pl.Float64, "other - base; those of a total add up to that of (all)", "ns"),
    Result("by_count", pl.Float64, "part of the change that comes of more or fewer calls", "ns"),
    Result("by_mean", pl.Float64, "part of it that comes of slower or faster calls", "ns"),
    Result("share", pl.Float64, "change / change of (all)", "share"),
)
KIND = kind_of_result("explain", COLUMNS)


def explain(base: Runs | Sequence[Trace], other: Runs | Sequence[Trace]) -> pl.DataFrame:
    """Divide the change of the time in system calls, and of the threads' wall time, into what it is made of.

    Parameters
    ----------
    base, other : Runs or sequence of Trace
        The runs of each side.

    Returns
    -------
    DataFrame
        One row per call and per place in the time ledger, greatest change first within each total: see `COLUMNS`.

    Raises
    ------
    UsageError
        If a side has no run.

    Notes
    -----
    With n calls of mean duration m a run, the change n'm' - nm is (n' - n)(m + m')/2, by count, plus (m' - m)(n + n')/2, by mean:
    exact, and the same whichever side is the base (Bennet 1920, The Theory of Measurement of Changes in Cost of Living). n is
    the mean number of calls per run, a run without the call counting none here; m is all their time by all their number. Of a
    call that only one side makes, all is by count.
    """
    if not base or not other:
        raise UsageError(f"the {'base' if not base else 'other'} side has no run", "name one trace folder or more for each side")
    sides = [_sums(side) for side in (base, other)]
    pieces = [_divided(sides[0][total], sides[1][total], total) for total in ("calls", "ledger") if total in sides[0] and total in sides[1]]
    empty = pl.DataFrame(schema={column.name: column.dtype for column in COLUMNS})
    return pl.concat([empty, *pieces])


def _sums(traces: Runs | Sequence[Trace]) -> dict[str, pl.DataFrame]:
    """Return mean time (and number) per run of everything."""
    found: dict[str, pl.DataFrame] = {}
    number = len(traces)
    if all("syscalls" in trace.tables for trace in traces):
        mixes = pl.concat([syscall_mix(trace).select(pl.col("syscall").alias("what"), "calls", "time") for trace in traces])
        found["calls"] = mixes.group_by("what").agg((pl.col("calls").sum() / number).alias("count"), (pl.col("time").sum() / number).alias("time"))
    if all("sched" in trace.tables for trace in traces):
        place = pl.concat_str("where", "syscall", "reason", separator=", ", ignore_nulls=True).alias("what")
        ledgers = pl.concat([ledger(trace, by="command").select(place, "time") for trace in traces])
        found["ledger"] = ledgers.group_by("what").agg((pl.col("time").sum() / number).alias("time"))
    return found


def _divided(base: pl.DataFrame, other: pl.DataFrame, total: str) -> pl.DataFrame:
    both = base.join(other, on="what", how="full", coalesce=True, nulls_equal=True).with_columns(pl.col("time", "time_right").fill_null(0.0))
    change = pl.col("time_right") - pl.col("time")
    if total == "calls":
        counts = [pl.col(name).fill_null(0.0) for name in ("count", "count_right")]
        # Of a call that one side does not make, nobody knows how long it would have taken there: as long as on the other.
        means = [pl.col(time) / pl.col(count) for time, count in (("time", "count"), ("time_right", "count_right"))]
        own, theirs = (pl.when(count > 0).then(mean) for count, mean in zip(counts, means, strict=True))
        before, after = pl.coalesce(own, theirs), pl.coalesce(theirs, own)
        by_mean = (after - before) * (counts[0] + counts[1]) / 2
        parts = [(change - by_mean + 0.0).alias("by_count"), (by_mean + 0.0).alias("by_mean")]
    else:
        parts = [pl.lit(None, pl.Float64).alias("by_count"), pl.lit(None, pl.Float64).alias("by_mean")]
    rows = both.select("what", pl.col("time").alias("base"), pl.col("time_right").alias("other"), change.alias("change"), *parts)
    whole = rows.select(pl.lit("(all)").alias("what"), pl.col("base", "other", "change", "by_count", "by_mean").sum())
    if total == "ledger":
        whole = whole.with_columns(pl.lit(None, pl.Float64).alias("by_count"), pl.lit(None, pl.Float64).alias("by_mean"))
    rows = rows.with_columns(pl.col("what").fill_null("(lost, of unknown call)")).sort(pl.col("change").abs(), "what", descending=[True, False])
    together = pl.concat([whole, rows])
    share = pl.when(whole["change"][0] != 0).then(pl.col("change") / whole["change"][0]).alias("share")
    return together.select(pl.lit(total).alias("total"), "what", "base", "other", "change", "by_count", "by_mean", share)
