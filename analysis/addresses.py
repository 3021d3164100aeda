"""Addresses of sockets as text."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

import polars as pl

from ringtape.schemas.addresses import PROTOCOLS

UNIX, IPV4, IPV6, NETLINK = 1, 2, 10, 16
INTERNET = (IPV4, IPV6)
_FAMILIES = {UNIX: "Unix", NETLINK: "netlink", 17: "packet", 38: "kernel crypto", 40: "vsock"}
_HALF = 1 << 64


def host(high: int, low: int, family: int) -> str | None:
    """Return an IPv4 or IPv6 address as text, an IPv4 address within IPv6 as what it is; None for other families.

    >>> host(0, 0x7F000001, 2), host(0, 1, 10), host(0, 0xFFFF7F000001, 10), host(-0x0180_0000_0000_0000, 1, 10)
    ('127.0.0.1', '::1', '127.0.0.1', 'fe80::1')
    """
    if family == IPV4:
        return str(ipaddress.IPv4Address(low % (1 << 32)))
    if family != IPV6:
        return None
    found = ipaddress.IPv6Address((high % _HALF) << 64 | low % _HALF)
    return str(found.ipv4_mapped or found)


def endpoint(high: int, low: int, port: int, family: int) -> str | None:
    """Return an address with its port as text; None for families that have none.

    >>> endpoint(0, 0x7F000001, 80, 2), endpoint(0, 1, 80, 10), endpoint(0, 0, 53, 10)
    ('127.0.0.1:80', '[::1]:80', '[::]:53')
    """
    text = host(high, low, family)
    return None if text is None else f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def host_text(end: str) -> pl.Expr:
    """Return the expression for the address of the ``local`` end or of the ``peer``; null where there is none."""
    return _distinct(host, (f"{end}_high", f"{end}_low", "family")).alias(end)


def endpoint_text(end: str) -> pl.Expr:
    """Return the expression for address and port of the ``local`` end or of the ``peer``; null where there is none."""
    known = (pl.col(f"{end}_port") != 0) | (pl.col(f"{end}_low") != 0) | (pl.col(f"{end}_high") != 0)
    return pl.when(known).then(_distinct(endpoint, (f"{end}_high", f"{end}_low", f"{end}_port", "family"))).alias(end)


def protocol_text() -> pl.Expr:
    """Return the expression for the name of a row's protocol, which is that of the family for those beside IPv4 and IPv6."""
    inner = pl.col("protocol").cast(pl.Int64)
    known = inner.replace_strict(list(PROTOCOLS), list(PROTOCOLS.values()), default=None, return_dtype=pl.String)
    outer = pl.col("family").cast(pl.Int64)
    family = outer.replace_strict(list(_FAMILIES), list(_FAMILIES.values()), default=None, return_dtype=pl.String)
    internet = pl.coalesce(known, pl.concat_str(pl.lit("protocol "), inner))
    return pl.when(outer.is_in(INTERNET)).then(internet).otherwise(pl.coalesce(family, pl.concat_str(pl.lit("family "), outer))).alias("protocol")


def _distinct(make: Callable[..., str | None], columns: Iterable[str]) -> pl.Expr:
    """Return the expression that makes one text of several columns, each different text made once."""
    names = list(columns)

    def texts(rows: pl.Series) -> pl.Series:
        frame = rows.struct.unnest()
        different = frame.unique()
        made = different.with_columns(pl.Series("text", [make(*row) for row in different.select(names).iter_rows()], pl.String))
        return frame.join(made, on=names, how="left", maintain_order="left")["text"]

    return pl.struct(*names).map_batches(texts, return_dtype=pl.String, is_elementwise=True)
