"""TCP connections: who, with whom, bytes each way, set-up time, duration, and how they ended."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ringtape.analysis.addresses import endpoint_text
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.schemas.abi.errors import errnos
from ringtape.schemas.tables.sockets import STATES

STATE, RETRANSMIT, SYNACK, RESET_SENT, RESET_RECEIVED, ACCEPT, DROP, EXISTING, OPEN = range(9)
ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT2, CLOSE, LAST_ACK, LISTEN, CLOSING = 1, 2, 3, 5, 7, 9, 10, 11
STREAMS = (6, 262)
"""TCP and MPTCP."""
ENDS = {104: "reset", 32: "reset", 111: "refused", 110: "timed out", 113: "unreachable", 101: "unreachable", 103: "aborted"}
"""What the error that is pending on a socket says of its end (errno of x86_64 and arm64); EPIPE is a reset after the peer's FIN."""


@analysis(
    narrows=(),
    tables=("sockets",),
    columns=(
        Result("process", pl.Int32, "process that connected, accepted, or first used the connection; null: not known"),
        Result("command", pl.String, "its command name then"),
        Result("way", pl.String, "out: it connected; in: it accepted; null: the connection is older than the recording"),
        Result("local", pl.String, "local address and port"),
        Result("peer", pl.String, "address and port of the peer"),
        Result("start", pl.Int64, "when the connect began, or the handshake of an accepted connection was complete", "time"),
        Result("sent", pl.Int64, "payload sent, each byte once", "bytes"),
        Result("received", pl.Int64, "payload received", "bytes"),
        Result(
            "setup",
            pl.Int64,
            "out: from the connect to the answer; in: from the answer (SYN-ACK) to its acknowledgement; null: not seen or not established",
            "ns",
        ),
        Result("accept", pl.Int64, "in: from the end of the handshake to the return of accept; null: not seen", "ns", wide=True),
        Result("duration", pl.Int64, "from start to the end of the connection, or of the recording", "ns"),
        Result(
            "end", pl.String, "closed, reset, refused, timed out, unreachable, aborted, given up, another error, open with its TCP state, or unknown"
        ),
        Result("state", pl.String, "TCP state that it was last seen in; null where it has ended", detail=True),
        Result("retransmits", pl.Int64, "segments sent again", "count", quiet=True),
        Result("rtt", pl.Int64, "smoothed round-trip time when it was last seen; null: never measured", "ns", wide=True),
        Result("rtt_min", pl.Int64, "smallest round-trip time; null: never measured", "ns", detail=True),
        Result("older", pl.Int64, "1: older than the recording; start is when it was found", quiet=True, detail=True),
        Result("netns", pl.Int64, "network namespace; null where the trace has one only", quiet=True),
        Result("socket", pl.Int64, "cookie of the socket", detail=True),
    ),
)
def tcp_life(trace: Trace) -> pl.DataFrame:
    """List the TCP connections of recorded threads; sockets that only listen are none.

    Parameters
    ----------
    trace : Trace
        The recording.

    Returns
    -------
    DataFrame
        One row per connection, by the time of its start: ``process``, ``command``, ``way``, ``local``, ``peer``, ``start`` (ns of
        CLOCK_MONOTONIC), ``sent``, ``received`` (bytes), ``setup``, ``accept``, ``duration`` (ns), ``end``, ``state``, ``retransmits``,
        ``rtt``, ``rtt_min`` (ns), ``older``, ``netns``, ``socket``.

    Raises
    ------
    RingtapeError
        If the table ``sockets`` was not recorded.

    Notes
    -----
    Bytes are the kernel's own counters of the connection, so that they hold whatever moved them (splice and io_uring as well) and
    however many records were lost. ``sent`` is what the peer has acknowledged where that is everything; else what was given to
    the network less what was given to it again, which counts a segment that the machine's own queue dropped as well.

    A connection without a last record is ``open`` in the state that it was last seen in: the process has closed it and the
    kernel is not through with it, or the recorder was killed. Where records of ``sockets`` were lost, its end may be among
    them: it is ``unknown``.

    The process of an accepted connection is the one whose accept returned it; without the table ``syscalls`` the one that
    first sent or received on it (seen with the table ``transfers``), closed it, or listened.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.tcp_life import tcp_life
    >>> from tests.factory import make
    >>> row = {"socket": 7, "kind": 0, "state": 7, "family": 2, "protocol": 6, "pid": 10, "peer_low": 0x7F000001, "peer_port": 80, "error": 111}
    >>> path = make(getfixture("tmp_path") / "run.trace", processes=[], sockets=[row])
    >>> tcp_life(ringtape.open(path)).select("process", "peer", "end").rows()
    [(10, '127.0.0.1:80', 'refused')]
    """
    rows = trace.scan("sockets").filter(pl.col("protocol").is_in(STREAMS), pl.col("socket") != 0, pl.col("kind") != SYNACK)
    begins = (pl.col("kind") == STATE) & (pl.col("state") == SYN_SENT)
    connects = rows.filter(begins).group_by("socket").agg(pl.len().alias("connects"))
    again = trace.collect(connects.filter(pl.col("connects") > 1))["socket"].to_list()
    # A socket may connect again after it was refused: another connection, of which each row knows by the connects before it.
    once = trace.collect(_lives(rows.filter(~pl.col("socket").is_in(again)), ["socket"]))
    several = rows.filter(pl.col("socket").is_in(again)).sort("socket", "ts", "seq").with_columns(begins.cum_sum().over("socket").alias("number"))
    found = pl.concat([once, trace.collect(_lives(several, ["socket", "number"])).drop("number")])
    return _told(trace, found)


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw how many connections there were over time."""
    from ringtape.analysis.plots.network import connections

    begin, end = trace.span
    lost = trace.lost().get("sockets", 0)
    note = f"{lost:,} records were lost: connections may be missing, or seem to last" if lost else ""
    caption = "How many TCP connections there were at a time, and when some failed."
    yield Picture("tcp-life", caption, connections(tcp_life(trace), begin, end if end is not None else begin, note=note))


def _lives(rows: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    """Aggregate the rows of each connection; counters only grow within it, so that the largest are the last."""
    kind, old, state, ts = pl.col("kind"), pl.col("old"), pl.col("state"), pl.col("ts")
    change = kind == STATE
    ended = change & (state == CLOSE)
    named = (pl.col("peer_port") != 0) & (pl.col("local_port") != 0)
    fallback = pl.col("peer_port") != 0
    address = [name for end in ("local", "peer") for name in (f"{end}_high", f"{end}_low", f"{end}_port")]

    def first(column: str, condition: pl.Expr) -> pl.Expr:
        return pl.col(column).filter(condition).min_by(ts.filter(condition))

    def last(column: str, condition: pl.Expr) -> pl.Expr:
        return pl.col(column).filter(condition).max_by(ts.filter(condition))

    return rows.group_by(keys).agg(
        *(last(name, named).alias(name) for name in address),
        *(last(name, fallback).alias(f"{name}_early") for name in address),
        pl.col("family", "netns").max(),
        *(first(name, kind == ACCEPT).alias(f"{name}_accept") for name in ("pid", "tid")),
        *(first(name, pl.col("tid") != 0).alias(f"{name}_used") for name in ("pid", "tid")),
        first("pid", pl.col("pid") != 0).alias("pid_any"),
        ts.filter(change & (state == SYN_SENT)).min().alias("connect"),
        ts.filter(change & (state == ESTABLISHED)).min().alias("established"),
        (change & (state == ESTABLISHED) & (old == SYN_RECV)).any().alias("inward"),
        first("srtt", change & (state == ESTABLISHED)).alias("answered"),
        ts.filter(kind == ACCEPT).min().alias("accepted"),
        ts.filter(kind == EXISTING).min().alias("found"),
        ts.min().alias("seen"),
        ts.filter(ended).max().alias("closed"),
        pl.col("error").filter(ended).max(),
        (kind == RESET_SENT).any().alias("reset_sent"),
        (kind == RESET_RECEIVED).any().alias("reset_received"),
        (change & ((state == FIN_WAIT2) | ((state == CLOSE) & old.is_in([FIN_WAIT2, LAST_ACK, CLOSING])))).any().alias("finished"),
        (kind == OPEN).any().alias("open"),
        last("state", change | kind.is_in([EXISTING, OPEN])).alias("last_state"),
        ((state == LISTEN) | (old == LISTEN)).any().alias("listens"),
        (pl.col("bytes_sent") - pl.col("bytes_retrans")).max().alias("handed"),
        pl.col("bytes_acked").max(),
        (pl.col("bytes_received") - pl.col("fin")).max().alias("received"),
        pl.col("retrans").max(),
        last("srtt", pl.col("srtt") > 0).alias("rtt"),
        pl.col("rtt_min").filter(pl.col("rtt_min") >= 0).min(),
    )


def _told(trace: Trace, lives: pl.DataFrame) -> pl.DataFrame:
    address = [name for end in ("local", "peer") for name in (f"{end}_high", f"{end}_low", f"{end}_port")]
    lives = lives.filter(~pl.col("listens") & pl.col("last_state").is_not_null())
    lives = lives.with_columns(pl.coalesce(name, f"{name}_early").fill_null(0).alias(name) for name in address)
    begin, end = trace.span
    over = end if end is not None else begin
    older = pl.col("found").is_not_null() | (pl.col("connect").is_null() & ~pl.col("inward"))
    start = pl.when(older).then(pl.coalesce("found", "seen")).otherwise(pl.coalesce("connect", "established"))
    outward = pl.col("connect").is_not_null()
    # All of it is acknowledged, the FIN and the SYN of a connect as well: exact, whatever was dropped on the way.
    whole = pl.col("finished") & (pl.col("error").fill_null(0) == 0) & ~pl.col("reset_received") & ~older
    acked = pl.col("bytes_acked") - outward.cast(pl.Int64) - 1
    lives = lives.with_columns(
        pl.coalesce("pid_accept", "pid_used", "pid_any").alias("process"),
        pl.coalesce("tid_accept", "tid_used", "pid_any").alias("thread"),
        start.alias("start"),
        older.alias("older"),
    )
    commands = trace.commands()
    names = pl.Series([*commands.names, None], dtype=pl.String)
    codes = commands.codes(lives["thread"].fill_null(-1).to_numpy(), pl.Series(lives["start"]).to_numpy())
    namespaces = lives["netns"].n_unique() > 1
    states = pl.col("last_state").cast(pl.Int64).replace_strict(list(STATES), list(STATES.values()), default=None, return_dtype=pl.String)
    return lives.with_columns(names.gather(pl.Series(codes).replace(-1, len(commands.names))).alias("command")).select(
        "process",
        "command",
        pl.when(~pl.col("older")).then(pl.when(outward).then(pl.lit("out")).otherwise(pl.lit("in"))).alias("way"),
        endpoint_text("local"),
        endpoint_text("peer"),
        "start",
        pl.when(whole & (acked >= 0)).then(acked).otherwise(pl.col("handed").clip(0)).alias("sent"),
        pl.col("received").clip(0),
        pl.when(outward)
        .then(pl.col("established") - pl.col("connect"))
        .when(pl.col("inward") & (pl.col("answered") > 0))
        .then(pl.col("answered"))
        .alias("setup"),
        (pl.col("accepted") - pl.col("established")).clip(0).alias("accept"),
        (pl.coalesce("closed", pl.lit(over)) - pl.col("start")).clip(0).alias("duration"),
        _end(bool(trace.lost().get("sockets", 0)), states).alias("end"),
        pl.when(pl.col("closed").is_null()).then(states).alias("state"),
        pl.col("retrans").alias("retransmits"),
        "rtt",
        "rtt_min",
        pl.col("older").cast(pl.Int64),
        (pl.col("netns") if namespaces else pl.lit(None, pl.Int64)).alias("netns"),
        "socket",
    ).sort("start", "socket")  # fmt: skip


def _end(lossy: bool, state: pl.Expr) -> pl.Expr:
    error = pl.col("error").fill_null(0)
    words = {number: known.name for number, known in errnos().items()} | ENDS
    told = error.cast(pl.Int64).replace_strict(list(words), list(words.values()), default=None, return_dtype=pl.String)
    closed = pl.col("closed").is_not_null()
    return (
        pl.when(closed & (error != 0))
        .then(pl.coalesce(told, pl.concat_str(pl.lit("error "), error)))
        .when(closed & pl.col("reset_received"))
        .then(pl.lit("reset"))
        .when(closed & pl.col("reset_sent"))
        .then(pl.lit("aborted"))
        .when(closed & pl.col("established").is_null() & ~pl.col("older"))
        .then(pl.lit("given up"))
        .when(closed)
        .then(pl.lit("closed"))
        .when(pl.col("open") | (not lossy))
        .then(pl.concat_str(pl.lit("open: "), state))
        .otherwise(pl.lit("unknown"))
    )
