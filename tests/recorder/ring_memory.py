"""Ring memory laid out by hand as the kernel lays it out, and records with every column filled."""

import mmap
import os

import numpy as np

from ringtape.recorder.bpf import PAGE, Map, MapType
from ringtape.recorder.ring import COUNTERS, RecordRing, SlotRing
from ringtape.schemas.layout import record_dtype
from ringtape.schemas.table import table

BUSY, DISCARD = 1 << 31, 1 << 30
COOKIE = 0x1234_5678_9ABC_DEF1


class Slots:
    """What the probe and the drain share for a table of records of one size on one CPU."""

    def __init__(self, name, slots, start=0):
        self.dtype = record_dtype(table(name))
        self.records = np.zeros(slots, self.dtype)
        self.counters = np.zeros(1, COUNTERS)
        self.counters["head"] = self.counters["tail"] = start
        self.ring = SlotRing(self.records, self.counters)

    def put(self, **columns):
        """Do what the probe does: one record, or a loss where all slots are taken."""
        head, tail = int(self.counters["head"][0]), int(self.counters["tail"][0])
        columns.setdefault("seq", int(self.counters["attempted"][0]))
        self.counters["attempted"] += 1
        if head - tail >= len(self.records):
            self.counters["lost"] += 1
            return False
        slot = self.records[head % len(self.records) : head % len(self.records) + 1]
        slot[:] = np.zeros(1, self.dtype)
        for name, value in columns.items():
            slot[name] = value
        self.counters["head"] += 1
        return True


class RingBuffer:
    """A BPF ring buffer as kernel/bpf/ringbuf.c keeps it: header of 8 bytes (length with two flag bits, page offset) before
    each record, records at multiples of 8, the consumer's page, the producer's page, and the data seen twice in a row.
    """

    def __init__(self, name, size, start=0, cookie=COOKIE):
        self.dtype = record_dtype(table(name))
        self.tail = [column.name for column in table(name).tail]
        self.size = size
        self.file = os.memfd_create("ring")
        os.ftruncate(self.file, 2 * PAGE + 2 * size)
        self.memory = mmap.mmap(self.file, 0)
        self.produced = start
        self._word(0, start)
        self._word(PAGE, start)
        # A file holds the data once, and the kernel maps it twice: here both copies are written.
        self.ring = RecordRing(table(name), Map("ring", self.file, MapType.RINGBUF, 0, 0, size), cookie)

    def _word(self, at, value=None):
        if value is not None:
            self.memory[at : at + 8] = value.to_bytes(8, "little")
        return int.from_bytes(self.memory[at : at + 8], "little")

    @property
    def consumed(self):
        return self._word(0)

    def room(self):
        return self.size - (self.produced - self.consumed)

    def _write(self, at, data):
        for index, byte in enumerate(data):
            place = (at + index) % self.size
            self.memory[2 * PAGE + place] = self.memory[2 * PAGE + self.size + place] = byte

    def put(self, flags=0, cookie=COOKIE, length=None, tails=None, **columns):
        """Reserve and submit one record; return where its header lies."""
        record = np.zeros(1, self.dtype)
        record["cookie"] = cookie
        values = [(tails or {}).get(name, b"") for name in self.tail]
        for name, value in zip(self.tail, values, strict=True):
            record[f"{name}_len"] = len(value)
        for name, value in columns.items():
            record[name] = value
        payload = record.tobytes() + b"".join(values)
        payload = payload.ljust(length or 0, b"\xee")
        whole = (len(payload) | flags).to_bytes(4, "little") + bytes(4) + payload
        whole += bytes(-len(whole) % 8)
        at = self.produced
        assert len(whole) <= self.room(), "the kernel would have refused it"
        self._write(at, whole)
        self.produced += len(whole)
        self._word(PAGE, self.produced)
        return at

    def submit(self, at):
        """Clear the busy bit of the record whose header lies here."""
        place = 2 * PAGE + at % self.size
        length = int.from_bytes(self.memory[place : place + 4], "little") & ~BUSY
        self._write(at, length.to_bytes(4, "little"))

    def close(self):
        os.close(self.file)
