"""The rings as the drain sees them: positions and a window of records, all of it mapped memory.

Two kinds, one interface: `SlotRing` for records of one size, `RecordRing` for records of varying size.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ringtape.recorder.bpf import PAGE, Map
from ringtape.schemas.errors import RecordingError
from ringtape.schemas.layout import BUSY, DISCARDED, record_dtype
from ringtape.schemas.table import Table

_HEADER = 8
_MEMBARRIER_SYSCALL = {"aarch64": 283}
_MEMBARRIER_GLOBAL = 1
_libc = ctypes.CDLL(None, use_errno=True)

COUNTERS = np.dtype(
    [("attempted", "<u8"), ("lost", "<u8"), ("filtered", "<u8"), ("noted", "<u8"), ("head", "<u8"), ("tail", "<u8"), ("reserved", "<u8", 2)]
)
"""struct counters (probes/common.bpf.h), one element per CPU."""


def order_memory() -> None:
    """Keep reads of records between the reads and writes of the positions.

    x86 keeps loads in order, and stores behind loads. On arm64 a global memory barrier waits until every program that
    was running on another CPU has ended.
    """
    number = _MEMBARRIER_SYSCALL.get(platform.machine())
    if number is not None and _libc.syscall(number, _MEMBARRIER_GLOBAL, 0, 0) != 0:
        raise RecordingError("membarrier(2) failed", "this kernel cannot order the reads of the ring on this architecture")


def map_counters(counters: Map) -> NDArray[np.void]:
    """Return the counters of a table as an array of `COUNTERS` over the kernel's memory, an element per CPU."""
    size = -(-counters.max_entries * COUNTERS.itemsize // PAGE) * PAGE
    return np.frombuffer(mmap.mmap(counters.fd, size), COUNTERS, counters.max_entries)


class SlotRing:
    """One CPU's stretch of a mapped array of records of one size; positions count records.

    Parameters
    ----------
    records : array of record_dtype(table)
        The slots of this CPU, a power of two.
    counters : array of COUNTERS
        One element: this CPU's.
    """

    def __init__(self, records: NDArray[np.void], counters: NDArray[np.void]) -> None:
        self._records = records
        self._counters = counters
        self.size = records.nbytes
        self.read_to = int(counters["tail"][0])

    @property
    def pending(self) -> int:
        """Bytes that are not in a part."""
        return (int(self._counters["head"][0]) - self.read_to) * self._records.itemsize

    @property
    def fill(self) -> float:
        """Share of the ring that has not been given back to the kernel."""
        return (int(self._counters["head"][0]) - int(self._counters["tail"][0])) / len(self._records)

    def release(self, position: int) -> None:
        """Give what lies before a position back to the kernel."""
        order_memory()
        self._counters["tail"][0] = position

    def read(self) -> list[NDArray[np.void]]:
        """Return the published records as views of the ring (two where it wraps), valid until they are released."""
        head = int(self._counters["head"][0])
        order_memory()
        slots = len(self._records)
        begin, count = self.read_to & slots - 1, head - self.read_to
        self.read_to = head
        first = self._records[begin : begin + count]
        rest = self._records[: count - len(first)]
        return [view for view in (first, rest) if len(view)]


def slot_rings(table: Table, ring: Map, counters: NDArray[np.void]) -> list[SlotRing]:
    """Return the ring of each CPU in a mapped array."""
    dtype = record_dtype(table)
    memory = mmap.mmap(ring.fd, -(-ring.max_entries * dtype.itemsize // PAGE) * PAGE, prot=mmap.PROT_READ)
    records = np.frombuffer(memory, dtype, ring.max_entries).reshape(len(counters), -1)
    return [SlotRing(records[cpu], counters[cpu : cpu + 1]) for cpu in range(len(counters))]


class RecordRing:
    """A mapped BPF ring buffer of variable-length records; positions are bytes.

    Layout (kernel/bpf/ringbuf.c): page 0 holds the consumer position, page 1 the producer position, then the data,
    mapped twice in a row so that a run of records never wraps. User space may write page 0 only.

    Parameters
    ----------
    table : Table
        Whose records it holds.
    ring : Map
        The ring buffer map.
    cookie : int, optional
        What every record of this recording begins with. Without it (in `recover`) records are followed one by one.
    """

    def __init__(self, table: Table, ring: Map, cookie: int | None) -> None:
        self.table = table
        self.size = ring.max_entries
        control = mmap.mmap(ring.fd, PAGE)
        memory = mmap.mmap(ring.fd, PAGE + 2 * self.size, prot=mmap.PROT_READ, offset=PAGE)
        self._consumer = np.frombuffer(control, np.uint64, 1)
        self._producer = np.frombuffer(memory, np.uint64, 1)
        self._data = np.frombuffer(memory, np.uint8, 2 * self.size, PAGE)
        self._cookie = None if cookie is None else np.uint64(cookie)
        self.read_to = int(self._consumer[0])

    @property
    def pending(self) -> int:
        """Bytes that are not in a part."""
        return int(self._producer[0]) - self.read_to

    @property
    def fill(self) -> float:
        """Share of the ring that has not been given back to the kernel."""
        return (int(self._producer[0]) - int(self._consumer[0])) / self.size

    def release(self, position: int) -> None:
        """Give what lies before a position back to the kernel."""
        order_memory()
        self._consumer[0] = position

    def read(self) -> tuple[NDArray[np.void], NDArray[np.int64], NDArray[np.uint8]]:
        """Return the committed records, and move the reading position.

        Returns
        -------
        records : array of record_dtype(table)
            Copies of the fixed parts.
        tails : array of int64
            Where the tail of each record begins in ``memory``.
        memory : array of uint8
            View of the ring, valid until it is released.
        """
        dtype = record_dtype(self.table)
        produced = int(self._producer[0])
        order_memory()
        start = self.read_to & self.size - 1
        memory = self._data[start : start + produced - self.read_to]
        starts = self._starts(memory)
        records = np.empty(0, dtype)
        if len(starts):
            # One gather of rows of words: records are aligned to 8.
            index = (starts // 8 + 1)[:, None] + np.arange(dtype.itemsize // 8)
            records = memory.view(np.uint64)[index].view(dtype)[:, 0]
            last = int(starts[-1])
            self.read_to += last + _advance(int(memory[last : last + 4].view(np.uint32)[0]))
        return records, starts + _HEADER + dtype.itemsize, memory

    def _starts(self, memory: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return where the header of each committed record lies.

        Records are found by their cookie; that counts only if each follows the one before without a gap, so a string
        that happens to hold the cookie misleads no one.
        """
        if self._cookie is None:
            return self._walk(memory)
        found = np.flatnonzero(memory.view(np.uint64) == self._cookie) * 8 - _HEADER
        if not len(found):
            return self._walk(memory)
        lengths = memory.view(np.uint32)[found // 4].astype(np.int64)
        ends = found + _HEADER + (lengths + 7) // 8 * 8
        if found[0] == 0 and ends[-1] == len(memory) and bool(np.array_equal(found[1:], ends[:-1])):
            return found
        return self._walk(memory)

    @staticmethod
    def _walk(memory: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Follow the lengths one by one: for the rare run that ends in an unfinished record, or holds a discarded one or a false cookie."""
        lengths = memory.view(np.uint32)
        found: list[int] = []
        position = 0
        while position + _HEADER <= len(memory):
            length = int(lengths[position // 4])
            if length & int(BUSY) or length == 0:
                break
            if not length & int(DISCARDED):
                found.append(position)
            position += _advance(length & ~int(DISCARDED))
        return np.array(found, np.int64)


def _advance(length: int) -> int:
    return _HEADER + (length + 7) // 8 * 8


def open_rings(table: Table, maps: Sequence[Map], counters: NDArray[np.void], cookie: int | None) -> list[SlotRing | RecordRing]:
    """Return the rings of a table, of the kind that its records need."""
    if table.in_ring_buffer:
        return [RecordRing(table, one, cookie) for one in maps]
    return list(slot_rings(table, maps[0], counters))
