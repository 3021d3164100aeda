"""UDP: datagrams and bytes by process and peer, errors, and datagrams that found no room."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ringtape.analysis.analyses.tcp_life import DROP
from ringtape.analysis.naming import errno_name
from ringtape.analysis.network import EAGAIN, GROUPS, By, Grouping, transfers
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace

UDP = (17, 136)
"""UDP and UDP-Lite."""


@analysis(
    tables=("transfers",),
    groups=GROUPS,
    columns=(
        Result("datagrams_sent", pl.Int64, "datagrams sent", "count"),
        Result("bytes_sent", pl.Int64, "their payload", "bytes"),
        Result("datagrams_received", pl.Int64, "datagrams received", "count"),
        Result("bytes_received", pl.Int64, "their payload, as far as the receiver took it", "bytes"),
        Result("empty", pl.Int64, "receives and sends that would have had to wait (EAGAIN)", "count", quiet=True),
        Result("errors", pl.Int64, "sends and receives that failed with any other error", "count"),
        Result("errnos", pl.String, "these errors, most frequent first, as `NAME count`"),
        Result(
            "dropped",
            pl.Int64,
            "datagrams that came and were thrown away, mostly because the receive buffer was full; null without the table sockets",
            "count",
        ),
    ),
)
def udp(trace: Trace, *, by: By | Sequence[By] = ("process", "local", "endpoint")) -> pl.DataFrame:
    """Count datagrams.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"process", "thread", "command", "protocol", "local", "peer", "endpoint", "socket"} or several of them
        What to tell apart.

    Returns
    -------
    DataFrame
        One row per group, most bytes first: ``datagrams_sent``, ``bytes_sent``, ``datagrams_received``, ``bytes_received``, ``empty``,
        ``errors``, ``errnos``, ``dropped``.

    Raises
    ------
    UsageError
        If ``by`` is not one of these.
    RingtapeError
        If the table ``transfers`` was not recorded.

    Notes
    -----
    The peer of a socket without a connection is known from the addresses given to the send calls and by the receive calls (table
    ``paths``), of sendmmsg and recvmmsg those of the first 64 messages; null where the program did not ask who had sent, or
    io_uring moved it. An error that a receive returns may have been caused by a send before (ECONNREFUSED). Dropped datagrams
    are known from the first use of the socket by a recorded thread on, without their sender.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.udp import udp
    >>> from tests.factory import make
    >>> row = {"socket": 7, "family": 2, "protocol": 17, "type": 2, "pid": 10, "result": 80, "peer_low": 0x7F000001, "peer_port": 80}
    >>> path = make(getfixture("tmp_path") / "run.trace", processes=[], transfers=[row])
    >>> udp(ringtape.open(path)).select("process", "endpoint", "datagrams_sent", "bytes_sent").rows()
    [(10, '127.0.0.1:80', 1, 80)]
    """
    grouping = Grouping.of(trace, by)
    rows = grouping.rows(transfers(trace).filter(pl.col("protocol").is_in(UDP), pl.col("family").is_in([2, 10])))
    failed = pl.col("errno") != 0
    empty = pl.col("errno") == EAGAIN
    found = trace.collect(
        rows.group_by(grouping.keys).agg(
            pl.col("out").sum().alias("datagrams_sent"),
            pl.col("sent").sum().alias("bytes_sent"),
            pl.col("came").sum().alias("datagrams_received"),
            pl.col("received").sum().alias("bytes_received"),
            empty.sum().cast(pl.Int64).alias("empty"),
            (failed & ~empty).sum().cast(pl.Int64).alias("errors"),
            pl.col("ts").max().alias("last"),
        )
    )
    counted = trace.collect(rows.filter(failed & ~empty).group_by([*grouping.keys, "result"]).agg(pl.len().cast(pl.Int64).alias("count")))
    counted = counted.with_columns(errno_name("result")).sort("count", "errno", descending=[True, False])
    text = pl.concat_str("errno", pl.lit(" "), "count").str.join(", ").alias("errnos")
    words = counted.group_by(grouping.keys, maintain_order=True).agg(text)
    found = found.join(words, on=grouping.keys, how="left", nulls_equal=True).with_columns(pl.col("errnos").fill_null(""))
    found = _with_drops(trace, grouping, found)
    named = grouping.named(found)
    order = pl.col("bytes_sent") + pl.col("bytes_received")
    return named.sort(order, *grouping.names, descending=[True, *(False for _ in grouping.names)], nulls_last=True)


def _with_drops(trace: Trace, grouping: Grouping, found: pl.DataFrame) -> pl.DataFrame:
    """Add the datagrams that were dropped; their sender is not known, so that they stand in rows without one."""
    if "sockets" not in trace.tables:
        return found.with_columns(pl.lit(None, pl.Int64).alias("dropped"))
    rows = grouping.rows(trace.scan("sockets").filter(pl.col("kind") == DROP))
    # A connected socket has its peer in the row, and so has the group.
    drops = trace.collect(rows.group_by(grouping.keys).agg(pl.len().cast(pl.Int64).alias("dropped"), pl.col("ts").max().alias("dropped_last")))
    joined = found.join(drops, on=grouping.keys, how="full", coalesce=True, nulls_equal=True)
    numbers = [name for name, kind in found.schema.items() if kind == pl.Int64 and name not in (*grouping.keys, "last")]
    return joined.with_columns(
        pl.col(*numbers, "dropped").fill_null(0), pl.col("errnos").fill_null(""), pl.coalesce("last", "dropped_last").alias("last")
    ).drop("dropped_last")
