"""What the analyses of the network share: by what rows are told apart, and who the peer of a datagram was."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import polars as pl

from ringtape.analysis.addresses import INTERNET, IPV4, IPV6, endpoint_text, host_text, protocol_text
from ringtape.analysis.decode.sockaddr import SLOT
from ringtape.analysis.registry import Result
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError

By = Literal["process", "thread", "command", "protocol", "local", "peer", "endpoint", "socket"]

GROUPS = (
    Result("process", pl.Int32, "process number; 0: not known"),
    Result("thread", pl.Int32, "thread number; 0: not known"),
    Result("command", pl.String, "command name that the thread (the first thread of the process) had at the last of the rows; null: not known"),
    Result("protocol", pl.String, "protocol; for families beside IPv4 and IPv6 the family"),
    Result("local", pl.String, "local address and port"),
    Result("peer", pl.String, "address of the peer; null where there is none or it is not known"),
    Result("endpoint", pl.String, "address and port of the peer; null where there is none or it is not known"),
    Result("socket", pl.Int64, "cookie of the socket"),
)
_FULL_PEER = ("peer_high", "peer_low", "peer_port", "family")
_KEYS: dict[str, tuple[str, ...]] = {
    "process": ("pid",),
    "thread": ("tid",),
    "command": ("command",),
    "protocol": ("protocol", "family"),
    "local": ("local_high", "local_low", "local_port", "family"),
    "peer": ("peer_high", "peer_low", "family"),
    "endpoint": _FULL_PEER,
    "socket": ("socket",),
}
PEEK, ERROR_QUEUE = 0x2, 0x2000
EAGAIN = 11


@dataclass(frozen=True)
class Grouping:
    """A choice of group columns, and the stored columns that stand for them while rows are counted."""

    by: tuple[By, ...]
    trace: Trace

    @classmethod
    def of(cls, trace: Trace, by: By | Sequence[By]) -> Grouping:
        """Check the argument ``by`` of an analysis.

        Raises
        ------
        UsageError
            If it names something that rows are not told apart by, nothing, or something twice.
        """
        chosen = tuple(by.split(",")) if isinstance(by, str) else tuple(by)
        unknown = [name for name in chosen if name not in _KEYS]
        if unknown or not chosen or len(set(chosen)) != len(chosen):
            raise UsageError(f"by is {','.join(chosen)!r}", f"by is one or more different ones of {', '.join(_KEYS)}")
        return cls(cast(tuple[By, ...], chosen), trace)

    @property
    def keys(self) -> list[str]:
        """Columns to group rows by."""
        return list(dict.fromkeys(key for name in self.by for key in _KEYS[name]))

    @property
    def names(self) -> list[str]:
        """Group columns of the result: a process is shown with its command."""
        return list(dict.fromkeys(name for one in self.by for name in ((one, "command") if one in ("process", "thread") else (one,))))

    def rows(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Return the frame with the columns to group by."""
        # Other families use the columns for numbers of their own, such as the cookie of a Unix socket's peer.
        own = [
            pl.when(pl.col("family").is_in(INTERNET)).then(key).otherwise(0).alias(key) for key in self.keys if key.startswith(("peer_", "protocol"))
        ]
        frame = frame.with_columns(own)
        return frame.with_columns(self._codes("tid").alias("command")) if "command" in self.by else frame

    def named(self, frame: pl.DataFrame, last: str = "last") -> pl.DataFrame:
        """Return a frame of groups with texts in place of numbers, the group columns first.

        ``last`` is the column with the time (ns) of the last row of each group, at which its command is looked up; it is dropped.
        """
        if "command" not in self.by and "command" in self.names:
            number = "tid" if "thread" in self.by else "pid"
            found = self.trace.commands().codes(frame[number].to_numpy(), frame[last].to_numpy())
            frame = frame.with_columns(pl.Series("command", found))
        known = self.trace.commands().names if "command" in self.names else []
        make: dict[str, Callable[[], pl.Expr]] = {
            "process": lambda: pl.col("pid").alias("process"),
            "thread": lambda: pl.col("tid").alias("thread"),
            "command": lambda: pl.col("command").replace_strict(list(range(len(known))), known, default=None, return_dtype=pl.String),
            "protocol": protocol_text,
            "local": lambda: endpoint_text("local"),
            "peer": _known_host,
            "endpoint": lambda: endpoint_text("peer").alias("endpoint"),
            "socket": lambda: pl.col("socket"),
        }
        rest = [column for column in frame.columns if column not in (*self.keys, "command", last)]
        return frame.select(*(make[name]() for name in self.names), *rest)

    def _codes(self, number: str) -> pl.Expr:
        commands = self.trace.commands
        return pl.struct(number, "ts").map_batches(
            lambda rows: pl.Series(commands().codes(rows.struct.field(number).to_numpy(), rows.struct.field("ts").to_numpy())),
            return_dtype=pl.Int32,
            is_elementwise=True,
        )


def _known_host() -> pl.Expr:
    return pl.when((pl.col("peer_high") != 0) | (pl.col("peer_low") != 0)).then(host_text("peer")).alias("peer")


