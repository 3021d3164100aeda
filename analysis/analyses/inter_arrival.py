"""How long from each call to the next: inter-arrival times, rate, burstiness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from ringtape.analysis.analyses.latency import QUANTILES
from ringtape.analysis.arrivals import gaps, unsure_stretches
from ringtape.analysis.grouping import GROUPS, By, Grouping
from ringtape.analysis.ledger import FOREVER, lost_calls, unreturned_at_most
from ringtape.analysis.pictures import Picture
from ringtape.analysis.quantiles import histogram, quantiles
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace


def _columns() -> list[Result]:
    columns = [
        Result("gaps", pl.Int64, "times between two recorded calls of the group", "count"),
        Result("lost", pl.Int64, "calls that were lost and belong, or may belong, to the group", "count", quiet=True),
        Result("rate", pl.Float64, "calls per second from the first to the last; null where calls were lost"),
        Result("rate_low", pl.Float64, "the least that rate can be, whenever the lost calls were made"),
        Result("rate_high", pl.Float64, "the most that rate can be, whenever the lost calls were made"),
        Result("mean", pl.Float64, "mean time between calls; null where calls were lost", "ns"),
        Result("mean_low", pl.Float64, "the least that mean can be, whenever the lost calls were made", "ns"),
        Result("mean_high", pl.Float64, "the most that mean can be, whenever the lost calls were made; null where nothing bounds it", "ns"),
    ]
    for name, q in QUANTILES.items():
        share = f"the ceil({float(q):g} n)-th smallest of n times between calls" if name != "max" else "the longest time between calls"
        columns += [
            Result(name, pl.Int64, f"{share}; null where lost calls leave it open", "ns"),
            Result(f"{name}_low", pl.Int64, f"the least that {name} can be, whatever was lost", "ns"),
            Result(f"{name}_high", pl.Int64, f"the most that {name} can be, whatever was lost", "ns"),
        ]
    columns += [
        Result("cv", pl.Float64, "standard deviation of the times over their mean: 0 in step, 1 as if by chance; null where calls were lost"),
        Result(
            "burstiness",
            pl.Float64,
            "-1 in step, 0 as if by chance, 1 in bursts (Kim and Jo 2016); null where calls were lost",
        ),
    ]
    return columns


@analysis(section="page", tables=("syscalls",), groups=GROUPS, columns=_columns())
def inter_arrival(trace: Trace, *, by: By | Sequence[By] = "syscall", syscall: str | None = None) -> pl.DataFrame:
    """Tell how long it is from one call to the next of the same group.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"syscall", "process", "thread", "command"} or several of them
        Which calls belong together.
    syscall : str, optional
        Only calls of this name.

    Returns
    -------
    DataFrame
        One row per group of at least two calls, most first: ``gaps``, ``rate`` (per second), ``mean`` and quantiles (ns), each with
        ``_low`` and ``_high``; ``cv``, ``burstiness``.

    Raises
    ------
    UsageError
        If ``by`` is not one of these, or no ABI has a call of that name.

    Notes
    -----
    The time is that from entry to entry. Calls that were going on when the recording began do not count. Quantiles are exact order statistics as
    in the analysis ``latency``. Burstiness is ``(sqrt(n + 1) r - sqrt(n - 1)) / ((sqrt(n + 1) - 2) r + sqrt(n - 1))`` with r the coefficient of
    variation of n gaps (Kim and Jo 2016, Physical Review E 94:032311), that of Goh and Barabasi (2008) freed of its bias where gaps are few.

    A thread that makes its calls one after the other makes none while one of them stalls: look at times by thread to see whether it does (no time
    between is then shorter than the latency), and read docs/latency.md on coordinated omission.

    A lost call parts the time between two recorded ones. Where one may have been lost in between, each part may have any length from 0 to the
    whole, and quantiles are the intervals that follow; so may the times before the first and after the last recorded call. The lost calls count
    in rate and mean: were all of them made between the first and the last recorded call, the rate was the highest; were they spread over the whole
    recording (and, where it is not known whose they are, made by others), the lowest.

    Examples
    --------
    >>> from ringtape.analysis.analyses.inter_arrival import inter_arrival
    >>> inter_arrival(getfixture("example_trace"), by="thread").columns[:4]
    ['thread', 'gaps', 'lost', 'rate']
    """
    grouping = Grouping.of(trace, by)
    keys = grouping.keys
    lost = lost_calls(trace).filter(~pl.col("child"))
    if syscall is not None:
        lost = lost.filter(pl.col("nr").is_in([-1]) | grouping.is_call(syscall))
    stretches = unsure_stretches(trace) if len(lost) else []
    every = gaps(trace, grouping, syscall, stretches)
    located = grouping.located and not len(lost.filter(pl.col("nr") < 0))
    missing, counted = _missing(trace, every, keys, lost, located)

    found = quantiles(trace, every.filter(pl.col("sure")), keys, list(QUANTILES.values()), missing, None if len(lost) else 0)
    dur = pl.col("dur").cast(pl.Float64)
    moments = trace.collect(
        every.group_by(keys).agg(pl.len().cast(pl.Int64).alias("gaps"), dur.mean().alias("mean"), dur.std(ddof=0).alias("_spread"))
    )
    rows = moments.join(found, on=keys, how="left", nulls_equal=True)
    rows = rows.join(counted, on=keys, how="left", nulls_equal=True) if located else rows.with_columns(pl.lit(int(lost["lost"].sum())).alias("lost"))
    rows = _with_rate(trace, rows.with_columns(pl.col("lost").fill_null(0)), located)
    n = pl.col("gaps").cast(pl.Float64)
    r = pl.when(pl.col("mean") > 0).then(pl.col("_spread") / pl.col("mean"))
    up, down = (n + 1).sqrt(), (n - 1).sqrt()
    columns = []
    for at, name in enumerate(QUANTILES):
        low, high = pl.col(f"low_{at}"), pl.col(f"high_{at}")
        columns += [pl.when(low == high).then(low).alias(name), low.alias(f"{name}_low"), high.alias(f"{name}_high")]
    rows = rows.with_columns(
        r.alias("cv"),
        pl.when(pl.col("gaps") >= 3).then((up * r - down) / ((up - 2) * r + down)).alias("burstiness"),
        *columns,
    )
    order = list(grouping.by)
    return grouping.named(rows).sort("gaps", *order, descending=[True, *(False for _ in order)], nulls_last=True)


def _with_rate(trace: Trace, rows: pl.DataFrame, located: bool) -> pl.DataFrame:
    """Replace the mean of the recorded times by rate and mean of all calls, each with its bounds."""
    begin, end = trace.span
    lost, gaps_, least = pl.col("lost"), pl.col("gaps"), pl.lit(0, pl.Int64)
    # A lost call that was going on when the recording began was entered before it, and is none of these.
    spare = unreturned_at_most(trace) if located and rows["lost"].sum() else None
    if spare is not None:
        least = (lost - spare).clip(0)
    recorded, longest = pl.col("mean") * gaps_, pl.lit(None if end is None else float(end - begin), pl.Float64)
    high = pl.when(lost > 0).then(pl.max_horizontal(longest, recorded) / (gaps_ + least)).otherwise("mean")
    bounds = rows.with_columns(
        (recorded / (gaps_ + lost)).alias("mean_low"), pl.when((lost == 0) | longest.is_not_null()).then(high).alias("mean_high")
    )
    return bounds.with_columns(
        pl.when(lost == 0).then("mean").alias("mean"),
        pl.when(lost == 0, pl.col("mean") > 0).then(1e9 / pl.col("mean")).alias("rate"),
        pl.when(pl.col("mean_high") > 0).then(1e9 / pl.col("mean_high")).when(lost > 0).then(0.0).alias("rate_low"),
        pl.when(pl.col("mean_low") > 0).then(1e9 / pl.col("mean_low")).alias("rate_high"),
    )


def _missing(trace: Trace, every: pl.LazyFrame, keys: list[str], lost: pl.DataFrame, located: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the times between calls of which only bounds are known, and the lost calls by group."""
    shared = keys if located else []
    counted = lost.group_by(shared).agg(pl.col("lost").sum())
    unknown = {"low": pl.Int64, "high": pl.Int64, "lost": pl.Int64}
    if not len(lost):
        return pl.DataFrame(schema=unknown), counted
    bounds = (pl.lit(0, pl.Int64).alias("low"), pl.lit(FOREVER, pl.Int64).alias("high"))
    parts = counted.select(*shared, *bounds, "lost")
    # A recorded time with a lost call in between is one of its parts, whatever its length; it exists for certain.
    bits = 64 - pl.col("dur").bitwise_leading_zeros().cast(pl.Int64)
    cut = every.filter(~pl.col("sure")).group_by(*shared, bits.clip(0, 62).alias("bits")).agg(pl.len().cast(pl.Int64).alias("lost"))
    most = pl.lit(2, pl.Int64).pow(pl.col("bits")).cast(pl.Int64) - 1
    pieces = trace.collect(cut).select(*shared, pl.lit(0, pl.Int64).alias("low"), most.alias("high"), "lost")
    # Where it is not known whose the lost calls are, each of them, and each part, may be anybody's.
    return pl.concat([parts, pieces.cast(parts.schema)]), counted


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the distribution of the times between calls."""
    from ringtape.analysis.plots.latency import ccdf

    grouping = Grouping.of(trace, "syscall")
    counted = histogram(trace, gaps(trace, grouping, None, []), grouping.keys)
    at_most, total = pl.col("count").cum_sum().over(grouping.keys), pl.col("count").sum().over(grouping.keys)
    frame = counted.with_columns(at_most.alias("at_most"), ((total - at_most) / total).alias("above"), (at_most / total).alias("share"))
    named = grouping.named(frame).select("syscall", pl.col("largest").alias("dur"), "at_most", "share", "above")
    lost = trace.lost().get("syscalls", 0)
    note = f"{lost:,} calls were lost: times between recorded calls are drawn" if lost else ""
    figure = ccdf(named, note=note)
    axes = figure.axes[0]
    axes.set_title("Time from call to call: share of the times that were longer", loc="left")
    axes.set_xlabel("time since the call before")
    axes.set_ylabel("times that were longer")
    yield Picture("inter-arrival", "Time from each call to the next of the same name: share of the times that were longer.", figure)
