"""Which block I/O was asked for: sizes, sequential or random, how many requests at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import polars as pl

from ringtape.analysis.ledger import FOREVER
from ringtape.analysis.pictures import Picture
from ringtape.analysis.quantiles import quantiles
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.requests import (
    AT_ATTACH,
    COMPLETE,
    GROUPS,
    MERGED,
    SECTOR,
    By,
    Requests,
    at_once,
    follow_each_other,
    lost_requests,
    operation_name,
    several,
)
from ringtape.analysis.trace import Trace
from ringtape.schemas.units import format_duration

WINDOWS = 240
"""Columns of the pictures over time."""
ROWS = 160
"""Rows of the picture of addresses."""


@analysis(
    tables=("block",),
    groups=GROUPS,
    columns=(
        Result("requests", pl.Int64, "completed requests that were recorded", "count"),
        Result("lost", pl.Int64, "requests that were lost and may belong to the group", "count", quiet=True),
        Result("merged", pl.Int64, "requests that were merged into others, which carry their bytes", "count", quiet=True),
        Result("requeued", pl.Int64, "times that the driver gave a request back, to be issued again", "count", quiet=True, wide=True),
        Result("bytes", pl.Int64, "bytes of the recorded requests", "bytes"),
        Result("smallest", pl.Int64, "smallest request that carries data", "bytes", wide=True),
        Result("size", pl.Int64, "the ceil(n / 2)-th smallest of n requests that carry data; null where lost ones leave it open", "bytes"),
        Result("size_low", pl.Int64, "the least that size can be", "bytes"),
        Result("size_high", pl.Int64, "the most that size can be", "bytes"),
        Result("largest", pl.Int64, "largest request", "bytes"),
        Result("sequential", pl.Int64, "requests that begin at the sector where the one before them, in the group, ended", "count", wide=True),
        Result("share_sequential", pl.Float64, "sequential / requests that have one before them; null without such", "share"),
        Result("depth", pl.Float64, "requests at the device at once, averaged over the time in which there was one"),
        Result("highest", pl.Int64, "most requests at the device at once", "count"),
        Result("busy", pl.Int64, "time in which at least one request was at the device", "ns"),
        Result("utilisation", pl.Float64, "busy / length of the recording", "share"),
    ),
)
def block_pattern(trace: Trace, *, by: By | Sequence[By] = ("device", "operation"), device: str | None = None) -> pl.DataFrame:
    """Tell the pattern of block I/O: sizes, order of addresses, and queue depth.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"device", "partition", "operation", "flags", "process", "thread", "command"} or several of them
        What to tell apart; order and depth are those among the requests of a group.
    device : str, optional
        Only requests of this disk.

    Returns
    -------
    DataFrame
        One row per group, most bytes first: ``requests``, ``lost``, ``merged``, ``requeued``, ``bytes``, ``smallest``, ``size`` (median)
        with ``size_low`` and ``size_high``, ``largest``, ``sequential``, ``share_sequential``, ``depth``, ``highest``, ``busy`` (ns),
        ``utilisation``.

    Raises
    ------
    UsageError
        If ``by`` is not one of these, or no request of that device was recorded.
    RingtapeError
        If the table ``block`` was not recorded.

    Notes
    -----
    A request is sequential if it begins at the sector at which the one made before it in its group ended; what is not sequential is
    random. Streams that take turns look random in one group and sequential when told apart (``by`` thread). Merging goes before: what was
    merged is one request.

    Depth, busy time and utilisation count requests from their last issue to their completion. With losses they are the least that
    is certain, and each lost request can make up to two others seem sequential or random that are not.

    Examples
    --------
    >>> from ringtape.analysis.analyses.block_pattern import block_pattern
    >>> block_pattern(getfixture("block_trace")).select("operation", "requests", "bytes", "size", "sequential", "highest").rows()
    [('READ', 3, 16384, 4096, 1, 2)]
    """
    requests = Requests.of(trace, by)
    keys = requests.keys
    rows = requests.rows(device=device)
    done = pl.col("kind").is_in([COMPLETE, AT_ATTACH])
    data = done & (pl.col("bytes") > 0)
    sums = trace.collect(
        rows.group_by(keys).agg(
            done.sum().cast(pl.Int64).alias("requests"),
            (pl.col("kind") == MERGED).sum().cast(pl.Int64).alias("merged"),
            pl.col("requeues").cast(pl.Int64).sum().alias("requeued"),
            pl.col("bytes").filter(done).sum().alias("bytes"),
            pl.col("bytes").filter(data).min().alias("smallest"),
            pl.col("bytes").filter(data).max().alias("largest"),
        )
    )
    lost = lost_requests(trace)
    missing = lost.select(pl.lit(0, pl.Int64).alias("low"), pl.lit(FOREVER, pl.Int64).alias("high"), "lost")
    sizes = quantiles(trace, rows.filter(data).select(*keys, pl.col("bytes").alias("dur")), keys, [Fraction(1, 2)], missing, None if len(lost) else 0)
    order = follow_each_other(requests, device)
    depth = at_once(requests, device=device)
    begin, end = trace.span
    length = max(1, (end if end is not None else begin) - begin)
    found = sums.join(sizes.drop("count"), on=keys, how="left").join(order, on=keys, how="left").join(depth, on=keys, how="left")
    low, high = pl.col("low_0"), pl.col("high_0")
    result = found.select(
        *keys,
        "requests",
        pl.lit(int(lost["lost"].sum()), pl.Int64).alias("lost"),
        "merged",
        "requeued",
        "bytes",
        "smallest",
        pl.when(low == high).then(low).alias("size"),
        low.alias("size_low"),
        high.alias("size_high"),
        "largest",
        pl.col("sequential").fill_null(0),
        pl.when(pl.col("followers") > 0).then(pl.col("sequential") / pl.col("followers")).alias("share_sequential"),
        pl.when(pl.col("busy") > 0).then(pl.col("area") / pl.col("busy")).alias("depth"),
        pl.col("highest").fill_null(0),
        pl.col("busy").fill_null(0),
        (pl.col("busy").fill_null(0) / length).alias("utilisation"),
    )
    names = list(requests.by)
    return requests.named(result).sort("bytes", "requests", *names, descending=[True, True, *(False for _ in names)], nulls_last=True)


def notes(result: pl.DataFrame) -> Iterator[str]:
    """Yield what has to be said beside a result."""
    if len(result) and (lost := int(result["lost"][0])):
        yield f"{several(lost)} lost: what is counted here is the least, and each can make two others seem in or out of order"
    yield "what the page cache writes back later is attributed to a kworker, which is recorded with --all only"


def depth_over_time(trace: Trace, *, windows: int = WINDOWS) -> pl.DataFrame:
    """Return queue depth over time.

    Returns
    -------
    DataFrame
        ``device``, ``begin`` and ``end`` of the window (ns after the attachment), ``device_mean`` and ``device_highest`` (requests at the
        device), ``queue_mean`` and ``queue_highest`` (requests made and not yet issued). A device has a row for each window.
    """
    requests = Requests.of(trace, "device")
    begin, end = trace.span
    width = max(1, -(-((end if end is not None else begin + 1) - begin) // windows))
    at_device, waiting = (at_once(requests, stage, windows=windows) for stage in ("device", "queue"))
    disks = pl.concat([at_device.select("disk"), waiting.select("disk")]).unique().sort("disk")
    frame = disks.join(pl.DataFrame({"window": list(range(windows))}, schema={"window": pl.Int64}), how="cross")
    for name, part in (("device", at_device), ("queue", waiting)):
        mean, most = (pl.col("area") / width).alias(f"{name}_mean"), pl.col("highest").alias(f"{name}_highest")
        frame = frame.join(part.select("disk", "window", mean, most), on=["disk", "window"], how="left")
    frame = frame.with_columns(pl.col("^.*_(mean|highest)$").fill_null(0))
    frame = frame.with_columns((pl.col("window") * width).alias("begin"), ((pl.col("window") + 1) * width).alias("end"))
    return requests.named(frame.sort("disk", "window")).select(
        "device", "begin", "end", "device_mean", "device_highest", "queue_mean", "queue_highest"
    )  # fmt: skip


def request_sizes(trace: Trace) -> pl.DataFrame:
    """Count requests that carry data by device, operation and size; sizes that are no power of two fall into the one below."""
    requests = Requests.of(trace, ("device", "operation"))
    rows = requests.rows().filter(pl.col("kind").is_in([COMPLETE, AT_ATTACH]), pl.col("bytes") > 0)
    # The exponent of a double, which holds every size exactly.
    power = (pl.col("bytes").cast(pl.Float64).reinterpret(dtype=pl.Int64) // (1 << 52) - 1023).alias("power")
    counted = trace.collect(rows.group_by(*requests.keys, power).agg(pl.len().cast(pl.Int64).alias("count"), pl.col("bytes").sum()))
    return requests.named(counted.sort(*requests.keys, "power"))


def addresses(trace: Trace, disk: bytes) -> pl.DataFrame:
    """Count the requests of a disk by time and address, from the first to the last in at most ``WINDOWS`` columns and ``ROWS`` rows.

    Rows are stretches of the disk of the same length, a power of two; those that no request begins in are left out.

    Returns
    -------
    DataFrame
        ``operation``, ``time`` (ns after the attachment; middle of the column), ``row`` (its number, from 0 on), ``address`` (bytes; its begin),
        ``length`` (bytes), ``count``.
    """
    requests = Requests.of(trace, "operation")
    rows = requests.rows().filter(pl.col("disk") == disk, pl.col("kind").is_in([COMPLETE, AT_ATTACH]), pl.col("bytes") > 0)
    ts = pl.col("ts")
    begin, end, reach = trace.collect(rows.select(ts.min().alias("begin"), ts.max().alias("end"), pl.col("sector").max())).row(0)
    numbers = dict.fromkeys(("row", "address", "length", "count"), pl.Int64())
    schema = pl.Schema({"operation": pl.String(), "time": pl.Float64(), **numbers})
    if begin is None:
        return pl.DataFrame(schema=schema)
    width, length = max(1, -(-(end + 1 - begin) // WINDOWS)), _row_length(trace, rows, int(reach))
    column, stretch = ((ts - begin) // width).alias("column"), (pl.col("sector") // length).alias("stretch")
    counted = trace.collect(rows.group_by("operation", column, stretch).agg(pl.len().cast(pl.Int64).alias("count")))
    counted = counted.sort("operation", "column", "stretch")
    found = counted.select(
        pl.Series("operation", [operation_name(code) for code in counted["operation"]], dtype=pl.String),
        ((pl.col("column") + 0.5) * width + (begin - trace.header.attached_at)).alias("time"),
        (pl.col("stretch").rank("dense").cast(pl.Int64) - 1).alias("row"),
        (pl.col("stretch") * length * SECTOR).alias("address"),
        pl.lit(length * SECTOR, pl.Int64).alias("length"),
        "count",
    )
    return found.cast(schema)


def _row_length(trace: Trace, rows: pl.LazyFrame, reach: int) -> int:
    """Return the smallest power of two of sectors, eight at least, of which at most ``ROWS`` stretches hold all requests."""

    def used(length: int) -> pl.Series:
        return trace.collect(rows.select((pl.col("sector") // length).alias("stretch")).unique())["stretch"]

    length = 8
    while reach // length >= 1 << 16:
        length *= 2
    stretches = used(length)
    while len(stretches) > ROWS:
        length, stretches = length * 2, (stretches // 2).unique()
    while length > 8 and len(stretches) <= ROWS // 2 and len(finer := used(length // 2)) <= ROWS:
        length, stretches = length // 2, finer
    return length


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw queue depth over time, sizes, and where on the busiest disk the requests went."""
    from ringtape.analysis.naming import comm_text
    from ringtape.analysis.plots.block import address_map, queue_depth, size_bars

    lost = int(lost_requests(trace)["lost"].sum())
    note = f"{several(lost)} lost and not in the picture" if lost else ""
    depth = depth_over_time(trace)
    window = f" in windows of {format_duration(float(depth['end'][0]))}" if len(depth) else ""
    caption = f"Requests at the device, and waiting to be issued, over time: mean (area) and most (line){window}."
    yield Picture("block-depth", caption, queue_depth(depth, note=note))
    yield Picture("block-sizes", "How large the requests were.", size_bars(request_sizes(trace), note=note))
    counts = trace.scan("block").filter(pl.col("bytes") > 0).group_by("disk").agg(pl.len().alias("count"))
    busiest = trace.collect(counts.sort("count", "disk", descending=[True, False]).head(1))
    disk = busiest["disk"][0] if len(busiest) else b""
    caption = (
        "Where on the disk with most requests they went, over time: lines that rise are sequential, clouds are random. Unused parts are left out."
    )
    yield Picture("block-addresses", caption, address_map(addresses(trace, disk), comm_text(disk), note=note))
