"""Reads a table of a trace in time order, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import Part
from ringtape.schemas.part_file import open_part
from ringtape.schemas.table import table as declared

BATCH = 1 << 16


class Ordered:
    """The rows of one table, by ``ts``.

    Each part is sorted, and begins where the one before ended, but for calls that took long: these were entered while
    earlier parts were filled. Such late rows (no more than one per thread and part) are read first and kept; all others
    are streamed, and the late ones merged in.

    Parameters
    ----------
    folder : TraceFolder
        The trace.
    table : str
        One of its tables; one that was not recorded has no rows.
    since, until : int
        Bounds of ``ts`` in ns, half open.
    """

    def __init__(self, folder: TraceFolder, table: str, since: int, until: int) -> None:
        self._folder = folder
        self._table = declared(table)
        self._since, self._until = since, until
        self._checked: set[str] = set()
        recorded = folder.parts(table) if table in folder.tables else ()
        self._parts = sorted((part for part in recorded if part.rows and part.max_ts >= since and part.min_ts < until), key=_end)
        self._rest: pa.Table | None = None
        self._source: Iterator[pa.Table] | None = None

    def batches(self) -> Iterator[pa.Table]:
        """Yield the rows in time order, some ten thousand at a time.

        Raises
        ------
        TraceError
            If a part is missing or damaged.
        """
        late = self._late()
        cut = _before_all()
        for part in self._parts:
            for batch in self._read(part):
                ts = _times(batch)
                rows = batch.slice(int(np.searchsorted(ts, cut)))
                if not rows.num_rows:
                    continue
                if late.num_rows:
                    due = int(np.searchsorted(_times(late), ts[-1], "right"))
                    if due:
                        rows = pa.concat_tables([late.slice(0, due), rows]).sort_by("ts")
                        late = late.slice(due)
                yield from self._clipped(rows)
                if ts[-1] >= self._until and not late.num_rows:
                    return
            cut = max(cut, part.max_ts)
        yield from self._clipped(late)

    def take(self, last: int) -> pa.Table:
        """Return the rows not yet taken whose ``ts`` is not after ``last``."""
        if self._source is None:
            self._source = self.batches()
        taken = []
        while True:
            if self._rest is None:
                self._rest = next(self._source, None)
                if self._rest is None:
                    break
            due = int(np.searchsorted(_times(self._rest), last, "right"))
            taken.append(self._rest.slice(0, due))
            if due < self._rest.num_rows:
                self._rest = self._rest.slice(due)
                break
            self._rest = None
        return pa.concat_tables(taken) if taken else self.empty()

    def end(self) -> int | None:
        """Return the last ``ts`` of the rows that come next, None after the last ones."""
        if self._source is None:
            self._source = self.batches()
        if self._rest is None:
            self._rest = next(self._source, None)
        return None if self._rest is None else int(self._rest["ts"][-1].as_py())

    def _late(self) -> pa.Table:
        found = []
        cut = _before_all()
        for part in self._parts:
            if part.min_ts < cut:
                for batch in self._read(part):
                    count = int(np.searchsorted(_times(batch), cut))
                    # A slice would keep the whole batch alive.
                    found.append(batch.take(pa.array(range(count), pa.int64())))
                    if count < batch.num_rows:
                        break
            cut = max(cut, part.max_ts)
        return pa.concat_tables(found).sort_by("ts").combine_chunks() if found else self.empty()

    def _clipped(self, rows: pa.Table) -> Iterator[pa.Table]:
        ts = _times(rows)
        first, end = int(np.searchsorted(ts, self._since)), int(np.searchsorted(ts, self._until))
        if first < end:
            yield rows.slice(first, end - first)

    def empty(self) -> pa.Table:
        """Return the table without rows."""
        return arrow_schema(self._table).empty_table()

    def _read(self, part: Part) -> Iterator[pa.Table]:
        if part.file not in self._checked:
            self._folder.check(part)
            self._checked.add(part.file)
        with open_part(self._folder, part) as file:
            yield from file.batches(BATCH)


def _end(part: Part) -> tuple[int, int]:
    return part.max_ts, part.min_ts


def _before_all() -> int:
    return -(1 << 63)


def _times(rows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return rows["ts"].to_numpy()  # type: ignore[no-any-return]
