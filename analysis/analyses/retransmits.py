"""TCP segments that were sent again: by process and peer, of what kind, when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from ringtape.analysis.analyses.tcp_life import RETRANSMIT, SYN_SENT, SYNACK
from ringtape.analysis.network import GROUPS, By, Grouping
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace

BINS = 120


@analysis(
    tables=("sockets",),
    groups=GROUPS,
    columns=(
        Result("retransmits", pl.Int64, "segments that were sent again", "count"),
        Result("syn", pl.Int64, "those that were SYNs: the connect was not answered", "count"),
        Result("synack", pl.Int64, "those that were SYN-ACKs: the answer to a connect was not acknowledged", "count"),
        Result("data", pl.Int64, "the others: data, and FINs", "count"),
        Result("bytes", pl.Int64, "payload sent again", "bytes"),
        Result("failed", pl.Int64, "those among them that the machine itself could not send", "count", quiet=True),
        Result("sockets", pl.Int64, "connections (for SYN-ACKs: listeners)", "count"),
        Result("segments", pl.Int64, "segments that these connections have sent, these included", "count"),
        Result("share", pl.Float64, "retransmits, without SYN-ACKs, / segments", "share"),
        Result("first", pl.Int64, "when the first of them was sent again", "time"),
        Result("last", pl.Int64, "when the last of them was sent again", "time"),
    ),
)
def retransmits(trace: Trace, *, by: By | Sequence[By] = ("process", "endpoint")) -> pl.DataFrame:
    """Count retransmissions.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"process", "thread", "command", "protocol", "local", "peer", "endpoint", "socket"} or several of them
        What to tell apart.

    Returns
    -------
    DataFrame
        One row per group, most retransmissions first: ``retransmits``, ``syn``, ``synack``, ``data``, ``bytes``, ``failed``, ``sockets``,
        ``segments``, ``share``, ``first``, ``last`` (ns of CLOCK_MONOTONIC).

    Raises
    ------
    UsageError
        If ``by`` is not one of these.
    RingtapeError
        If the table ``sockets`` was not recorded.

    Notes
    -----
    A retransmission is made in an interrupt or by a timer: its process is the one that last did something with the socket. Before
    Linux 6.17 the kernel tells only of those that it could send. SYN-ACKs belong to the process that listens.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.retransmits import retransmits
    >>> from tests.factory import make
    >>> row = {"socket": 7, "kind": 1, "state": 2, "family": 2, "protocol": 6, "pid": 10, "peer_low": 0x7F000001, "peer_port": 80, "error": 0}
    >>> path = make(getfixture("tmp_path") / "run.trace", processes=[], sockets=[row])
    >>> retransmits(ringtape.open(path)).select("process", "endpoint", "retransmits", "syn").rows()
    [(10, '127.0.0.1:80', 1, 1)]
    """
    grouping = Grouping.of(trace, by)
    rows = grouping.rows(trace.scan("sockets"))
    kind = pl.col("kind")
    synack = kind == SYNACK
    syn = (kind == RETRANSMIT) & (pl.col("state") == SYN_SENT)
    again = rows.filter(kind.is_in([RETRANSMIT, SYNACK]))
    sums = again.group_by(grouping.keys).agg(
        pl.len().cast(pl.Int64).alias("retransmits"),
        syn.sum().cast(pl.Int64).alias("syn"),
        synack.sum().cast(pl.Int64).alias("synack"),
        (~syn & ~synack).sum().cast(pl.Int64).alias("data"),
        pl.col("length").cast(pl.Int64).sum().alias("bytes"),
        (pl.col("error") != 0).sum().cast(pl.Int64).alias("failed"),
        pl.col("socket").n_unique().cast(pl.Int64).alias("sockets"),
        pl.col("ts").min().alias("first"),
        pl.col("ts").max().alias("latest"),
    )
    # The counter of a connection only grows, also in rows that are not of this group.
    whole = trace.scan("sockets").group_by("socket").agg(pl.col("segs_out").max())
    segments = (
        again.filter(~synack).select(*grouping.keys, "socket").unique().join(whole, on="socket").group_by(grouping.keys).agg(pl.col("segs_out").sum())
    )
    found = trace.collect(sums).join(trace.collect(segments), on=grouping.keys, how="left", nulls_equal=True)
    named = grouping.named(found.with_columns(pl.col("latest").alias("last")), "latest")
    return named.with_columns(
        pl.col("segs_out").fill_null(0).alias("segments"),
        pl.when(pl.col("segs_out") > 0).then((pl.col("retransmits") - pl.col("synack")) / pl.col("segs_out")).alias("share"),
    ).sort("retransmits", *grouping.names, descending=[True, *(False for _ in grouping.names)], nulls_last=True)


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw when segments were sent again, if any were."""
    from ringtape.analysis.plots.network import moments

    begin, end = trace.span
    width = max(1, -(-((end if end is not None else begin) + 1 - begin) // BINS))
    number = ((pl.col("ts") - begin) // width).clip(0, BINS - 1).alias("bin")
    grouping = Grouping.of(trace, "endpoint")
    rows = trace.scan("sockets").filter(pl.col("kind").is_in([RETRANSMIT, SYNACK])).with_columns(number)
    counted = trace.collect(rows.group_by(*grouping.keys, "bin").agg(pl.len().cast(pl.Int64).alias("count"), pl.col("ts").max().alias("last")))
    if len(counted):
        lost = trace.lost().get("sockets", 0)
        note = f"{lost:,} records were lost and are not in the picture" if lost else ""
        yield Picture("retransmits", "When segments were sent again, by peer.", moments(grouping.named(counted), width, BINS, note=note))
