"""The trace folder while it is written: parts sealed and renamed into place, manifest lines appended, one lock around both."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ringtape.schemas import manifest as manifests
from ringtape.schemas.arrow import ROW_GROUP, arrow_schema, write_options
from ringtape.schemas.folder import PART_NAME, part_file
from ringtape.schemas.manifest import Clock, Footer, Header, Line, Manifest, Part
from ringtape.schemas.table import Table, table

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
POSITIONS = b"ringtape.rings"
"""Key of the Parquet metadata that repeats the ring positions of a part, for a part whose manifest line was not written."""


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class _HashedFile:
    """A file that is written once, from start to end, and hashed on the way."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self.size = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Take bytes; Parquet's many small pieces go to the disk together."""
        self._buffer += data
        if len(self._buffer) >= 1 << 20:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Write what is buffered."""
        view = memoryview(bytes(self._buffer))
        self._buffer.clear()
        self._digest.update(view)
        self.size += len(view)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def tell(self) -> int:
        """Return the position."""
        return self.size + len(self._buffer)

    def close(self) -> None:
        """Do nothing: the descriptor belongs to the caller."""
        self.closed = True

    def hexdigest(self) -> str:
        """Return the SHA-256 of everything written."""
        return self._digest.hexdigest()


class TraceWriter:
    """Owner of a trace folder that is being written.

    Everything happens relative to the descriptor of the folder, so that a folder that is moved or replaced by a link
    cannot divert a write.
    """

    def __init__(self, path: Path, descriptor: int, manifest: int, checksum: str, numbers: dict[str, int]) -> None:
        self.path = path
        self._folder = descriptor
        self._manifest = manifest
        self._checksum = checksum
        self._numbers = numbers
        self._lock = threading.Lock()
        self._folders: dict[str, int] = {}
        self._undurable: list[str] = []
        self.parts: dict[str, Part] = {}
        self.rows: dict[str, int] = {}
        self.written = 0
        self.sealed = 0

    @classmethod
    def create(cls, path: Path, descriptor: int) -> TraceWriter:
        """Begin the manifest in a new folder."""
        manifest = os.open(manifests.FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=descriptor)
        fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(path, descriptor, manifest, "", {})

    @classmethod
    def resume(cls, path: Path, descriptor: int, manifest: int, parsed: Manifest, standing: Sequence[Part]) -> TraceWriter:
        """Carry on a manifest that was cut off, with the parts that are whole; what is numbered is never numbered again."""
        numbers: dict[str, int] = {}
        for file in (*(part.file for part in parsed.parts), *parsed.replaced):
            name, _, number = file.removesuffix(".parquet").partition("/")
            numbers[name] = max(numbers.get(name, 0), int(number) + 1)
        writer = cls(path, descriptor, manifest, parsed.checksum, numbers)
        writer._make_table_folders(parsed.header.tables)
        for name, folder in writer._folders.items():
            # Parts without a line as well: what they hold may be the only copy.
            there = os.listdir(folder)  # noqa: PTH208 - pathlib knows no descriptors
            found = [int(file.removesuffix(".parquet")) for file in there if PART_NAME.fullmatch(f"{name}/{file}")]
            numbers[name] = max(numbers.get(name, 0), max(found, default=-1) + 1)
        for part in standing:
            writer.parts[part.file] = part
            writer.rows[part.table] = writer.rows.get(part.table, 0) + part.rows
        return writer

    def begin(self, header: Header) -> None:
        """Write the header and make a folder for each table."""
        self._make_table_folders(header.tables)
        self._append(header)
        os.fsync(self._manifest)
        os.fsync(self._folder)

    def seal(self, to: Table, rows: Iterable[pa.Table], rings: Mapping[int, tuple[int, int]], lost: int, replaces: Sequence[Part] = ()) -> Part:
        """Write a part, rename it into place and append its manifest line. Only then may the ring be freed.

        Parameters
        ----------
        to : Table
            Whose rows they are.
        rows : iterable of pyarrow.Table
            Rows sorted by ``ts`` throughout; each item begins a row group of its own.
        rings : mapping
            From ring index to the positions that the rows cover.
        lost : int
            Records of this table lost so far.
        replaces : sequence of Part
            Parts whose rows these are.

        Raises
        ------
        OSError
            If the disk is full or the folder gone; nothing half-written keeps a part's name.
        """
        with self._lock:
            number = self._numbers.get(to.name, 0)
            self._numbers[to.name] = number + 1
        file = part_file(to.name, number)
        name = file.rpartition("/")[2]
        folder = self._folders[to.name]
        temporary = f".{name}.partial"
        try:
            # What replaces others is on the disk before a line says so: they may be there for hours, and must not go for nothing.
            count, low, high, output = self._write_file(folder, temporary, to, rows, rings, durable=bool(replaces))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        try:
            if replaces:
                os.fsync(folder)
            part = Part(
                table=to.name,
                file=file,
                rows=count,
                bytes=output.size,
                sha256=output.hexdigest(),
                min_ts=low,
                max_ts=high,
                clock=Clock.now(),
                rings={str(ring): list(span) for ring, span in rings.items()},
                replaces=[old.file for old in replaces],
                lost=lost,
            )
            self._enter(part, replaces)
        except OSError:
            os.unlink(name, dir_fd=folder)  # its rows are still where they came from
            raise
        return part

    def _enter(self, part: Part, replaces: Sequence[Part]) -> None:
        with self._lock:
            self._append(part)
            self.parts[part.file] = part
            for old in replaces:
                del self.parts[old.file]
            if not replaces:
                self.rows[part.table] = self.rows.get(part.table, 0) + part.rows
            self.written += part.bytes
            self.sealed += 1
            self._undurable.append(part.file)

    @staticmethod
    def _write_file(
        folder: int, name: str, to: Table, rows: Iterable[pa.Table], rings: Mapping[int, tuple[int, int]], durable: bool
    ) -> tuple[int, int, int, _HashedFile]:
        schema = arrow_schema(to)
        if rings:
            positions = ",".join(f"{ring}:{start}-{end}" for ring, (start, end) in rings.items())
            schema = schema.with_metadata({**schema.metadata, POSITIONS: positions.encode()})
        count, low, high = 0, 0, 0
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            output = _HashedFile(descriptor)
            with pq.ParquetWriter(pa.PythonFile(output, mode="w"), schema, sorting_columns=[pq.SortingColumn(0)], **write_options(to)) as writer:
                for piece in rows:
                    if piece.num_rows:
                        writer.write_table(piece.replace_schema_metadata(schema.metadata), row_group_size=ROW_GROUP)
                        first, high = piece.column("ts")[0].as_py(), piece.column("ts")[-1].as_py()
                        low = low if count else first
                        count += piece.num_rows
            output.flush()
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return count, low, high, output

    def give_up(self, parts: Sequence[Part]) -> None:
        """Replace parts that the disk does not hold by an empty one, so that the manifest names only what is there."""
        for name in {part.table for part in parts}:
            gone = [part for part in parts if part.table == name]
            for part in gone:
                self.parts[part.file] = part
            self.seal(table(name), [], {}, gone[-1].lost, gone)
            self.remove(gone)

    def remove(self, parts: Sequence[Part]) -> None:
        """Delete the files of parts that were replaced, once the disk holds what says so."""
        self.make_durable()
        for part in parts:
            folder, _, name = part.file.rpartition("/")
            try:
                os.unlink(name, dir_fd=self._folders[folder])
            except FileNotFoundError:
                continue

    def make_durable(self) -> None:
        """Bring everything sealed so far to the disk: parts, their folders, then the manifest."""
        with self._lock:
            files, self._undurable = self._undurable, []
        if not files:
            return
        try:
            self._sync(files)
        except OSError:
            with self._lock:
                self._undurable[:0] = files  # the next call tries again
            raise

    def _sync(self, files: Sequence[str]) -> None:
        for file in files:
            folder, _, name = file.rpartition("/")
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folders[folder])
            except FileNotFoundError:
                continue  # merged and deleted meanwhile
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        for folder in {file.rpartition("/")[0] for file in files}:
            os.fsync(self._folders[folder])
        os.fsync(self._folder)
        os.fsync(self._manifest)

    def finish(self, footer: Footer) -> None:
        """Write the footer and make all of the trace durable."""
        self.make_durable()
        self._append(footer)
        os.fsync(self._manifest)

    def close(self) -> None:
        """Give up descriptors and the lock."""
        for descriptor in (*self._folders.values(), self._manifest, self._folder):
            os.close(descriptor)
        self._folders.clear()

    @property
    def size(self) -> int:
        """Bytes of the standing parts."""
        return sum(part.bytes for part in list(self.parts.values()))

    def standing(self, name: str) -> list[Part]:
        """Return the standing parts of a table in the order of their lines."""
        with self._lock:
            return [part for part in self.parts.values() if part.table == name]

    def open_part(self, part: Part) -> int:
        """Open a standing part for reading."""
        folder, _, name = part.file.rpartition("/")
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folders[folder])

    def _append(self, line: Line) -> None:
        encoded, checksum = manifests.encode(line, self._checksum)
        size = os.fstat(self._manifest).st_size
        done = 0
        try:
            while done < len(encoded):
                done += os.write(self._manifest, encoded[done:])
        except OSError:
            os.ftruncate(self._manifest, size)  # a full disk may have taken half of the line
            raise
        self._checksum = checksum

    def _make_table_folders(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self._folder)
            self._folders[name] = os.open(name, _FOLDER, dir_fd=self._folder)
