"""What happens beside the drain, in a thread of low priority: parts are made durable, and small ones are merged."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence

from ringtape.recorder.merge import due, merge_parts
from ringtape.recorder.retention import Retention
from ringtape.recorder.writer import TraceWriter
from ringtape.schemas.table import Table

NICE = 10
"""Behind the drain, yet not so far that a killed process lingers until its last thread is let run."""


class Upkeep:
    """Once a second: bring parts to the disk, then merge where enough small parts have come together.

    Parameters
    ----------
    writer : TraceWriter
        Whose parts.
    tables : sequence of Table
        Tables of the trace.
    quiet : callable
        Whether the drain has time to spare; merging waits while it has not.
    """

    def __init__(self, writer: TraceWriter, tables: Sequence[Table], quiet: Callable[[], bool]) -> None:
        self._writer = writer
        self._tables = tables
        self._quiet = quiet
        self.retention: Retention | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ringtape-upkeep", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after what it is at."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._stop.wait(1.0):
            try:
                self._writer.make_durable()
                if self.retention:
                    self.retention.keep_house()
                for table in self._tables:
                    if self._quiet():
                        self._merge(table)
            except OSError:
                # A full disk: the drain meets it as well and says so, and the end of the recording makes everything durable
                # or fails. Until then this second's work is put off to the next.
                continue

    def _merge(self, table: Table) -> None:
        standing = self._writer.standing(table.name)
        if self.retention is None:
            if parts := due(standing):
                merge_parts(self._writer, table, parts)
        elif parts := self.retention.due(standing):
            with self.retention.holding(parts):
                merge_parts(self._writer, table, parts)
