"""How long calls took: exact p50, p90, p99, p99.9 and maximum, by system call, process, thread or command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import polars as pl

from ringtape.analysis.grouping import GROUPS, By, Grouping
from ringtape.analysis.ledger import NO_RETURN, UNFINISHED, timed_losses, unreturned_at_most
from ringtape.analysis.pictures import Picture
from ringtape.analysis.quantiles import quantiles
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace

QUANTILES = {
    "p50": Fraction(1, 2), "p90": Fraction(9, 10), "p99": Fraction(99, 100), "p99_9": Fraction(999, 1000), "max": Fraction(1),
}  # fmt: skip


def _columns() -> list[Result]:
    columns = [
        Result("calls", pl.Int64, "calls that returned and were recorded", "count"),
        Result("lost", pl.Int64, "calls that were lost and belong, or may belong, to the group", "count", quiet=True),
        Result(
            "excluded",
            pl.Int64,
            "recorded calls without a latency: their beginning or return was not seen (kinds 1 to 3)",
            "count",
            quiet=True,
            wide=True,
        ),
    ]
    for name, q in QUANTILES.items():
        share = f"the ceil({float(q):g} n)-th smallest of n durations" if name != "max" else "the longest duration"
        columns += [
            Result(name, pl.Int64, f"{share}; null where lost calls leave it open", "ns"),
            Result(f"{name}_low", pl.Int64, f"the least that {name} can be, whatever was lost", "ns"),
            Result(f"{name}_high", pl.Int64, f"the most that {name} can be, whatever was lost", "ns"),
        ]
    return columns


@analysis(tables=("syscalls",), groups=GROUPS, columns=_columns())
def latency(trace: Trace, *, by: By | Sequence[By] = "syscall", syscall: str | None = None) -> pl.DataFrame:
    """Tell how long calls took, as exact order statistics.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"syscall", "process", "thread", "command"} or several of them
        What to tell apart.
    syscall : str, optional
        Only calls of this name.

    Returns
    -------
    DataFrame
        One row per group, most calls first: ``calls`` that returned, ``lost``, ``excluded``, and ``p50``, ``p90``, ``p99``,
        ``p99_9``, ``max`` (ns), each with ``_low`` and ``_high``.

    Raises
    ------
    UsageError
        If ``by`` is not one of these, or no ABI has a call of that name.
    RingtapeError
        If the trace lacks a table that is needed.

    Notes
    -----
    The q-quantile of n durations is the ceil(q n)-th smallest of them, so it is a duration that did occur (Hyndman and Fan
    1996, definition 1). It is exact, in memory that does not grow with the number of calls.

    Where calls were lost, the ledger knows how many and between which powers of two each duration lay. ``_low`` and
    ``_high`` are then the ends of the interval that holds the true quantile whatever the lost durations were. The ledger
    knows system calls, not processes: grouped by anything else, any of the lost calls may or may not belong to each group.

    Quantiles are over calls: a thread that makes its calls one after the other makes none while one of them stalls, so that one long stall
    counts as one slow call (coordinated omission, see docs/latency.md).

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.latency import latency
    >>> trace = getfixture("example_trace")
    >>> latency(trace).select("syscall", "calls", "p50", "max").rows()
    [('read', 3, 200, 300), ('openat', 2, 1000, 2000)]
    """
    grouping = Grouping.of(trace, by)
    keys = grouping.keys
    everything = trace.scan("syscalls")
    lost = timed_losses(trace)
    if syscall is not None:
        named = pl.col("nr").is_in([-1]) | grouping.is_call(syscall)
        everything, lost = everything.filter(grouping.is_call(syscall)), lost.filter(named)
    calls = grouping.rows(everything)
    returned = calls.filter(pl.col("kind") == 0).select(*keys, "dur")
    cut = calls.filter(pl.col("kind").is_between(NO_RETURN, UNFINISHED))
    excluded = trace.collect(cut.group_by(keys).agg(pl.len().cast(pl.Int64).alias("excluded")))
    unlocated = lost.filter(pl.col("nr") < 0)
    shared = [key for key in keys if key in ("nr", "abi")]
    if len(unlocated) and shared:
        # Which call these were is not known: each of them may belong to any group, so nothing can be pinned to one.
        shared, grouped = [], lost.select("low", "high", "lost")
    else:
        grouped = lost.select(*shared, "low", "high", "lost")
    spare = (unreturned_at_most(trace) if len(shared) == len(keys) else None) if len(lost) else 0
    found = quantiles(trace, returned, keys, list(QUANTILES.values()), grouped, spare)
    missing = grouped.group_by(shared).agg(pl.col("lost").sum()) if shared else grouped.select(pl.col("lost").sum())
    joined = found.join(missing, on=shared, how="left", nulls_equal=True) if shared else found.join(missing, how="cross")
    joined = joined.join(excluded, on=keys, how="full", coalesce=True, nulls_equal=True)
    rows = joined.select(
        *keys,
        *(pl.col(name).fill_null(0) for name in ("count", "lost", "excluded")),
        *(expression for index, name in enumerate(QUANTILES) for expression in _ends(index, name)),
    ).rename({"count": "calls"})
    order = [*grouping.by]
    return grouping.named(rows).sort("calls", *order, descending=[True, *(False for _ in order)], nulls_last=True)


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the distribution in four ways."""
    from ringtape.analysis.distributions import latency_ecdf, latency_over_time
    from ringtape.analysis.plots.latency import ccdf, ecdf, heat_map, percentiles

    distribution = latency_ecdf(trace)
    lost = trace.lost().get("syscalls", 0)
    note = f"{lost:,} calls were lost and are not in the picture" if lost else ""
    caption = "Latency by percentile: at 99, one call in a hundred took longer."
    yield Picture("latency-percentiles", caption, percentiles(distribution, note=note))
    yield Picture("latency-ecdf", "Share of calls that took at most this long.", ecdf(distribution, note=note))
    yield Picture("latency-ccdf", "The tail: share of calls that took longer.", ccdf(distribution, note=note))
    yield Picture("latency-heat-map", "When calls took how long.", heat_map(latency_over_time(trace), note=note))


def _ends(index: int, name: str) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    low, high = pl.col(f"low_{index}"), pl.col(f"high_{index}")
    return pl.when(low == high).then(low).alias(name), low.alias(f"{name}_low"), high.alias(f"{name}_high")
