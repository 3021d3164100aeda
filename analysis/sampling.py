"""What a sample of latencies leaves open: how sure a quantile is, and what was met by those who did not choose when to come."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import numpy as np
import polars as pl
from scipy import stats

from ringtape.analysis.trace import Trace


def quantile_interval(durations: pl.Series, q: Fraction | float, level: float = 0.95) -> tuple[int | None, int | None]:
    """Return between which durations a quantile lies, with the given confidence.

    Parameters
    ----------
    durations : Series
        A sample, in any order (ns).
    q : Fraction or float
        Which quantile, above 0 and below 1.
    level : float
        Confidence that the interval has at least.

    Returns
    -------
    tuple of int or None
        The lower and the upper end; None where the sample is too small to bound it on that side.

    Raises
    ------
    ValueError
        If ``q`` or ``level`` is not above 0 and below 1.

    Notes
    -----
    The number of n independent durations at or below the quantile is binomial, so two order statistics hold the quantile between them whatever
    the distribution is (Conover 1999, Practical Nonparametric Statistics, 3.2). Durations that follow one another resemble one another: then
    the true interval is wider.

    Examples
    --------
    >>> quantile_interval(pl.Series(range(1, 101)), 0.5)
    (40, 61)
    >>> quantile_interval(pl.Series(range(1, 101)), 0.99)
    (97, None)
    """
    if not 0 < q < 1 or not 0 < level < 1:
        raise ValueError(f"quantile {q} and level {level} have to be above 0 and below 1")
    n = len(durations)
    if not n:
        return None, None
    low, high = (int(stats.binom.ppf(point, n, float(q))) for point in ((1 - level) / 2, (1 + level) / 2))
    ordered = durations.sort()
    return (int(ordered[low - 1]) if low >= 1 else None), (int(ordered[high]) if high < n else None)


def met_at_any_instant(durations: pl.Series, span: int, q: Fraction | float) -> int:
    """Return the quantile of the time that somebody would have waited who came at any instant, each as likely as any other.

    Parameters
    ----------
    durations : Series
        Times (ns) during which the thing was busy, none of which overlaps another: the calls that one thread made.
    span : int
        The time (ns) in which they lie.
    q : Fraction or float
        Which quantile, above 0 and below 1.

    Returns
    -------
    int
        The wait (ns), until the end of what was going on; 0 where more than the share ``q`` of the time was free.

    Raises
    ------
    ValueError
        If ``q`` is not above 0 and below 1, or the durations do not fit into the span.

    Notes
    -----
    Whoever comes while d is left of a call waits for d, so the chance of waiting longer than w is the sum of ``max(0, d - w)`` over
    the calls, divided by the span. That is the largest of ``S_k - k w`` over k, where S_k is the sum of the k longest, so
    the wait is the largest of ``(S_k - (1 - q) span) / k``. Nothing is assumed of calls that were not made.

    Examples
    --------
    In nine of ten seconds a write of 10 us came every millisecond, and one stall took the tenth. One in a hundred who came at any instant
    would have waited 0.9 s or longer, while all but one of the 9,001 calls took 10 us:

    >>> writes = pl.Series([10_000] * 9000 + [1_000_000_000])
    >>> met_at_any_instant(writes, 10_000_000_000, Fraction(99, 100)) / 1e9
    0.9
    """
    if not 0 < q < 1:
        raise ValueError(f"quantile {q} has to be above 0 and below 1")
    longest = durations.cast(pl.Int64).sort(descending=True).to_numpy()
    sums = np.cumsum(longest)
    if len(sums) and sums[-1] > span:
        raise ValueError(f"calls of {sums[-1]} ns in all overlap in {span} ns: take those of one thread")
    waits = (sums - float((1 - Fraction(q)) * span)) / np.arange(1, len(sums) + 1)
    return max(0, int(np.ceil(waits.max()))) if len(waits) else 0


def _returned(trace: Trace, without: Sequence[str]) -> pl.LazyFrame:
    trace.require("syscalls")
    return trace.frame("syscalls").filter(pl.col("kind") == 0, ~pl.col("syscall").is_in(list(without))).select("syscall", "ts", "dur", "tid")


def averages(trace: Trace, *, without: Sequence[str] = (), least: int = 100) -> pl.DataFrame:
    """Tell of how many calls the average is true.

    Parameters
    ----------
    trace : Trace
        The recording.
    without : sequence of str
        Names of calls that are left out.
    least : int
        Calls of which fewer were recorded are left out.

    Returns
    -------
    DataFrame
        One row per system call, those first of which the average is true of the fewest: ``syscall``, ``calls``, ``average`` and ``median`` (ns),
        ``slower`` (share of the calls that took longer than the average), ``near`` (share of those within 20 % of it). Lost calls are not in it.

    Raises
    ------
    RingtapeError
        If the trace has no table ``syscalls``.

    Examples
    --------
    >>> averages(getfixture("example_trace"), least=3).rows()
    [('read', 3, 200.0, 200.0, 0.3333333333333333, 0.3333333333333333)]
    """
    mean = pl.col("dur").mean().over("syscall")
    near = ((pl.col("dur") - mean).abs() <= 0.2 * mean).alias("near")
    judged = _returned(trace, without).with_columns(near, (pl.col("dur") > mean).alias("slower"))
    made = judged.group_by("syscall").agg(
        pl.len().cast(pl.Int64).alias("calls"),
        pl.col("dur").mean().alias("average"),
        pl.col("dur").median().alias("median"),
        pl.col("slower").mean(),
        pl.col("near").mean(),
    )
    return trace.collect(made.filter(pl.col("calls") >= least)).sort("near", "syscall")


def certainty(trace: Trace, syscalls: Sequence[str], q: Fraction = Fraction(99, 100)) -> pl.DataFrame:
    """Tell how sure a quantile is.

    Parameters
    ----------
    trace : Trace
        The recording.
    syscalls : sequence of str
        Names of calls.
    q : Fraction
        Which quantile.

    Returns
    -------
    DataFrame
        One row per name, in their order: ``syscall``, ``calls``, ``quantile`` (the ceil(q n)-th smallest of n durations, ns), ``at_least`` and
        ``at_most`` (ns, its interval of 95 %; null where the sample does not bound it), ``above`` (calls behind it in the order).

    Raises
    ------
    RingtapeError
        If the trace has no table ``syscalls``.

    Examples
    --------
    >>> certainty(getfixture("example_trace"), ["read"], Fraction(1, 2)).rows()
    [('read', 3, 200, None, None, 1)]
    """
    calls = trace.collect(_returned(trace, ()).filter(pl.col("syscall").is_in(list(syscalls))).select("syscall", "dur"))
    rows = []
    for name in syscalls:
        sample = calls.filter(syscall=name)["dur"].sort()
        if len(sample):
            rank = ceil(q * len(sample))
            rows.append((name, len(sample), sample[rank - 1], *quantile_interval(sample, q), len(sample) - rank))
    kinds = dict.fromkeys(("calls", "quantile", "at_least", "at_most", "above"), pl.Int64)
    return pl.DataFrame(rows, schema={"syscall": pl.String, **kinds}, orient="row")


def at_any_instant(trace: Trace, syscalls: Sequence[str], q: Fraction = Fraction(99, 100)) -> pl.DataFrame:
    """Tell a quantile over calls beside that of who comes at any instant, for the thread that spends most time in a call.

    Parameters
    ----------
    trace : Trace
        The recording.
    syscalls : sequence of str
        Names of calls.
    q : Fraction
        Which quantile.

    Returns
    -------
    DataFrame
        One row per name, in their order: ``syscall``, ``thread``, ``calls`` of that thread, ``span`` (ns, from its first call to the end
        of its last), ``busy`` (share of that during which the call went on), ``over_calls`` and ``any_instant`` (ns).

    Raises
    ------
    RingtapeError
        If the trace has no table ``syscalls``.

    See Also
    --------
    met_at_any_instant : what is counted.

    Examples
    --------
    >>> at_any_instant(getfixture("example_trace"), ["read"]).select("calls", "over_calls").rows()
    [(3, 300)]
    """
    calls = trace.collect(_returned(trace, ()).filter(pl.col("syscall").is_in(list(syscalls))))
    rows = []
    for name in syscalls:
        own = calls.filter(syscall=name)
        if not len(own):
            continue
        times = own.group_by("tid").agg(pl.col("dur").sum()).sort("dur", "tid", descending=[True, False])
        sample = own.filter(tid=times["tid"][0])
        span = max(1, int((sample["ts"] + sample["dur"]).max()) - int(sample["ts"].min()))  # type: ignore[arg-type]
        over = int(sample["dur"].sort()[ceil(q * len(sample)) - 1])
        busy = int(sample["dur"].sum())
        rows.append((name, times["tid"][0], len(sample), span, busy / span, over, met_at_any_instant(sample["dur"], max(span, busy), q)))
    whole = {"calls": pl.Int64, "span": pl.Int64, "busy": pl.Float64, "over_calls": pl.Int64, "any_instant": pl.Int64}
    return pl.DataFrame(rows, schema={"syscall": pl.String, "thread": pl.Int32, **whole}, orient="row")