def transfers(trace: Trace) -> pl.LazyFrame:
    """Return the table transfers with what each row moved, and the peers of datagrams where a call named them.

    Returns
    -------
    LazyFrame
        The stored columns, ``sent`` and ``received`` (bytes, 64 bits), ``out`` and ``came`` (1 where something was sent or
        received, however short), ``errno`` (positive; 0 where it did not fail). What was only looked at (MSG_PEEK) or came from
        the error queue counts as nothing.

    Notes
    -----
    The peer of a datagram socket without a connection stands in the address given to sendto or by recvfrom: it is taken from the
    table ``paths``, which names it by the same thread and call. A call for several messages makes a transfer for each, in their
    order. Where transfers were lost, the order is not known: such a call's peer is then given only if all its messages have the same.
    """
    frame = trace.scan("transfers")
    counts = pl.col("flags") & (PEEK | ERROR_QUEUE) == 0
    bytes_of = pl.when(counts & (pl.col("result") > 0)).then(pl.col("result").cast(pl.Int64)).otherwise(0)
    sends = pl.col("direction") == 0
    good = counts & (pl.col("result") >= 0)
    frame = frame.with_columns(
        pl.when(sends).then(bytes_of).otherwise(0).alias("sent"),
        pl.when(sends).then(0).otherwise(bytes_of).alias("received"),
        (sends & good).cast(pl.Int64).alias("out"),
        (~sends & good).cast(pl.Int64).alias("came"),
        pl.when(pl.col("result") < 0).then(-pl.col("result")).otherwise(0).alias("errno"),
    )
    if "paths" not in trace.tables:
        return frame
    wants = (pl.col("peer_port") == 0) & (pl.col("type") != 1) & pl.col("family").is_in(INTERNET) & (pl.col("call") != 0)
    names = frame.collect_schema().names()
    call = ["tid", "call"]
    lacking = frame.filter(wants)
    many = _addresses_of_many(trace)
    calls_for_many = many.select(call).unique()
    one = lacking.join(calls_for_many, on=call, how="anti").join(_addresses(trace), on=call, how="left")
    # A thread is in one call at a time, and its transfers come one after the other.
    several = lacking.join(calls_for_many, on=call, how="semi").sort("tid", "ts").with_columns(pl.int_range(pl.len()).over(call).alias("message"))
    if trace.lost().get("transfers", 0):
        known = ("named_family", "named_high", "named_low", "named_port")
        alike = many.group_by(call).agg(pl.col(known).first(), pl.struct(known).n_unique().alias("different")).filter(pl.col("different") == 1)
        several = several.join(alike.drop("different"), on=call, how="left")
    else:
        several = several.join(many, on=[*call, "message"], how="left")
    return pl.concat([frame.filter(~wants), _peers(one).select(names), _peers(several).select(names)])


def _peers(rows: pl.LazyFrame) -> pl.LazyFrame:
    # An IPv6 socket may be given an IPv4 address as it is; its own rows have it within IPv6.
    within = pl.when((pl.col("family") == IPV6) & (pl.col("named_family") == IPV4)).then(0xFFFF << 32).otherwise(0)
    return rows.with_columns(pl.col("named_low") + within).with_columns(
        pl.coalesce(f"named_{name}", f"peer_{name}").alias(f"peer_{name}") for name in ("high", "low", "port")
    )


_NAMED = {"named_family": pl.Int8, "named_high": pl.Int64, "named_low": pl.Int64, "named_port": pl.Int32}


def _addresses(trace: Trace) -> pl.LazyFrame:
    """Return the addresses that calls were given or returned: ``tid``, ``call`` (time of its entry), the address as numbers."""
    parsed = pl.col("value").map_batches(_parse_all, return_dtype=pl.Struct(_NAMED), is_elementwise=True).alias("address")
    rows = trace.scan("paths").filter(pl.col("kind") == 1).select("tid", pl.col("ts").alias("call"), parsed).unnest("address")
    return rows.filter(pl.col("named_port").is_not_null()).unique(["tid", "call"])


def _addresses_of_many(trace: Trace) -> pl.LazyFrame:
    """Return the addresses of calls for several messages, as `_addresses` does, and the number of the ``message``, from 0 on."""
    rows = trace.scan("paths").filter(pl.col("kind") == 3).select("tid", pl.col("ts").alias("call"), "value").unique(["tid", "call"])
    each = rows.with_columns(pl.int_ranges(pl.col("value").bin.size() // SLOT).alias("message")).explode("message").drop_nulls("message")
    start = pl.col("message") * SLOT
    length = pl.col("value").bin.slice(start, 4).bin.reinterpret(dtype=pl.UInt32).clip(upper_bound=SLOT - 4)
    parsed = (
        pl.col("value").bin.slice(start + 4, length).map_batches(_parse_all, return_dtype=pl.Struct(_NAMED), is_elementwise=True).alias("address")
    )
    return each.select("tid", "call", "message", parsed).unnest("address").filter(pl.col("named_port").is_not_null())


def _parse_all(values: pl.Series) -> pl.Series:
    frame = values.alias("value").to_frame()
    different = frame.unique()
    parsed = pl.DataFrame([_parse(value) for value in different["value"]], schema=_NAMED, orient="row")
    joined = frame.join(different.hstack(parsed), on="value", how="left", maintain_order="left")
    return joined.select(pl.struct(list(_NAMED)).alias("address"))["address"]


def _parse(value: bytes) -> tuple[int | None, ...]:
    """Take a struct sockaddr_in or sockaddr_in6 apart (include/uapi/linux/in.h, in6.h)."""
    family = int.from_bytes(value[:2], "little")
    if family == IPV4 and len(value) >= 8:
        port, low = struct.unpack_from(">HI", value, 2)
        return family, 0, low, port
    if family == IPV6 and len(value) >= 24:
        (port,) = struct.unpack_from(">H", value, 2)
        high, low = struct.unpack_from(">qq", value, 8)
        return family, high, low, port
    return None, None, None, None
