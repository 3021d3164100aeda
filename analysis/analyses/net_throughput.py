"""Bytes sent and received on sockets, and how fast: by process and peer, in all or over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from ringtape.analysis.network import GROUPS, By, Grouping, transfers
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError

MOST_STEPS = 1_000_000
BINS = 120
SUMS = ("sent", "received", "sends", "receives", "errors")


@analysis(
    tables=("transfers",),
    groups=GROUPS,
    columns=(
        Result("begin", pl.Int64, "beginning of the stretch of time, from the start of the recording on", "ns", quiet=True),
        Result("length", pl.Int64, "its length", "ns", wide=True),
        Result("sent", pl.Int64, "bytes that sends returned", "bytes"),
        Result("received", pl.Int64, "bytes that receives returned", "bytes"),
        Result("sent_per_s", pl.Float64, "sent / length, per second", "bytes"),
        Result("received_per_s", pl.Float64, "received / length, per second", "bytes"),
        Result("sends", pl.Int64, "sends that did not fail", "count"),
        Result("receives", pl.Int64, "receives that did not fail", "count"),
        Result("errors", pl.Int64, "sends and receives that failed, those that found nothing (EAGAIN) included", "count", quiet=True),
    ),
)
def net_throughput(trace: Trace, *, by: By | Sequence[By] = ("process", "protocol", "peer"), step: float = 0.0) -> pl.DataFrame:
    """Sum what was sent and received.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"process", "thread", "command", "protocol", "local", "peer", "endpoint", "socket"} or several of them
        What to tell apart.
    step : float
        Seconds of each stretch of time; 0 for one stretch, the whole recording.

    Returns
    -------
    DataFrame
        One row per group and stretch, by time and then most bytes first; stretches in which a group moved nothing have none:
        ``begin`` (ns after the start of the recording), ``length`` (ns), ``sent``, ``received`` (bytes), ``sent_per_s``, ``received_per_s``
        (bytes per second), ``sends``, ``receives``, ``errors``.

    Raises
    ------
    UsageError
        If ``by`` is not one of these, or ``step`` is negative or makes too many stretches.
    RingtapeError
        If the table ``transfers`` was not recorded.

    Notes
    -----
    A transfer counts when it ended, by what the call returned: payload, without headers and retransmissions. Receives that only
    looked (MSG_PEEK) and those from the error queue count as nothing. What splice takes out of a socket is no receive: the
    analysis ``tcp_life`` has the bytes of connections whatever moved them. Sums are those of recorded transfers; the loss
    ledger knows how many were lost, not their bytes.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.net_throughput import net_throughput
    >>> from tests.factory import make
    >>> row = {"socket": 7, "family": 2, "protocol": 6, "type": 1, "pid": 10, "result": 80, "peer_low": 0x7F000001, "peer_port": 80}
    >>> path = make(getfixture("tmp_path") / "run.trace", processes=[], transfers=[row])
    >>> net_throughput(ringtape.open(path)).select("process", "protocol", "peer", "sent").rows()
    [(10, 'TCP', '127.0.0.1', 80)]
    """
    begin, end = trace.span
    whole = max(1, (end if end is not None else begin) - begin)
    width = round(step * 1e9) if step else whole
    if width <= 0 or -(-whole // width) > MOST_STEPS:
        raise UsageError(f"step is {step:g} s", f"choose one that makes at most {MOST_STEPS:,} stretches of a recording of {whole / 1e9:.3g} s")
    grouping = Grouping.of(trace, by)
    found = grouping.named(over_time(trace, grouping, begin, width, -(-whole // width)))
    length = pl.min_horizontal(pl.lit(width), whole - pl.col("begin")).clip(1)
    return found.with_columns(length.alias("length")).with_columns(
        (pl.col("sent") * 1e9 / pl.col("length")).alias("sent_per_s"),
        (pl.col("received") * 1e9 / pl.col("length")).alias("received_per_s"),
    ).sort(
        "begin", pl.col("sent") + pl.col("received"), *grouping.names, descending=[False, True, *(False for _ in grouping.names)], nulls_last=True
    )  # fmt: skip


def over_time(trace: Trace, grouping: Grouping, begin: int, width: int, bins: int) -> pl.DataFrame:
    """Return sums by group and stretch of time: the keys of the group, ``begin``, ``SUMS``, and ``last``, the time of the last transfer."""
    number = ((pl.col("ts") - begin) // width).clip(0, bins - 1).alias("bin")
    rows = grouping.rows(transfers(trace)).with_columns(number)
    sums = rows.group_by(*grouping.keys, "bin").agg(
        pl.col("sent").sum(),
        pl.col("received").sum(),
        pl.col("out").sum().alias("sends"),
        pl.col("came").sum().alias("receives"),
        (pl.col("errno") != 0).sum().cast(pl.Int64).alias("errors"),
        pl.col("ts").max().alias("last"),
    )
    return trace.collect(sums).with_columns((pl.col("bin") * width).alias("begin")).drop("bin")


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the rates of the processes over time."""
    from ringtape.analysis.plots.network import throughput

    begin, end = trace.span
    width = max(1, -(-((end if end is not None else begin) + 1 - begin) // BINS))
    grouping = Grouping.of(trace, ("process", "protocol", "peer"))
    found = grouping.named(over_time(trace, grouping, begin, width, BINS))
    lost = trace.lost().get("transfers", 0)
    note = f"{lost:,} transfers were lost and are not in the picture" if lost else ""
    yield Picture("net-throughput", "Bytes per second sent (above) and received (below) over time.", throughput(found, width, BINS, note=note))
