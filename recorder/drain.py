"""The drain: views of the rings become sorted columns, columns become a sealed part, and only then is the ring freed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringtape.recorder.kernel import cgroup_ids
from ringtape.recorder.options import Target
from ringtape.recorder.ring import RecordRing, SlotRing
from ringtape.recorder.writer import TraceWriter
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.layout import record_dtype
from ringtape.schemas.manifest import Part
from ringtape.schemas.table import Table, table

_BLOCK = 4096
"""Records that are turned into columns at a time: as many as the second-level cache holds."""


def columns_of(records: Sequence[NDArray[np.void]], names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Turn arrays of records into one contiguous array per column.

    Block by block, so that each record is brought into the cache once and not once per column.
    """
    total = sum(len(part) for part in records)
    columns = {name: np.empty(total, records[0].dtype[name]) for name in names}
    at = 0
    for part in records:
        for start in range(0, len(part), _BLOCK):
            block = part[start : start + _BLOCK]
            end = at + len(block)
            for name, column in columns.items():
                column[at:end] = block[name]
            at = end
    return columns


def is_sorted(values: NDArray[np.int64]) -> bool:
    """Return whether values never fall."""
    return bool(np.all(values[1:] >= values[:-1]))


def pieces(of: Table, columns: dict[str, NDArray[np.generic] | pa.Array], since: int) -> list[pa.Table]:
    """Make Arrow tables of sorted columns: rows that began before ``since`` apart from the rest.

    The former are the few long calls; in a row group of their own they do not widen the time range of the others, and
    a merge that needs them need not read the rest.
    """
    schema = arrow_schema(of)
    arrays = [column if isinstance(column := columns[field.name], pa.Array) else _to_arrow(column, field.type) for field in schema]
    whole = pa.Table.from_arrays(arrays, schema=schema)
    cut = int(np.searchsorted(columns["ts"], since))
    return [piece for piece in (whole.slice(0, cut), whole.slice(cut)) if piece.num_rows]


def _to_arrow(column: NDArray[np.generic], kind: pa.DataType) -> pa.Array:
    if column.dtype.kind == "S":  # command names: numpy cuts the trailing NULs as the kernel means them
        return pa.array(column.tolist(), kind)
    return pa.array(column, kind)


class TableDrain:
    """The rings of one table and the parts that they become."""

    def __init__(self, of: Table, rings: Sequence[SlotRing | RecordRing], writer: TraceWriter) -> None:
        self.table = of
        self.rings = rings
        self._writer = writer
        self._since = 0
        self._fixed = [column.name for column in of.fixed]
        self.peak = 0.0
        self.watch: Callable[[Mapping[str, Any]], None] | None = None
        """Called with the columns of every part, once it is sealed."""

    @property
    def pending(self) -> int:
        """Bytes in the rings that are not in a part."""
        return sum(ring.pending for ring in self.rings)

    def fullest(self) -> float:
        """Return how full the fullest ring is, and remember the peak."""
        fill = max(ring.fill for ring in self.rings)
        self.peak = max(self.peak, fill)
        return fill

    def seal(self, now: int, lost: int) -> Part | None:
        """Write what the rings hold as one part and free it; None if they hold nothing.

        Parameters
        ----------
        now : int
            CLOCK_MONOTONIC in ns, taken before: rows of later parts that began earlier are long calls.
        lost : int
            Records of this table lost so far.

        Raises
        ------
        OSError
            If the part could not be written. The rings then still hold all of it.
        """
        began = [ring.read_to for ring in self.rings]
        try:
            rows = self._variable_rows() if self.table.in_ring_buffer else self._fixed_rows()
            spans = {index: (start, ring.read_to) for index, (start, ring) in enumerate(zip(began, self.rings, strict=True)) if ring.read_to > start}
            if rows is None or not spans:
                return None
            part = self._writer.seal(self.table, pieces(self.table, rows, self._since), spans, lost)
        except BaseException:
            for ring, start in zip(self.rings, began, strict=True):
                ring.read_to = start
            raise
        for ring in self.rings:
            ring.release(ring.read_to)
        self._since = now
        if self.watch is not None:
            self.watch(rows)
        return part

    def _fixed_rows(self) -> dict[str, NDArray[np.generic] | pa.Array] | None:
        records = [view for ring in self.rings if isinstance(ring, SlotRing) for view in ring.read()]
        if not records:
            return None
        return sort_columns(columns_of(records, self._fixed))

    def _variable_rows(self) -> dict[str, NDArray[np.generic] | pa.Array] | None:
        parts = [read for ring in self.rings if isinstance(ring, RecordRing) and len((read := ring.read())[0])]
        if not parts:
            return None
        columns: dict[str, NDArray[np.generic] | pa.Array] = dict(columns_of([records for records, _, _ in parts], self._fixed))
        for column in self.table.tail:
            columns[column.name] = pa.concat_arrays([self._strings(column.name, *part) for part in parts])
        return sort_columns(columns)

    def _strings(self, name: str, records: NDArray[np.void], tails: NDArray[np.int64], memory: NDArray[np.uint8]) -> pa.Array:
        """Copy one tail column out of the ring in bulk.

        Arrow is told that the ring itself is the value buffer of an array whose strings are, in turn, a tail and the
        gap behind it; taking every second one copies just the tails (measured: 40-50 ns a string).
        """
        start = tails.copy()
        for column in self.table.tail:
            if column.name == name:
                break
            start += records[f"{column.name}_len"]
        offsets = np.empty(2 * len(records), np.int64)
        offsets[::2] = start
        offsets[1::2] = start + records[f"{name}_len"]
        values = pa.py_buffer(memory)
        alternating = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), values])
        return alternating.take(pa.array(np.arange(0, len(offsets) - 1, 2))).cast(pa.binary())


