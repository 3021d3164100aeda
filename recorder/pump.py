"""Everything that moves while a recording goes on: drains, ledger, the recorder's own cost, upkeep."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringtape.recorder import merge
from ringtape.recorder.bpf import PAGE
from ringtape.recorder.drain import TableDrain, iterated_rows, still_open, written_rows
from ringtape.recorder.flight import Limits
from ringtape.recorder.kernel import Kernel
from ringtape.recorder.ledger import Counters, Ledger
from ringtape.recorder.program import loss_tables
from ringtape.recorder.retention import Retention
from ringtape.recorder.ring import open_rings
from ringtape.recorder.upkeep import Upkeep
from ringtape.recorder.writer import TraceWriter
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.layout import record_dtype
from ringtape.schemas.manifest import Clock, Footer, Header
from ringtape.schemas.retirement import NOTHING
from ringtape.schemas.table import Table, table

SEAL_INTERVAL = 1.0
SEAL_FILL = 0.25
QUIET_FILL, QUIET_SHARE = 0.1, 0.5
"""Merging waits while a ring is fuller, or the drain busier, than this."""


class Source(Protocol):
    """Something beside the rings that rows come from, such as the executable mappings that the kernel reports."""

    def rows(self, closing: bool) -> Iterable[tuple[Table, pa.Table]]:
        """Return what is new since the last call, as sorted rows by table; ``closing`` says that it is the last."""

    def close(self) -> None:
        """Give back what it holds."""


class Pump:
    """The moving parts of a recording.

    Attributes
    ----------
    writer : TraceWriter
        The trace folder.
    drains : list of TableDrain
        One per ring table.
    sources : list of Source
        What else rows come from; asked each second.
    """

    def __init__(
        self, writer: TraceWriter, drains: list[TableDrain], counters: dict[str, Counters], ledger: Ledger | None, tables: list[Table]
    ) -> None:
        self.writer = writer
        self.drains = drains
        self._counters = counters
        self._ledger = ledger
        self._tables = tables
        self._sealed_at = time.monotonic()
        self._quiet = True
        self._skipped: Mapping[tuple[str, int], int] = {}
        self.sources: list[Source] = []
        self._cost = _Cost(sum(ring.size for drain in drains for ring in drain.rings))
        self._upkeep = Upkeep(writer, tables, lambda: self._quiet)

    @classmethod
    def start(cls, path: Path, folder: int, kernel: Kernel, header: Header, existing: NDArray[np.void]) -> Pump:
        """Begin the trace and start the thread beside the drain."""
        header = replace(header, tools={**header.tools, "numpy": np.__version__, "pyarrow": pa.__version__})
        writer = TraceWriter.create(path, folder)
        writer.begin(header)
        counters = {name: Counters(kernel.maps[f"counters_{name}"]) for name in kernel.rings}
        drains = [
            TableDrain(table(name), open_rings(table(name), maps, counters[name].cells, kernel.cookie), writer) for name, maps in kernel.rings.items()
        ]
        ledger = Ledger(kernel.maps["losses"], counters, kernel.cpus, header.attached_at, loss_tables())
        pump = cls(writer, drains, counters, ledger, [table(name) for name in header.tables])
        if "processes" in kernel.rings:
            pump.add(table("processes"), iterated_rows(table("processes"), existing))
        pump._add_iterated(kernel.at_start, "attach")
        pump._upkeep.start()
        return pump

    def keep(self, limits: Limits) -> Retention:
        """Hold the trace folder within its limits from now on."""
        self._upkeep.retention = Retention(self.writer, limits)
        return self._upkeep.retention

    @property
    def total_rows(self) -> int:
        """Rows of ring tables sealed so far."""
        return sum(self.writer.rows.get(drain.table.name, 0) for drain in self.drains)

    @property
    def lost(self) -> int:
        """Records lost so far, all tables."""
        return sum(counters.lost for counters in self._counters.values())

    def add(self, to: Table, rows: pa.Table | None) -> None:
        """Seal rows that come from no ring."""
        if rows is not None:
            lost = self._counters[to.name].lost if to.name in self._counters else 0
            self.writer.seal(to, [rows], {}, lost)

    def _add_iterated(self, written: Mapping[str, bytes], when: str) -> None:
        """Seal what the tables' iterators ``<table>_attach`` or ``<table>_detach`` wrote."""
        for drain in self.drains:
            self.add(drain.table, written_rows(drain.table, written.get(f"{drain.table.name}_{when}", b"")))

    def step(self) -> None:
        """Seal what is due: every second, and a table whose ring is a quarter full."""
        now = time.monotonic()
        if now - self._sealed_at >= SEAL_INTERVAL:
            self._sealed_at = now
            self._seal_all()
            return
        for drain in self.drains:
            if drain.fullest() >= SEAL_FILL:
                self._seal(drain)

    def _seal(self, drain: TableDrain) -> None:
        drain.seal(time.clock_gettime_ns(time.CLOCK_MONOTONIC), self._counters[drain.table.name].lost)

    def drain_all(self, closing: bool = False) -> None:
        """Seal whatever rings and ledger hold; ``closing`` says that no probe is attached any more."""
        for drain in self.drains:
            drain.fullest()
            self._seal(drain)
        if self._ledger is not None:
            self.add(table("losses"), self._ledger.rows(time.clock_gettime_ns(time.CLOCK_MONOTONIC), closing, self._skipped))

    def _seal_all(self, closing: bool = False) -> None:
        self.drain_all(closing)
        for source in self.sources:
            for to, rows in source.rows(closing):
                self.add(to, rows)
        peak = max(drain.peak for drain in self.drains)
        share = self._cost.share()
        self.add(table("recorder"), self._cost.row(self.total_rows, self.lost, self.writer, peak))
        for drain in self.drains:
            drain.peak = 0.0
        self._quiet = peak < QUIET_FILL and share < QUIET_SHARE

    def finish(self, kernel: Kernel, end: str, reason: str, exit_status: int | None, detached_at: int, merged: bool) -> None:
        """Seal the rest, merge, and write the footer. The probes are detached before."""
        self._upkeep.stop()
        self._skipped = kernel.skipped()
        self._seal_all(closing=True)
        self._add_iterated(kernel.at_end, "detach")
        for one in (drain.table for drain in self.drains):
            opened = np.frombuffer(kernel.at_end.get(f"{one.name}_open", b""), record_dtype(one))
            self.add(one, iterated_rows(one, still_open(opened, detached_at)))
        self.close_trace(end, reason, exit_status, detached_at, merged)

    def close_trace(
        self, end: str, reason: str, exit_status: int | None, detached_at: int, merged: bool, lost: Mapping[str, int] | None = None
    ) -> None:
        """Merge and write the footer; ``lost`` is what is known of tables whose counters are gone."""
        if merged:
            for one in self._tables:
                merge.close_table(self.writer, one)
        names = [one.name for one in self._tables]
        retired = self.writer.retired or NOTHING
        footer = Footer(
            end=end,
            reason=reason,
            exit_status=exit_status,
            rows={name: sum(part.rows for part in self.writer.standing(name)) + retired.rows.get(name, 0) for name in names},
            lost={**(lost or {}), **{name: counters.lost for name, counters in self._counters.items()}},
            attempted={name: counters.attempted() for name, counters in self._counters.items()},
            filtered=sum(counters.filtered for counters in self._counters.values()),
            cost=self._cost.total(),
            clock=Clock.now(),
            detached_at=detached_at,
        )
        self.writer.finish(footer)

    def abandon(self) -> None:
        """Leave the trace unfinished, for `recover`."""
        self._upkeep.stop()

    def discard(self) -> None:
        """End a recording that did not begin."""
        self._upkeep.stop()
        self.close()

    def close(self) -> None:
        """Give up the trace folder, and what other rows came from."""
        for source in self.sources:
            source.close()
        self.writer.close()


