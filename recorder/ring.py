"""One ring as the drain sees it: two positions and a window of records, all of it mapped memory.

Layout (kernel/bpf/ringbuf.c): page 0 holds the consumer position, page 1 the producer position, then the data, mapped
twice in a row so that a run of records never wraps. User space may write page 0 only.
"""

from __future__ import annotations

import ctypes
import mmap
import platform

import numpy as np
from numpy.typing import NDArray

from ringtape.recorder.bpf import Map
from ringtape.recorder.kernel import PAGE
from ringtape.schemas.errors import RecordingError
from ringtape.schemas.layout import BUSY, DISCARDED, record_dtype, ring_dtype
from ringtape.schemas.table import Table

_HEADER = 8
_MEMBARRIER_SYSCALL = {"aarch64": 283}
_MEMBARRIER_GLOBAL = 1
_libc = ctypes.CDLL(None, use_errno=True)


def order_reads() -> None:
    """Keep reads of records behind the read of the producer position; x86 does not reorder loads, arm64 does."""
    number = _MEMBARRIER_SYSCALL.get(platform.machine())
    if number is not None and _libc.syscall(number, _MEMBARRIER_GLOBAL, 0, 0) != 0:
        raise RecordingError("membarrier(2) failed", "this kernel cannot order the reads of the ring on this architecture")


class Ring:
    """A mapped ring of one table, with a reading position of its own that runs ahead of the one the kernel knows.

    Parameters
    ----------
    table : Table
        Whose records it holds.
    ring : Map
        The ring buffer map.
    cookie : int
        What every variable-length record of this recording begins with.
    """

    def __init__(self, table: Table, ring: Map, cookie: int) -> None:
        self.table = table
        self.size = ring.max_entries
        self._control = mmap.mmap(ring.fd, PAGE)
        self._memory = mmap.mmap(ring.fd, PAGE + 2 * self.size, prot=mmap.PROT_READ, offset=PAGE)
        self._consumer = np.frombuffer(self._control, np.uint64, 1)
        self._producer = np.frombuffer(self._memory, np.uint64, 1)
        self._data = np.frombuffer(self._memory, np.uint8, 2 * self.size, PAGE)
        self._cookie = np.uint64(cookie)
        self.read_to = int(self._consumer[0])

    @property
    def produced(self) -> int:
        """Position up to which the kernel has reserved."""
        return int(self._producer[0])

    @property
    def pending(self) -> int:
        """Bytes reserved and not read."""
        return self.produced - self.read_to

    @property
    def fill(self) -> float:
        """Share of the ring that holds what has not been given back to the kernel."""
        return (self.produced - int(self._consumer[0])) / self.size

    def release(self, position: int) -> None:
        """Give the memory before a position back to the kernel."""
        self._consumer[0] = position

    def read_fixed(self) -> NDArray[np.void]:
        """Return the committed records of a constant-stride ring as a view of the ring, and move the reading position.

        Returns
        -------
        array of ring_dtype(table)
            Valid until the memory is released.
        """
        dtype = ring_dtype(self.table)
        produced = self.produced
        order_reads()
        count = (produced - self.read_to) // dtype.itemsize
        start = self.read_to & self.size - 1
        view = self._data[start : start + count * dtype.itemsize].view(dtype)
        # A record that another CPU (of a shared ring) has reserved and not yet submitted ends the run.
        other = np.flatnonzero(view["header"]["len"] != dtype.itemsize - _HEADER)
        if other.size:
            length = int(view["header"]["len"][other[0]])
            if not length & int(BUSY | DISCARDED):
                raise RecordingError(f"ring of {self.table.name}: a record of {length} bytes where {dtype.itemsize - _HEADER} were expected")
            view = view[: other[0]]
        order_reads()
        self.read_to += len(view) * dtype.itemsize
        return view

    def read_variable(self) -> tuple[NDArray[np.void], NDArray[np.int64], NDArray[np.uint8]]:
        """Return the committed records of a ring of variable-length records, and move the reading position.

        Returns
        -------
        records : array of record_dtype(table)
            Copies of the fixed parts.
        tails : array of int64
            Where the tail of each record begins in ``memory``.
        memory : array of uint8
            View of the ring, valid until the memory is released.
        """
        dtype = record_dtype(self.table)
        produced = self.produced
        order_reads()
        start = self.read_to & self.size - 1
        memory = self._data[start : start + produced - self.read_to]
        starts = self._starts(memory)
        fixed = np.empty(len(starts), dtype)
        if len(starts):
            # One gather of rows of bytes; records are aligned to 8.
            words = memory[: len(memory) // 8 * 8].view(np.uint64)
            index = (starts // 8 + 1)[:, None] + np.arange(dtype.itemsize // 8)
            fixed = words[index].view(dtype)[:, 0]
        order_reads()
        return fixed, starts + _HEADER + dtype.itemsize, memory

    def _starts(self, memory: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return where the header of each committed record lies.

        Records begin with a random cookie; a position counts only if it follows the record before without a gap, so a
        string that happens to hold the cookie misleads no one.
        """
        words = memory[: len(memory) // 8 * 8].view(np.uint64)
        candidates = np.flatnonzero(words == self._cookie) * 8 - _HEADER
        lengths = memory[: len(memory) // 4 * 4].view(np.uint32)[candidates // 4].astype(np.int64) if len(candidates) else candidates
        ends = candidates + _HEADER + (lengths + 7) // 8 * 8
        chained = len(candidates) > 0 and candidates[0] == 0 and bool(np.array_equal(candidates[1:], ends[:-1])) and ends[-1] <= len(memory)
        starts = candidates if chained else self._walk(memory)
        if len(starts):
            last = int(starts[-1])
            length = int(memory[last : last + 4].view(np.uint32)[0])
            self.read_to += last + _HEADER + (length + 7) // 8 * 8
        return starts

    def _walk(self, memory: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Follow the lengths one by one: for the rare run that ends in an unfinished record or holds a false cookie."""
        lengths = memory[: len(memory) // 4 * 4].view(np.uint32)
        found: list[int] = []
        position = 0
        while position + _HEADER <= len(memory):
            length = int(lengths[position // 4])
            if length & int(BUSY | DISCARDED) or length == 0:
                break
            found.append(position)
            position += _HEADER + (length + 7) // 8 * 8
        return np.array(found, np.int64)
