"""The loss ledger: what the kernel could not record, counted exactly and written as rows of ``losses``."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from ringtape.recorder.bpf import Map
from ringtape.recorder.ring import map_counters
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.errors import RecordingError
from ringtape.schemas.table import table

LOSS = np.dtype([("count", "<u8"), ("sum", "<u8"), ("first", "<u8"), ("last", "<u8")])
"""struct loss (probes/common.bpf.h)."""
_KEY = struct.Struct("=iBBBB")
RING_FULL, NO_STORAGE, SKIPPED = 0, 1, 3


class Counters:
    """The counters of one table, mapped: reading them is no call.

    Attributes
    ----------
    cells : array of COUNTERS
        One element per CPU, over the kernel's memory.
    """

    def __init__(self, counters: Map) -> None:
        self.cells = map_counters(counters)

    @property
    def lost(self) -> int:
        """Records lost on all CPUs."""
        return int(self.cells["lost"].sum())

    @property
    def filtered(self) -> int:
        """Calls that the filters left out."""
        return int(self.cells["filtered"].sum())

    @property
    def trouble(self) -> int:
        """A number that grows whenever the ledger has something new."""
        return int(self.cells["lost"].sum() + self.cells["noted"].sum())

    def attempted(self) -> dict[str, int]:
        """Return the records attempted on each CPU that attempted any."""
        return {str(cpu): int(value) for cpu, value in enumerate(self.cells["attempted"]) if value}

    def lost_by_cpu(self) -> dict[int, int]:
        """Return the records lost on each CPU that lost any."""
        return {cpu: int(value) for cpu, value in enumerate(self.cells["lost"]) if value}


@dataclass(frozen=True, order=True)
class LossKey:
    """Where a loss belongs."""

    table: str
    cpu: int
    cause: int
    abi: int
    nr: int
    bucket: int


class Ledger:
    """Turns the growing totals of the kernel into rows, each loss in exactly one.

    ``numbers`` says which table each number in a key means: that of the version whose probes count.
    """

    def __init__(self, losses: Map, counters: dict[str, Counters], cpus: int, began: int, numbers: Sequence[str]) -> None:
        self._losses = losses
        self._counters = counters
        self._cpus = cpus
        self._numbers = numbers
        self._written: dict[LossKey, tuple[int, int]] = {}
        self._looked = began
        self._trouble = -1

    def already_written(self, rows: pa.Table) -> None:
        """Take account of rows that an earlier recorder of this trace wrote."""
        for row in rows.to_pylist():
            key = LossKey(row["table"], row["cpu"], row["cause"], row["abi"], row["nr"], row["bucket"])
            count, total = self._written.get(key, (0, 0))
            self._written[key] = (count + row["count"], total + row["sum"])
            self._looked = max(self._looked, row["until"])

    def rows(self, now: int, closing: bool = False, skipped: Mapping[tuple[str, int], int] = MappingProxyType({})) -> pa.Table | None:
        """Return what was lost since the last look, or None; the ledger is read only if a counter has moved.

        Parameters
        ----------
        now : int
            CLOCK_MONOTONIC in ns.
        closing : bool
            Whether the probes are detached. Then losses that the ledger had no room for appear as well, with number -1 and
            bucket 0, so that counts are exact. Before, a loss that is counted may be on its way into the ledger: an
            interrupt, or a hypervisor, can stop a probe between the two for any time.
        skipped : mapping
            By table and event (-1 where there are none), how often the kernel has skipped a probe.
        """
        trouble = sum(counters.trouble for counters in self._counters.values())
        if trouble == self._trouble and not closing:
            return None
        self._trouble = trouble
        lost_by_cpu = {name: counters.lost_by_cpu() for name, counters in self._counters.items()} if closing else {}
        totals = self._read()
        by_cpu: dict[tuple[str, int], int] = {}
        for key, (count, *_) in totals.items():
            if key.cause == RING_FULL:
                by_cpu[key.table, key.cpu] = by_cpu.get((key.table, key.cpu), 0) + count
        for name, by_cpu_of_table in lost_by_cpu.items():
            for cpu, lost in by_cpu_of_table.items():
                rest = lost - by_cpu.get((name, cpu), 0)
                if rest > 0:
                    totals[LossKey(name, cpu, RING_FULL, 0, -1, 0)] = (rest, 0, self._looked, now)
        for (name, event), count in skipped.items():
            totals[LossKey(name, -1, SKIPPED, 0, event, 0)] = (count, 0, self._looked, now)
        columns: dict[str, list[object]] = {column.name: [] for column in table("losses").columns}
        for key, (count, total, first, last) in sorted(totals.items()):
            old_count, old_total = self._written.get(key, (0, 0))
            if count <= old_count:
                continue
            self._written[key] = (count, total)
            values = {
                "ts": max(first, self._looked) if old_count else first,
                "until": last,
                "count": count - old_count,
                "sum": total - old_total,
                "nr": key.nr,
                "cpu": key.cpu,
                "abi": key.abi,
                "bucket": key.bucket,
                "cause": key.cause,
                "table": key.table,
            }
            for name, value in values.items():
                columns[name].append(value)
        self._looked = now
        made = pa.table(columns, schema=arrow_schema(table("losses")))
        return made.sort_by("ts") if made.num_rows else None

    def _read(self) -> dict[LossKey, tuple[int, int, int, int]]:
        totals: dict[LossKey, tuple[int, int, int, int]] = {}
        for raw in self._losses.keys():  # noqa: SIM118 - a method of ours, of a map of the kernel
            value = self._losses.lookup(raw, LOSS.itemsize * self._cpus)
            if value is None:
                continue
            nr, number, cause, abi, bucket = _KEY.unpack(raw)
            if number >= len(self._numbers):
                raise RecordingError(f"the loss ledger names table {number} of {len(self._numbers)}")
            name = self._numbers[number]
            for cpu, cell in enumerate(np.frombuffer(value, LOSS)):
                if cell["count"]:
                    key = LossKey(name, cpu, cause, abi, nr, bucket)
                    totals[key] = (int(cell["count"]), int(cell["sum"]), int(cell["first"]), int(cell["last"]))
        return totals
