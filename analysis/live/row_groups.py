"""Reads the rows of a table between two times, on and on: only the row groups that the times fall into are decoded and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import polars as pl
import pyarrow as pa

from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import Part
from ringtape.schemas.part_file import open_part
from ringtape.schemas.table import table as declared


class RowGroups:
    """The rows of one table by time, read forwards.

    Kept in memory is, of each part that the times fall into, what is left of the row group that was read last.

    Parameters
    ----------
    folder : TraceFolder
        The trace.
    table : str
        One of its tables; one that was not recorded has no rows.
    columns : sequence of str, optional
        The columns to read, ``ts`` among them; all without it.
    """

    def __init__(self, folder: TraceFolder, table: str, columns: Sequence[str] | None = None) -> None:
        self._table = table
        self._columns = columns
        self._checked: set[str] = set()
        self._open: dict[str, _Place] = {}
        self._parts: dict[str, Part] = {}
        self._folder = folder
        self.renew(folder)

    def renew(self, folder: TraceFolder) -> list[Part]:
        """Take the parts of a manifest that was read again, and return those that are new and were not merged from others."""
        before = self._parts
        self._folder = folder
        self._parts = {part.file: part for part in (folder.parts(self._table) if self._table in folder.tables else ()) if part.rows}
        self._open = {name: place for name, place in self._open.items() if name in self._parts}
        return [part for name, part in self._parts.items() if name not in before and not part.replaces]

    def forget(self) -> None:
        """Begin anew: the next times may lie before those that were read."""
        self._open = {}

    def empty(self) -> pl.DataFrame:
        """Return the table without rows."""
        found = _frame(arrow_schema(declared(self._table)).empty_table())
        return found if self._columns is None else found.select(self._columns)

    def between(self, since: int, until: int) -> pl.DataFrame:
        """Return the rows whose ``ts`` lies in a half-open range, those of each part by time.

        Parameters
        ----------
        since, until : int
            Bounds in ns of CLOCK_MONOTONIC; no range begins before the one before it, except after `forget`.

        Raises
        ------
        TraceError
            If a part is missing or damaged.
        """
        found = [self.empty()]
        for part in self._parts.values():
            if part.max_ts < since:
                self._open.pop(part.file, None)
            elif part.min_ts < until:
                if part.file not in self._open:
                    self._open[part.file] = _Place(first_group(self._folder, self._check(part), since))
                found += self._read(part, self._open[part.file], since, until)
        return pl.concat(found)

    def _read(self, part: Part, place: _Place, since: int, until: int) -> Iterator[pl.DataFrame]:
        while True:
            if place.rest is None:
                if (rows := read_group(self._folder, part, place.group, self._columns)) is None:
                    return
                place.rest, place.group = rows, place.group + 1
            times = place.rest["ts"]
            first, end = (int(times.search_sorted(bound, "left")) for bound in (since, until))
            if first < end:
                yield place.rest.slice(first, end - first)
            if end < place.rest.height:
                place.rest = place.rest.slice(end)
                return
            place.rest = None

    def _check(self, part: Part) -> Part:
        if part.file not in self._checked:
            self._folder.check(part)
            self._checked.add(part.file)
        return part

    def of(self, part: Part, until: int) -> pl.DataFrame:
        """Return the rows of one part whose ``ts`` lies before a time."""
        found = [self.empty()]
        for rows in groups_of(self._folder, self._check(part), 0, self._columns):
            end = int(rows["ts"].search_sorted(until, "left"))
            found.append(rows.slice(0, end))
            if end < rows.height:
                break
        return pl.concat(found)

    def onward(self, since: int, columns: Sequence[str], until: Callable[[], int]) -> Iterator[pl.DataFrame]:
        """Yield some columns of the rows from a time on, row group by row group, parts by their beginning.

        ``until`` says beyond which time no rows are wanted any more; it is asked before each row group is read.
        """
        wanted = ["ts", *columns]
        for part in sorted(self._parts.values(), key=lambda one: one.min_ts):
            if part.max_ts < since or part.min_ts > until():
                continue
            for rows in groups_of(self._folder, self._check(part), first_group(self._folder, part, since), wanted):
                yield rows.filter(pl.col("ts") >= since)
                if rows.height and int(rows["ts"][-1]) > until():
                    break


class _Place:
    """How far a part has been read."""

    def __init__(self, group: int) -> None:
        self.group = group
        self.rest: pl.DataFrame | None = None


def groups_of(folder: TraceFolder, part: Part, first: int, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
    """Yield the row groups of a part from one on."""
    number = first
    while (rows := read_group(folder, part, number, columns)) is not None:
        yield rows
        number += 1


def read_group(folder: TraceFolder, part: Part, number: int, columns: Sequence[str] | None = None) -> pl.DataFrame | None:
    """Return the rows of one row group by time, or None where there is none.

    The part is opened for each: it is held open by nobody, and may be merged away meanwhile.
    """
    with open_part(folder, part) as file:
        if number >= file.groups:
            return None
        rows = _frame(file.group(number, columns))
    # What ringtape wrote is sorted; what it did not write must not hang a search.
    return rows if rows["ts"].is_sorted() else rows.sort("ts", maintain_order=True)


def first_group(folder: TraceFolder, part: Part, since: int) -> int:
    """Return the first row group of a part that has a row at a time or after it; found by halving, of each only ``ts`` is read."""
    if since <= part.min_ts:
        return 0
    with open_part(folder, part) as file:
        low, high = 0, file.groups
        while low < high:
            middle = (low + high) // 2
            times = _frame(file.group(middle, ["ts"]))["ts"]
            if times.len() and int(times[-1]) >= since:
                high = middle
            else:
                low = middle + 1
    return low


def _frame(rows: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    return frame
