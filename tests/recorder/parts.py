"""Parts made and read for tests of what writes them: a writer on a new folder, rows with few columns filled, what is on the disk."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from ringtape.recorder.folder import create_folder
from ringtape.recorder.writer import TraceWriter
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.table import table, tables
from tests import factory

NAMES = tuple(tables())


def new_writer(path, **header):
    """Return the writer of a new trace whose header is written."""
    writer = TraceWriter.create(path, create_folder(path))
    writer.begin(replace(factory.HEADER, **{"tables": {name: one.version for name, one in tables().items()}, **header}))
    return writer


def rows(name, times, **columns):
    """Return rows with these times; other columns are 0 or empty unless a list is given, calls are those of x86_64."""
    empty = {pa.binary(): b"", pa.string(): ""}
    schema = arrow_schema(table(name))
    given = {"ts": list(times), **({"abi": [factory.X86_64] * len(times)} if "abi" in schema.names else {}), **columns}
    return pa.table(
        {field.name: pa.array(given.get(field.name, [empty.get(field.type, 0)] * len(given["ts"])), field.type) for field in schema}, schema
    )


def seal(writer, name, times, spans=None, lost=0, **columns):
    return writer.seal(table(name), [rows(name, times, **columns)], spans or {}, lost)


def content(path, name):
    """Read every standing part of a table from a trace folder, in the order of lines."""
    folder = TraceFolder.open(path)
    found = [folder.read(part) for part in folder.parts(name)]
    return pa.concat_tables(found) if found else arrow_schema(table(name)).empty_table()


def groups(path, part):
    """Return the first and last time of each row group of a part."""
    with pq.ParquetFile(path / part.file) as file:
        times = [file.read_row_group(number, columns=["ts"])["ts"].to_pylist() for number in range(file.num_row_groups)]
    return [(group[0], group[-1]) for group in times]


def files(path):
    """Return the files of a trace folder but for its manifest."""
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and file.name != "manifest.jsonl")
