"""Which calls threads make one after the other: runs of n calls with their count and time."""

from __future__ import annotations

from typing import Literal

import polars as pl

from ringtape.analysis.call_order import caveat
from ringtape.analysis.grams import LONGEST, grams
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError

ARROW = " → "


@analysis(
    tables=("syscalls",),
    section=False,
    columns=(
        Result("calls", pl.String, "names of the calls, in the order in which a thread made them"),
        Result("count", pl.Int64, "how often; null where it is only known between bounds", "count"),
        Result("count_low", pl.Int64, "the least that count can be", "count"),
        Result("count_high", pl.Int64, "the most that count can be", "count"),
        Result("share", pl.Float64, "share of all runs of that length", "share"),
        Result(
            "time", pl.Int64, "from the entry of the first to the return of the last, summed; runs overlap, so the sum over rows is no total", "ns"
        ),
        Result("inside", pl.Int64, "time of it inside the calls", "ns"),
        Result("between", pl.Int64, "time of it between the calls", "ns"),
        Result("mean", pl.Float64, "time / count", "ns"),
        Result("broken", pl.Int64, "places where lost calls broke sequences (the same in every row)", "count", detail=True),
        Result("caveat", pl.String, "what is to be known of all rows", detail=True),
    ),
)
def ngrams(trace: Trace, *, n: int = 3, top: int = 50, order: Literal["count", "time"] = "count") -> pl.DataFrame:
    """Count runs of n calls that a thread made one after the other.

    Parameters
    ----------
    trace : Trace
        The recording.
    n : int
        Length of the runs, from 2 to 5.
    top : int
        Rows that are returned at most.
    order : {"count", "time"}
        What they are sorted by.

    Returns
    -------
    DataFrame
        One row per run: ``calls``, ``count`` with ``count_low`` and ``count_high``, ``share``, ``time``, ``inside``, ``between``,
        ``mean`` (ns), ``broken``, ``caveat``.

    Raises
    ------
    UsageError
        If n is not from 2 to 5, or top is negative.

    Notes
    -----
    A run never crosses threads, the end of a thread, a successful exec, or a place where a lost call may lie: a hole in the
    sequence numbers of any CPU that reaches into the time between two calls. So what is counted did occur; what lost calls
    broke is missing, and `broken` says at how many places. Memory is bounded (`grams.grams`): beyond 2**20 different runs,
    counts become intervals that hold the truth (Misra and Gries 1982; Agarwal et al. 2012), and times are of those counted at
    least.

    Examples
    --------
    >>> from ringtape.analysis.analyses.ngrams import ngrams
    >>> ngrams(getfixture("example_trace"), n=3).select("calls", "count", "time").rows()
    [('openat → read → read', 1, 2200), ('read → read → openat', 1, 4000), ('read → read → read', 1, 2300)]
    """
    if not 2 <= n <= LONGEST:
        raise UsageError(f"runs of {n} calls are not counted", f"n is from 2 to {LONGEST}; `sequences` finds longer ones")
    if top < 0:
        raise UsageError(f"top {top} is negative", "give the number of rows to return at most")
    found = grams(trace, n)
    frame = found.frame.sort("seen" if order == "count" else "time", "gram", descending=[True, False]).head(top)
    labels = pl.Series(found.order.labels)
    texts = pl.concat_str(
        [labels.gather(codes).alias(codes.name) for codes in type(found)(frame, found.order, found.total, found.broken).codes(n)], separator=ARROW
    )
    exact = pl.col("seen") == pl.col("most")
    return frame.select(
        texts.alias("calls"),
        pl.when(exact).then("seen").alias("count"),
        pl.col("seen").alias("count_low"),
        pl.col("most").alias("count_high"),
        (pl.col("seen") / found.total).alias("share"),
        "time",
        "inside",
        pl.col("wait").alias("between"),
        (pl.col("time") / pl.col("seen")).alias("mean"),
        pl.lit(found.broken, pl.Int64).alias("broken"),
        pl.lit(caveat(trace, found.broken), pl.String).alias("caveat"),
    ).sort("count_low" if order == "count" else "time", "calls", descending=[True, False])


def notes(result: pl.DataFrame) -> list[str]:
    """Return what is to be said beside a result."""
    return result["caveat"].drop_nulls().unique().to_list()
