"""A recording, opened for study: lazy frames over parts that were checked before any reader touched them."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from ringtape.analysis.events import event_frame
from ringtape.analysis.in_force import CommandsInForce
from ringtape.analysis.naming import decoded
from ringtape.analysis.narrowing import Instant, Narrowing, processes
from ringtape.analysis.summary import lost_records, span
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.errors import RingtapeError, TraceError, UsageError
from ringtape.schemas.events import Event, parse_events
from ringtape.schemas.folder import State, TraceFolder
from ringtape.schemas.manifest import Footer, Header, Part
from ringtape.schemas.part_file import open_part
from ringtape.schemas.table import Table, tables
from ringtape.schemas.table import table as declared

_ATTEMPTS = 5
"""How often a manifest is read again when a part has been merged away since."""
_CHECKED: set[tuple[Any, ...]] = set()
"""Parts that this process has checked: path, size, times, inode and the hash that the manifest states."""


class Trace:
    """A recording: what its manifest says, and one polars LazyFrame per table.

    ``syscalls``, ``paths``, ``processes``, ``losses`` and ``recorder`` hold the stored columns, times and durations in
    ns, and beside them what the codes mean: ``syscall`` (name), ``errno`` (name, null where the call did not fail),
    ``<column>_name`` for every other coded column (``kind_name``, ``abi_name``, ``cause_name``), and ``comm`` (text: the
    command name in force when the call was entered, escaped where it is not printable). A decoded column that a query
    does not use costs nothing. `scan` returns the stored columns alone.
    """

    def __init__(self, folder: TraceFolder, narrowing: Narrowing | None = None) -> None:
        self.folder = folder
        self.narrowing = narrowing or Narrowing()
        self._live: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"Trace({str(self.path)!r}, {self.state})"

    def between(self, start: Instant = None, end: Instant = None) -> Trace:
        """Return the trace narrowed to a window of time.

        Parameters
        ----------
        start, end : str or int, optional
            Times since the recording began: text such as ``"10s"`` or ``"1.5ms"``, or ns. The window holds its start and not its
            end; None leaves it open.

        Returns
        -------
        Trace
            The same recording, of which every table and analysis sees the rows whose ``ts`` lies in the window: calls that were
            entered in it. What lasts - processes, mappings, open files - is known from before. Time on and off the CPU is cut
            at its edges.

        Raises
        ------
        UsageError
            If a time cannot be read, or the window ends before it begins.

        Examples
        --------
        >>> import ringtape
        >>> trace = ringtape.open("datasets/demo.trace")
        >>> trace.between("100ms", "200ms").syscalls.select("syscall").collect().height < trace.rows("syscalls")
        True
        """
        return self._narrowed(self.narrowing.between(self.header.attached_at, start, end))

    def process(self, *which: str | int) -> Trace:
        """Return the trace narrowed to processes.

        Parameters
        ----------
        *which : str or int
            Command names or process numbers. A process is named as its first thread is at the time: all its threads belong to
            it, and what it did under another name does not.

        Returns
        -------
        Trace
            The same recording, of which every table and analysis sees the rows of these processes; where processes were chosen
            before, of those only that were chosen both times. Which process made a lost call is not known: `lost` still counts all.

        Raises
        ------
        RingtapeError
            If no process had such a name.

        Examples
        --------
        >>> import ringtape
        >>> trace = ringtape.open("datasets/demo.trace").process("tar")
        >>> trace.syscalls.select(pl.col("comm").unique().sort()).collect().to_series().to_list()
        ['tar']
        """
        chosen = processes(which, self.commands, "processes" in self.tables, str(self.path))
        return self._narrowed(replace(self.narrowing, processes=replace(chosen, within=self.narrowing.processes)))

    @property
    def whole(self) -> Trace:
        """The trace without its window of time: what came before explains what is in it."""
        return self._narrowed(Narrowing(processes=self.narrowing.processes)) if self.narrowing.in_time else self

    def _narrowed(self, narrowing: Narrowing) -> Trace:
        other = Trace(self.folder, narrowing)
        other.__dict__["commands"] = self.commands
        return other

    @property
    def span(self) -> tuple[int, int | None]:
        """Begin and end of the recording, or of the window, in ns of CLOCK_MONOTONIC; the end is None where nothing tells it."""
        return self.narrowing.span(*span(self.folder))

    @property
    def path(self) -> Path:
        """The trace folder."""
        return self.folder.path

    @property
    def header(self) -> Header:
        """What was recorded, where and how."""
        return self.folder.header

    @property
    def footer(self) -> Footer | None:
        """How the recording ended; None while it goes on, and after it was cut off."""
        return self.folder.footer

    @property
    def state(self) -> State:
        """How the recording ended: as its footer says; without one ``recording``, or ``unfinished`` after a crash."""
        return self.folder.state

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the recorded tables that this version knows."""
        return self.folder.tables

    def parts(self, table: str) -> tuple[Part, ...]:
        """Return the parts of a table as the manifest names them."""
        self.require(table)
        return self.folder.parts(table)

    def rows(self, table: str) -> int:
        """Return how many rows of a table are stored, from the manifest alone."""
        return sum(part.rows for part in self.parts(table))

    def require(self, *names: str) -> None:
        """Refuse with a reason if a table was not recorded.

        Raises
        ------
        UsageError
            If no table has that name.
        RingtapeError
            If the trace does not hold the table.
        """
        for name in names:
            declared(name)
            if name not in self.tables:
                raise RingtapeError(
                    f"{self.path}: table {name!r} was not recorded", f"record again with `--tables {name}` among the others; it holds {self._held()}"
                )

    def _held(self) -> str:
        return ", ".join(self.tables) or "no table that this version knows"

    def scan(self, table: str, since: int | None = None, until: int | None = None) -> pl.LazyFrame:
        """Return the stored columns of a table.

        Parameters
        ----------
        table : str
            Name of the table.
        since, until : int, optional
            Bounds of ``ts`` in ns of CLOCK_MONOTONIC, half open; parts that lie outside are neither checked nor read.

        Raises
        ------
        RingtapeError
            If the table was not recorded.
        TraceError
            If a part is missing or damaged: size, SHA-256, schema or number of rows. Each part is checked once per process.
        """
        kind = declared(table)
        parts = self._sound(table, *self._bounds(kind, since, until))
        if not parts:
            return pl.LazyFrame(schema=pl.Schema(arrow_schema(kind)))
        return self.selected(kind, self.stored(parts), since, until)

    def stored(self, parts: Sequence[Part]) -> pl.LazyFrame:
        """Return the columns of parts of one table that `sound` returned: all rows, whatever was asked about."""
        columns = [column.name for column in declared(parts[0].table).columns]
        return pl.scan_parquet([self._file(part) for part in parts], glob=False, extra_columns="ignore", cache=False).select(columns)

    def selected(self, kind: Table, frame: pl.LazyFrame, since: int | None, until: int | None) -> pl.LazyFrame:
        """Return the rows of a table that lie between two times and belong to what was asked about."""
        bounds = [pl.col("ts") >= since] if since is not None else []
        bounds += [pl.col("ts") < until] if until is not None else []
        bounds += self.narrowing.rows(kind)
        return frame.filter(*bounds) if bounds else frame

    def _bounds(self, table: Table, since: int | None, until: int | None) -> tuple[int | None, int | None]:
        """Return the bounds of ``ts`` in which rows can lie that are wanted and belong to the window."""
        own = None if table.lasting or table.name == "losses" else self.narrowing.since
        lows = [value for value in (since, own) if value is not None]
        highs = [value for value in (until, self.narrowing.until) if value is not None]
        return max(lows, default=None), min(highs, default=None)

    def _file(self, part: Part) -> Path:
        return Path(f"/proc/self/fd/{self._live[part.file]}") if part.file in self._live else self.folder.path_of(part)

    def sound(self, table: str) -> list[Part]:
        """Return the checked parts of a table in which there are rows that were asked about; errors as those of `scan`."""
        return self._sound(table, *self._bounds(declared(table), None, None))

    def _sound(self, table: str, since: int | None, until: int | None) -> list[Part]:
        """Return the checked parts of a window; those of a recording that goes on are held open, as its merges delete what they replace."""
        for attempt in range(_ATTEMPTS):
            parts = [
                part
                for part in self.parts(table)
                if part.rows and (since is None or part.max_ts >= since) and (until is None or part.min_ts < until)
            ]  # fmt: skip
            try:
                for part in parts if self.state == "recording" else ():
                    if part.file not in self._live:
                        descriptor = self.folder.open_part(part)
                        weakref.finalize(self, os.close, descriptor)
                        self._check(part)
                        self._live[part.file] = descriptor
                with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashing releases the interpreter lock
                    list(pool.map(self._check, [part for part in parts if part.file not in self._live]))
            except TraceError:
                if self.state != "recording" or attempt == _ATTEMPTS - 1:
                    raise
                self.folder = TraceFolder.open(self.path)
            else:
                return parts
        raise AssertionError("unreachable")

    def _check(self, part: Part) -> None:
        path = self.folder.path_of(part)
        try:
            status = path.lstat()
        except OSError:
            status = None  # the check below says what is wrong
        key = (path, part.sha256, part.rows, status and (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        if key in _CHECKED:
            return
        self.folder.check(part)
        with open_part(self.folder, part):
            pass  # its claims are compared; polars reads it
        _CHECKED.add(key)

    def frame(self, table: str, since: int | None = None, until: int | None = None) -> pl.LazyFrame:
        """Return a table's stored columns with the decoded ones beside them; parameters and errors as those of `scan`."""
        return decoded(self.scan(table, since, until), declared(table), self.header.abi, self.commands)

    @cached_property
    def events(self) -> Mapping[str, Event]:
        """The recorded tracepoints by name, with their fields."""
        return parse_events(self.header.events)

    def event(self, name: str, since: int | None = None, until: int | None = None) -> pl.LazyFrame:
        """Return the occurrences of one tracepoint, a typed column per field.

        Parameters
        ----------
        name : str
            Such as ``sched:sched_process_exit``; the part before the colon may be left out where only one event fits.
        since, until : int, optional
            Bounds of the time in ns of CLOCK_MONOTONIC, half open.

        Returns
        -------
        LazyFrame
            ``event_ts``, ``event_pid``, ``event_tid``, ``event_cpu``, ``event_context``, ``event_seq``,
            ``event_context_name``, ``event_comm``; then the fields under their own names, and behind them ``<field>_name``
            for those whose values have names. Integers have a type that holds all values (UInt64 for unsigned ones of 8
            bytes), characters are text, escaped where they are not printable, other bytes are binary, other arrays lists.
            Outside of a task's own context (``event_context_name`` is not ``task``) pid, tid and comm are of whatever
            thread was interrupted.

        Raises
        ------
        RingtapeError
            If the event was not recorded.

        Examples
        --------
        >>> import ringtape
        >>> trace = getfixture("event_trace")
        >>> trace.event("sched:sched_process_wait").select("event_tid", "comm", "pid").collect().rows()
        [(100, 'sh', 101), (100, 'sh', 0)]
        """
        return event_frame(self, self.named_event(name), since, until)

    def named_event(self, name: str | None) -> Event:
        """Return the recorded event of that name; the only one there is for None.

        Raises
        ------
        RingtapeError
            If it was not recorded, with close matches; or if there are several.
        """
        self.require("events")
        found = [event for full, event in self.events.items() if name in (None, full, full.partition(":")[2])]
        if len(found) == 1:
            return found[0]
        if name is None or found:
            listed = [event.name for event in found] or list(self.events)
            what = "several events were recorded" if name is None else f"event {name!r} may be {' or '.join(listed)}"
            raise UsageError(f"{self.path}: {what if listed else 'no event was recorded'}", f"name one: {', '.join(listed[:8])}" if listed else None)
        close = get_close_matches(name, self.events, 3, 0.5)
        hint = f"it holds {', '.join(close)}" if close else f"record again with `--event {name}`; `ringtape info` lists the events that it holds"
        raise RingtapeError(f"{self.path}: event {name!r} was not recorded", hint)

    def __getattr__(self, name: str) -> pl.LazyFrame:
        """Return the frame of the declared table of that name."""
        if name not in tables():
            raise AttributeError(f"a Trace has neither an attribute nor a table {name!r}")
        return self.frame(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.tables]

    @cached_property
    def commands(self) -> Callable[[], CommandsInForce]:
        """Return the command names of threads over time, read from ``processes`` when they are first called for."""
        found: list[CommandsInForce] = []

        def read() -> CommandsInForce:
            if not found:
                # pyarrow, not polars: this runs inside a polars expression, where another query could wait for its own threads.
                wanted = ["ts", "tid", "comm"]
                parts = self._sound("processes", None, None) if "processes" in self.tables else []
                empty = arrow_schema(declared("processes")).empty_table().select(wanted)
                found.append(CommandsInForce.of(pa.concat_tables([empty, *(self._arrow(part, wanted) for part in parts)])))
            return found[0]

        return read

    def _arrow(self, part: Part, columns: list[str]) -> pa.Table:
        with open_part(self.folder, part, self._file(part)) as file:
            return file.read(columns)

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """Run a query over this trace, streaming.

        Raises
        ------
        TraceError
            If a part that passed its checks still cannot be read.
        """
        return self.collect_all([frame])[0]

    def collect_all(self, frames: Sequence[pl.LazyFrame]) -> list[pl.DataFrame]:
        """Run several queries over this trace at once, streaming: what they read in common is read once; errors as those of `collect`."""
        try:
            # One alone is not optimised for what it shares with others: that costs more than it takes to run a small query.
            return [frames[0].collect(engine="streaming")] if len(frames) == 1 else pl.collect_all(frames, engine="streaming")
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise TraceError(f"{self.path}: reading failed: {' '.join(str(error).split())[:300]}") from None

    def lost(self) -> Mapping[str, int]:
        """Return the records that are known to be lost, by table: those of the footer, else those that the last parts state.

        In a window, those that the loss ledger does not place outside of it: at most so many were lost there.
        """
        lost = lost_records(self.folder)
        if not self.narrowing.in_time or not lost or "losses" not in self.tables:
            return lost
        counted = self.scan("losses").filter(pl.col("cause").is_in([0, 1, 4])).group_by("table").agg(pl.col("count").sum())
        whole = self.whole.scan("losses").filter(pl.col("cause").is_in([0, 1, 4])).group_by("table").agg(pl.col("count").sum())
        here, everywhere = dict(self.collect(counted).iter_rows()), dict(self.collect(whole).iter_rows())
        found = {table: here.get(table, 0) + max(0, count - everywhere.get(table, 0)) for table, count in lost.items()}
        return {table: count for table, count in found.items() if count}
