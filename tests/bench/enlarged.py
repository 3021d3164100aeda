"""Large traces made of a real one: what it recorded again and again, each time later by its length."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ringtape.schemas.arrow import ROW_GROUP, arrow_schema, write_options
from ringtape.schemas.folder import TraceFolder, part_file
from ringtape.schemas.manifest import FILE, Clock, Line, Part, encode
from ringtape.schemas.table import table as declared

PART = 32 * ROW_GROUP
"""Rows of a part: what the recorder merges up to while a recording goes on (recorder/merge.py)."""
_TIMES = ("ts", "start", "call")
_THREADS = ("pid", "tid", "ppid", "creator", "waker", "waker_pid", "issuer", "actor")


def enlarge(original: Path, folder: Path, rows: int, own_threads: bool = False) -> Path:
    """Write a trace made of a real one again and again.

    Every value is a recorded one, but for times (later by the length of the recording each time) and ``seq``, which go on.

    Parameters
    ----------
    original, folder : Path
        The real recording, and what is made.
    rows : int
        At least so many rows are to be in what is repeated.
    own_threads : bool
        Whether every time has its own processes and threads, under numbers that no other has. If so, every table that comes out of a
        ring is repeated, else the calls alone; the other tables are those of the original.
    """
    source = TraceFolder.open(original)
    folder.mkdir(mode=0o700)
    footer = source.footer
    if footer is None:
        raise RuntimeError(f"{original}: {source.state}")
    names = [name for name in source.tables if declared(name).origin == "ring" and source.parts(name)] if own_threads else ["syscalls"]
    once = {name: pa.concat_tables([source.read(part) for part in source.parts(name)]).sort_by("ts") for name in names}
    length = footer.detached_at - source.header.attached_at
    copies = -(-rows // sum(table.num_rows for table in once.values()))
    known = pc.min_max(once["processes"]["tid"]).as_py() if own_threads else None

    lines: list[Line] = [source.header]
    lines += [replace(line, replaces=()) for line in source.manifest.parts if line.table not in names]
    for line in source.manifest.parts:
        if line.table not in names:
            target = folder / line.file
            target.parent.mkdir(mode=0o700, exist_ok=True)
            target.write_bytes(source.path_of(line).read_bytes())
    for name, table in once.items():
        pending: list[pa.Table] = []
        held = number = 0
        for copy in range(copies):
            pending.append(_later(name, table, copy, copy * length, footer.attempted[name], known))
            held += table.num_rows
            if held >= PART or copy == copies - 1:
                lines.append(_write(folder, name, source.header.tables[name], number, pa.concat_tables(pending)))
                pending, held, number = [], 0, number + 1
    late = length * (copies - 1)
    clock = replace(footer.clock, mono=footer.clock.mono + late, wall=footer.clock.wall + late, boot=footer.clock.boot + late)
    attempted = {name: {cpu: count * copies for cpu, count in footer.attempted[name].items()} for name in names}
    last = replace(
        footer,
        rows={**footer.rows, **{name: table.num_rows * copies for name, table in once.items()}},
        attempted={**footer.attempted, **attempted},
        detached_at=footer.detached_at + late,
        clock=clock,
    )
    previous, data = "", b""
    for line in [*lines, last]:
        encoded, previous = encode(line, previous)
        data += encoded
    (folder / FILE).write_bytes(data)
    return folder


def _later(name: str, rows: pa.Table, copy: int, by: int, attempted: dict[str, int], threads: dict[str, int] | None) -> pa.Table:
    """Return the rows ``by`` ns later, with sequence numbers that go on; with other numbers for threads if their range is given."""
    step = pa.array([attempted.get(str(cpu), 0) for cpu in range(max(map(int, attempted), default=0) + 1)], pa.int64())
    made = {column: rows[column] for column in rows.column_names}
    for column in _TIMES:
        if column in made:
            made[column] = pc.if_else(pc.greater(made[column], 0), pc.add(made[column], by), made[column])
    made["seq"] = pc.if_else(pc.less(made["seq"], 0), made["seq"], pc.add(made["seq"], pc.multiply(pc.take(step, rows["cpu"]), copy)))
    for column in _THREADS if threads else ():
        if column in made:
            low, high = threads["min"], threads["max"]
            own = pc.and_(pc.greater_equal(made[column], low), pc.less_equal(made[column], high))
            made[column] = pc.if_else(own, pc.add(made[column], copy * (high - low + 1)), made[column])
    return pa.table(made).cast(arrow_schema(declared(name)))


def enlarged(original: Path, folder: Path, rows: int, own_threads: bool = False) -> Path:
    """Do the same in a process of its own: the memory of the bench would count as that of every command that it starts (wait4)."""
    subprocess.run([sys.executable, "-m", "tests.bench.enlarged", original, folder, str(rows), str(int(own_threads))], check=True)
    return folder


def _write(folder: Path, table: str, version: str, number: int, rows: pa.Table) -> Part:
    kind = declared(table)
    name = part_file(table, number)
    path = folder / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), b"table": f"{table}@{version}".encode()})
    with pq.ParquetWriter(path, rows.schema, **write_options(kind)) as writer:
        writer.write_table(rows, row_group_size=ROW_GROUP)
    digest = hashlib.file_digest(path.open("rb"), "sha256").hexdigest()
    low, high = pc.min(rows["ts"]).as_py(), pc.max(rows["ts"]).as_py()
    return Part(table, name, rows.num_rows, path.stat().st_size, digest, low, high, Clock(high, high, high))


if __name__ == "__main__":
    enlarge(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1")
