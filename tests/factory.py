"""Builds real trace folders from rows, so that every expected value in a test can be worked out by hand."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ringtape.schemas.arrow import ROW_GROUP, arrow_schema, write_options
from ringtape.schemas.folder import part_file
from ringtape.schemas.manifest import FILE, Clock, Footer, Header, Line, Part, Probe, encode
from ringtape.schemas.table import Table, tables

T0 = 1_000_000_000_000
"""CLOCK_MONOTONIC time in ns at which the traces made here are attached."""
WALL = 1_700_000_000_000_000_000
X86_64 = 1
Row = Mapping[str, Any]

HEADER = Header(
    trace_id="0123456789abcdef",
    created="2023-11-14T22:13:20Z",
    host={"name": "host", "kernel": "6.18.0", "machine": "x86_64", "cpu": "Synthetic CPU", "cpus": 2},
    clock=Clock(T0, WALL, T0),
    command=["true"],
    options={},
    tables={},
    probes=[Probe("sys_enter", True), Probe("sys_exit", True)],
    tools={"ringtape": "0.1.0"},
    abi="x86_64",
    attached_at=T0,
)


def make(
    folder: str | os.PathLike[str],
    *,
    header: Mapping[str, Any] | None = None,
    footer: Mapping[str, Any] | None = None,
    end: str | None = "complete",
    parts: int = 1,
    **rows: Iterable[Row],
) -> Path:
    """Write a trace folder and return its path.

    Parameters
    ----------
    folder : path
        Folder to be made.
    header, footer : mapping, optional
        Values that replace those of the default header and of the footer that follows from the rows.
    end : str or None
        How the recording ended; None leaves the footer out, as after a crash.
    parts : int
        Into how many parts to cut each table (in time order).
    **rows : iterable of mapping
        Rows by table name (``syscalls=[...]``). Values left out are 0, empty, or T0 plus the row's index for ``ts``;
        ``tid`` is ``pid`` unless given. ``seq`` is counted per CPU in time order unless given. A row with ``lost=True``
        takes a sequence number, but goes into the loss ledger (cause 0) instead of the table. All tables that this
        version knows are named in the header; those without rows have no parts.
    """
    path = Path(folder)
    path.mkdir(mode=0o700, parents=True)
    known = tables()
    filled = {name: [_filled(known[name], row, index) for index, row in enumerate(given)] for name, given in rows.items()}
    ledger: dict[tuple[Any, ...], dict[str, Any]] = {}
    attempted: dict[str, dict[str, int]] = {}
    for name, content in filled.items():
        if known[name].origin == "ring":
            attempted[name] = _number(name, content, ledger)
    for row in filled.get("losses", []):
        if row["cause"] == 0:
            counters = attempted.setdefault(row["table"], {})
            counters[str(row["cpu"])] = counters.get(str(row["cpu"]), 0) + row["count"]
    filled.setdefault("losses", []).extend(_filled(known["losses"], row, 0) for row in ledger.values())
    kept = {name: sorted((row for row in content if not row.get("lost")), key=lambda row: row["ts"]) for name, content in filled.items()}

    first = replace(HEADER, tables={name: table.version for name, table in known.items()})
    first = replace(first, **(header or {}))
    lines: list[Line] = [first]
    for name, content in kept.items():
        size = -(-len(content) // parts) if content else 0
        for number in range(parts if content else 0):
            chunk = content[number * size : (number + 1) * size]
            if chunk:
                lines.append(write_part(path, known[name], number, to_arrow(known[name], chunk)))
    if end is not None:
        last = Footer(
            end=end,
            reason="",
            exit_status=0,
            rows={name: len(content) for name, content in kept.items() if name in first.tables},
            lost=_totals(kept["losses"]),
            attempted=attempted,
            filtered=0,
            cost={"user_seconds": 0.25, "system_seconds": 0.25, "elapsed_seconds": 1.0, "max_rss": 60e6},
            clock=Clock(T0 + 10**9, WALL + 10**9, T0 + 10**9),
            detached_at=T0 + 10**9,
        )
        lines.append(replace(last, **(footer or {})))
    write_manifest(path, lines)
    return path


def write_manifest(folder: Path, lines: Sequence[Line]) -> None:
    """Write the lines as the folder's manifest, checksums chained."""
    previous, data = "", b""
    for line in lines:
        encoded, previous = encode(line, previous)
        data += encoded
    (folder / FILE).write_bytes(data)


