"""Opening traces: what is decoded, and what damaged, foreign and future ones say."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ringtape
from ringtape.analysis import registry
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.errors import RingtapeError, TraceError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import Line
from ringtape.schemas.table import table, tables
from tests.factory import HEADER, T0, make, write_manifest, write_part

CALLS = [{"ts": T0 + at * 1000, "nr": 0, "pid": 7, "dur": at + 2, "ret": -2 if at % 2 else 1} for at in range(100)]


def test_codes_are_decoded_beside_the_stored_columns(folder: Path) -> None:
    events = [{"ts": T0, "pid": 7, "kind": 1, "comm": b"cat"}]
    rows = [{"nr": 2, "pid": 7, "ret": -13, "dur": 1}, {"nr": 5, "abi": 2, "pid": 7, "ret": 3, "kind": 2}, {"nr": 777, "abi": 1, "pid": 7, "kind": 9}]
    trace = ringtape.open(make(folder, syscalls=rows, processes=events))
    found = trace.collect(trace.syscalls.select("syscall", "errno", "kind_name", "abi_name", "comm"))
    assert found.rows() == [
        ("open", "EACCES", "returned", "x86_64", "cat"),
        ("open", None, "running at attach", "i386", "cat"),
        ("syscall_777", None, "kind_9", "x86_64", "cat"),
    ]
    stored = trace.collect(trace.scan("syscalls"))
    assert stored.columns == [column.name for column in table("syscalls").columns]


def test_every_declared_table_has_its_full_schema_when_it_is_empty(folder: Path) -> None:
    trace = ringtape.open(make(folder))
    for name, declared in tables().items():
        empty = pl.from_arrow(arrow_schema(declared).empty_table())
        assert isinstance(empty, pl.DataFrame)
        assert trace.collect(trace.scan(name)).schema == empty.schema
        assert len(trace.collect(trace.frame(name))) == 0


@pytest.mark.parametrize("name", registry.names())
def test_an_analysis_gives_the_same_columns_for_an_empty_trace_as_for_a_full_one(name: str, folder: Path, tmp_path: Path) -> None:
    analysis = registry.get(name)
    full = analysis.function(ringtape.open(make(folder, syscalls=CALLS, processes=[{"pid": 7, "kind": 1, "comm": b"x"}], losses=[])))
    empty = analysis.function(ringtape.open(make(tmp_path / "empty")))
    assert empty.schema == full.schema
    assert list(full.columns)[-len(analysis.columns) :] == [column.name for column in analysis.columns]


@pytest.mark.parametrize("name", registry.names())
def test_an_analysis_says_what_it_needs(name: str, folder: Path) -> None:
    trace = ringtape.open(make(folder, header={"tables": {"mystery": "1.0"}}))
    with pytest.raises(RingtapeError, match="was not recorded"):
        registry.get(name).function(trace)


def test_a_time_window_reads_only_the_parts_that_it_touches(folder: Path) -> None:
    path = make(folder, syscalls=CALLS, parts=10)
    (path / "syscalls/000009.parquet").write_bytes(b"damaged")
    trace = ringtape.open(path)
    assert trace.collect(trace.scan("syscalls", since=T0 + 5000, until=T0 + 20_000).select(pl.len())).item() == 15
    with pytest.raises(TraceError, match=r"000009\.parquet"):
        trace.scan("syscalls")


def test_traces_without_an_end_open_and_say_so(folder: Path, tmp_path: Path) -> None:
    trace = ringtape.open(make(folder, syscalls=CALLS, end=None))
    assert trace.state == "unfinished"
    assert trace.rows("syscalls") == 100
    assert ringtape.open(make(tmp_path / "other", syscalls=CALLS, end="interrupted")).state == "interrupted"


@pytest.mark.parametrize("flip", [100, 1500, -10])
def test_a_flipped_bit_is_one_error_that_names_the_file(folder: Path, flip: int) -> None:
    path = make(folder, syscalls=CALLS)
    part = path / "syscalls/000000.parquet"
    data = bytearray(part.read_bytes())
    data[flip] ^= 4
    part.write_bytes(data)
    with pytest.raises(TraceError, match=r"syscalls/000000\.parquet: SHA-256") as caught:
        registry.get("latency").function(ringtape.open(path))
    assert caught.value.hint == "the file is damaged"


def test_a_part_that_is_changed_after_it_was_read_is_checked_again(folder: Path) -> None:
    trace = ringtape.open(make(folder, syscalls=CALLS))
    trace.scan("syscalls")
    part = trace.path / "syscalls/000000.parquet"
    data = bytearray(part.read_bytes())
    data[200] ^= 1
    part.write_bytes(data)
    os.utime(part, ns=(1, 1))
    with pytest.raises(TraceError, match="SHA-256"):
        trace.scan("syscalls")


def test_a_cut_off_or_missing_part_is_one_error_that_names_the_file(folder: Path) -> None:
    path = make(folder, syscalls=CALLS)
    part = path / "syscalls/000000.parquet"
    os.truncate(part, 1000)
    with pytest.raises(TraceError, match=r"syscalls/000000\.parquet: 1000 bytes where"):
        ringtape.open(path).scan("syscalls")
    part.unlink()
    with pytest.raises(TraceError, match=r"syscalls/000000\.parquet: no such file"):
        ringtape.open(path).scan("syscalls")


def foreign(folder: Path, rows: pa.Table, count: int | None = None) -> Path:
    """A trace whose only part is somebody else's, its hash right."""
    folder.mkdir()
    part = write_part(folder, table("recorder"), 0, rows)
    (folder / "syscalls").mkdir()
    os.rename(folder / part.file, folder / "syscalls/000000.parquet")
    (folder / "recorder").rmdir()
    part = replace(part, table="syscalls", file="syscalls/000000.parquet", rows=part.rows if count is None else count)
    lines: list[Line] = [replace(HEADER, tables={"syscalls": "1.0"}), part]
    write_manifest(folder, lines)
    return folder


