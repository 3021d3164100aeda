"""Latency in each window of time: exact quantiles, the longest call, the rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import polars as pl

from ringtape.analysis.grouping import GROUPS, By, Grouping
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.analysis.windowed import quantiles_by_window, window_edges

QUANTILES = {"p50": Fraction(1, 2), "p99": Fraction(99, 100), "max": Fraction(1)}


def _quantile(name: str) -> list[Result]:
    text = "the longest duration" if name == "max" else f"the ceil({float(QUANTILES[name]):g} n)-th smallest of n durations"
    return [
        Result(name, pl.Int64, f"{text}; null where lost calls leave it open", "ns"),
        Result(f"{name}_low", pl.Int64, f"the least that {name} can be, whatever was lost", "ns"),
        Result(f"{name}_high", pl.Int64, f"the most that {name} can be, whatever was lost", "ns"),
    ]


@analysis(
    tables=("syscalls",),
    groups=GROUPS,
    section=False,
    columns=(
        Result("begin", pl.Int64, "begin of the window", "time"),
        Result("end", pl.Int64, "its end", "time"),
        Result("calls", pl.Int64, "calls that returned in the window and were recorded", "count"),
        Result("lost", pl.Int64, "calls that were lost and may belong to the row", "count", quiet=True),
        Result("rate", pl.Float64, "calls that returned per second; null where calls were lost"),
        Result("rate_low", pl.Float64, "the least that rate can be: none of the lost calls belongs to the row"),
        Result("rate_high", pl.Float64, "the most that rate can be: all of them do"),
        *(column for name in QUANTILES for column in _quantile(name)),
    ),
)
def windows(trace: Trace, *, by: By | Sequence[By] = "syscall", syscall: str | None = None, width: str | None = None) -> pl.DataFrame:
    """Tell how long calls took in each window of time.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"syscall", "process", "thread", "command"} or several of them
        What to tell apart.
    syscall : str, optional
        Only calls of this name.
    width : str, optional
        Length of a window, such as ``100ms``; the last may be shorter. Without it there are 60 equal ones.

    Returns
    -------
    DataFrame
        One row per group and window, groups with most calls first, in time order; ``p50``, ``p99`` and ``max`` (ns) are null where no call returned.

    Raises
    ------
    UsageError
        If ``by`` is not one of these, no ABI has a call of that name, or there would be more than 100,000 windows.

    Notes
    -----
    A call counts in the window in which it returned: a stall shows where it ended. Quantiles are exact order statistics as in the
    analysis ``latency``. Lost calls widen the intervals of the windows in which the ledger saw them lost.

    A thread that makes its calls one after the other makes none while one of them stalls: the windows of a stall hold few calls, and
    quantiles over calls make little of it (coordinated omission, see docs/latency.md). Look at ``max`` and ``rate`` beside them.

    Examples
    --------
    >>> from ringtape.analysis.analyses.windows import windows
    >>> windows(getfixture("example_trace"), syscall="read", width="1s").select("syscall", "calls", "p50", "max").rows()
    [('read', 3, 200, 300)]
    """
    grouping = Grouping.of(trace, by)
    edges = window_edges(trace, width)
    found = quantiles_by_window(trace, grouping, edges, QUANTILES, syscall)
    starts = pl.Series("edges", edges, pl.Int64)
    seconds = (pl.col("end") - pl.col("begin")) / 1e9
    rows = found.with_columns(
        pl.lit(starts).gather(pl.col("window")).alias("begin"),
        pl.lit(starts).gather(pl.col("window") + 1).alias("end"),
    ).with_columns(
        pl.when(pl.col("lost") == 0).then(pl.col("calls") / seconds).alias("rate"),
        (pl.col("calls") / seconds).alias("rate_low"),
        ((pl.col("calls") + pl.col("lost")) / seconds).alias("rate_high"),
    )
    named = grouping.named(rows)
    size = pl.col("calls").sum().over(list(grouping.by))
    order = ["_size", *grouping.by, "begin"]
    return named.with_columns(size.alias("_size")).sort(order, descending=[name == "_size" for name in order], nulls_last=True)


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the quantiles per window of the calls that took most time."""
    from ringtape.analysis.plots.windows import windows as draw

    lost = trace.lost().get("syscalls", 0)
    note = f"{lost:,} calls were lost: quantiles that depend on them are drawn as bands" if lost else ""
    yield Picture("latency-windows", "Latency per window of time: median, p99 and the longest call.", draw(windows(trace), trace.span[0], note=note))
