"""Latency per window of time: quantiles, and what the ledger places in each window."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise

import numpy as np
import polars as pl

from ringtape.analysis.grouping import Grouping
from ringtape.analysis.ledger import timed_losses
from ringtape.analysis.quantiles import quantiles
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError
from ringtape.schemas.units import parse_duration

WINDOWS = 60
MOST = 100_000


def window_edges(trace: Trace, width: str | None = None) -> list[int]:
    """Return where the windows of a recording begin, and the end of the last, in ns of CLOCK_MONOTONIC.

    Raises
    ------
    UsageError
        If a window has no length, or there are too many.
    """
    begin, end = trace.span
    last = _last(trace, begin) if end is None else end
    span = max(1, last - begin)
    if width is None:
        return sorted({begin + span * at // WINDOWS for at in range(WINDOWS + 1)})
    length = parse_duration(width)
    if not length:
        raise UsageError(f"--width {width!r} is no length of time", "write a time such as 100ms")
    if span > length * MOST:
        raise UsageError(f"--width {width} makes {-(-span // length):,} windows", f"at most {MOST:,} are told apart: write a longer time")
    return [*range(begin, begin + span, length), begin + span]


def _last(trace: Trace, begin: int) -> int:
    """Return when the last call of a recording without an end returned."""
    found = trace.collect(trace.scan("syscalls").filter(pl.col("kind") == 0).select((pl.col("ts") + pl.col("dur")).max())).item()
    return begin + 1 if found is None else int(found) + 1


def window_of(edges: list[int], instant: pl.Expr) -> pl.Expr:
    """Return the expression for the window in which an instant lies; the first and the last also hold what lies beyond."""
    inner = np.asarray(edges[1:-1], np.int64)

    def place(values: pl.Series) -> pl.Series:
        return pl.Series(np.searchsorted(inner, values.to_numpy(), "right").astype(np.int64))

    return instant.map_batches(place, return_dtype=pl.Int64, is_elementwise=True).alias("window")


def quantiles_by_window(
    trace: Trace, grouping: Grouping, edges: list[int], wanted: Mapping[str, Fraction], syscall: str | None = None
) -> pl.DataFrame:
    """Return order statistics of latency by group and window.

    Parameters
    ----------
    trace : Trace
        The recording.
    grouping : Grouping
        What to tell apart.
    edges : list of int
        As of `window_edges`.
    wanted : mapping of str to Fraction
        Names and quantiles.
    syscall : str, optional
        Only calls of this name.

    Returns
    -------
    DataFrame
        The keys of the grouping, ``window``, ``calls``, ``lost``, and for each quantile ``<name>``, ``<name>_low``, ``<name>_high``; one
        row per group and window, those without a call too.
    """
    keys = [*grouping.keys, "window"]
    everything = trace.scan("syscalls").filter(pl.col("kind") == 0)
    if syscall is not None:
        everything = everything.filter(grouping.is_call(syscall))
    calls = grouping.rows(everything).select(*grouping.keys, window_of(edges, pl.col("ts") + pl.col("dur")), "dur")
    lost = _lost(trace, grouping, edges, syscall)
    # Which group lost calls belong to is known where calls are told apart by number alone; else they may belong to each, or to none.
    located = grouping.located and not len(lost.filter(pl.col("nr") < 0))
    shared = keys if located else ["window"]
    missing = lost.group_by(*shared, "low", "high").agg(pl.col("lost").sum())
    found = quantiles(trace, calls, keys, list(wanted.values()), missing, None if len(lost) else 0)
    counted = missing.group_by(shared).agg(pl.col("lost").sum())
    groups = found.select(grouping.keys).unique()
    every = groups.join(pl.DataFrame({"window": range(len(edges) - 1)}, schema={"window": pl.Int64}), how="cross")
    rows = every.join(found, on=keys, how="left", nulls_equal=True).join(counted, on=shared, how="left", nulls_equal=True)
    columns = []
    for at, name in enumerate(wanted):
        low, high = pl.col(f"low_{at}"), pl.col(f"high_{at}")
        columns += [pl.when(low == high).then(low).alias(name), low.alias(f"{name}_low"), high.alias(f"{name}_high")]
    return rows.select(*keys, pl.col("count").fill_null(0).alias("calls"), pl.col("lost").fill_null(0), *columns)


def _lost(trace: Trace, grouping: Grouping, edges: list[int], syscall: str | None) -> pl.DataFrame:
    """Return the calls that may have been lost in each window: those of a row of the ledger that reaches into several, in each of them."""
    lost = timed_losses(trace)
    schema = pl.Schema([*lost.schema.items(), ("window", pl.Int64())])
    if not len(lost):
        return pl.DataFrame(schema=schema)
    pieces = [pl.DataFrame(schema=schema)]
    begin, last = trace.header.attached_at, len(edges) - 2
    for at, (low, high) in enumerate(pairwise(edges)):
        # What the first and the last window hold beyond their edges is lost there, too.
        part = trace.between(None if at == 0 else low - begin, None if at == last else high - begin) if last else trace
        pieces.append(timed_losses(part).with_columns(pl.lit(at, pl.Int64).alias("window")))
    found = pl.concat(pieces)
    return found.filter(pl.col("nr").is_in([-1]) | grouping.is_call(syscall)) if syscall is not None else found
