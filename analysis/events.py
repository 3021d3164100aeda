"""Raw records of tracepoints as typed columns, in bulk: each field is cut out of all records of a batch at once.

Where a field lies comes from the manifest, how long a record is from a part: where the two do not agree the value is null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ringtape.analysis.naming import meaning
from ringtape.schemas.escape import escape
from ringtape.schemas.events import HEADER_SIZE, Event, EventField, Symbols
from ringtape.schemas.table import table as declared

if TYPE_CHECKING:
    from ringtape.analysis.trace import Trace

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

UNREADABLE: Final = 255
"""Length of a string that could not be read (EVENT_UNREADABLE in probes/events.bpf.c)."""
OWN: Final = ("ts", "pid", "tid", "cpu", "context", "seq")
"""Columns of the table that a frame of one event has, as ``event_ts`` and so on: names that no field of the kernel has."""
_PREFIX: Final = "event_"
_INTEGERS: Final[Mapping[tuple[int, bool], pl.DataType]] = {
    (1, True): pl.Int8(), (2, True): pl.Int16(), (4, True): pl.Int32(), (8, True): pl.Int64(),
    (1, False): pl.Int16(), (2, False): pl.Int32(), (4, False): pl.Int64(), (8, False): pl.UInt64(),
}  # fmt: skip
"""Unsigned numbers get a signed type that holds them all; those of 8 bytes, addresses among them, have none."""


def column_names(event: Event) -> dict[str, str]:
    """Return the columns of an event's frame: for each the field that it shows, empty for those of the table."""
    names = dict.fromkeys((*(f"{_PREFIX}{name}" for name in (*OWN, "context_name", "comm")),), "")
    for field in event.fields:
        names[_free(field.name, names)] = field.name
    for field in event.fields:
        if field.symbols is not None:
            names[_free(f"{field.name}_name", names)] = field.name
    return names


def _free(name: str, taken: Mapping[str, str]) -> str:
    while name in taken:
        name += "_"
    return name


def polars_type(field: EventField, exact: bool = False) -> pl.DataType:
    """Return the type of a field's column; ``exact`` leaves characters as the bytes that they are."""
    if field.text or field.string >= 0:
        return pl.Binary() if exact else pl.String()
    if field.shape == "scalar":
        return pl.Boolean() if field.type in ("bool", "_Bool") else _INTEGERS[field.item, field.signed]
    return pl.Binary() if field.item == 1 else pl.List(_INTEGERS[field.item, field.signed])


def event_frame(trace: Trace, event: Event, since: int | None = None, until: int | None = None) -> pl.LazyFrame:
    """Return the occurrences of one event, a column per field; a column that a query does not use costs nothing."""
    rows = trace.frame("events", since, until).filter(pl.col("event") == event.id)
    return rows.select(*columns_of(event))


def columns_of(event: Event) -> Iterator[pl.Expr]:
    """Yield the columns of an event's frame, as expressions over the table with its decoded columns."""
    own = [f"{_PREFIX}{name}" for name in OWN]
    yield from (pl.col(name).alias(alias) for name, alias in zip(OWN, own, strict=True))
    yield pl.col("context_name").alias(f"{_PREFIX}context_name")
    # Idle tasks are in no table of processes.
    idle = (pl.col("tid") == 0) & pl.col("comm").is_null()
    yield pl.when(idle).then(pl.lit("swapper")).otherwise(pl.col("comm")).alias(f"{_PREFIX}comm")
    names = list(column_names(event).items())[len(own) + 2 :]
    fields = {field.name: field for field in event.fields}
    values: dict[str, pl.Expr] = {}
    for column, name in names:
        field = fields[name]
        if name not in values:
            values[name] = value_of(field)
            yield values[name].alias(column)
        elif field.symbols is not None:
            yield symbol_names(values[name], field.symbols).alias(column)


def value_of(field: EventField, exact: bool = False) -> pl.Expr:
    """Return the expression for a field's value."""
    source = pl.struct("raw", "strings") if field.string >= 0 else pl.col("raw")
    return source.map_batches(partial(decode, field, exact=exact), return_dtype=polars_type(field, exact), is_elementwise=True)


