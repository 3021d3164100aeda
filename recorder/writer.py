"""The trace folder while it is written: parts sealed and renamed into place, manifest lines appended, one lock around both."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ringtape.recorder.keeper import Keeper
from ringtape.schemas import manifest as manifests
from ringtape.schemas.arrow import ROW_GROUP, arrow_schema, write_options
from ringtape.schemas.folder import PART_NAME, part_file
from ringtape.schemas.manifest import Clock, Footer, Header, Line, Manifest, Part
from ringtape.schemas.retirement import NOTHING, Counts, Retired
from ringtape.schemas.table import Table, table

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
POSITIONS = b"ringtape.rings"
"""Key of the Parquet metadata that repeats the ring positions of a part, for a part whose manifest line was not written."""


BLOCK = 4096
"""What a file takes is a multiple of this."""


def on_disk(size: int) -> int:
    """Return what a file of so many bytes takes on a disk."""
    return -(-size // BLOCK) * BLOCK


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class _HashedFile:
    """A file that is written once, from start to end, and hashed on the way."""

    def __init__(self, descriptor: int, room: Callable[[int], None]) -> None:
        self._descriptor = descriptor
        self._room = room
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
        self._room(on_disk(self.size + len(view)) - on_disk(self.size))
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
        self.sealed_rings: dict[str, dict[int, int]] = {}
        self._header: Header
        self.retired: Retired | None = None
        self.written = 0
        self.sealed = 0
        self.keeper = Keeper()

    @classmethod
    def create(cls, path: Path, descriptor: int) -> TraceWriter:
        """Begin the manifest in a new folder."""
        manifest = os.open(manifests.FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=descriptor)
        fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(path, descriptor, manifest, "", {})

    @classmethod
    def resume(cls, path: Path, descriptor: int, manifest: int, parsed: Manifest, standing: Sequence[Part]) -> TraceWriter:
        """Carry on a manifest that was cut off, with the parts that are whole; what is numbered is never numbered again."""
        numbers: dict[str, int] = dict(parsed.numbers)
        for file in (*(part.file for part in parsed.parts), *parsed.replaced):
            name, _, number = file.removesuffix(".parquet").partition("/")
            numbers[name] = max(numbers.get(name, 0), int(number) + 1)
        writer = cls(path, descriptor, manifest, parsed.checksum, numbers)
        writer._header = parsed.header
        writer.retired = parsed.retired
        writer.sealed_rings = {name: dict(ends) for name, ends in parsed.sealed_rings.items()}
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
        self._header = header
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
            count, low, high, output = self._write_file(folder, temporary, file, to, rows, rings, durable=bool(replaces))
        except BaseException:
            self.keeper.failed(file)
            with contextlib.suppress(FileNotFoundError):
                self._unlink(temporary, folder)
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
            self._unlink(name, folder)  # its rows are still where they came from
            raise
        self.keeper.part(part, replaces)
        return part

    def _enter(self, part: Part, replaces: Sequence[Part]) -> None:
        with self._lock:
            self._append(part)
            self.parts[part.file] = part
            for ring, (_, end) in part.rings.items():
                self.sealed_rings.setdefault(part.table, {})[int(ring)] = end
            for old in replaces:
                del self.parts[old.file]
            if not replaces:
                self.rows[part.table] = self.rows.get(part.table, 0) + part.rows
            self.written += part.bytes
            self.sealed += 1
            self._undurable.append(part.file)

    def _unlink(self, name: str, folder: int) -> None:
        size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
        os.unlink(name, dir_fd=folder)
        self.keeper.took(-on_disk(size))

    def _write_file(
        self, folder: int, name: str, file: str, to: Table, rows: Iterable[pa.Table], rings: Mapping[int, tuple[int, int]], durable: bool
    ) -> tuple[int, int, int, _HashedFile]:
        schema = arrow_schema(to)
        if rings:
            positions = ",".join(f"{ring}:{start}-{end}" for ring, (start, end) in rings.items())
            schema = schema.with_metadata({**schema.metadata, POSITIONS: positions.encode()})
        count, low, high = 0, 0, 0
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            output = _HashedFile(descriptor, self.keeper.room)
            with pq.ParquetWriter(pa.PythonFile(output, mode="w"), schema, sorting_columns=[pq.SortingColumn(0)], **write_options(to)) as writer:
                for piece in rows:
                    if piece.num_rows:
                        self.keeper.rows(file, piece)
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
                self._unlink(name, self._folders[folder])
            except FileNotFoundError:
                continue

    def retire(self, line: Retired) -> None:
        """Say that parts are dropped, bring that to the disk, then delete them."""
        with self._lock:
            self._append(line)
            self.retired = line
            dropped = [self.parts.pop(file) for file in line.parts]
            self._undurable = [file for file in self._undurable if file in self.parts]
        self.make_durable()
        os.fsync(self._manifest)
        self.remove(dropped)

    def rewrite(self) -> None:
        """Replace the manifest by one that names what stands, so that it does not grow for ever.

        The new file is locked before it has the name: at no instant does the recording look as if nobody held it.
        """
        temporary = f".{manifests.FILE}.partial"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._lock:
            base = replace(self.retired or NOTHING, parts=[], at=Clock.now().mono, rings=self._sealed_rings(), numbers=dict(self._numbers))
            data, checksum = b"", ""
            lines: list[Line] = [self._header, base, *(replace(part, rings={}, replaces=[]) for part in self.parts.values())]
            for line in lines:
                encoded, checksum = manifests.encode(line, checksum)
                data += encoded
            self.keeper.took(on_disk(len(data)))
            made = os.open(temporary, flags, 0o600, dir_fd=self._folder)
            try:
                fcntl.flock(made, fcntl.LOCK_EX | fcntl.LOCK_NB)
                view = memoryview(data)
                while view:
                    view = view[os.write(made, view) :]
                os.fsync(made)
                os.rename(temporary, manifests.FILE, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except OSError:
                os.close(made)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=self._folder)
                self.keeper.took(-on_disk(len(data)))
                raise
            old, self._manifest, self._checksum = self._manifest, made, checksum
            self.retired = base
            self.keeper.took(-on_disk(os.fstat(old).st_size))
            os.close(old)
            os.fsync(self._folder)

    @property
    def manifest_size(self) -> int:
        """Bytes of the manifest."""
        with self._lock:
            return os.fstat(self._manifest).st_size

    def _sealed_rings(self) -> Counts:
        return {name: {str(ring): end for ring, end in ends.items()} for name, ends in self.sealed_rings.items()}

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
        self.keeper.took(on_disk(size + len(encoded)) - on_disk(size))

    def _make_table_folders(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self._folder)
            self._folders[name] = os.open(name, _FOLDER, dir_fd=self._folder)
