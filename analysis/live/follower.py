"""Follows a trace that is being written: yields the rows of its parts as they are sealed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from ringtape.schemas.errors import TraceError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import FILE, Part
from ringtape.schemas.table import table as declared

_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class Batch:
    """Rows of one table: the stored columns, in no particular order."""

    table: str
    rows: pl.DataFrame


class Follower:
    """A trace, followed on the clock on the wall.

    Parameters
    ----------
    path : path
        The trace folder.
    tables : sequence of str
        Tables to read; those that were not recorded have no rows.
    start : int, optional
        Rows before this time (ns of CLOCK_MONOTONIC) are left out, except those of tables that last; None for all.

    columns : mapping, optional
        Of each table the columns to read, ``ts`` among them; all without it.

    Raises
    ------
    TraceError
        If the folder is no trace; from `poll`, if a part is damaged.
    """

    def __init__(
        self, path: str | os.PathLike[str], tables: Sequence[str], start: int | None = None, columns: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.path = Path(path)
        self.folder = TraceFolder.open(self.path)
        self._wanted = [name for name in tables if name in self.folder.tables]
        self._start = start
        self._columns = dict(columns or {})
        self._seen: set[str] = set()
        self._read_to: dict[str, int] = {}
        self._first = True
        self._stamp: tuple[int, int] | None = None
        self.deleted = False
        """Whether the folder is gone."""

    @property
    def now(self) -> int:
        """The time of the last seal, in ns of CLOCK_MONOTONIC: up to it, calls that have ended are known."""
        if self.folder.footer is not None:
            return self.folder.footer.detached_at
        return max((part.clock.mono or part.max_ts for part in self.folder.manifest.parts), default=self.folder.header.attached_at)

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        return self.deleted or self.folder.state != "recording"

    @property
    def gone(self) -> bool:
        """Whether the recorder is: killed, or its trace deleted."""
        return self.deleted or self.folder.state == "unfinished"

    def poll(self) -> list[Batch]:
        """Return what was sealed since the call before."""
        for attempt in range(_ATTEMPTS):
            if not self._changed(attempt > 0):
                return []
            try:
                return self._new()
            except TraceError:
                # Merged away, or the whole folder deleted, since the manifest was read.
                if not self.path.exists():
                    self.deleted = True
                    return []
                if self.folder.state != "recording" or attempt == _ATTEMPTS - 1:
                    raise
        return []

    def _changed(self, again: bool) -> bool:
        if self.deleted or (self.ended and not self._first):
            return False
        try:
            status = (self.path / FILE).stat()
            stamp = (status.st_size, status.st_mtime_ns)
            if stamp == self._stamp and not again and not self._held_no_more():
                return False
            self.folder = TraceFolder.open(self.path)
        except (OSError, TraceError):
            if (self.path / FILE).exists():
                raise
            self.deleted = True
            return False
        self._stamp = stamp
        return True

    def _held_no_more(self) -> bool:
        """Whether the recorder that held the manifest has gone: it then does not change any more."""
        import fcntl

        with open(self.path / FILE, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return False
            return True

    def _new(self) -> list[Batch]:
        found = []
        for name in self._wanted:
            frames = [
                frame for part in self.folder.parts(name) if part.file not in self._seen and part.rows and (frame := self._rows(part)) is not None
            ]
            if frames:
                found.append(Batch(name, pl.concat(frames)))
        standing: set[str] = set()
        for name in self._wanted:
            parts = self.folder.parts(name)
            standing.update(part.file for part in parts)
            self._read_to[name] = max((part.max_ts for part in parts), default=self._read_to.get(name, 0))
        self._seen = standing  # what does not stand any more is never named again
        self._first = False
        return found

    def _names(self, table: str) -> list[str] | None:
        return list(self._columns[table]) if table in self._columns else None

    def _rows(self, part: Part) -> pl.DataFrame | None:
        lasting = declared(part.table).lasting
        since = None if lasting else self._start
        # A manifest that was written anew tells of no part what it replaced.
        anew = bool(self.folder.manifest.numbers) and not part.rings and part.clock.mono <= self.folder.retired.at
        if (part.replaces or anew) and not self._first:
            if part.replaces and self._seen.issuperset(part.replaces):
                return None
            since = self._read_to.get(part.table, 0) + 1  # sealed and merged between two looks
        if since is not None and part.max_ts < since:
            return None
        frame = pl.from_arrow(self.folder.read(part, self._names(part.table)))
        assert isinstance(frame, pl.DataFrame)
        return frame if since is None else frame.filter(pl.col("ts") >= since)
