"""Writes a trace folder from rows that did not come from a ring.

The manifest is written last: a folder whose import was broken off is no trace, and is removed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ringtape.analysis.importing.findings import Findings
from ringtape.schemas.arrow import ROW_GROUP, arrow_schema, write_options
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.folder import part_file
from ringtape.schemas.manifest import FILE, Clock, Footer, Header, Line, Part, encode
from ringtape.schemas.table import Table, table
from ringtape.version import VERSION

CALL = ("ts", "dur", "ret", "arg0", "arg1", "arg2", "arg3", "arg4", "arg5", "thread", "nr", "cpu", "abi", "kind")
"""What a call is given as: the thread by its number in `Threads`, so that its process may become known later."""
PATH = ("ts", "thread", "nr", "cpu", "abi", "arg", "kind", "cut", "value")
_TIME = 1 << 62
_INTS = {"i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64}


class ImportWriter:
    """A trace folder that is being written from another tool's recording.

    Parameters
    ----------
    path : str or Path
        Folder to be made; its parent must exist.
    names : sequence of str
        Tables that it holds.
    numbers : list of list of int
        Thread and process number of each thread, by the number that rows give.
    """

    def __init__(self, path: str | Path, names: Sequence[str], numbers: list[list[int]]) -> None:
        self.path = Path(path)
        self.names = tuple(names)
        self.numbers = numbers
        self.offset: int | None = None
        self.calls: list[tuple[int, ...]] = []
        self.paths: list[tuple[Any, ...]] = []
        self.processes: list[dict[str, Any]] = []
        self.losses: list[dict[str, Any]] = []
        self.first: int | None = None
        self.last = 0
        self._parts: list[Part] = []
        self._counts: dict[str, int] = {}
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            raise RingtapeError(f"{path} exists already", "a trace is never overwritten: name another with --output, or remove it") from None
        except OSError as error:
            raise RingtapeError(f"{path}: {(error.strerror or str(error)).lower()}", "name a folder that you may make with --output") from None

    def discard(self) -> None:
        """Remove the folder, whose import failed."""
        shutil.rmtree(self.path, ignore_errors=True)

    def seal_full(self) -> None:
        """Write what is buffered once it is a row group."""
        if len(self.calls) >= ROW_GROUP:
            self.seal()

    def seal(self) -> None:
        """Write what is buffered as parts."""
        if self.calls:
            columns = dict(zip(CALL, np.array(self.calls, np.int64).T, strict=True))
            self.calls.clear()
            self._write(table("syscalls"), self._with_numbers(columns))
        if self.paths:
            given = dict(zip(PATH, zip(*self.paths, strict=True), strict=True))
            self.paths.clear()
            values = given.pop("value")
            columns = {name: np.array(column, np.int64) for name, column in given.items()}
            self._write(table("paths"), {**self._with_numbers(columns), "value": np.array([*values, None], object)[:-1]})
        for name, rows in (("processes", self.processes), ("losses", self.losses)):
            if rows:
                kind = table(name)
                self._write(kind, {column.name: np.array([*(row[column.name] for row in rows), None], object)[:-1] for column in kind.columns})
                rows.clear()

    def _with_numbers(self, columns: dict[str, Any]) -> dict[str, Any]:
        threads, where = np.unique(columns.pop("thread"), return_inverse=True)
        numbers = np.array([self.numbers[thread] for thread in threads.tolist()], np.int64).reshape(-1, 2)[where]
        return {**columns, "tid": numbers[:, 0], "pid": numbers[:, 1], "seq": np.full(len(numbers), -1)}

    def _write(self, kind: Table, columns: Mapping[str, Any]) -> None:
        ts = np.asarray(columns["ts"], np.int64)
        if len(ts) and (int(ts.min()) < 0 or int(ts.max()) >= _TIME):
            raise RingtapeError(f"{self.path}: a time of {int(ts.min())} to {int(ts.max())} ns cannot stand in a trace", "the file is damaged")
        order = np.argsort(ts, kind="stable")
        schema = arrow_schema(kind)
        arrays = [
            pa.array(
                np.asarray(columns[column.name])[order].astype(_INTS[column.type]) if column.type in _INTS else columns[column.name][order],
                schema.field(column.name).type,
            )
            for column in kind.columns
        ]
        number = self._counts.get(kind.name, 0)
        self._counts[kind.name] = number + 1
        name = part_file(kind.name, number)
        file = self.path / name
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as output:
            with pq.ParquetWriter(output, schema, sorting_columns=[pq.SortingColumn(0)], **write_options(kind)) as writer:
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=ROW_GROUP)
            output.flush()
            os.fsync(output.fileno())
        with open(file, "rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        low, high = int(ts[order[0]]), int(ts[order[-1]])
        self.first = low if self.first is None else min(self.first, low)
        self.last = max(self.last, high)
        self._parts.append(Part(kind.name, name, len(ts), file.stat().st_size, digest, low, high, self.clock(high)))

    def clock(self, mono: int) -> Clock:
        """Return an instant; a wall time of 0 says that the source does not tell it."""
        return Clock(mono, 0 if self.offset is None else mono + self.offset, mono)

    def finish(
        self, *, tool: str, options: Mapping[str, Any], tools: Mapping[str, str], host: Mapping[str, Any], command: list[str], abi: str,
        begin: int, end: int, exit_status: int | None, lost: Mapping[str, Mapping[int, int]], findings: Findings, end_state: str = "complete",
    ) -> None:  # fmt: skip
        """Write what is left, then the manifest.

        Parameters
        ----------
        tool : str
            What recorded.
        options, tools, host, command, abi, exit_status
            As in the manifest, as far as the source tells.
        begin, end : int
            When the recording began and ended, ns.
        lost : mapping
            Records lost by table and CPU.
        findings : Findings
            What is to be said of the import.
        end_state : str
            How the recording ended.
        """
        start = self.clock(begin)
        self.seal()
        for name in self.names:
            (self.path / name).mkdir(mode=0o700, exist_ok=True)
        header = Header(
            trace_id=secrets.token_hex(8),
            created="" if self.offset is None else datetime.fromtimestamp(start.wall / 1e9, UTC).isoformat(timespec="milliseconds"),
            host=host,
            clock=start,
            command=command,
            options={"source": tool, **options, "remarks": list(findings.text())},
            tables={name: table(name).version for name in self.names},
            probes=[],
            tools={"ringtape": VERSION, **tools},
            abi=abi,
            attached_at=begin,
        )
        rows = {name: sum(part.rows for part in self._parts if part.table == name) for name in self.names}
        unread = findings.unread
        reason = f"imported from {tool}" + (f"; {unread:,} of {findings.lines:,} lines were not understood" if unread else "")
        end = max(end, self.last)
        footer = Footer(
            end=end_state,
            reason=reason,
            exit_status=exit_status,
            rows=rows,
            lost={name: sum(counts.values()) for name, counts in lost.items() if counts},
            attempted={name: {str(cpu): count for cpu, count in sorted(counts.items())} for name, counts in lost.items() if counts},
            filtered=0,
            cost={},
            clock=self.clock(end),
            detached_at=end,
        )
        self._write_manifest([header, *self._parts, footer])

    def _write_manifest(self, lines: Sequence[Line]) -> None:
        previous, data = "", b""
        for line in lines:
            encoded, previous = encode(line, previous)
            data += encoded
        with open(os.open(self.path / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as output:
            output.write(data)
            output.flush()
            os.fsync(output.fileno())
        for folder in (*(self.path / name for name in self.names), self.path):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fsync(descriptor)
            os.close(descriptor)
