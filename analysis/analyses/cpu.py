"""Who was on a CPU: time, stays, switches voluntary or not, migrations."""

from __future__ import annotations

import polars as pl

from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.schedule import BLOCKED, RUNNING, WAITING, lives, stays
from ringtape.analysis.threads import GROUPS, KEYS, By, named
from ringtape.analysis.trace import Trace

CPU = Result("cpu", pl.Int16, "CPU; null for what was on one when the recording ended")


@analysis(
    tables=("sched",),
    groups=(*GROUPS, CPU),
    columns=(
        Result("time", pl.Int64, "CPU time as the kernel accounts it; in the row of the lost, the sum of the lost stays", "ns"),
        Result("occupied", pl.Int64, "time between being put on a CPU and leaving it: what switching took is part of it", "ns", wide=True),
        Result("share", pl.Float64, "time / time from the first thread to the last: CPUs used", "share"),
        Result("stays", pl.Int64, "stays on a CPU", "count"),
        Result("mean", pl.Float64, "time / stays", "ns"),
        Result("longest", pl.Int64, "longest stay", "ns"),
        Result("voluntary", pl.Int64, "times that the thread gave the CPU up to wait for something", "count"),
        Result("involuntary", pl.Int64, "times that it was taken away, or yielded, while the thread could go on", "count"),
        Result("migrations", pl.Int64, "times that the thread was moved to another CPU", "count"),
        Result("lost", pl.Int64, "stays that were lost", "count", quiet=True),
    ),
)
def cpu(trace: Trace, *, by: By = "process", cpus: bool = False) -> pl.DataFrame:
    """Sum the stays on CPUs.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"process", "thread", "command"}
        What to tell apart.
    cpus : bool
        Whether to tell CPUs apart as well.

    Returns
    -------
    DataFrame
        One row per group, most time first: ``time``, ``occupied`` (ns), ``share``, ``stays``, ``mean``, ``longest`` (ns), ``voluntary``,
        ``involuntary``, ``migrations``, ``lost``. Stays that were lost stand in a row of their own without names: the ledger knows
        their time, not their thread.

    Raises
    ------
    RingtapeError
        If the table ``sched`` was not recorded.

    Notes
    -----
    A switch is voluntary if the thread was not runnable when it left, as the kernel counts ``nvcsw`` and ``nivcsw``. Of a stay
    that an edge of the window cuts, the same share of its ``time`` counts as of what it ``occupied``.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.cpu import cpu
    >>> trace = ringtape.open("datasets/families.trace")
    >>> cpu(trace, by="command").select("command", "stays", "voluntary").rows()[:2]
    [('python3', 1575, 921), ('gzip', 11, 4)]
    """
    rows = in_window(trace, stays(trace))
    threads = lives(trace, rows)
    keys = [*KEYS[by], *(["cpu"] if cpus else [])]
    own = ~pl.col("kind").is_in([WAITING, BLOCKED])
    switched = ~pl.col("kind").is_in([RUNNING, WAITING, BLOCKED]) & ~pl.col("cut")
    runnable = (pl.col("state") == 0) | (pl.col("preempt") == 1)
    stay = rows.rename({"thread": "number"}).join(named(trace, threads, by), on="number", how="left")
    stay = stay.with_columns((pl.col("end") - pl.col("ts")).alias("length"), pl.when(pl.col("cpu") >= 0).then(pl.col("cpu")).alias("cpu"))
    sums = stay.group_by(keys).agg(
        pl.col("run").sum().alias("time"),
        pl.col("length").sum().alias("occupied"),
        own.sum().cast(pl.Int64).alias("stays"),
        pl.col("length").filter(own).max().alias("longest"),
        (switched & ~runnable).sum().cast(pl.Int64).alias("voluntary"),
        (switched & runnable).sum().cast(pl.Int64).alias("involuntary"),
        pl.col("migrations").cast(pl.Int64).sum(),
    )
    sums = pl.concat([sums.with_columns(pl.lit(0, pl.Int64).alias("lost")), _lost(trace, sums, cpus)], how="diagonal").filter(
        (pl.col("stays") > 0) | (pl.col("time") > 0) | (pl.col("lost") > 0)
    )
    elapsed = (int(rows["end"].max()) - int(threads["begin"].min())) if len(rows) and len(threads) else 0  # type: ignore[arg-type]
    return sums.with_columns(
        (pl.col("time") / elapsed if elapsed > 0 else pl.lit(None, pl.Float64)).alias("share"),
        pl.when(pl.col("stays") > 0).then(pl.col("time") / pl.col("stays")).alias("mean"),
    ).sort("time", *keys, descending=[True, *(False for _ in keys)], nulls_last=True)


def in_window(trace: Trace, rows: pl.DataFrame) -> pl.DataFrame:
    """Cut stays at the edges of the window of a trace; ``cut`` tells those that were not left in it."""
    if not trace.narrowing.in_time:
        return rows.with_columns(pl.lit(False).alias("cut"))
    inside = trace.narrowing.clip(rows.with_columns(pl.col("ts").alias("began"), pl.col("end").alias("left_at")), "ts", "end")
    length = pl.col("left_at") - pl.col("began")
    # In 128 bits: ns times ns.
    part = (pl.col("run").cast(pl.Int128) * (pl.col("end") - pl.col("ts")) // pl.max_horizontal(length, 1)).cast(pl.Int64)
    return inside.with_columns(
        (pl.col("left_at") > pl.col("end")).alias("cut"),
        pl.when(length > 0).then(part).otherwise(pl.col("run")).alias("run"),
        pl.when(pl.col("began") == pl.col("ts")).then(pl.col("migrations")).otherwise(0).alias("migrations"),
    ).drop("began", "left_at")


def _lost(trace: Trace, like: pl.DataFrame, cpus: bool) -> pl.DataFrame:
    """Return the rows of the stays that were lost."""
    empty = like.clear().with_columns(pl.lit(0, pl.Int64).alias("lost"))
    if "losses" not in trace.tables:
        return empty
    ledger = trace.scan("losses").filter(pl.col("table") == "sched", pl.col("cause") == 0)
    found = trace.collect(ledger.group_by("cpu").agg(pl.col("count").sum().alias("lost"), pl.col("sum").sum().alias("time")))
    if not cpus:
        found = found.select(pl.col("lost").sum(), pl.col("time").sum())
    zero = [pl.lit(0, pl.Int64).alias(name) for name in ("occupied", "stays", "voluntary", "involuntary", "migrations")]
    return pl.concat([empty, found.filter(pl.col("lost") > 0).with_columns(zero)], how="diagonal")
