"""What is common to analyses of tracepoints: columns by name, one element of an array, what was lost of which event."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import polars as pl

from ringtape.analysis.decode.tracepoints import bytes_text
from ringtape.analysis.events import column_names
from ringtape.analysis.ledger import RING_FULL
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError
from ringtape.schemas.events import Event

SKIPPED = 3
_ELEMENT = re.compile(r"(\w+)\[(\d{1,5})\]")


@dataclass(frozen=True)
class Missing:
    """What the ledger knows of one event: records lost, and times that the kernel did not run the probe."""

    lost: int = 0
    skipped: int = 0


def missing(trace: Trace) -> Mapping[int, Missing]:
    """Return what is missing of each event, by its number; -1 stands for what is known of none."""
    if "losses" not in trace.tables:
        return {}
    rows = trace.scan("losses").filter(pl.col("table") == "events").group_by("nr", "cause").agg(pl.col("count").sum())
    counts = {(nr, cause): count for nr, cause, count in trace.collect(rows).select("nr", "cause", "count").iter_rows()}
    return {nr: Missing(counts.get((nr, RING_FULL), 0), counts.get((nr, SKIPPED), 0)) for nr, _ in counts}


def several(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return the column names of an argument ``by``, each once.

    Raises
    ------
    UsageError
        If one is empty or stands twice.
    """
    chosen = tuple(part.strip() for part in names.split(",")) if isinstance(names, str) else tuple(names)
    if len(set(chosen)) < len(chosen) or "" in chosen:
        raise UsageError(f"by is {','.join(chosen)!r}", "name different columns")
    return chosen


def column(frame: pl.LazyFrame, event: Event | None, name: str) -> pl.Expr:
    """Return the expression for a column of a frame of events, or for ``name[index]``, an element of an array.

    Raises
    ------
    UsageError
        If there is no such column; those that there are stand in the hint.
    """
    schema = frame.collect_schema()
    element = _ELEMENT.fullmatch(name)
    stem = element[1] if element else name
    if stem not in schema:
        close = get_close_matches(stem, schema.names(), 3, 0.6)
        what = f"event {event.name}" if event else "what all events have"
        raise UsageError(
            f"no column {stem!r} in {what}", f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(schema.names())}"
        )
    if element is None:
        return pl.col(stem)
    kind = schema[stem]
    index = int(element[2])
    if isinstance(kind, pl.List):
        return pl.col(stem).list.get(index, null_on_oob=True).alias(name)
    if kind == pl.Binary:
        byte = pl.col(stem).bin.slice(index, 1)
        return pl.when(byte.bin.size() == 1).then(byte.bin.reinterpret(dtype=pl.UInt8, endianness="little")).cast(pl.Int16).alias(name)
    raise UsageError(f"column {stem} is no array", f"name it without [{index}]")


def as_key(frame: pl.LazyFrame, event: Event | None, name: str) -> pl.Expr:
    """Return the expression for a column to group by: arrays as text, addresses as they are written."""
    expression = column(frame, event, name)
    kind = frame.select(expression).collect_schema()[name]
    if isinstance(kind, pl.List):
        return expression.cast(pl.List(pl.String)).list.join(" ").alias(name)
    if kind == pl.Binary:
        field = event.field(column_names(event).get(name, "")) if event else None
        return expression.map_batches(lambda values: _shown(values, field.show if field else ""), return_dtype=pl.String, is_elementwise=True).alias(
            name
        )
    return expression


def _shown(values: pl.Series, show: str) -> pl.Series:
    distinct = values.unique()
    texts = pl.Series([None if value is None else bytes_text(show, value) for value in distinct], dtype=pl.String)
    return values.replace_strict(distinct, texts, return_dtype=pl.String)