class _Cost:
    """What the recorder process has used since the row before."""

    def __init__(self, ring_memory: int) -> None:
        self._rings = ring_memory
        self._at = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._cpu = self._usage()
        self._rows = self._lost = self._parts = self._written = 0
        self._peak_rss = 0

    @staticmethod
    def _usage() -> tuple[int, int]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return round(used.ru_utime * 1e9), round(used.ru_stime * 1e9)

    def share(self) -> float:
        """Return CPU time per elapsed time since the row before."""
        elapsed = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - self._at
        return (sum(self._usage()) - sum(self._cpu)) / max(elapsed, 1)

    def row(self, rows: int, lost: int, writer: TraceWriter, peak: float) -> pa.Table:
        """Return one row of the table ``recorder``."""
        now, cpu = time.clock_gettime_ns(time.CLOCK_MONOTONIC), self._usage()
        rss = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
        self._peak_rss = max(self._peak_rss, rss)
        values = {
            "ts": now,
            "interval": now - self._at,
            "utime": cpu[0] - self._cpu[0],
            "stime": cpu[1] - self._cpu[1],
            "rss": rss,
            "ring_resident": self._rings,
            "ring_peak": round(peak * 1000),
            "rows": rows - self._rows,
            "lost": lost - self._lost,
            "parts": writer.sealed - self._parts,
            "written": writer.written - self._written,
        }
        self._at, self._cpu, self._rows, self._lost = now, cpu, rows, lost
        self._parts, self._written = writer.sealed, writer.written
        return pa.table({name: [value] for name, value in values.items()}, schema=arrow_schema(table("recorder")))

    def total(self) -> dict[str, float]:
        """Return the cost of the whole recording so far, start-up included."""
        user, system = self._usage()
        # Start-up is in the CPU times, so it is in the elapsed time too: field 22 of /proc/self/stat, in ticks since boot.
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        elapsed = time.clock_gettime(time.CLOCK_BOOTTIME) - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "user_seconds": user / 1e9,
            "system_seconds": system / 1e9,
            "elapsed_seconds": elapsed,
            "max_rss": float(peak),
            "ring_memory": float(self._rings),
            "threads": float(len(list(Path("/proc/self/task").iterdir()))),
        }
