"""The times between calls, streamed in time order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from ringtape.analysis.grouping import Grouping
from ringtape.analysis.ledger import AT_ATTACH, CHILD
from ringtape.analysis.trace import Trace

BATCH = 1_000_000
"""Calls that are put in order at a time, about."""


def gaps(trace: Trace, grouping: Grouping, syscall: str | None, unsure: list[tuple[int, int]]) -> pl.LazyFrame:
    """Return the times from each call to the next of its group.

    Parameters
    ----------
    trace : Trace
        The recording.
    grouping : Grouping
        Which calls belong together.
    syscall : str, optional
        Only calls of this name.
    unsure : list of tuple of int
        Stretches of time, ascending and apart, in which calls may have been lost.

    Returns
    -------
    LazyFrame
        The keys of the grouping, ``ts`` (when the later one was entered), ``dur`` (the time between, ns), ``sure`` (false where a call may
        have been lost in between).
    """
    keys = grouping.keys
    empty = trace.collect(_calls(trace, grouping, syscall, 0, 0).select(*keys, "ts"))
    schema = pl.Schema([*empty.schema.items(), ("dur", pl.Int64()), ("sure", pl.Boolean())])
    begins, ends = (np.asarray([stretch[at] for stretch in unsure], np.int64) for at in (0, 1))

    def source(columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None) -> Iterator[pl.DataFrame]:
        del size
        last = empty
        for since, until in _slices(trace):
            calls = trace.collect(_calls(trace, grouping, syscall, since, until).select(*keys, "ts"))
            known = last.with_columns(pl.lit(True).alias("_known"))
            ordered = pl.concat([known, calls.with_columns(pl.lit(False).alias("_known"))]).sort("ts", maintain_order=True)
            before = pl.col("ts").shift().over(keys)
            found = ordered.with_columns(before.alias("_before")).filter(~pl.col("_known"), pl.col("_before").is_not_null())
            # The first stretch that ends behind the call before: it is in between if it begins before the later one.
            place = np.searchsorted(ends, found["_before"].to_numpy(), "left")
            inside = np.append(begins, np.iinfo(np.int64).max)[place] <= found["ts"].to_numpy()
            result = found.select(*keys, "ts", (pl.col("ts") - pl.col("_before")).alias("dur"), pl.Series("sure", ~inside)).cast(schema)
            last = ordered.group_by(keys).agg(pl.col("ts").max()).select(empty.columns)
            if predicate is not None:
                result = result.filter(predicate)
            if rows is not None:
                result = result.head(rows)
                rows -= len(result)
            yield result if columns is None else result.select(columns)
            if rows == 0:
                return

    return register_io_source(source, schema=schema)


def _calls(trace: Trace, grouping: Grouping, syscall: str | None, since: int, until: int) -> pl.LazyFrame:
    # A call that ran when the recording began was entered at an unknown time; the return of a clone in the child is no call.
    frame = trace.scan("syscalls", since, until).filter(~pl.col("kind").is_in([AT_ATTACH, CHILD]))
    return grouping.rows(frame.filter(grouping.is_call(syscall)) if syscall is not None else frame)


def _slices(trace: Trace) -> list[tuple[int, int]]:
    """Part the time of a recording so that each part has not many more calls than `BATCH`."""
    parts = sorted(trace.parts("syscalls"), key=lambda part: part.min_ts)
    edges: list[int] = []
    rows = 0
    for part in parts:
        # A large part is cut as if its calls were spread evenly.
        pieces = max(1, -(-part.rows // BATCH))
        for at in range(pieces):
            if rows >= BATCH or not edges:
                edges.append(part.min_ts + (part.max_ts - part.min_ts) * at // pieces)
                rows = 0
            rows += part.rows // pieces
    if not parts:
        return []
    edges.append(max(part.max_ts for part in parts) + 1)
    return [(low, high) for low, high in zip(edges[:-1], edges[1:], strict=True) if low < high]  # noqa: RUF007


def unsure_stretches(trace: Trace) -> list[tuple[int, int]]:
    """Return the stretches of time in which lost calls may have been entered, ascending and apart."""
    lost = trace.lost().get("syscalls", 0)
    if not lost:
        return []
    always = [(-(1 << 62), 1 << 62)]
    if "losses" not in trace.tables:
        return always
    rows = trace.scan("losses").filter(pl.col("table") == "syscalls", pl.col("cause").is_in([0, 1]))
    longest = pl.lit(2, pl.Int64).pow(pl.col("bucket").cast(pl.Int64).clip(0, 60) + 1).cast(pl.Int64)
    found: Any = trace.collect(
        rows.select((pl.col("ts") - pl.when(pl.col("cause") == 0).then(longest).otherwise(0)).alias("since"), "until", "count")
    )
    if int(found["count"].sum()) < lost:
        return always
    merged: list[tuple[int, int]] = []
    for begin, until in found.select("since", "until").sort("since").iter_rows():
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], until))
        else:
            merged.append((begin, until))
    return merged
