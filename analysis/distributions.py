"""Latency as frames to draw: histogram, distribution function, and histogram over time."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ringtape.analysis.grouping import By, Grouping
from ringtape.analysis.quantiles import bucket, histogram
from ringtape.analysis.trace import Trace

RETURNED = pl.col("kind") == 0


def latency_histogram(trace: Trace, *, by: By | Sequence[By] = "syscall") -> pl.DataFrame:
    """Count latencies in 64 buckets per power of two.

    Parameters
    ----------
    trace : Trace
        The recording; its table ``syscalls`` is needed.
    by : {"syscall", "process", "thread", "command"} or several of them
        What to tell apart.

    Returns
    -------
    DataFrame
        One row per group and bucket that is not empty: the group columns, ``smallest`` and ``largest`` latency that fell into
        the bucket (ns), ``count``. Only recorded calls that returned are in it.

    Examples
    --------
    >>> from ringtape.analysis.distributions import latency_histogram
    >>> latency_histogram(getfixture("example_trace")).rows()
    [('openat', 1000, 1000, 1), ('openat', 2000, 2000, 1), ('read', 100, 100, 1), ('read', 200, 200, 1), ('read', 300, 300, 1)]
    """
    trace.require("syscalls")
    grouping = Grouping.of(trace, by)
    counted = histogram(trace, grouping.rows(trace.scan("syscalls").filter(RETURNED)), grouping.keys)
    return grouping.named(counted).select(*grouping.by, "smallest", "largest", "count").sort(*grouping.by, "smallest")


def latency_ecdf(trace: Trace, *, by: By | Sequence[By] = "syscall") -> pl.DataFrame:
    """Return the empirical distribution function of latency.

    Parameters
    ----------
    trace : Trace
        The recording; its table ``syscalls`` is needed.
    by : {"syscall", "process", "thread", "command"} or several of them
        What to tell apart.

    Returns
    -------
    DataFrame
        The group columns, ``dur`` (ns), ``at_most`` (calls that took at most that long), ``share`` (of the group's calls),
        ``above`` (share of the calls that took longer). The values are exact at the rows given, which are at most 1.6 % apart.

    Examples
    --------
    >>> from ringtape.analysis.distributions import latency_ecdf
    >>> latency_ecdf(getfixture("example_trace")).filter(syscall="openat").rows()
    [('openat', 1000, 1, 0.5, 0.5), ('openat', 2000, 2, 1.0, 0.0)]
    """
    counted = latency_histogram(trace, by=by)
    groups = list(Grouping.of(trace, by).by)
    at_most, everything = pl.col("count").cum_sum().over(groups), pl.col("count").sum().over(groups)
    return counted.select(
        *groups,
        pl.col("largest").alias("dur"),
        at_most.alias("at_most"),
        (at_most / everything).alias("share"),
        ((everything - at_most) / everything).alias("above"),
    )


def latency_over_time(trace: Trace, *, windows: int = 120, syscall: str | None = None) -> pl.DataFrame:
    """Count latencies by time window and by quarter of a power of two.

    Parameters
    ----------
    trace : Trace
        The recording; its table ``syscalls`` is needed.
    windows : int
        Into how many windows the recording is cut.
    syscall : str, optional
        Only calls of this name.

    Returns
    -------
    DataFrame
        ``begin`` and ``end`` of the window (ns after the probes were attached), ``low`` and ``high`` (ns, half open) of the
        latency, ``count``; empty cells are left out. A call counts in the window in which it returned.

    Examples
    --------
    >>> from ringtape.analysis.distributions import latency_over_time
    >>> latency_over_time(getfixture("example_trace"), windows=1).select("low", "high", "count").rows()[:2]
    [(96.0, 112.0, 1), (192.0, 224.0, 1)]
    """
    trace.require("syscalls")
    begin, end = trace.span
    width = max(1, -(-((end if end is not None else begin) + 1 - begin) // windows))
    calls = trace.scan("syscalls").filter(RETURNED)
    if syscall is not None:
        calls = calls.filter(Grouping.of(trace, "syscall").is_call(syscall))
    window = ((pl.col("ts") + pl.col("dur") - begin) // width).clip(0, windows - 1).alias("window")
    coarse = (bucket(pl.col("dur").clip(1)) // 16).alias("quarter")
    counted = trace.collect(calls.group_by(window, coarse).agg(pl.len().cast(pl.Int64).alias("count"))).sort("window", "quarter")

    def edge(number: pl.Expr) -> pl.Expr:
        return (number.cast(pl.Int64) * (1 << 50)).reinterpret(dtype=pl.Float64)

    return counted.select(
        (pl.col("window") * width).alias("begin"),
        ((pl.col("window") + 1) * width).alias("end"),
        edge(pl.col("quarter")).alias("low"),
        edge(pl.col("quarter") + 1).alias("high"),
        "count",
    )
