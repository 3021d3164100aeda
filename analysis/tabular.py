"""The rows of any table as columns that a text can hold: codes decoded, bytes without loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import polars as pl

from ringtape.analysis.pieces import batches
from ringtape.analysis.trace import Trace
from ringtape.schemas.escape import escape


def rows(trace: Trace, table: str) -> Iterator[pl.DataFrame]:
    """Yield the decoded rows of a table, or of a tracepoint; the first frame, which may be empty, comes always.

    Raises
    ------
    RingtapeError
        If it was not recorded.
    """
    tracepoint = ":" in table

    def decoded(of: Trace) -> pl.LazyFrame:
        return of.event(table) if tracepoint else of.frame(table)

    yield trace.collect(decoded(trace).head(0))
    yield from batches(trace, "events" if tracepoint else table, decoded)


def texts(frame: pl.DataFrame, text: Callable[[bytes], str]) -> pl.DataFrame:
    """Return a frame of which every binary column is text, made from each distinct value once."""
    return frame.with_columns(_text(frame[name], text) for name, kind in frame.schema.items() if kind == pl.Binary)


def _text(values: pl.Series, text: Callable[[bytes], str]) -> pl.Series:
    distinct = values.unique().drop_nulls()
    made = pl.Series([text(value) for value in distinct], dtype=pl.String)
    pairs = pl.DataFrame({"value": distinct, "text": made})
    return values.to_frame("value").join(pairs, on="value", how="left", maintain_order="left")["text"].alias(values.name)


def listed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame of which every list is the text of a JSON array."""
    names = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    return frame.with_columns(
        pl.Series(name, [None if one is None else json.dumps(one.to_list()) for one in frame[name]], pl.String) for name in names
    )


def escaped(value: bytes) -> str:
    r"""Return bytes as text from which they can be had back: ``\xNN`` where they are not UTF-8 or not printable, ``\\`` for a backslash."""
    return escape(value)


def as_json(value: bytes) -> str:
    r"""Return bytes as a JSON object: ``value`` is the text, and ``hex`` the bytes where they are no UTF-8.

    >>> as_json(b"a b"), as_json(b"\xff")
    ('{"value": "a b"}', '{"value": "\\\\xff", "hex": "ff"}')
    """
    try:
        return json.dumps({"value": value.decode()})
    except UnicodeDecodeError:
        return json.dumps({"value": escape(value), "hex": value.hex()})
