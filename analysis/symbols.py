"""Names for addresses: functions of files, by their build ids, and of the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ringtape.analysis.address_spaces import File
from ringtape.schemas.elf import Elf
from ringtape.schemas.escape import escape

DEBUG = Path("/usr/lib/debug")
FARTHEST = 1 << 20
"""Bytes from a function's start beyond which an address is not held to be in it, where its end is unknown."""
_LONGEST = 4096
_NOWHERE = (1 << 64) - 1
_FUNCTIONS = (2, 10)  # STT_FUNC, STT_GNU_IFUNC
_SYMBOL = {
    64: np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]),
    32: np.dtype([("name", "<u4"), ("value", "<u4"), ("size", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2")]),
}


@dataclass(frozen=True)
class Functions:
    """Functions by address, sorted."""

    starts: NDArray[np.uint64]
    ends: NDArray[np.uint64]
    names: Sequence[bytes]

    @classmethod
    def of(cls, starts: NDArray[np.uint64], sizes: NDArray[np.uint64], names: Sequence[bytes]) -> Functions:
        """Take functions sorted by address; a size of 0 means that it is unknown."""
        following = np.append(starts[1:], np.uint64(2**64 - 1))[: len(starts)]
        room = np.minimum(following - starts, np.uint64(FARTHEST))
        return cls(starts, starts + np.where(sizes > 0, sizes, room), names)

    def at(self, addresses: NDArray[np.uint64]) -> list[bytes | None]:
        """Return the name of the function that holds each address."""
        if not len(self.starts):
            return [None] * len(addresses)
        index = np.searchsorted(self.starts, addresses, "right").astype(np.int64) - 1
        inside = (index >= 0) & (addresses < self.ends[index])
        return [self.names[place] if ok else None for place, ok in zip(index.tolist(), inside.tolist(), strict=True)]


def functions_of(elf: Elf) -> Functions:
    """Return the functions of the first symbol table of a file that has any.

    Raises
    ------
    ValueError, OSError
        If the file contradicts itself, or cannot be read.
    """
    dtype = _SYMBOL[elf.bits]
    for data, strings in elf.symbol_tables():
        entries = np.frombuffer(data, dtype, len(data) // dtype.itemsize)
        entries = entries[np.isin(entries["info"] & 15, _FUNCTIONS) & (entries["section"] != 0) & (entries["name"] < len(strings))]
        if not len(entries):
            continue
        starts, sizes = entries["value"].astype(np.uint64), entries["size"].astype(np.uint64)
        # Of several names for one address the longest function counts, a global name before a local one.
        order = np.lexsort((entries["info"] >> 4 == 0, ~sizes, starts))
        order = order[np.append(True, np.diff(starts[order]) > 0)]
        names = [_string(strings, at) for at in entries["name"][order].tolist()]
        return Functions.of(starts[order], sizes[order], names)
    return Functions(np.empty(0, np.uint64), np.empty(0, np.uint64), ())


def _string(strings: bytes, at: int) -> bytes:
    end = strings.find(b"\0", at, at + _LONGEST)
    return strings[at : end if end >= 0 else at + _LONGEST]


def is_file(file: File) -> bool:
    """Return whether what is mapped has a path at which it may lie still, and is no memory that only looks like a file."""
    return re.match(rb"/[^/]", file.path) is not None and not file.path.startswith((b"/memfd:", b"/dev/", b"/SYSV"))


class Symbols:
    """Finds the functions of mapped files on this machine.

    A file counts only if its build id is that of the mapping: the program may have been replaced since, or never have been
    here. One without a build id is taken by its path, unless it was changed since.

    Parameters
    ----------
    folder : path, optional
        Where to look first: for the whole path below it, for the file's name, and for ``.build-id/xx/....debug``.
    until : int, optional
        Time of day in ns after which a file without a build id must not have changed to be taken by its path.
    """

    def __init__(self, folder: Path | None = None, until: int | None = None) -> None:
        self._folder = folder
        self._until = until

    def names(self, file: File, places: NDArray[np.uint64], told: list[bytes | None] | None = None) -> list[str]:
        """Return the name of the function at each place of a file, or what is ``told`` of it; ``module+0xplace`` where there is none."""
        found: list[bytes | None] = told or [None] * len(places)
        if is_file(file):
            found = self._look_up(file, places)
        module = self.module(file)
        return [f"{module}+{place:#x}" if name is None else escape(name) for name, place in zip(found, places.tolist(), strict=True)]

    @staticmethod
    def module(file: File) -> str:
        """Return the short name of a file."""
        return "[anon]" if file.path in (b"//anon", b"") else escape(file.path.rpartition(b"/")[2] or file.path)

    def _look_up(self, file: File, places: NDArray[np.uint64]) -> list[bytes | None]:
        found: list[bytes | None] = [None] * len(places)
        addresses: NDArray[np.uint64] | None = None
        for path in self._candidates(file):
            try:
                with Elf(path) as elf:
                    if elf.build_id != file.build_id:
                        continue
                    meant = [elf.address_of(place) for place in places.tolist()]
                    # A file of debugging data alone keeps the addresses, and not always the places.
                    if addresses is None and any(address is not None for address in meant):
                        addresses = np.array([_NOWHERE if address is None else address & _NOWHERE for address in meant], np.uint64)
                    if addresses is None:
                        continue
                    names = functions_of(elf).at(addresses)
            except (OSError, ValueError):
                continue
            found = [old or new for old, new in zip(found, names, strict=True)]
            if None not in found:
                break
        return found

    def _candidates(self, file: File) -> Iterator[Path]:
        path = Path(file.path.decode("utf-8", "surrogateescape"))
        inside = Path(*[part for part in path.parts[1:] if part != ".."])
        identity = file.build_id.hex()
        debug = Path(".build-id", identity[:2], f"{identity[2:]}.debug")
        if self._folder is not None:
            yield self._folder / inside
            yield self._folder / inside.name
            if identity:
                yield self._folder / debug
        if identity or not self._changed(path):
            yield path
        if identity:
            yield DEBUG / debug

    def _changed(self, path: Path) -> bool:
        """Return whether a file is another, or was changed, since the recording."""
        try:
            return self._until is not None and path.stat().st_ctime_ns > self._until
        except (OSError, ValueError):
            return True


def kernel_functions(addresses: NDArray[np.int64], names: Sequence[bytes]) -> Functions:
    """Return the functions of the table ``symbols``, sorted by address there as signed numbers."""
    starts = addresses.astype(np.uint64)
    order = np.argsort(starts, kind="stable")
    order = order[np.append(True, np.diff(starts[order]) > 0)] if len(order) else order
    return Functions.of(starts[order], np.zeros(len(order), np.uint64), [names[place] for place in order.tolist()])


def functions_told(rows: pl.DataFrame) -> Functions:
    """Return functions of the table ``symbols`` that are not the kernel's; of several at one address the one told last."""
    starts = rows["address"].to_numpy().astype(np.uint64)
    order = np.argsort(starts, kind="stable")
    order = order[np.append(np.diff(starts[order]) > 0, True)] if len(order) else order
    names = rows["name"].to_list()
    return Functions.of(starts[order], rows["length"].to_numpy().astype(np.uint64)[order], [names[place] for place in order.tolist()])
