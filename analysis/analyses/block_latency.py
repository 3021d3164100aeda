"""How long block I/O took: time in the queue and time at the device apart, by device and operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from ringtape.analysis.analyses.latency import QUANTILES
from ringtape.analysis.pictures import Picture
from ringtape.analysis.quantiles import bucket, histogram, quantiles
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.requests import COMPLETE, GROUPS, MERGED, By, Requests, lost_requests, several
from ringtape.analysis.trace import Trace

STAGES = ("queue", "device", "total")


def _columns() -> Iterator[Result]:
    yield Result("stage", pl.String, "queue: from being made to being issued; device: from then to completion; total: from being made to its end")
    yield Result("requests", pl.Int64, "completed requests that passed this stage and were recorded", "count")
    yield Result("lost", pl.Int64, "requests that were lost and may belong to the group", "count", quiet=True)
    yield Result("failed", pl.Int64, "of the requests, those that the device failed", "count", quiet=True)
    yield Result(
        "untimed",
        pl.Int64,
        "recorded requests of the group without this time: begun before, unfinished at the end, never issued; merged ones do not count",
        "count",
        quiet=True,
        wide=True,
    )
    yield Result("time", pl.Int64, "sum of the times of the recorded requests", "ns")
    for name, q in QUANTILES.items():
        share = f"the ceil({float(q):g} n)-th smallest of n times" if name != "max" else "the longest time"
        yield Result(name, pl.Int64, f"{share}; null where lost requests leave it open", "ns")
        yield Result(f"{name}_low", pl.Int64, f"the least that {name} can be, whatever was lost", "ns")
        yield Result(f"{name}_high", pl.Int64, f"the most that {name} can be, whatever was lost", "ns")


@analysis(tables=("block",), groups=GROUPS, columns=tuple(_columns()))
def block_latency(trace: Trace, *, by: By | Sequence[By] = ("device", "operation"), device: str | None = None) -> pl.DataFrame:
    """Tell how long block I/O requests waited to be issued, and how long the device took.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"device", "partition", "operation", "flags", "process", "thread", "command"} or several of them
        What to tell apart.
    device : str, optional
        Only requests of this disk.

    Returns
    -------
    DataFrame
        Up to three rows per group, the group with most requests first: ``stage`` (queue, device, total), ``requests``, ``lost``, ``failed``,
        ``untimed``, ``time`` (ns), and ``p50``, ``p90``, ``p99``, ``p99_9``, ``max`` (ns), each with ``_low`` and ``_high``.

    Raises
    ------
    UsageError
        If ``by`` is not one of these, or no request of that device was recorded.
    RingtapeError
        If the table ``block`` was not recorded.

    Notes
    -----
    A request is attributed to the thread that made it. What a program writes through the page cache is written back by a kworker later;
    of a command, only requests of its own threads are recorded.

    Queue time holds plugging (gathering neighbours before any is issued), the I/O scheduler and waiting for a free slot of the driver;
    device time begins with the last issue. A flush that a thread asks for (operation ``FLUSH asked``) is never issued itself: the kernel
    issues a FLUSH of its own, perhaps for several, so it has a total only. Of a request with data that needs the cache flushed before or
    after it, the flush before is in the queue time, the one after in the total.

    Quantiles are order statistics as in `latency`. Where requests were lost, the ledger knows between which powers of two the total time
    of each lay, which is also the most that queue and device time can have been; it does not know the group.

    Examples
    --------
    >>> from ringtape.analysis.analyses.block_latency import block_latency
    >>> block_latency(getfixture("block_trace")).select("device", "operation", "stage", "requests", "p50", "max").rows()
    [('vda', 'READ', 'queue', 3, 10, 20), ('vda', 'READ', 'device', 3, 90, 200), ('vda', 'READ', 'total', 3, 100, 220)]
    """
    requests = Requests.of(trace, by)
    keys = requests.keys
    rows = requests.rows(device=device).filter(pl.col("kind") != MERGED)
    timed = _timed(rows, keys)
    lost = lost_requests(trace)
    # Of queue and device time of a lost request only the upper end is known.
    staged = pl.concat(
        lost.select(pl.lit(number).cast(pl.Int8).alias("stage"), pl.col("low") * int(name == "total"), "high", "lost")
        for number, name in enumerate(STAGES)
    )
    found = quantiles(trace, timed, [*keys, "stage"], list(QUANTILES.values()), staged, None if len(lost) else 0)
    sums = trace.collect(timed.group_by(*keys, "stage").agg(pl.col("dur").sum().alias("time"), pl.col("failed").sum().cast(pl.Int64)))
    everything = trace.collect(rows.group_by(keys).agg(pl.len().cast(pl.Int64).alias("all")))
    found = found.join(sums, on=[*keys, "stage"], how="left").join(everything, on=keys, how="left")
    result = found.select(
        *keys,
        pl.col("all"),
        pl.col("stage").alias("number"),
        pl.col("stage").cast(pl.Int64).replace_strict(list(range(3)), list(STAGES), return_dtype=pl.String).alias("stage"),
        pl.col("count").alias("requests"),
        pl.lit(int(lost["lost"].sum()), pl.Int64).alias("lost"),
        "failed",
        (pl.col("all") - pl.col("count")).alias("untimed"),
        "time",
        *(expression for index, name in enumerate(QUANTILES) for expression in _ends(index, name)),
    )
    named = requests.named(result)
    order = list(requests.by)
    return named.sort("all", *order, "number", descending=[True, *(False for _ in order), False], nulls_last=True).drop("all", "number")


def _timed(rows: pl.LazyFrame, keys: Sequence[str]) -> pl.LazyFrame:
    """Return, for each stage that a completed request passed, a row with its time as ``dur``."""
    complete = rows.filter(pl.col("kind") == COMPLETE).with_columns((pl.col("status") != 0).alias("failed"))
    # A request that was first seen when it was issued (the FLUSH of the kernel, and others before Linux 6.5) has no queue time.
    times = {"issue": pl.col("issue") > 0, "service": pl.col("service") >= 0, "dur": pl.lit(True)}
    return pl.concat(
        complete.filter(passed).select(*keys, pl.lit(number).cast(pl.Int8).alias("stage"), "failed", pl.col(time).alias("dur"))
        for number, (time, passed) in enumerate(times.items())
    )


def _ends(index: int, name: str) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    low, high = pl.col(f"low_{index}"), pl.col(f"high_{index}")
    return pl.when(low == high).then(low).alias(name), low.alias(f"{name}_low"), high.alias(f"{name}_high")


def request_percentiles(trace: Trace, *, by: By | Sequence[By] = ("device", "operation")) -> pl.DataFrame:
    """Return the distribution of queue and device time.

    Returns
    -------
    DataFrame
        The group columns, ``stage``, ``dur`` (ns), ``at_most`` (requests that took at most that long), ``share`` of the group's requests.
        The values are exact at the rows given, which are at most 1.6 % apart.
    """
    requests = Requests.of(trace, by)
    timed = _timed(requests.rows(), requests.keys).filter(pl.col("stage") < STAGES.index("total"))
    groups = [*requests.keys, "stage"]
    counted = histogram(trace, timed, groups).with_columns(pl.col("count").cum_sum().over(groups).alias("at_most"))
    counted = counted.with_columns((pl.col("at_most") / pl.col("count").sum().over(groups)).alias("share"), pl.col("largest").alias("dur"))
    named = requests.named(counted.drop("bucket", "count", "smallest", "largest"))
    stage = pl.col("stage").cast(pl.Int64).replace_strict([0, 1], list(STAGES[:2]), return_dtype=pl.String)
    return named.with_columns(stage).select(*requests.by, "stage", "dur", "at_most", "share")


def device_time_over_time(trace: Trace, *, windows: int = 120) -> pl.DataFrame:
    """Count device times by time window and by quarter of a power of two, in the form of `distributions.latency_over_time`."""
    begin, end = trace.span
    width = max(1, -(-((end if end is not None else begin) + 1 - begin) // windows))
    rows = trace.scan("block").filter(pl.col("kind") == COMPLETE, pl.col("service") >= 0)
    window = ((pl.col("ts") + pl.col("dur") - begin) // width).clip(0, windows - 1).alias("window")
    quarter = (bucket(pl.col("service").clip(1)) // 16).alias("quarter")
    counted = trace.collect(rows.group_by(window, quarter).agg(pl.len().cast(pl.Int64).alias("count"))).sort("window", "quarter")

    def edge(number: pl.Expr) -> pl.Expr:
        return (number.cast(pl.Int64) * (1 << 50)).reinterpret(dtype=pl.Float64)

    return counted.select(
        (pl.col("window") * width).alias("begin"),
        ((pl.col("window") + 1) * width).alias("end"),
        edge(pl.col("quarter")).alias("low"),
        edge(pl.col("quarter") + 1).alias("high"),
        "count",
    )


def notes(result: pl.DataFrame) -> Iterator[str]:
    """Yield what has to be said beside a result."""
    if len(result) and (lost := int(result["lost"][0])):
        yield f"{several(lost)} lost: where a quantile depends on them, the bounds of its true value are shown"
    if untimed := int(result.filter(pl.col("stage") == "total")["untimed"].sum()):
        yield f"{several(untimed)} left out whose whole life is not known: begun before the recording, not ended in it, or their end was not seen"


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the distribution, and the device's time over time."""
    from ringtape.analysis.plots.block import stages
    from ringtape.analysis.plots.latency import heat_map

    lost = int(lost_requests(trace)["lost"].sum())
    note = f"{several(lost)} lost and not in the picture" if lost else ""
    caption = "Block I/O: time in the queue (dashed) and at the device, by percentile: at 99, one request in a hundred took longer."
    yield Picture("block-latency", caption, stages(request_percentiles(trace), note=note))
    over_time = device_time_over_time(trace)
    caption = "When the devices took how long for a request."
    yield Picture("block-latency-heat-map", caption, heat_map(over_time, title="Time at the device, over time", what="requests", note=note))
