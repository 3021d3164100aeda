"""Parts made to fill the memory of whoever reads them: refused before they are decoded, or before they are expanded."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ringtape
from ringtape.analysis.verification import verify
from ringtape.schemas import part_file
from ringtape.schemas.arrow import ROW_GROUP, arrow_schema, write_options
from ringtape.schemas.errors import RingtapeError, TraceError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import Clock, Part
from ringtape.schemas.table import table
from tests.factory import T0, WALL, make, write_manifest


def bomb(path: Path, name: str, rows: int, group: int, strings: Mapping[str, pa.DictionaryArray] | None = None) -> Path:
    """Write a trace whose part of a table holds the same row so many times, strings by a dictionary."""
    strings = strings or {}
    make(path, syscalls=[{"pid": 7}])
    schema, columns = arrow_schema(table(name)), {}
    for field in schema:
        given = {"abi": 1, "ts": T0, "pid": 7, "tid": 7, "seq": -1}
        if field.name in strings:
            columns[field.name] = strings[field.name]
        elif pa.types.is_integer(field.type):
            columns[field.name] = pa.array(np.full(rows, given.get(field.name, 0), field.type.to_pandas_dtype()))
        else:
            columns[field.name] = pa.array([b""] * rows, field.type)
    written = pa.schema([pa.field(field.name, columns[field.name].type, nullable=False) for field in schema])
    file = path / name / "000009.parquet"
    file.parent.mkdir(exist_ok=True)
    with pq.ParquetWriter(file, written, **{**write_options(table(name)), "store_schema": False}) as writer:
        writer.write_table(pa.table(list(columns.values()), schema=written), row_group_size=group)
        writer.add_key_value_metadata({"table": table(name).schema_id})
    seal(path, name, file, rows)
    return path


def seal(path: Path, name: str, file: Path, rows: int) -> None:
    data = file.read_bytes()
    part = Part(name, f"{name}/{file.name}", rows, len(data), hashlib.sha256(data).hexdigest(), T0, T0, Clock(T0, WALL, T0))
    found = TraceFolder.open(path).manifest
    assert found.footer is not None
    attempted = {one: count for one, count in found.footer.attempted.items() if one != name}
    footer = replace(found.footer, rows={**found.footer.rows, name: rows}, attempted=attempted)
    write_manifest(path, [found.header, *(one for one in found.parts if one.table != name), part, footer])
    for other in file.parent.iterdir():
        if other != file:
            other.unlink()


def same(rows: int, size: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([b"a" * size], pa.binary()))


def refusals(path: Path, name: str) -> tuple[str, str]:
    """Return what `verify` and a reader of all rows say of the part; the reader has little memory to expand it in."""
    ((where, reason),) = [(problem.where, problem.reason) for problem in verify(path).problems if problem.where.startswith(f"{name}/")]
    assert where == f"{name}/000009.parquet"
    folder = TraceFolder.open(path)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_DATA, (used + (512 << 20), limits[1]))
    try:
        with pytest.raises(TraceError) as caught:
            folder.read(folder.parts(name)[0])
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    assert caught.value.hint
    return reason, caught.value.what.removeprefix(f"{path}/{where}: ")


def test_a_row_group_larger_than_any_is_refused_before_it_is_decoded(folder: Path) -> None:
    path = bomb(folder, "syscalls", ROW_GROUP + 1, ROW_GROUP + 1)
    expected = f"a row group of {ROW_GROUP + 1} rows, where {ROW_GROUP} are the most"
    assert refusals(path, "syscalls") == (expected, expected)
    with pytest.raises(TraceError, match=expected):
        ringtape.open(path).scan("syscalls")


def test_as_many_rows_in_groups_as_they_should_be_are_read(folder: Path) -> None:
    path = bomb(folder, "syscalls", ROW_GROUP + 1, ROW_GROUP)
    assert [problem.reason for problem in verify(path).problems] == []


def test_a_row_group_of_more_bytes_than_its_rows_can_have_is_refused_before_it_is_decoded(folder: Path) -> None:
    path = bomb(folder, "paths", 3, 3, {"value": same(3, 64 << 20)})
    first, second = refusals(path, "paths")
    assert first == second
    assert first.startswith("a row group of 3 rows and 6710")
    with pytest.raises(TraceError, match="a row group of 3 rows"):
        ringtape.open(path).scan("paths")


@pytest.mark.parametrize(("name", "column", "most"), [("paths", "value", 8191), ("processes", "comm", 16), ("processes", "file", 4095)])
def test_a_string_longer_than_any_is_refused_before_it_is_repeated(folder: Path, name: str, column: str, most: int) -> None:
    path = bomb(folder, name, 1 << 16, 1 << 16, {column: same(1 << 16, 1 << 20)})
    expected = f"a string of {1 << 20} bytes in {column}, where {most} are the most"
    assert refusals(path, name) == (expected, expected)


def test_strings_that_are_too_much_together_are_refused_before_they_are_repeated(folder: Path) -> None:
    path = bomb(folder, "processes", 1 << 16, 1 << 16, {"argv": same(1 << 16, 2 << 20)})
    expected = "strings of 128 GiB in 65536 rows"
    assert refusals(path, "processes") == (expected, expected)


def test_the_longest_strings_that_there_are_are_read(folder: Path) -> None:
    path = bomb(folder, "paths", 1000, 1000, {"value": same(1000, 8191)})
    found = TraceFolder.open(path)
    assert verify(path).problems == []
    assert set(found.read(found.parts("paths")[0])["value"].to_pylist()) == {b"a" * 8191}


def test_arguments_that_no_memory_holds_are_one_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ringtape.analysis.analyses import processes

    monkeypatch.setattr(processes, "LARGEST", 1 << 20)
    events = [{"pid": pid, "kind": 2, "argv": b"x" * (1 << 19)} for pid in (7, 8, 9)]
    with pytest.raises(RingtapeError, match="the arguments of 3 processes take"):
        processes.processes(ringtape.open(make(folder, processes=events)))


def test_the_process_that_decodes_for_verify_has_an_end_to_its_memory(folder: Path) -> None:
    path = make(folder, syscalls=[{"pid": 7}])
    source = (
        "import sys\n"
        "from ringtape.analysis import part_reader\n"
        "part_reader.open_part = lambda folder, part: (_ for _ in ()).throw(MemoryError) if not bytearray(8 << 30) else None\n"
        "part_reader.main(['', sys.argv[1]])\n"
    )
    done = subprocess.run([sys.executable, "-c", source, str(path)], input='"syscalls/000000.parquet"\n', capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr


def test_short_memory_is_one_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(folder, syscalls=[{"pid": 7}])

    def short(self: Any, rows: pa.Table) -> None:
        raise pa.ArrowMemoryError("malloc of size 4294967296 failed")

    monkeypatch.setattr(part_file.PartFile, "_check_strings", short)
    found = TraceFolder.open(path)
    with pytest.raises(TraceError, match="more memory is needed to decode it than there is"):
        found.read(found.parts("syscalls")[0])


FUZZ = """
import json, random, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from ringtape.schemas import part_file
from ringtape.schemas.errors import TraceError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.table import table
path, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
folder = TraceFolder.open(path)
part = folder.parts("paths")[0]
data = (path / part.file).read_bytes()
size = int.from_bytes(data[-8:-4], "little")
for seed in range(first, last):
    chance = random.Random(seed)
    mutant = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        mutant[len(data) - 8 - chance.randint(1, size)] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
    try:
        with pq.ParquetFile(pa.BufferReader(bytes(mutant))) as file:
            part_file._check_claims(file.metadata, table("paths"), part, False)
    except (pa.ArrowException, OSError, ValueError, part_file._RefusedError):
        pass
