"""Large traces made of a real one: its calls again and again, each time later by its length."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
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


def enlarge(original: Path, folder: Path, rows: int) -> Path:
    """Write a trace whose table `syscalls` holds the calls of a real one until there are at least ``rows``.

    Every value is a recorded one, but for ``ts`` (later by the length of the recording each time) and ``seq``, which go on.
    The other tables are those of the original.
    """
    source = TraceFolder.open(original)
    folder.mkdir(mode=0o700)
    kind = declared("syscalls")
    once = pa.concat_tables([source.read(part) for part in source.parts("syscalls")]).sort_by("ts")
    footer = source.footer
    if footer is None:
        raise RuntimeError(f"{original}: {source.state}")
    length = footer.detached_at - source.header.attached_at
    attempted = footer.attempted["syscalls"]
    copies = -(-rows // once.num_rows)

    def repeated() -> Iterator[pa.Table]:
        steps = dict(attempted)
        step = pa.array([steps.get(str(cpu), 0) for cpu in range(max(map(int, steps), default=0) + 1)], pa.int64())
        own = pc.take(step, once["cpu"])
        for copy in range(copies):
            later = once.set_column(0, "ts", pc.add(once["ts"], copy * length))
            place = later.schema.get_field_index("seq")
            seq = pc.if_else(pc.less(once["seq"], 0), once["seq"], pc.add(once["seq"], pc.multiply(own, copy)))
            yield later.set_column(place, "seq", seq).cast(arrow_schema(kind))

    lines: list[Line] = [source.header]
    lines += [replace(line, replaces=()) for line in source.manifest.parts if line.table != "syscalls"]
    for line in source.manifest.parts:
        if line.table != "syscalls":
            target = folder / line.file
            target.parent.mkdir(mode=0o700, exist_ok=True)
            target.write_bytes(source.path_of(line).read_bytes())
    pending: list[pa.Table] = []
    held = number = 0
    for piece in repeated():
        pending.append(piece)
        held += piece.num_rows
        if held >= PART:
            lines.append(_write(folder, number, pa.concat_tables(pending)))
            pending, held, number = [], 0, number + 1
    if pending:
        lines.append(_write(folder, number, pa.concat_tables(pending)))
    late = length * (copies - 1)
    clock = replace(footer.clock, mono=footer.clock.mono + late, wall=footer.clock.wall + late, boot=footer.clock.boot + late)
    last = replace(
        footer,
        rows={**footer.rows, "syscalls": once.num_rows * copies},
        attempted={**footer.attempted, "syscalls": {cpu: count * copies for cpu, count in attempted.items()}},
        detached_at=footer.detached_at + late,
        clock=clock,
    )
    previous, data = "", b""
    for line in [*lines, last]:
        encoded, previous = encode(line, previous)
        data += encoded
    (folder / FILE).write_bytes(data)
    return folder


def enlarged(original: Path, folder: Path, rows: int) -> Path:
    """Do the same in a process of its own: the memory of the bench would count as that of every command that it starts (wait4)."""
    subprocess.run([sys.executable, "-m", "tests.bench.enlarged", original, folder, str(rows)], check=True)
    return folder


def _write(folder: Path, number: int, rows: pa.Table) -> Part:
    kind = declared("syscalls")
    name = part_file("syscalls", number)
    path = folder / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with pq.ParquetWriter(path, rows.schema, **write_options(kind)) as writer:
        writer.write_table(rows, row_group_size=ROW_GROUP)
    digest = hashlib.file_digest(path.open("rb"), "sha256").hexdigest()
    low, high = pc.min(rows["ts"]).as_py(), pc.max(rows["ts"]).as_py()
    return Part("syscalls", name, rows.num_rows, path.stat().st_size, digest, low, high, Clock(high, high, high))


if __name__ == "__main__":
    enlarge(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
