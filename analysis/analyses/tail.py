"""How heavy the tail of latency is: the time of the slowest calls, mean excess, tail index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl

from ringtape.analysis import tails
from ringtape.analysis.grouping import GROUPS, By, Grouping
from ringtape.analysis.ledger import FOREVER, timed_losses, unreturned_at_most
from ringtape.analysis.pictures import Picture
from ringtape.analysis.quantiles import bucket, quantiles
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace

_SHARES = {"slowest_1": 100, "slowest_01": 1000}
_P99 = Fraction(99, 100)


def _share(name: str, part: str) -> list[Result]:
    text = f"share of the time of all calls that the slowest {part} took, the ceil(n / {_SHARES[name]}) longest of n"
    return [
        Result(name, pl.Float64, f"{text}; null where lost calls leave it open", "share"),
        Result(f"{name}_low", pl.Float64, f"the least that {name} can be, whatever was lost", "share"),
        Result(f"{name}_high", pl.Float64, f"the most that {name} can be, whatever was lost", "share"),
    ]


@analysis(
    section="page",
    tables=("syscalls",),
    groups=GROUPS,
    columns=(
        Result("calls", pl.Int64, "calls that returned and were recorded", "count"),
        Result("lost", pl.Int64, "calls that were lost and belong, or may belong, to the group", "count", quiet=True),
        Result("time", pl.Int64, "time that the recorded calls took in all", "ns"),
        *_share("slowest_1", "1 %"),
        *_share("slowest_01", "0.1 %"),
        Result("p99", pl.Int64, "the ceil(0.99 n)-th smallest of n durations; null where lost calls leave it open", "ns"),
        Result("p99_low", pl.Int64, "the least that p99 can be, whatever was lost", "ns"),
        Result("p99_high", pl.Int64, "the most that p99 can be, whatever was lost", "ns"),
        Result("mean_excess", pl.Float64, "by how much those recorded calls that exceed p99 exceed it on average; null where calls were lost", "ns"),
        Result("max", pl.Int64, "the longest duration; null where lost calls leave it open", "ns"),
        Result("max_low", pl.Int64, "the least that max can be, whatever was lost", "ns"),
        Result("max_high", pl.Int64, "the most that max can be, whatever was lost", "ns"),
        Result(
            "index",
            pl.Float64,
            "tail index (Hill): at 2 and below the variance, at 1 and below the mean depends on the longest calls seen; null where calls are too "
            "few, or lost ones may be in the tail",
        ),
        Result("ci_low", pl.Float64, "lower end of the 95 % confidence interval of index, for independent calls", wide=True),
        Result("ci_high", pl.Float64, "upper end of it", wide=True),
        Result("threshold", pl.Int64, "duration from which on the index holds", "ns", wide=True),
        Result("above", pl.Int64, "calls above the threshold, from which the index is estimated", "count", wide=True),
        Result("distance", pl.Float64, "largest distance between the distribution of these calls and the fit", wide=True),
        Result("pareto", pl.Boolean, "whether the fit is plausible: a test at 5 % does not refute it; false: the index is no more than a slope"),
    ),
)
def tail(trace: Trace, *, by: By | Sequence[By] = "syscall", syscall: str | None = None) -> pl.DataFrame:
    """Tell how heavy the tail of latency is.

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
        One row per group of recorded calls, most time first: ``slowest_1`` and ``slowest_01`` (shares of the time), ``p99``, ``mean_excess``
        over it, ``max`` (ns), and the tail index with its interval and threshold.

    Raises
    ------
    UsageError
        If ``by`` is not one of these, or no ABI has a call of that name.

    Notes
    -----
    All but the index is exact. The index is the estimator of Hill (1975, Annals of Statistics 3:1163) above the threshold whose fit is
    nearest to the data (Clauset, Shalizi and Newman 2009, SIAM Review 51:661), sought among the slowest tenth, at most 5,000 calls; it
    needs 50 above the threshold, so 500 calls in all. ``pareto`` is the Kolmogorov-Smirnov test of exponential log excesses with estimated mean
    (Stephens 1974, JASA 69:730, 5 % point 1.094); since the threshold was chosen for a good fit, it refutes less often than it should.
    A call whose latency is the waiting of the program itself (poll, futex) has the tail of what it waited for.

    Where calls were lost, shares are intervals: each lost call is as short, or as long, as the ledger's bucket allows. Where it is
    not known whose the lost calls are, or how long they took, there is no telling: null.

    Examples
    --------
    >>> from ringtape.analysis.analyses.tail import tail
    >>> tail(getfixture("example_trace")).select("syscall", "time", "slowest_1", "max", "index").rows()
    [('openat', 3000, 0.6666666666666666, 2000, None), ('read', 600, 0.5, 300, None)]
    """
    grouping = Grouping.of(trace, by)
    keys = grouping.keys
    everything, lost = trace.scan("syscalls").filter(pl.col("kind") == 0), timed_losses(trace)
    if syscall is not None:
        everything = everything.filter(grouping.is_call(syscall))
        lost = lost.filter(pl.col("nr").is_in([-1]) | grouping.is_call(syscall))
    calls = grouping.rows(everything).select(*keys, "dur")
    located = grouping.located and not len(lost.filter(pl.col("nr") < 0))
    shared = keys if located else []
    missing = lost.select(*shared, "low", "high", "lost")

    spare = 0 if not len(lost) else unreturned_at_most(trace) if located else None
    exact = quantiles(trace, calls, keys, [_P99, Fraction(1)], missing, spare).drop("count")
    coarse = trace.collect(
        calls.group_by(*keys, bucket(pl.col("dur")).alias("bucket")).agg(
            pl.len().cast(pl.Int64).alias("count"),
            pl.col("dur").sum().alias("time"),
            pl.col("dur").min().alias("smallest"),
            pl.col("dur").max().alias("largest"),
        )
    ).sort(*keys, "bucket")
    groups = coarse.group_by(keys, maintain_order=True).agg(pl.col("count", "time").sum()).with_row_index("group")
    fine = _largest(trace, calls, keys, coarse, groups)
    coarse = coarse.join(groups.select(*keys, "group"), on=keys, nulls_equal=True)
    pieces = (frame.partition_by("group", as_dict=True) for frame in (coarse, fine))
    buckets, values = ({int(group[0]): piece for group, piece in found.items()} for found in pieces)
    fitted = []
    for group in groups.iter_rows(named=True):
        own = lost.filter(pl.col(key) == group[key] for key in keys) if located else lost
        fitted.append(_row(buckets[group["group"]], values.get(group["group"], fine.head(0)), own, spare == 0))
    rows = pl.concat([groups.drop("group"), pl.DataFrame(fitted, schema=_FITTED)], how="horizontal")
    rows = rows.join(exact, on=keys, nulls_equal=True, maintain_order="left").with_columns(
        *(pl.when(pl.col(f"low_{at}") == pl.col(f"high_{at}")).then(pl.col(f"low_{at}")).alias(name) for name, at in _ENDS.items()),
        *(pl.col(f"{side}_{at}").alias(f"{name}_{side}") for name, at in _ENDS.items() for side in ("low", "high")),
        *(pl.when(pl.col(f"{name}_low") == pl.col(f"{name}_high")).then(pl.col(f"{name}_low")).alias(name) for name in _SHARES),
    )
    order = list(grouping.by)
    return grouping.named(rows.rename({"count": "calls"})).sort("time", *order, descending=[True, *(False for _ in order)], nulls_last=True)


_ENDS = {"p99": 0, "max": 1}
_ESTIMATES = ("index", "ci_low", "ci_high", "threshold", "above", "distance", "pareto")
_FITTED = {
    "lost": pl.Int64,
    **{f"{name}_{side}": pl.Float64 for name in _SHARES for side in ("low", "high")},
    "mean_excess": pl.Float64,
    **dict(zip(_ESTIMATES, (pl.Float64, pl.Float64, pl.Float64, pl.Int64, pl.Int64, pl.Float64, pl.Boolean), strict=True)),
}


def _largest(trace: Trace, calls: pl.LazyFrame, keys: list[str], coarse: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """Count the distinct durations of the buckets that hold the tail, or one of the ranks at which a share is cut."""
    total = pl.col("count").sum().over(keys)
    before = total - pl.col("count").cum_sum().over(keys)  # calls in longer buckets
    ranks = [-(-total // part) for part in (*_SHARES.values(),)]
    ranks.append(total - (total * 99 + 99) // 100 + 1)
    cuts = pl.any_horizontal((before < rank) & (before + pl.col("count") >= rank) for rank in ranks)
    deepest = pl.min_horizontal(total // tails.SHARE, pl.lit(tails.MOST)) + 1
    in_tail = (deepest > tails.FEWEST) & (before < deepest)
    wanted = coarse.filter(cuts | in_tail).join(groups.select(*keys, "group"), on=keys, nulls_equal=True).select(*keys, "group", "bucket", "smallest")
    if not len(wanted):
        return pl.DataFrame(schema={"group": pl.UInt32, "bucket": pl.Int32, "value": pl.Int64, "count": pl.Int64})
    low = int(wanted["smallest"].min())  # type: ignore[arg-type]
    looked = (
        calls.filter(pl.col("dur") >= low)
        .with_columns(bucket(pl.col("dur")).alias("bucket"))
        .join(wanted.lazy(), on=[*keys, "bucket"], nulls_equal=True)
        .group_by("group", "bucket", pl.col("dur").alias("value"))
        .agg(pl.len().cast(pl.Int64).alias("count"))
    )
    return trace.collect(looked).sort("group", "value")


def _row(buckets: pl.DataFrame, values: pl.DataFrame, lost: pl.DataFrame, certain: bool) -> dict[str, float | int | bool | None]:
    """Return what is told of one group from its buckets, and the distinct durations of some of them.

    ``lost`` are calls that may belong to the group; they do if ``certain``.
    """
    n, time, missing = int(buckets["count"].sum()), int(buckets["time"].sum()), int(lost["lost"].sum())
    row: dict[str, float | int | bool | None] = dict.fromkeys(_FITTED)
    row["lost"] = missing
    steps = _steps(buckets, values)
    if not missing:
        for name, part in _SHARES.items():
            row[f"{name}_low"] = row[f"{name}_high"] = _top(steps, -(-n // part), 0) / time if time else None
        beyond = n - (n * 99 + 99) // 100
        if beyond:
            p99 = _at(steps, beyond + 1)
            excess = sum(count * (total / count - p99) for count, total, low, _ in steps if low > p99)
            longer = sum(count for count, _, low, _ in steps if low > p99)
            row["mean_excess"] = excess / longer if longer else None
        found = tails.fit(*_tail(values, n))
        if found is not None:
            row |= dict(
                zip(_ESTIMATES, (found.index, found.low, found.high, found.threshold, found.above, found.distance, found.plausible), strict=True)
            )
        return row
    known = int(lost["high"].max()) < FOREVER  # type: ignore[arg-type]
    unseen = int(lost["time"].sum())
    for name, part in _SHARES.items():
        row[f"{name}_low"], row[f"{name}_high"] = 0.0, 1.0
        if known and time:
            surely = _with(steps, lost, "low") if certain else steps
            number = n + missing if certain else n
            row[f"{name}_low"] = _top(surely, -(-number // part), 0) / (time + unseen)
            most = _top(_with(steps, lost, "high"), -(-(n + missing) // part), 1) / (time + unseen if certain else time)
            row[f"{name}_high"] = min(1.0, most)
    return row


Step = tuple[int, int, int, int]
"""Calls of about one duration: their number and time, the shortest and the longest."""


def _steps(buckets: pl.DataFrame, values: pl.DataFrame) -> list[Step]:
    """Return the calls from the longest to the shortest: one by one where their durations are known, else by bucket."""
    rest = buckets.join(values.select("bucket").unique(), on="bucket", how="anti").select("count", "time", "smallest", "largest").rows()
    single = [(count, count * value, value, value) for value, count in values.select("value", "count").iter_rows()]
    return sorted([*rest, *single], key=lambda step: -step[2])


def _with(steps: list[Step], lost: pl.DataFrame, end: str) -> list[Step]:
    """Return the calls with those that were lost, each as long as one end of its interval."""
    more = [(count, count * value, value, value) for value, count in lost.select(end, "lost").iter_rows()]
    return sorted([*steps, *more], key=lambda step: -step[3 if end == "high" else 2])


def _top(steps: list[Step], number: int, most: int) -> int:
    """Return the time of the longest calls: at least, or at most, where the last bucket is not taken as a whole."""
    total = 0
    for count, time, low, high in steps:
        if number < count:
            return total + number * (high if most else low)
        total, number = total + time, number - count
    return total


def _at(steps: list[Step], number: int) -> int:
    """Return the duration of the longest call but ``number`` - 1; its bucket is known value by value."""
    for count, _, low, _ in steps:
        if number <= count:
            return low
        number -= count
    raise AssertionError("there are not so many calls")


def _tail(values: pl.DataFrame, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the largest distinct durations that the fit looks at, ascending, with their counts."""
    number = tails.wanted(n)
    largest = values.sort("value", descending=True)
    within = largest.filter((pl.col("count").cum_sum() - pl.col("count")) < number).sort("value")
    return within["value"].to_numpy(), within["count"].to_numpy()


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the tail with its fit."""
    from ringtape.analysis.distributions import latency_ecdf
    from ringtape.analysis.plots.tail import tails as draw

    lost = trace.lost().get("syscalls", 0)
    note = f"{lost:,} calls were lost and are not in the picture" if lost else ""
    caption = "The tail of latency: share of calls that took longer, with the Pareto fit from its threshold on."
    yield Picture("latency-tail", caption, draw(latency_ecdf(trace), tail(trace), note=note))