def sort_columns(columns: dict[str, NDArray[np.generic]] | dict[str, NDArray[np.generic] | pa.Array]) -> dict[str, NDArray[np.generic] | pa.Array]:
    """Return the columns in the order of ``ts``; rows of equal time stay in the order in which they came."""
    ts = columns["ts"]
    if is_sorted(ts):  # type: ignore[arg-type]
        return dict(columns)
    order = np.argsort(ts, kind="stable")
    return {name: column.take(pa.array(order)) if isinstance(column, pa.Array) else column[order] for name, column in columns.items()}


def iterated_rows(of: Table, records: NDArray[np.void]) -> pa.Table | None:
    """Make rows of the records that a task iterator wrote (fixed parts; tails are empty), sorted; None if there are none."""
    if not len(records):
        return None
    columns: dict[str, NDArray[np.generic] | pa.Array] = dict(columns_of([records], [column.name for column in of.fixed]))
    for column in of.tail:
        columns[column.name] = pa.array([b""] * len(records), pa.binary())
    (rows,) = pieces(of, sort_columns(columns), 0)
    return rows


def still_open(records: NDArray[np.void], now: int) -> NDArray[np.void]:
    """Return records of what has begun and, where their duration is 0, has not ended; it is then the time until now."""
    records = records.copy()
    if len(records):
        records["dur"] = np.where(records["dur"] == 0, now - records["ts"], records["dur"])
    return records


def written_rows(of: Table, data: bytes) -> pa.Table | None:
    """Make rows of what a task iterator wrote, each record followed by its tails; None if there are none."""
    dtype = record_dtype(of)
    starts, at = [], 0
    tails: dict[str, list[bytes]] = {column.name: [] for column in of.tail}
    while at + dtype.itemsize <= len(data):
        record = np.frombuffer(data, dtype, 1, at)
        starts.append(record)
        at += dtype.itemsize
        for name, values in tails.items():
            length = int(record[f"{name}_len"][0])
            values.append(data[at : at + length])
            at += length
    if not starts:
        return None
    columns: dict[str, NDArray[np.generic] | pa.Array] = dict(columns_of(starts, [column.name for column in of.fixed]))
    columns |= {name: pa.array(values, pa.binary()) for name, values in tails.items()}
    (rows,) = pieces(of, sort_columns(columns), 0)
    return rows


def existing_records(data: bytes, target: Target) -> NDArray[np.void]:
    """Return what the iterator at attachment wrote (of every thread, where the target is not marked) of threads that are meant."""
    records = np.frombuffer(data, record_dtype(table("processes"))) if data else np.empty(0, record_dtype(table("processes")))
    if target.comms:
        return records[np.isin(records["comm"], [os.fsencode(comm) for comm in target.comms])]
    if target.uids:
        return records[np.isin(records["uid"], target.uids)]
    if target.cgroup is not None:
        return records[np.isin(records["cgroup"], list(cgroup_ids(target.cgroup)))]
    return records