def write_part(folder: Path, table: Table, number: int, rows: pa.Table) -> Part:
    """Write rows as a part of a trace and return its manifest line."""
    name = part_file(table.name, number)
    file = folder / name
    file.parent.mkdir(mode=0o700, exist_ok=True)
    with pq.ParquetWriter(file, rows.schema, **write_options(table)) as writer:
        writer.write_table(rows, row_group_size=ROW_GROUP)
    data = file.read_bytes()
    low, high = (rows["ts"][0].as_py(), rows["ts"][-1].as_py()) if rows.num_rows else (0, 0)
    return Part(table.name, name, rows.num_rows, len(data), hashlib.sha256(data).hexdigest(), low, high, Clock(high, WALL, high))


def to_arrow(table: Table, rows: Sequence[Row]) -> pa.Table:
    """Return the rows as an Arrow table of exactly the declared schema."""
    schema = arrow_schema(table)
    return pa.table({column.name: pa.array([row[column.name] for row in rows], schema.field(column.name).type) for column in table.columns}, schema)


def bucket_of(duration: int) -> int:
    """Return the loss ledger's bucket of a duration: floor(log2), 0 below 2 ns."""
    return max(duration.bit_length() - 1, 0)


def _filled(table: Table, row: Row, index: int) -> dict[str, Any]:
    empty: dict[str, Any] = {"comm": b"", "bytes": b"", "text": ""}
    result = {column.name: empty.get(column.type, 0) for column in table.columns}
    result["ts"] = T0 + index
    if "abi" in result:
        result["abi"] = X86_64
    if table.origin == "ring":
        result["seq"] = None
    unknown = set(row) - set(result) - {"lost"}
    if unknown:
        raise KeyError(f"{table.name} has no columns {sorted(unknown)}")
    result.update(row)
    if "tid" in result and "tid" not in row:
        result["tid"] = result["pid"]
    return result


def _number(name: str, rows: list[dict[str, Any]], ledger: dict[tuple[Any, ...], dict[str, Any]]) -> dict[str, int]:
    """Give every row its sequence number and enter the lost ones in the ledger; return the attempts per CPU."""
    following: dict[int, int] = defaultdict(int)
    for row in sorted(rows, key=lambda row: row["ts"] + row.get("dur", 0)):
        if row["seq"] is None:
            row["seq"] = following[row["cpu"]]
        if row["seq"] < 0:  # from an iterator: no attempt
            continue
        following[row["cpu"]] = max(following[row["cpu"]], row["seq"] + 1)
        if row.get("lost"):
            duration = row.get("dur", 0) if row.get("kind", 0) == 0 else 0
            nr = row["nr"] if name in ("syscalls", "paths") else -1
            key = (name, row["cpu"], nr, row.get("abi", 0), bucket_of(duration))
            when = row["ts"] + row.get("dur", 0)
            entry = ledger.setdefault(
                key,
                {
                    "ts": when,
                    "until": when,
                    "count": 0,
                    "sum": 0,
                    "nr": nr,
                    "cpu": key[1],
                    "abi": key[3],
                    "bucket": key[4],
                    "cause": 0,
                    "table": name,
                },
            )
            entry["ts"], entry["until"] = min(entry["ts"], when), max(entry["until"], when)
            entry["count"] += 1
            entry["sum"] += duration
    return {str(cpu): count for cpu, count in sorted(following.items())}


def _totals(losses: Sequence[Row]) -> dict[str, int]:
    result: dict[str, int] = defaultdict(int)
    for row in losses:
        if row["cause"] == 0:
            result[row["table"]] += row["count"]
    return dict(result)
