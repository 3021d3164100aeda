"""Rows of an imported recording, gathered and written as a trace folder like any other."""

from __future__ import annotations

import hashlib
import os
import secrets
from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ringtape.schemas.arrow import ROW_GROUP, arrow_schema, write_options
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.folder import part_file
from ringtape.schemas.manifest import FILE, Clock, Footer, Header, Line, Part, encode
from ringtape.schemas.table import Table, tables
from ringtape.version import VERSION

FLUSH = 500_000
"""Rows of a table that are held in memory; each such piece becomes a part."""
EXAMPLES = 3
NO_STORAGE = 1
TABLES = ("syscalls", "paths", "processes", "losses")


@dataclass
class Strangers:
    """Lines that could not be understood: how many, and the first of them with their numbers."""

    count: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, line: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((number, line.rstrip("\n")[:120]))


class Rows:
    """Gathers the rows of an imported recording and writes them part by part.

    Parameters
    ----------
    folder : Path
        Where the trace is written; it exists and is empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables = {name: tables()[name] for name in TABLES}
        self._columns: dict[str, dict[str, Any]] = {}
        self._held: dict[str, int] = {}
        self._parts: dict[str, list[Part]] = defaultdict(list)
        for name in TABLES:
            self._empty(name)
        self.strangers = Strangers()
        self.lines = 0
        self.first: int | None = None
        self.last = 0
        self.halves = 0
        """Calls of which half is missing."""
        self.facts: dict[str, Any] = {}
        """What the source tells of itself, for the options of the header."""

    def _empty(self, name: str) -> None:
        kinds = {column.name: [] if column.type in ("bytes", "comm", "text") else array("q") for column in self._tables[name].columns}
        self._columns[name], self._held[name] = kinds, 0

    def add(self, table: str, values: Mapping[str, Any]) -> None:
        """Take one row; columns that are left out are 0 or empty, ``seq`` and ``cpu`` -1: not from a ring, not known."""
        for name, column in self._columns[table].items():
            value = values.get(name)
            if value is None:
                value = (b"" if name != "table" else "") if isinstance(column, list) else -1 if name in ("seq", "cpu") else 0
            column.append(value)
        ts = values["ts"]
        if table != "losses":
            self.first = ts if self.first is None else min(self.first, ts)
        self.last = max(self.last, ts + max(0, values.get("dur") or 0))
        self._held[table] += 1
        if self._held[table] >= FLUSH:
            self._flush(table)

    def lose(self, ts: int, nr: int, abi: int, cpu: int) -> None:
        """Note that half of a call is missing, so that nothing is known of its duration."""
        self.halves += 1
        row = {"ts": ts, "until": ts, "count": 1, "sum": 0, "nr": nr, "abi": abi, "cpu": max(cpu, 0), "bucket": 0, "cause": NO_STORAGE}
        self.add("losses", {**row, "table": "syscalls"})

    def _flush(self, name: str) -> None:
        if not self._held[name]:
            return
        table = self._tables[name]
        rows = _arrow(table, self._columns[name]).sort_by("ts")
        self._empty(name)
        relative = part_file(name, len(self._parts[name]))
        path = self._folder / relative
        path.parent.mkdir(mode=0o700, exist_ok=True)
        sink = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(sink, "wb") as file, pq.ParquetWriter(file, rows.schema, **write_options(table)) as writer:
            writer.write_table(rows, row_group_size=ROW_GROUP)
        with open(path, "rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        low, high = rows["ts"][0].as_py(), rows["ts"][-1].as_py()
        self._parts[name].append(Part(name, relative, rows.num_rows, path.stat().st_size, digest, low, high, Clock(high, high, high)))

    def close(self, source: str, log: str, abi: str, wall: int | None) -> None:
        """Write what is left, and the manifest.

        Parameters
        ----------
        source : str
            Name of the source.
        log : str
            The file that was read, for people.
        abi : str
            ABI of the machine's own programs.
        wall : int or None
            What to add to a ``ts`` to get wall time in ns; None: ``ts`` is wall time already.

        Raises
        ------
        RingtapeError
            If there was no row.
        """
        if self.first is None:
            raise RingtapeError(f"{log}: no system call was found in {self.lines:,} lines", "see `ringtape import --help` for what is read")
        for name in TABLES:
            self._flush(name)
        offset = wall or 0
        begin, end = Clock(self.first, self.first + offset, self.first), Clock(self.last, self.last + offset, self.last)
        rows = {name: sum(part.rows for part in self._parts[name]) for name in TABLES}
        options = {"imported": f"{source}: {log}", **self.facts}
        if self.halves:
            options["calls of which half is missing"] = self.halves
        if self.strangers.count:
            options["lines not understood"] = self.strangers.count
        header = Header(
            trace_id=secrets.token_hex(8),
            created=_utc(begin.wall),
            host={"machine": {"x86_64": "x86_64", "arm64": "aarch64"}.get(abi, abi)},
            clock=begin,
            command=[],
            options=options,
            tables={name: self._tables[name].version for name in TABLES},
            probes=[],
            tools={"ringtape": VERSION},
            abi=abi,
            attached_at=self.first,
        )
        footer = Footer(
            end="complete", reason="", exit_status=None, rows=rows, lost={}, attempted={}, filtered=0, cost={}, clock=end, detached_at=self.last,
        )  # fmt: skip
        lines: list[Line] = [header, *(part for name in TABLES for part in self._parts[name]), footer]
        previous, data = "", b""
        for line in lines:
            encoded, previous = encode(line, previous)
            data += encoded
        with open(os.open(self._folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _arrow(table: Table, columns: Mapping[str, Any]) -> pa.Table:
    schema = arrow_schema(table)
    arrays = []
    for name, values in columns.items():
        kind = schema.field(name).type
        plain = pa.array(values, kind) if isinstance(values, list) else pa.array(np.frombuffer(values, np.int64)).cast(kind)
        arrays.append(plain)
    return pa.Table.from_arrays(arrays, schema=schema)