def symbol_names(value: pl.Expr, symbols: Symbols) -> pl.Expr:
    """Return the expression for the names of values, as the kernel prints them."""

    def names(values: pl.Series) -> pl.Series:
        distinct = values.unique()
        texts = pl.Series([None if one is None else symbol_text(symbols, int(one)) for one in distinct], dtype=pl.String)
        return values.replace_strict(distinct, texts, return_dtype=pl.String)

    return value.map_batches(names, return_dtype=pl.String, is_elementwise=True)


def symbol_text(symbols: Symbols, value: int) -> str:
    """Return the name of a value; in hexadecimal what has none (kernel/trace/trace_output.c), empty for no flag at all."""
    everything = (1 << 64) - 1
    value = ((value & everything) >> symbols.shift) & symbols.mask & everything
    if not symbols.flags:
        return next((escape(name) for number, name in symbols.names if number & everything == value), f"{value:#x}")
    found = []
    for number, name in symbols.names:
        mask = number & everything
        if mask and value & mask == mask:
            found.append(escape(name))
            value &= ~mask
        if not value:
            break
    return escape(symbols.delimiter).join([*found, *([f"{value:#x}"] if value else [])])


def decode(field: EventField, records: pl.Series, exact: bool = False) -> pl.Series:
    """Return one field of many records.

    Parameters
    ----------
    field : EventField
        The field.
    records : Series
        The column ``raw``; for a pointer to a string a struct of ``raw`` and ``strings``.
    exact : bool
        Whether characters stay bytes; else they are text, escaped where they are not printable.

    Returns
    -------
    Series
        Of the type of `polars_type`; null where a record does not hold the field.
    """
    kind = polars_type(field, exact)
    if field.string >= 0:
        data, starts, lengths = _views(records.struct.field("strings"))
        found = _string(data, starts, starts + lengths, field.string)
        return _texts(data, *found, exact)
    data, starts, lengths = _views(records)
    at = field.offset - HEADER_SIZE
    if field.shape == "scalar":
        valid = lengths >= at + field.size
        return _integers(field, data, starts + at, valid).cast(kind)
    if field.shape == "array":
        begins, sizes, valid = starts + at, np.full(len(starts), field.size, np.int64), lengths >= at + field.size
    else:
        begins, sizes, valid = _dynamic(field, data, starts, lengths)
    if field.text:
        return _texts(data, begins, sizes, valid, exact)
    if field.item == 1:
        return _binary(data, begins, sizes, valid)
    return _lists(field, data, begins, sizes, valid).cast(kind)


def _views(values: pl.Series) -> tuple[Bytes, Ints, Ints]:
    """Return the bytes of a binary column, and where each value begins and how long it is."""
    array = values.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    array = array.cast(pa.large_binary()).fill_null(b"")
    _, offsets, data = array.buffers()
    if not len(array) or data is None:
        return np.empty(0, np.uint8), np.zeros(len(array), np.int64), np.zeros(len(array), np.int64)
    edges = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8), edges[:-1], np.diff(edges)


def _gather(data: Bytes, starts: Ints, valid: Mask, size: int) -> Bytes:
    """Return ``size`` bytes of each record from its start on, a row each; zeros where it is not valid."""
    if not len(data) or not valid.any():
        return np.zeros((len(starts), size), np.uint8)
    step = int(starts[1] - starts[0]) if len(starts) > 1 else size
    if step >= size and valid.all() and bool((np.diff(starts) == step).all()):
        # Records of one length, one behind the other: a view, no copy.
        return np.lib.stride_tricks.as_strided(data[int(starts[0]) :], (len(starts), size), (step, 1), writeable=False)
    rows = data[np.where(valid, starts, 0)[:, None].clip(0, len(data) - 1) + np.arange(size) if size else np.empty((len(starts), 0), np.int64)]
    rows[~valid] = 0
    return rows


def _integers(field: EventField, data: Bytes, starts: Ints, valid: Mask) -> pl.Series:
    rows = np.ascontiguousarray(_gather(data, starts, valid, field.item))
    numbers = rows.view(f"<{'i' if field.signed else 'u'}{field.item}")[:, 0]
    values = pl.Series(numbers != 0) if field.type in ("bool", "_Bool") else pl.Series(numbers)
    return values if valid.all() else values.zip_with(pl.Series(valid), pl.Series([None] * len(values), dtype=values.dtype))


