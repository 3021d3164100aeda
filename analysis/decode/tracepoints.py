"""Occurrences of tracepoints as text, as `perf script` and bpftrace would name their fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from ipaddress import ip_address
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import polars as pl
import pyarrow as pa

from ringtape.analysis.decode.values import Memo, octal, pointer, quoted
from ringtape.analysis.events import context_names, decode, symbol_text
from ringtape.schemas.events import Event, EventField
from ringtape.schemas.table import table


class Occurrences(NamedTuple):
    """Occurrences of one event, a list per column; ``rows`` are their places in the batch, ``fields`` holds exact values."""

    event: Event
    rows: np.ndarray[tuple[int], np.dtype[np.intp]]
    columns: Mapping[str, list[Any]]
    fields: Mapping[str, list[Any]]


def occurrences(rows: pa.Table, events: Mapping[int, Event]) -> Iterator[Occurrences]:
    """Take a batch of the table ``events`` apart by event, its fields decoded."""
    numbers = rows["event"].to_numpy()
    for number in np.unique(numbers):
        event = events.get(int(number)) or Event(f"unknown:{number}", int(number), ())
        places = np.flatnonzero(numbers == number)
        own = rows.take(pa.array(places))
        raw = pl.DataFrame({name: _binary(own[name]) for name in ("raw", "strings")})
        fields = {
            field.name: decode(field, raw.to_struct("both") if field.string >= 0 else raw["raw"], exact=True).to_list() for field in event.fields
        }
        yield Occurrences(event, places, own.to_pydict(), fields)


def _binary(column: pa.ChunkedArray) -> pl.Series:
    series = pl.from_arrow(column)
    assert isinstance(series, pl.Series)
    return series


def texts(found: Occurrences) -> list[str]:
    """Return each occurrence as one sentence."""
    names, columns = [], []
    for field in found.event.fields:
        show = _shower(field)
        names.append(field.name)
        columns.append([show(value) for value in found.fields[field.name]])
    context = context_names()
    marks = ["" if code == 0 else f" [{context.get(code, code)}]" for code in found.columns["context"]]
    rows = zip(*columns, strict=True) if columns else ((),) * len(marks)
    sentences = [" ".join(f"{name}={value}" for name, value in zip(names, row, strict=True)) for row in rows]
    return [
        f"+++ {found.event.name}{mark} {words} +++" if words else f"+++ {found.event.name}{mark} +++"
        for mark, words in zip(marks, sentences, strict=True)
    ]


def _shower(field: EventField) -> Callable[[Any], str]:
    """Return the function that shows a value of a field, which remembers what it has shown."""
    plain = _plain(field)
    if field.shape == "scalar" and field.string < 0:
        memo = Memo(plain)
        return lambda value: "?" if value is None else memo[value]
    return lambda value: "?" if value is None else plain(value)


def _plain(field: EventField) -> Callable[[Any], str]:
    bits = (1 << 8 * field.item) - 1
    if field.text or field.string >= 0:
        return quoted
    if field.shape != "scalar":
        return partial(bytes_text, field.show) if field.item == 1 else lambda value: f"[{', '.join(map(str, value))}]"
    if (symbols := field.symbols) is not None:
        return lambda value: symbol_text(symbols, int(value)) or "0"
    if "*" in field.type:
        return lambda value: pointer(int(value))
    if field.show in ("ipv4", "ipv6", "mac", "uuid"):
        return lambda value: bytes_text(field.show, (int(value) & bits).to_bytes(field.item, "little"))
    if field.show == "hex":
        return lambda value: f"{int(value) & bits:#x}"
    if field.show == "oct":
        return lambda value: octal(int(value))
    if field.show == "dev":  # MAJOR() and MINOR() of include/linux/kdev_t.h
        return lambda value: f"{(int(value) & bits) >> 20}:{int(value) & 0xFFFFF}"
    return lambda value: str(int(value))


def bytes_text(show: str, value: bytes) -> str:
    """Return bytes that are no characters as text.

    >>> bytes_text("ipv4", bytes([127, 0, 0, 1])), bytes_text("", b"ab")
    ('127.0.0.1', '[61 62]')
    """
    if (show, len(value)) in (("ipv4", 4), ("ipv6", 16)):
        return str(ip_address(value))
    if show == "mac":
        return value.hex(":")
    return str(UUID(bytes=value)) if (show, len(value)) == ("uuid", 16) else f"[{value.hex(' ')}]"


def describe(found: Occurrences) -> Iterator[dict[str, Any]]:
    """Yield each occurrence with everything that is stored of it, as JSON can hold it; strings stay bytes."""
    own = [column.name for column in table("events").columns if column.name not in ("event", "raw", "strings")]
    context = context_names()
    for row in range(len(found.rows)):
        body: dict[str, Any] = {"event": "tracepoint", "name": found.event.name}
        body |= {name: found.columns[name][row] for name in own}
        body["context"] = context.get(body["context"], body["context"])
        body["fields"] = {name: values[row] for name, values in found.fields.items()}
        for field in found.event.fields:
            if field.symbols is not None and body["fields"][field.name] is not None:
                body["fields"][f"{field.name}_name"] = symbol_text(field.symbols, body["fields"][field.name])
        yield body | {"raw": found.columns["raw"][row].hex(), "strings": found.columns["strings"][row].hex()}
