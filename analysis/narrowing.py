"""What part of a recording is asked about: a window of time, and processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
import polars as pl

from ringtape.analysis.in_force import CommandsInForce
from ringtape.schemas.errors import RingtapeError, UsageError
from ringtape.schemas.table import Table
from ringtape.schemas.units import parse_duration

Instant = str | int | None
"""A time since the recording began: text such as ``1.5s`` or ns; None leaves the end open."""


@dataclass(frozen=True)
class Processes:
    """Processes that are asked about.

    ``pids`` are all numbers that can belong to them. ``names``, if it is not None, are the command names one of which the
    process (its first thread) must bear at the time of a row, unless its number was asked for by itself (``whole``). ``within``
    are the processes among which these were chosen.
    """

    pids: frozenset[int]
    whole: frozenset[int]
    names: frozenset[str] | None
    commands: Callable[[], CommandsInForce]
    within: Processes | None = None

    def rows(self) -> pl.Expr:
        """Return the expression that is true for their rows."""
        return self._own() if self.within is None else self.within.rows() & self._own()

    def _own(self) -> pl.Expr:
        # Bounds and list alike are compared with the statistics of row groups; the names are looked up in what is left.
        few = pl.col("pid").is_in(sorted(self.pids)) & pl.col("pid").is_between(min(self.pids, default=0), max(self.pids, default=-1))
        if self.names is None or not self._renamed():
            return few
        return few & (pl.col("pid").is_in(sorted(self.whole)) | pl.struct("pid", "ts").map_batches(self._named, pl.Boolean, is_elementwise=True))

    def _renamed(self) -> bool:
        known = self.commands().events
        return bool(known.several[np.isin(known.numbers, list(self.pids - self.whole))].any())

    def _named(self, pairs: pl.Series) -> pl.Series:
        known, names = self.commands(), self.names or frozenset()
        wanted = [code for code, name in enumerate(known.names) if name in names]
        codes = known.codes(pairs.struct.field("pid").to_numpy(), pairs.struct.field("ts").to_numpy())
        return pl.Series(np.isin(codes, wanted))


@dataclass(frozen=True)
class Narrowing:
    """A window (ns of CLOCK_MONOTONIC, half open, None where open) and processes (None: all)."""

    since: int | None = None
    until: int | None = None
    processes: Processes | None = None

    @property
    def in_time(self) -> bool:
        """Whether a window was asked for."""
        return self.since is not None or self.until is not None

    def between(self, begin: int, start: Instant, end: Instant) -> Narrowing:
        """Return the part of this window that lies between two times after ``begin``.

        Raises
        ------
        UsageError
            If a time cannot be read, or the window ends before it begins.
        """
        since, until = (None if text is None else begin + _ns(text) for text in (start, end))
        if since is not None and until is not None and until <= since:
            raise UsageError(f"the window from {start} to {end} ends before it begins", "give the earlier time first")
        lows = [value for value in (self.since, since) if value is not None]
        highs = [value for value in (self.until, until) if value is not None]
        return replace(self, since=max(lows, default=None), until=min(highs, default=None))

    def span(self, begin: int, end: int | None) -> tuple[int, int | None]:
        """Return what is left of a recording from ``begin`` to ``end``."""
        since = begin if self.since is None else max(begin, self.since)
        if self.until is not None:
            end = self.until if end is None else min(end, self.until)
        return since, None if end is None else max(since, end)

    def holds(self, instant: pl.Expr) -> pl.Expr:
        """Return the expression that is true for instants in the window."""
        edges = [instant >= self.since] if self.since is not None else []
        edges += [instant < self.until] if self.until is not None else []
        return pl.all_horizontal(edges) if edges else pl.lit(True)

    def touches(self, start: pl.Expr, stop: pl.Expr) -> pl.Expr:
        """Return the expression that is true for intervals of which a part lies in the window."""
        edges = [stop > self.since] if self.since is not None else []
        edges += [start < self.until] if self.until is not None else []
        return pl.all_horizontal(edges) if edges else pl.lit(True)

    def within(self, start: pl.Expr, stop: pl.Expr) -> pl.Expr:
        """Return how much of an interval lies in the window, in ns."""
        low = start if self.since is None else pl.max_horizontal(start, pl.lit(self.since))
        high = stop if self.until is None else pl.min_horizontal(stop, pl.lit(self.until))
        return (high - low).clip(0)

    def clip(self, frame: pl.DataFrame, start: str, stop: str) -> pl.DataFrame:
        """Cut intervals at the edges of the window; those outside of it are left out."""
        low = pl.col(start) if self.since is None else pl.max_horizontal(start, pl.lit(self.since)).alias(start)
        high = pl.col(stop) if self.until is None else pl.min_horizontal(stop, pl.lit(self.until)).alias(stop)
        return frame.filter(self.touches(pl.col(start), pl.col(stop))).with_columns(low, high)

    def certain(self) -> pl.Expr:
        """Return the expression that is true for rows of the loss ledger all of whose losses belong to it."""
        if self.processes is not None:
            return pl.lit(False)
        return self.holds(pl.col("ts")) & self.holds(pl.col("until"))

    def rows(self, table: Table) -> list[pl.Expr]:
        """Return what is true for the rows of a table that belong to it."""
        names = {column.name for column in table.columns}
        found: list[pl.Expr] = []
        if table.name == "losses":
            # A row of the ledger stands for all that was lost from ts until.
            found += [pl.col("until") >= self.since] if self.since is not None else []
        elif self.since is not None and not table.lasting:
            found.append(pl.col("ts") >= self.since)
        if self.until is not None:
            found.append(pl.col("ts") < self.until)
        # What lies in memory is looked up by process anyway, and the kernel's belongs to all.
        if self.processes is not None and "pid" in names and table.name not in ("mappings", "symbols"):
            found.append(self.processes.rows())
        return found


def _ns(time: str | int) -> int:
    return parse_duration(time) if isinstance(time, str) else int(time)


def processes(which: tuple[str | int, ...], commands: Callable[[], CommandsInForce], named: bool, place: str) -> Processes:
    """Find processes by number or command name; a text of digits is a number.

    Raises
    ------
    UsageError
        If nothing was asked for.
    RingtapeError
        If no process had such a name.
    """
    if not which:
        raise UsageError("no process was named", "give a number or a command name")
    numbers = frozenset(int(word) for word in which if isinstance(word, int) or word.isdigit())
    names = frozenset(word for word in which if isinstance(word, str) and not word.isdigit())
    if not names:
        return Processes(numbers, numbers, None, commands)
    if not named:
        raise RingtapeError(f"{place}: table 'processes' was not recorded, so no name is known", "give the number of the process")
    known = commands()
    for name in sorted(names - set(known.names)):
        close = get_close_matches(name, known.names, 3, 0.5) or list(known.names[:8])
        raise RingtapeError(f"{place}: no process was named {name!r}", f"there are {', '.join(close)}" if close else None)
    codes = [code for code, name in enumerate(known.names) if name in names]
    places = known.events.keys // (len(known.events.times) + 1)
    found = known.events.numbers[np.unique(places[np.isin(known.events.key_codes, codes)])]
    return Processes(numbers | frozenset(map(int, found)), numbers, names, commands)
