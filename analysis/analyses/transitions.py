"""What follows what: which call a thread makes after which, how probably, and how long after."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ringtape.analysis.call_order import caveat
from ringtape.analysis.grams import grams
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace


@analysis(
    tables=("syscalls",),
    section=False,
    columns=(
        Result("from", pl.String, "name of a call; `name@abi` where it was not made in the machine's own ABI"),
        Result("to", pl.String, "name of the call that the same thread made next"),
        Result("count", pl.Int64, "how often", "count"),
        Result("probability", pl.Float64, "share of all calls that are known to follow `from`", "share"),
        Result("share", pl.Float64, "share of all transitions", "share"),
        Result("wait", pl.Int64, "time from the return of the first to the entry of the second, summed", "ns"),
        Result("wait_mean", pl.Float64, "wait / count", "ns"),
        Result("wait_min", pl.Int64, "shortest wait", "ns", wide=True),
        Result("wait_max", pl.Int64, "longest wait", "ns"),
        Result("broken", pl.Int64, "places where lost calls part two calls, which are not counted (the same in every row)", "count", detail=True),
        Result("caveat", pl.String, "what is to be known of all rows", detail=True),
    ),
)
def transitions(trace: Trace) -> pl.DataFrame:
    """Count which call follows which in the same thread.

    Parameters
    ----------
    trace : Trace
        The recording.

    Returns
    -------
    DataFrame
        One row per pair of calls, most frequent first: ``from``, ``to``, ``count``, ``probability``, ``share``, ``wait``,
        ``wait_mean``, ``wait_min``, ``wait_max`` (ns), ``broken``, ``caveat``.

    Notes
    -----
    Calls follow each other as in the analysis ``ngrams``: never across threads, exec or lost calls. The probability is the
    maximum-likelihood estimate of a first-order Markov chain, count(from, to) / count(from, any) (Anderson and Goodman 1957,
    Statistical inference about Markov chains); calls that end a thread or a program, or after which calls were lost, are in
    neither. The wait is the time that the thread was in user mode, or runnable and not running: no call was made in it.

    Examples
    --------
    >>> from ringtape.analysis.analyses.transitions import transitions
    >>> transitions(getfixture("example_trace")).select("from", "to", "count", "probability", "wait").rows()
    [('read', 'read', 2, 0.6666666666666666, 1700), ('openat', 'read', 1, 1.0, 0), ('read', 'openat', 1, 0.3333333333333333, 700)]
    """
    found = grams(trace, 2)
    labels = pl.Series(found.order.labels)
    first, second = found.codes(2)
    frame = found.frame.with_columns(labels.gather(first).alias("from"), labels.gather(second).alias("to"))
    # Calls beyond the most frequent share one name.
    frame = frame.group_by("from", "to").agg(pl.col("seen", "wait").sum(), pl.col("wait_min").min(), pl.col("wait_max").max())
    return frame.select(
        "from",
        "to",
        pl.col("seen").alias("count"),
        (pl.col("seen") / pl.col("seen").sum().over("from")).alias("probability"),
        (pl.col("seen") / found.total).alias("share"),
        "wait",
        (pl.col("wait") / pl.col("seen")).alias("wait_mean"),
        "wait_min",
        "wait_max",
        pl.lit(found.broken, pl.Int64).alias("broken"),
        pl.lit(caveat(trace, found.broken), pl.String).alias("caveat"),
    ).sort("count", "from", "to", descending=[True, False, False])


def picture(result: pl.DataFrame) -> object:
    """Draw a result."""
    from ringtape.analysis.plots.order import transition_map

    return transition_map(result)


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the transitions."""
    from ringtape.analysis.plots.order import transition_map

    yield Picture("transitions", "Which call follows which in the same thread.", transition_map(transitions(trace)))


def notes(result: pl.DataFrame) -> list[str]:
    """Return what is to be said beside a result."""
    return result["caveat"].drop_nulls().unique().to_list()