"""


def test_the_claims_of_damaged_footers_are_read_without_the_reader_dying(folder: Path) -> None:
    """pyarrow ends the process over statistics of some damaged footers; rows and sizes of row groups are safe to ask for."""
    path = make(folder, paths=[{"ts": T0 + at, "pid": 7, "value": b"/x%d" % at} for at in range(50)])
    done = subprocess.run([sys.executable, "-c", FUZZ, str(path), "0", "3000"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_reading_starts_no_thread_that_could_outlive_the_interpreter(folder: Path) -> None:
    """One that still holds the file when the interpreter ends is ended by it, and the C++ runtime then aborts the process."""
    path = bomb(folder, "processes", 300_000, ROW_GROUP)
    program = """if True:
        import os, sys
        from ringtape.schemas.folder import TraceFolder
        from ringtape.schemas.part_file import open_part
        trace = TraceFolder.open(sys.argv[1])
        part = trace.parts("processes")[0]
        before = set(os.listdir("/proc/self/task"))
        with open_part(trace, part) as file:
            rows = [len(file.read(["ts", "comm"])), sum(map(len, file.batches(1000))), sum(map(len, file.coded()))]
        print(rows, len(set(os.listdir("/proc/self/task")) - before))
    """
    done = subprocess.run([sys.executable, "-P", "-c", program, path], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[300000, 300000, 300000] 0\n", "")
