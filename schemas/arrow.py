"""Tables as Arrow and Parquet see them: schema with units and documentation, encodings, exact checks."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

import pyarrow as pa

from ringtape.schemas.columns import Column, ColumnType
from ringtape.schemas.table import Table

ARROW_TYPES: Final[dict[ColumnType, pa.DataType]] = {
    "i8": pa.int8(),
    "i16": pa.int16(),
    "i32": pa.int32(),
    "i64": pa.int64(),
    "f64": pa.float64(),
    "comm": pa.binary(),
    "bytes": pa.binary(),
    "text": pa.string(),
}
ROW_GROUP: Final = 256 * 1024
"""Rows of a row group: with 1 Mi rows a narrow time window reads four times as much (measured: 23 ms against 5 ms)."""


def arrow_field(column: Column) -> pa.Field:
    """Return the Arrow field of a column, its unit, documentation, source and code meanings in the metadata."""
    metadata = {"doc": column.doc}
    if column.unit:
        metadata["unit"] = column.unit
    if column.source:
        metadata["source"] = column.source
    if column.values:
        metadata["values"] = json.dumps({str(code): meaning for code, meaning in column.values.items()})
    return pa.field(column.name, ARROW_TYPES[column.type], nullable=column.optional, metadata=metadata)


@cache
def arrow_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table, ``table = name@version`` in its metadata."""
    return pa.schema([arrow_field(column) for column in table.columns], metadata={"table": table.schema_id, "doc": table.doc})


@cache
def write_options(table: Table) -> dict[str, Any]:
    """Return the keyword arguments of ``pyarrow.parquet.ParquetWriter`` for parts of this table.

    The choices were measured (see docs/format.md): zstd level 1, DELTA_BINARY_PACKED for columns that grow, dictionary
    for the rest, data pages of version 1.0, statistics, page index and page checksums.
    """
    delta = [column.name for column in table.columns if column.encoding == "delta"]
    return {
        "compression": "zstd",
        "compression_level": 1,
        "version": "2.6",
        "data_page_version": "1.0",
        "use_dictionary": [column.name for column in table.columns if column.name not in delta],
        "column_encoding": dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
        "write_statistics": True,
        "write_page_index": True,
        "write_page_checksum": True,
        "store_schema": True,
    }