def test_a_part_of_another_schema_is_refused_by_name(folder: Path) -> None:
    path = foreign(folder, arrow_schema(table("recorder")).empty_table(), count=1)
    with pytest.raises(TraceError, match=r"syscalls/000000\.parquet"):
        ringtape.open(path).scan("syscalls")


def test_a_part_that_is_no_parquet_is_refused_by_name(folder: Path) -> None:
    import hashlib

    path = foreign(folder, arrow_schema(table("recorder")).empty_table(), count=1)
    garbage = b"PAR1" + os.urandom(500) + b"PAR1"
    (path / "syscalls/000000.parquet").write_bytes(garbage)
    part = TraceFolder.open(path).manifest.parts[0]
    write_manifest(path, [replace(HEADER, tables={"syscalls": "1.0"}), replace(part, bytes=len(garbage), sha256=hashlib.sha256(garbage).hexdigest())])
    with pytest.raises(TraceError, match=r"syscalls/000000\.parquet: unreadable as Parquet"):
        ringtape.open(path).scan("syscalls")


def test_a_trace_of_the_future_is_refused_by_name_and_a_newer_minor_version_is_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"manifest\.jsonl.*version '2\.0'") as caught:
        ringtape.open(make(folder, header={"version": "2.0"}))
    assert caught.value.hint == "use a newer ringtape"
    newer = tmp_path / "newer"
    newer.mkdir()
    known = arrow_schema(table("recorder"))
    schema = known.append(pa.field("later", pa.int64(), nullable=False)).with_metadata({**known.metadata, b"table": b"recorder@1.7"})
    part = write_part(newer, table("recorder"), 0, pa.table({name: [1] for name in schema.names}, schema))
    write_manifest(newer, [replace(HEADER, tables={"recorder": "1.7"}), part])
    trace = ringtape.open(newer)
    assert trace.collect(trace.recorder).columns == arrow_schema(table("recorder")).names


def test_a_manifest_that_was_changed_is_one_error(folder: Path) -> None:
    path = make(folder, syscalls=CALLS)
    lines = (path / "manifest.jsonl").read_bytes().splitlines()
    body = json.loads(lines[1])
    body["rows"] = 99
    (path / "manifest.jsonl").write_bytes(b"\n".join([lines[0], json.dumps(body).encode(), lines[2], b""]))
    with pytest.raises(TraceError, match=r"manifest\.jsonl, line 2: checksum"):
        ringtape.open(path)


def test_whatever_polars_raises_while_reading_becomes_a_trace_error(folder: Path) -> None:
    trace = ringtape.open(make(folder, syscalls=CALLS))
    frame = trace.scan("syscalls")
    (trace.path / "syscalls/000000.parquet").write_bytes(b"PAR1 gone PAR1")
    with pytest.raises(TraceError, match="reading failed"):
        trace.collect(frame)


def test_pages_carry_checksums(folder: Path) -> None:
    path = make(folder, syscalls=CALLS)
    with pq.ParquetFile(path / "syscalls/000000.parquet", page_checksum_verification=True) as file:
        assert file.read().num_rows == 100


def test_parts_that_a_running_recording_merges_away_stay_readable(folder: Path) -> None:
    import fcntl

    path = make(folder, syscalls=CALLS, end=None, parts=4)
    with (path / "manifest.jsonl").open("rb") as recorder:
        fcntl.flock(recorder, fcntl.LOCK_EX)
        trace = ringtape.open(path)
        assert trace.state == "recording"
        frame = trace.scan("syscalls")
        for part in (path / "syscalls").iterdir():
            part.unlink()
        assert trace.collect(frame.select(pl.len())).item() == 100
        assert trace.collect(trace.scan("syscalls").select(pl.len())).item() == 100
        with pytest.raises(TraceError, match="no such file"):
            ringtape.open(path).scan("syscalls")