def _dynamic(field: EventField, data: Bytes, starts: Ints, lengths: Ints) -> tuple[Ints, Ints, Mask]:
    """Return where the array of each record lies, as the word in its place tells: 16 bits of offset, 16 of size."""
    at = field.offset - HEADER_SIZE
    valid = lengths >= at + 4
    word = np.ascontiguousarray(_gather(data, starts + at, valid, 4)).view("<u4")[:, 0].astype(np.int64)
    begins = (word & 0xFFFF) + (at + 4 if field.shape == "rel" else -HEADER_SIZE)
    sizes = word >> 16
    return starts + begins, sizes, valid & (begins >= 0) & (begins + sizes <= lengths) & (sizes % field.item == 0)


def _string(data: Bytes, starts: Ints, ends: Ints, number: int) -> tuple[Ints, Ints, Mask]:
    """Return where the string of that number lies in each record: each stands behind a byte with its length."""
    at = starts.copy()
    sizes, valid = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.bool_)
    for _ in range(number + 1):
        there = at < ends
        length = np.where(there, data[np.where(there, at, 0)] if len(data) else 0, UNREADABLE).astype(np.int64)
        valid = there & (length != UNREADABLE)
        sizes = np.where(valid, length, 0)
        at = at + 1 + sizes
    begins = at - sizes
    return begins, sizes, valid & (at <= ends)


def _indices(begins: Ints, sizes: Ints) -> tuple[Ints, Ints]:
    """Return the numbers of all bytes of the slices, one slice after the other, and the edges between them."""
    edges = np.concatenate([[0], np.cumsum(sizes)])
    return np.repeat(begins - edges[:-1], sizes) + np.arange(int(edges[-1])), edges


def _binary(data: Bytes, begins: Ints, sizes: Ints, valid: Mask) -> pl.Series:
    return _series(_large_binary(data, begins, np.where(valid, sizes, 0), valid))


def _series(array: pa.Array) -> pl.Series:
    made = pl.from_arrow(array)
    assert isinstance(made, pl.Series)
    return made


def _large_binary(data: Bytes, begins: Ints, sizes: Ints, valid: Mask) -> pa.Array:
    index, edges = _indices(begins, sizes)
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(begins), [bitmap, pa.py_buffer(edges), pa.py_buffer(data[index])])


def _texts(data: Bytes, begins: Ints, sizes: Ints, valid: Mask, exact: bool) -> pl.Series:
    """Return characters up to the first NUL."""
    sizes = np.where(valid, sizes, 0)
    ends = np.flatnonzero(data == 0)
    if len(ends):
        place = np.searchsorted(ends, begins)
        first = np.where(place < len(ends), ends[place.clip(0, len(ends) - 1)], len(data))
        sizes = np.minimum(sizes, np.maximum(first - begins, 0))
    array = _large_binary(data, begins, sizes, valid)
    if exact:
        return _series(array)
    used = np.frombuffer(array.buffers()[2], np.uint8)
    if not len(used) or (used.min() >= 0x20 and used.max() < 0x7F and not (used == ord("\\")).any()):
        return _series(pa.LargeStringArray.from_buffers(len(array), array.buffers()[1], array.buffers()[2], array.buffers()[0]))
    coded = array.dictionary_encode()
    distinct = pa.array([escape(value) for value in coded.dictionary.to_pylist()], pa.large_string())
    return _series(distinct.take(coded.indices))


def _lists(field: EventField, data: Bytes, begins: Ints, sizes: Ints, valid: Mask) -> pl.Series:
    sizes = np.where(valid, sizes, 0)
    index, edges = _indices(begins, sizes)
    numbers = np.ascontiguousarray(data[index]).view(f"<{'i' if field.signed else 'u'}{field.item}")
    mask = None if valid.all() else pa.array(~valid)
    return _series(pa.LargeListArray.from_arrays(pa.array(edges // field.item), pa.array(numbers), mask=mask))


def context_names() -> Mapping[int, str]:
    """Return the meaning of the codes of the column ``context``."""
    return declared("events").column("context").values


def named_events(events: Mapping[str, Event], column: str = "event") -> pl.Expr:
    """Return the expression for the names of events by their numbers; one that the manifest does not name reads ``event_<number>``."""
    return meaning(column, {event.id: event.name for event in events.values()})


def matching(events: Sequence[str], pattern: str) -> list[str]:
    """Return the names that a name or a glob means."""
    from fnmatch import fnmatchcase

    return [pattern] if pattern in events else [name for name in events if fnmatchcase(name, pattern)]
