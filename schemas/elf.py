"""ELF files as far as symbols need them. Files named by a trace may be anything: every bound is checked, nothing is trusted."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Self

_LOAD, _NOTE = 1, 4
_SYMTAB, _DYNSYM = 2, 11
_EXECUTABLE = 1
_MOST_NOTES, _MOST_SYMBOLS = 1 << 20, 1 << 29
# Segments: type, flags, offset, address, size in the file. Sections: type, offset, size, link.
_SEGMENT = {64: ("<IIQQ8xQ16x", (0, 1, 2, 3, 4)), 32: ("<III4xI4xI4x", (0, 4, 1, 2, 3))}
_SECTION = {64: "<4xI16xQQI20x", 32: "<4xI8xIII12x"}


class NotElfError(ValueError):
    """The file is no ELF file that could be read."""


class Elf:
    """One ELF file, read in pieces of bounded size.

    Attributes
    ----------
    bits : int
        64 or 32.
    inode : tuple of int
        Device and number of the inode that was opened.

    Raises
    ------
    NotElfError
        If the file is none, or contradicts itself.
    OSError
        If it cannot be read.
    """

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        # A path that a trace names may be a pipe or a device, of which some act when they are only opened (a watchdog, a tape).
        if not stat.S_ISREG(Path(os.fsdecode(path)).stat().st_mode):
            raise NotElfError("no regular file")
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise NotElfError("no regular file")
            self._size = status.st_size
            self.inode = status.st_dev, status.st_ino
            self._read_headers()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def _bytes(self, offset: int, size: int, most: int) -> bytes:
        if size > most or offset > self._size or size > self._size - offset:
            raise NotElfError("a part lies outside of the file")
        pieces = []
        while size:
            piece = os.pread(self._fd, size, offset)
            if not piece:
                raise NotElfError("the file is shorter than it was")
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def _read_headers(self) -> None:
        start = self._bytes(0, 52, 52)
        if start[:4] != b"\x7fELF" or start[4] not in (1, 2) or start[5] != 1:
            raise NotElfError("no little-endian ELF file")
        self.bits = 64 if start[4] == 2 else 32
        layout, at = ("<QQ4x2xHHHH", 32) if self.bits == 64 else ("<II4x2xHHHH", 28)
        segments, sections, segment_size, segment_count, section_size, section_count = struct.unpack_from(layout, self._bytes(0, 64, 64), at)
        form, order = _SEGMENT[self.bits]
        self._segments = [tuple(row[place] for place in order) for row in self._rows(segments, segment_count, segment_size, form)]
        self._sections = list(self._rows(sections, section_count, section_size, _SECTION[self.bits]))

    def _rows(self, offset: int, count: int, size: int, form: str) -> Iterator[tuple[int, ...]]:
        if count and offset:
            if size != struct.calcsize(form):
                raise NotElfError("headers of another size")
            yield from struct.iter_unpack(form, self._bytes(offset, count * size, 1 << 16 << 6))

    @property
    def build_id(self) -> bytes:
        """The build id; nothing if it has none."""
        for kind, _, offset, _, size in self._segments:
            data = self._bytes(offset, size, _MOST_NOTES) if kind == _NOTE else b""
            at = 0
            while at + 12 <= len(data):
                name_size, value_size, note = struct.unpack_from("<III", data, at)
                name_at = at + 12
                at = name_at + name_size + -name_size % 4
                if note == 3 and data[name_at : name_at + name_size] == b"GNU\0" and 0 < value_size <= 64 and at + value_size <= len(data):
                    return data[at : at + value_size]
                at += value_size + -value_size % 4
        return b""

    def address_of(self, offset: int) -> int | None:
        """Return the virtual address at which a place of its code is meant to lie."""
        for kind, flags, begin, address, size in self._segments:
            # A mapping begins and ends at pages: the kernel maps a little more than the segment.
            end = begin + size
            if kind == _LOAD and flags & _EXECUTABLE and begin - begin % 4096 <= offset < end + -end % 4096:
                return address + offset - begin
        return None

    def symbol_tables(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries and the strings of each symbol table, the dynamic one last."""
        for wanted in (_SYMTAB, _DYNSYM):
            for kind, offset, size, link in self._sections:
                if kind == wanted and link < len(self._sections):
                    _, strings_at, strings_size, _ = self._sections[link]
                    yield self._bytes(offset, size, _MOST_SYMBOLS), self._bytes(strings_at, strings_size, _MOST_SYMBOLS)


def build_id_of(path: str | bytes | os.PathLike[str], inode: tuple[int, int] | None = None) -> bytes:
    """Return the build id of a file; nothing if it has none, cannot be read, is no ELF file, or not the one of that inode."""
    try:
        with Elf(path) as elf:
            return elf.build_id if inode in (None, elf.inode) else b""
    except (OSError, ValueError):
        return b""
