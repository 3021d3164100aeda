"""The trace folder: its layout, and the strict reader that takes nothing in it on trust."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ringtape.schemas import manifest as manifests
from ringtape.schemas.errors import TraceError
from ringtape.schemas.manifest import Footer, Header, Manifest, Part
from ringtape.schemas.retirement import NOTHING, Retired
from ringtape.schemas.table import Table, tables

# pyarrow starts threads: `recover` reads a manifest with privileges that it must be able to give up for the whole process.
if TYPE_CHECKING:
    import pyarrow as pa

TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
PART_NAME = re.compile(rf"({TABLE_NAME.pattern})/([0-9]{{6,12}})\.parquet")
MANIFEST_LIMIT = 1 << 30
"""A manifest larger than this is refused: a month of recording makes a few hundred megabytes at the very most."""
_FORGED = "what wrote the trace is not ringtape, or has a fault"

State = Literal["recording", "complete", "interrupted", "failed", "recovered", "snapshot", "unfinished"]
"""How a trace ended: as its footer says; without a footer ``recording`` while a recorder holds it, else ``unfinished``."""


def part_file(table: str, number: int) -> str:
    """Return the path of a part inside its trace folder."""
    return f"{table}/{number:06d}.parquet"


@dataclass(frozen=True)
class TraceFolder:
    """A trace on disk whose manifest has been read and checked.

    Parts are checked when they are read: size and SHA-256 against the manifest first, so that no Parquet reader sees
    damaged bytes; then the schema, exactly; page checksums while the pages are decoded.
    """

    path: Path
    manifest: Manifest
    state: State

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> TraceFolder:
        """Read the manifest of a trace folder.

        Raises
        ------
        TraceError
            If the folder is not there, is no trace, is damaged, or comes from a newer major version.
        """
        folder = Path(path)
        data, held = _read_manifest(folder)
        parsed = manifests.parse(data, str(folder / manifests.FILE))
        for name, version in parsed.header.tables.items():
            _check_version(folder, name, version)
        for part in parsed.parts:
            match = PART_NAME.fullmatch(part.file)
            if match is None or match[1] != part.table:
                raise TraceError(f"{folder / manifests.FILE}: {part.file!r} is no name for a part of table {part.table!r}", _FORGED)
        state: State
        state = parsed.footer.end if parsed.footer is not None else "recording" if held else "unfinished"  # type: ignore[assignment]
        return cls(folder, parsed, state)

    @property
    def header(self) -> Header:
        """What was recorded, where and how."""
        return self.manifest.header

    @property
    def footer(self) -> Footer | None:
        """How the recording ended; None while it goes on, and after it was cut off."""
        return self.manifest.footer

    @property
    def retired(self) -> Retired:
        """Totals of the parts that were dropped."""
        return self.manifest.retired or NOTHING

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the recorded tables that this version knows."""
        return tuple(name for name in self.header.tables if name in tables())

    def parts(self, table: str) -> tuple[Part, ...]:
        """Return the standing parts of a table in the order in which they were sealed."""
        return tuple(part for part in self.manifest.parts if part.table == table)

    def path_of(self, part: Part) -> Path:
        """Return where a part lies."""
        return self.path / part.file

    def open_part(self, part: Part) -> int:
        """Open a part as a file descriptor for reading, refusing links and anything but a regular file of its size."""
        path = self.path_of(part)
        try:
            parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            finally:
                os.close(parent)
        except OSError as error:
            hint = "a part that the manifest names is gone" if isinstance(error, FileNotFoundError) else None
            raise TraceError(f"{path}: {os.strerror(error.errno or 0).lower()}", hint) from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise TraceError(f"{path}: not a regular file")
        if status.st_size != part.bytes:
            os.close(descriptor)
            raise TraceError(f"{path}: {status.st_size} bytes where the manifest says {part.bytes}", "the file was cut off or changed")
        return descriptor

    def check(self, part: Part) -> None:
        """Compare a part with the size and the SHA-256 that its manifest line states.

        Raises
        ------
        TraceError
            If it is missing, a link, or different in any bit.
        """
        with open(self.open_part(part), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != part.sha256:
            raise TraceError(f"{self.path_of(part)}: SHA-256 {digest[:16]}... where the manifest says {part.sha256[:16]}...", "the file is damaged")

    def read(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        """Check a part and return its rows.

        Raises
        ------
        TraceError
            If hash, schema, row count or a page checksum is not right.
        """
        from ringtape.schemas.part_file import open_part

        self.check(part)
        if part.table not in tables():
            raise TraceError(f"{self.path_of(part)}: this ringtape knows no table {part.table!r}", "use a newer ringtape")
        with open_part(self, part) as file:
            return file.read(columns)


def check_schema(actual: pa.Schema, table: Table, version: str, path: Path) -> None:
    """Refuse a part whose columns are not exactly those of the table; a newer minor version may add columns at the end."""
    import pyarrow as pa

    from ringtape.schemas.arrow import arrow_schema

    wanted = arrow_schema(table)
    newer = is_newer(version, table)
    head = pa.schema(list(actual)[: len(wanted)]) if newer else actual
    if not head.equals(wanted, check_metadata=False):
        names = [field.name for field in actual]
        expected = wanted.names
        detail = f"columns {names}, not {expected}" if names != expected else "types differ from " + table.schema_id
        raise TraceError(f"{path}: not a part of {table.schema_id}: {detail}")
    stated = (actual.metadata or {}).get(b"table", b"").decode(errors="replace")
    if stated != f"{table.name}@{version}":
        raise TraceError(f"{path}: says it is {stated!r} where the header says {table.name}@{version}")


def is_newer(version: str, table: Table) -> bool:
    """Whether a version of a table is newer than the one that this program knows: it may have more columns, and more codes."""
    return int(version.split(".")[1]) > int(table.version.split(".")[1])


def _check_version(folder: Path, name: str, version: str) -> None:
    where = folder / manifests.FILE
    if TABLE_NAME.fullmatch(name) is None:
        raise TraceError(f"{where}: {name!r:.60} is no name for a table", _FORGED)
    if re.fullmatch(r"[0-9]{1,6}\.[0-9]{1,6}", version) is None:
        raise TraceError(f"{where}: table {name!r} has the version {version!r:.40}, which is no version", _FORGED)
    known = tables().get(name)
    if known is not None and version.split(".")[0] != known.version.split(".")[0]:
        raise TraceError(f"{where}: {name}@{version} is not a version that this ringtape reads ({known.schema_id})", "use a newer ringtape")


def _read_manifest(folder: Path) -> tuple[bytes, bool]:
    """Return the manifest's bytes, and whether a recorder holds its lock."""
    while True:
        data, held, file = _read_once(folder)
        if held:
            return data, held
        # A recorder that writes its manifest anew holds the new file before it lets the old one go.
        with contextlib.suppress(OSError):
            if (now := (folder / manifests.FILE).lstat()).st_ino != file.st_ino and now.st_dev == file.st_dev:
                continue
        return data, held


def _read_once(folder: Path) -> tuple[bytes, bool, os.stat_result]:
    path = folder / manifests.FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        what = f"{folder}: no such trace folder" if not folder.exists() else f"{folder}: no {manifests.FILE} in it, so it is no trace folder"
        raise TraceError(what, "name the folder that `ringtape record` made") from None
    except NotADirectoryError:
        raise TraceError(f"{folder}: not a folder", "a trace is a folder that `ringtape record` made") from None
    except ValueError:
        raise TraceError(f"{os.fspath(folder)!r} cannot be the name of a folder") from None
    except OSError as error:
        raise TraceError(f"{path}: {os.strerror(error.errno or 0).lower()}") from None
    # open() itself refuses a folder, and would leave the descriptor open.
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise TraceError(f"{path}: not a regular file")
    with open(descriptor, "rb") as file:
        if status.st_size > MANIFEST_LIMIT:
            raise TraceError(f"{path}: {status.st_size} bytes, more than any manifest has")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            held = False
        except OSError:
            held = True
        return file.read(MANIFEST_LIMIT + 1), held, status
