import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ringtape.schemas.arrow import arrow_schema, write_options
from ringtape.schemas.columns import Column, seq, ts
from ringtape.schemas.errors import UsageError
from ringtape.schemas.reference import main, reference
from ringtape.schemas.table import Table, table, tables

ROOT = Path(__file__).parent.parent.parent
each_table = pytest.mark.parametrize("declared", tables().values(), ids=lambda declared: declared.name)


def test_every_table_file_is_found_under_its_own_name():
    files = {path.stem for path in (ROOT / "schemas" / "tables").glob("[a-z]*.py")}
    assert set(tables()) == files
    assert {"syscalls", "paths", "processes", "losses", "recorder"} <= files


def test_an_unknown_table_is_named_together_with_those_that_exist():
    with pytest.raises(UsageError, match=r"unknown table 'syscals'\nhint: the tables are .*syscalls"):
        table("syscals")


@each_table
def test_integers_are_signed_and_nothing_is_nullable(declared):
    for field in arrow_schema(declared):
        assert not field.nullable
        assert not pa.types.is_unsigned_integer(field.type)


@each_table
def test_durations_and_times_are_64_bit(declared):
    for column in declared.columns:
        if column.unit == "ns":
            assert column.type == "i64", column.name


@each_table
def test_schema_carries_identity_units_and_documentation(declared):
    schema = arrow_schema(declared)
    assert schema.metadata[b"table"] == f"{declared.name}@{declared.version}".encode()
    assert schema.metadata[b"doc"].decode() == declared.doc
    for column in declared.columns:
        metadata = schema.field(column.name).metadata
        assert metadata[b"doc"].decode() == column.doc
        assert metadata.get(b"unit", b"").decode() == column.unit
        assert metadata.get(b"source", b"").decode() == column.source


@each_table
def test_documentation_is_one_sentence_per_thing(declared):
    assert declared.doc.startswith("One row per ")
    assert declared.doc.endswith(".")
    for column in declared.columns:
        assert column.doc
        assert not column.doc.endswith("."), column.name
        assert column.unit in ("", "ns", "bytes", "count", "1/1000"), column.name


def test_codes_have_the_meanings_of_the_declaration():
    field = arrow_schema(table("syscalls")).field("kind")
    assert b'"2": "running at attach"' in field.metadata[b"values"]


@each_table
def test_metadata_encodings_and_checksums_survive_a_parquet_file(declared, tmp_path):
    schema = arrow_schema(declared)
    samples = {"int8": 1, "int16": 2, "int32": 3, "int64": 1 << 62, "binary": b"\xff\0", "string": "é"}
    rows = pa.table({field.name: pa.array([samples[str(field.type)]] * 3, field.type) for field in schema}, schema=schema)
    file = tmp_path / "x.parquet"
    with pq.ParquetWriter(file, schema, **write_options(declared)) as writer:
        writer.write_table(rows)
    back = pq.ParquetFile(file, page_checksum_verification=True)
    assert back.schema_arrow.equals(schema, check_metadata=True)
    assert back.read().equals(rows)
    chunk = back.metadata.row_group(0).column(0)
    assert chunk.compression == "ZSTD"
    assert "DELTA_BINARY_PACKED" in chunk.encodings
    assert chunk.has_column_index
    # Every data page has its CRC: flip one byte of the file's first page, and the reader notices.
    data = bytearray(file.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start + chunk.total_compressed_size - 2] ^= 0x10
    file.write_bytes(data)
    with pytest.raises((OSError, pa.ArrowException)):
        pq.read_table(file, page_checksum_verification=True)


def test_a_declaration_that_cannot_work_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Table("t", "1.0", "One row per x.", (ts("a"), seq(), seq()))
    with pytest.raises(ValueError, match="must begin with ts"):
        Table("t", "1.0", "One row per x.", (seq(),))
    with pytest.raises(ValueError, match="wide to narrow"):
        Table("t", "1.0", "One row per x.", (ts("a"), Column("b", "i8", "c"), Column("d", "i32", "e")))


def test_the_committed_reference_is_what_the_declarations_give():
    committed = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert committed == reference(), "docs/tables.md is out of date: ./run docs writes it"


def test_the_reference_names_every_table_column_and_code(tmp_path):
    assert main([str(tmp_path / "tables.md")]) == 0
    page = (tmp_path / "tables.md").read_text(encoding="utf-8")
    for declared in tables().values():
        section = re.search(rf"^## {declared.name}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)[1]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert [line.split("`")[1] for line in rows] == [column.name for column in declared.columns]
        assert all(line.count(" | ") == 4 for line in rows)
        for column in declared.columns:
            for code, meaning in column.values.items():
                assert f"{code} {meaning}" in section
