"""A part as a Parquet file of a stranger: what it claims is compared before it is decoded, what it expands to before it is expanded.

A file of 12 KB can hold a quarter of a million values of a megabyte each, all of them the same one. Strings are therefore read as
indices into their distinct values, and become plain ones only when these are no longer than what the recorder writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ringtape.schemas.arrow import ROW_GROUP, arrow_schema
from ringtape.schemas.columns import SIZES, Column
from ringtape.schemas.errors import TraceError
from ringtape.schemas.folder import TraceFolder, check_schema, is_newer
from ringtape.schemas.manifest import Part
from ringtape.schemas.table import Table
from ringtape.schemas.table import table as declared
from ringtape.schemas.units import format_size

LARGEST = (2 << 30) - 1
"""Bytes of a row group, and of its strings once they are expanded: what one Arrow column of strings can hold."""
_LONGEST = {("paths", "value"): 8191, ("processes", "file"): 4095, ("events", "raw"): 8184, ("events", "strings"): 2040}
_LONGEST_BYTES = 2 << 20
"""The arguments of an exec (probes/processes.bpf.c): no record in a ring has a longer string."""
_LONGEST_TEXT = 64
_OVERHEAD = 1 << 20
"""Page headers and levels of a row group, generously."""
_HINT = "ringtape writes no such part: it comes from elsewhere, or was changed"


def longest(table: Table, column: Column) -> int:
    """Return how many bytes a value of a column has at most."""
    if column.type == "text":
        return _LONGEST_TEXT
    return _LONGEST.get((table.name, column.name), _LONGEST_BYTES) if column.type == "bytes" else SIZES[column.type]


@contextmanager
def open_part(folder: TraceFolder, part: Part, at: Path | None = None) -> Iterator[PartFile]:
    """Open a part whose hash was checked, and compare what it claims to be with its table, its manifest line and what is possible.

    Parameters
    ----------
    folder : TraceFolder
        The trace.
    part : Part
        One of its parts, of a table that this version knows.
    at : path, optional
        Where it is, if not in the folder any more: a part that is held open.

    Raises
    ------
    TraceError
        If it is another table, has another number of rows, or row groups larger than any that the recorder writes; while it is
        being used, if a page is damaged, a string too long, or memory is short.
    """
    path = folder.path_of(part)
    table = declared(part.table)
    version = folder.header.tables[part.table]
    texts = [column.name for column in table.columns if column.type not in ("i8", "i16", "i32", "i64")]
    try:
        with open(at or folder.open_part(part), "rb") as file, pq.ParquetFile(file) as claimed:
            check_schema(claimed.schema_arrow, table, version, path)
            _check_claims(claimed.metadata, table, part, is_newer(version, table))
            with pq.ParquetFile(file, metadata=claimed.metadata, read_dictionary=texts, page_checksum_verification=True, pre_buffer=False) as parquet:
                yield PartFile(parquet, table)
    except _RefusedError as refused:
        raise TraceError(f"{path}: {refused}", _HINT) from None
    except MemoryError:
        raise TraceError(f"{path}: more memory is needed to decode it than there is", _HINT) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TraceError(f"{path}: unreadable as Parquet: {' '.join(str(error).split())[:200]}") from None


class _RefusedError(Exception):
    """What is wrong with a part, to be said with its name."""


def _check_claims(claimed: pq.FileMetaData, table: Table, part: Part, newer: bool) -> None:
    # Nothing else of the footer is asked: of a damaged one, pyarrow ends the process over statistics and columns.
    if claimed.num_rows != part.rows:
        raise _RefusedError(f"{claimed.num_rows} rows where the manifest says {part.rows}")
    row = sum(longest(table, column) + 8 for column in table.columns)
    total = 0
    for number in range(claimed.num_row_groups):
        group = claimed.row_group(number)
        rows, size = group.num_rows, group.total_byte_size
        if not 0 <= rows <= ROW_GROUP:
            raise _RefusedError(f"a row group of {rows} rows, where {ROW_GROUP} are the most")
        most = LARGEST if newer else min(LARGEST, rows * row + _OVERHEAD)
        if not 0 <= size <= most:
            raise _RefusedError(f"a row group of {rows} rows and {size} bytes, where {most} are the most")
        total += rows
    if total != part.rows:
        raise _RefusedError(f"row groups of {total} rows in all where the manifest says {part.rows}")


class PartFile:
    """The rows of an open part, of the table's own columns."""

    # Never with Arrow's threads (nor with pre_buffer, which reads ahead in them): they let go of the Python file a moment after the rows are
    # there, and where the interpreter ends meanwhile, the C++ runtime aborts the process, whatever status it meant to end with.

    def __init__(self, parquet: pq.ParquetFile, table: Table) -> None:
        self._parquet = parquet
        self._table = table

    def coded(self) -> Iterator[pa.Table]:
        """Yield row group after row group, strings as indices into their distinct values, none of which is too long."""
        for group in range(self._parquet.num_row_groups):
            rows = self._parquet.read_row_group(group, columns=self._names(None), use_threads=False)
            self._check_strings(rows)
            yield rows

    def batches(self, size: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield some rows after the other."""
        for batch in self._parquet.iter_batches(size, columns=self._names(columns), use_threads=False):
            yield self._plain(pa.Table.from_batches([batch]))

    @property
    def groups(self) -> int:
        """How many row groups there are."""
        return int(self._parquet.num_row_groups)

    def group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of one row group."""
        return self._plain(self._parquet.read_row_group(number, columns=self._names(columns), use_threads=False))

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows."""
        names = self._names(columns)
        groups = range(self._parquet.num_row_groups)
        schema = pa.schema([arrow_schema(self._table).field(name) for name in names], arrow_schema(self._table).metadata)
        read = (self._parquet.read_row_group(group, columns=names, use_threads=False) for group in groups)
        return pa.concat_tables([schema.empty_table(), *map(self._plain, read)])

    def _names(self, columns: Sequence[str] | None) -> list[str]:
        return [column.name for column in self._table.columns] if columns is None else list(columns)

    def _plain(self, rows: pa.Table) -> pa.Table:
        self._check_strings(rows)
        schema = arrow_schema(self._table)
        return rows.cast(pa.schema([schema.field(name) for name in rows.column_names], schema.metadata))

    def _check_strings(self, rows: pa.Table) -> None:
        """Refuse a string that is too long, and strings that are too much once they are expanded."""
        total = 0
        for name, column in zip(rows.column_names, rows.columns, strict=True):
            most = longest(self._table, self._table.column(name))
            for chunk in column.chunks if pa.types.is_dictionary(column.type) else ():
                if chunk.null_count:
                    raise _RefusedError(f"a null in {name}")
                if not len(chunk):
                    continue
                lengths = pc.binary_length(chunk.dictionary).to_numpy(zero_copy_only=False).astype(np.int64)
                used = np.bincount(chunk.indices.to_numpy(zero_copy_only=False), minlength=len(lengths))
                if (longer := lengths[used > 0].max(initial=0)) > most:
                    raise _RefusedError(f"a string of {longer} bytes in {name}, where {most} are the most")
                total += int(used @ lengths)
        if total > LARGEST:
            raise _RefusedError(f"strings of {format_size(total)} in {rows.num_rows} rows")
