"""Yields a trace's rows as they came about, on a clock of one's own: what `Follower` does for the clock on the wall."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import polars as pl

from ringtape.analysis.live.follower import Batch
from ringtape.analysis.live.play_clock import PlayClock
from ringtape.analysis.live.row_groups import RowGroups
from ringtape.schemas.errors import TraceError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.table import table as declared
from ringtape.schemas.table import tables

_ATTEMPTS: Final = 5
_LOOK: Final = 0.5
"""Seconds between two looks at the manifest of a trace that grows."""
_NEVER: Final = (1 << 63) - 1
_RINGS: Final = tuple(one.name for one in tables().values() if one.origin == "ring")


class Replayed:
    """A trace on a clock.

    A row comes when the clock passes its end (``ts`` and ``dur``), as a recorder writes it then; of tables without ``dur``, when it
    passes ``ts``. Read are the parts, and of these the row groups, that the clock passes. What lasts (``processes``) is read from the
    beginning whenever the clock is set.

    Parameters
    ----------
    path : path
        The trace folder, finished or growing.
    tables : sequence of str
        Tables to read; those that were not recorded have no rows.
    start : int, optional
        Where the clock begins, in ns of CLOCK_MONOTONIC; without it, the beginning of the recording.
    speed : float
        Seconds of the trace per second.
    history : int
        How many ns before the clock's time are read as well whenever it is set.
    now : callable
        The clock behind it, in seconds.
    columns : mapping, optional
        Of each table the columns to read, ``ts`` and ``dur`` among them; all without it.

    Raises
    ------
    TraceError
        If the folder is no trace; from `poll`, if a part is missing or damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tables: Sequence[str],
        start: int | None = None,
        *,
        speed: float = 1.0,
        history: int = 10 * 10**9,
        now: Callable[[], float] = time.monotonic,
        columns: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.path = Path(path)
        self.folder = TraceFolder.open(self.path)
        self._now = now
        self._looked = now()
        self._history = history
        self._sources = {name: RowGroups(self.folder, name, (columns or {}).get(name)) for name in tables if name in self.folder.tables}
        self._pending: dict[str, pl.DataFrame] = {}
        begin = self.begin if start is None else min(max(start, self.begin), self.end)
        self.clock = PlayClock(begin, speed, now)
        self.now = begin
        """The time up to which rows were yielded, in ns of CLOCK_MONOTONIC."""
        self.since = begin
        """The time from which they were."""
        self._read = 0
        self._flushed = False
        self._set(begin)

    @property
    def begin(self) -> int:
        """When the recording began."""
        return self.folder.header.attached_at

    @property
    def end(self) -> int:
        """When it ended; of one that goes on, what is sealed so far."""
        if self.folder.footer is not None:
            # Written by hand or imported, a trace may go on behind what its footer says.
            return max(self.folder.footer.detached_at, self.begin, *(part.max_ts for part in self.folder.manifest.parts if part.table in _RINGS))
        return max((part.clock.mono or part.max_ts for part in self.folder.manifest.parts), default=self.begin)

    @property
    def ended(self) -> bool:
        """Whether the clock has reached the end of a recording that does not go on."""
        return self._flushed

    @property
    def gone(self) -> bool:
        """Whether the recording is unfinished: its recorder was killed."""
        return self.folder.state == "unfinished"

    def poll(self) -> list[Batch]:
        """Return the rows that the clock has passed since the call before, in one batch per table.

        A recording that goes on is followed up to what is sealed, where the clock waits.
        """
        if self.folder.state == "recording" and self._now() - self._looked >= _LOOK:
            self._renew()
        until = min(self.clock.read(), self.end)
        if until >= self.end:
            self.clock.set(self.end)
        finished = until >= self.end and self.folder.state != "recording"
        if until <= self.now and not self._begun() and (self._flushed or not finished):
            return []
        found = self._advance(until, finished)
        self.now, self._flushed = max(until, self.now), finished
        return found

    def _begun(self) -> bool:
        return self._read == 0

    def _advance(self, until: int, finished: bool) -> list[Batch]:
        for attempt in range(_ATTEMPTS):
            try:
                rows = {name: self._rows(name, source, until, finished) for name, source in self._sources.items()}
                break
            except TraceError:
                # Merged away since the manifest was read.
                if self.folder.state != "recording" or attempt == _ATTEMPTS - 1:
                    raise
                self._renew()
                for source in self._sources.values():
                    source.forget()
        else:
            raise AssertionError("unreachable")
        self._read = until
        batches = []
        for name, (due, rest) in rows.items():
            self._pending[name] = rest
            if due.height:
                batches.append(Batch(name, due))
        return batches

    def _rows(self, name: str, source: RowGroups, until: int, finished: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows of a table that are due, and those that have begun and have not ended."""
        table = declared(name)
        first = self._read or (-_NEVER if table.lasting else self.since)
        last = _NEVER if finished else until
        found = pl.concat([self._pending.get(name, source.empty()), source.between(first, last)])
        if finished or "dur" not in found.columns:
            return found, source.empty()
        ended = pl.col("ts") + pl.col("dur").clip(0) < until
        return found.filter(ended), found.filter(~ended)

    def _renew(self) -> None:
        """Read the manifest again. Rows that come late, of calls that began before the clock's time, wait with those that go on."""
        self._looked = self._now()
        self.folder = TraceFolder.open(self.path)
        for name, source in self._sources.items():
            for part in source.renew(self.folder):
                if self._read and part.min_ts < self._read:
                    self._pending[name] = pl.concat([self._pending.get(name, source.empty()), source.of(part, self._read)])

    def _set(self, position: int) -> None:
        self.now = position
        self.since = max(self.begin, position - self._history) if position > self.begin else -_NEVER
        self._read, self._flushed, self._pending = 0, False, {}
        for source in self._sources.values():
            source.forget()

    def seek(self, position: int) -> None:
        """Set the clock. What comes next covers the window before the new time, and nothing before that: a state must begin anew."""
        position = min(max(position, self.begin), self.end)
        self.clock.set(position)
        self._set(position)

    def next_slow(self, threshold: int, wanted: pl.Expr | None = None) -> int | None:
        """Return when the next call ends that takes at least so long, None if none does.

        Parameters
        ----------
        threshold : int
            Duration in ns.
        wanted : Expr, optional
            Which rows of ``syscalls`` count.
        """
        if "syscalls" not in self._sources:
            return None
        best = _NEVER
        kinds = pl.col("kind") == 0  # what did not return has no duration that would mean anything
        pending = self._pending.get("syscalls", self._sources["syscalls"].empty())
        columns = ["dur", "kind", "pid", "tid", "nr", "abi", "ret"]
        onward = self._sources["syscalls"].onward(self.now, columns, lambda: best)
        for rows in chain([pending.select("ts", *columns)], onward):
            slow = rows.filter(kinds & (pl.col("dur") >= threshold) & (pl.lit(True) if wanted is None else wanted))
            ends = slow.select((pl.col("ts") + pl.col("dur")).alias("end")).filter(pl.col("end") >= self.now)["end"]
            if ends.len():
                best = min(best, int(ends.min()))  # type: ignore[arg-type]
        return None if best == _NEVER else best
