"""A table some rows at a time, in the order in which they are stored: what is done to each row needs no more memory than a piece."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import polars as pl

from ringtape.analysis.trace import Trace
from ringtape.schemas.arrow import ROW_GROUP
from ringtape.schemas.manifest import Part
from ringtape.schemas.table import table as declared

AT_ONCE = ROW_GROUP
"""Rows of a piece: those of a row group, so that none is decoded twice."""
_AHEAD = 1
"""Pieces that are read while another is being used."""


class Piece(Trace):
    """A trace of one of whose tables only some of the rows of one part are seen."""

    def __init__(self, whole: Trace, part: Part, first: int, rows: int) -> None:
        super().__init__(whole.folder, whole.narrowing)
        self.__dict__["commands"] = whole.commands
        self._whole, self._part, self._first, self._rows = whole, part, first, rows

    def scan(self, table: str, since: int | None = None, until: int | None = None) -> pl.LazyFrame:
        """Return the stored columns of a table; parameters and errors as those of `Trace.scan`."""
        if table != self._part.table:
            return self._whole.scan(table, since, until)
        return self._whole.selected(declared(table), self._whole.stored([self._part]).slice(self._first, self._rows), since, until)


def pieces(trace: Trace, table: str) -> Iterator[Piece]:
    """Yield the trace with at most `AT_ONCE` rows of a table at a time: together they are those of the table in their order.

    Parameters
    ----------
    trace : Trace
        The recording. Of a part that lies at an edge of its window, only what lies between the first and the last row that belongs
        to it is read.
    table : str
        Name of the table.

    Raises
    ------
    RingtapeError
        If the table was not recorded.
    TraceError
        If a part is missing or damaged.
    """
    kind, rows = declared(table), AT_ONCE
    wanted = trace.narrowing.rows(kind)
    for part in trace.sound(table):
        first, end = 0, part.rows
        if wanted:
            at = trace.stored([part]).with_row_index("at").filter(*wanted).select(first=pl.col("at").min(), last=pl.col("at").max())
            first, last = trace.collect(at).row(0)
            if first is None:
                continue
            end = last + 1
        for begin in range(first // rows * rows, end, rows):
            yield Piece(trace, part, begin, rows)


def batches(trace: Trace, table: str, query: Callable[[Trace], pl.LazyFrame]) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query that looks at each row of a table by itself, in their order, a bounded number at a time.

    Parameters
    ----------
    trace : Trace
        The recording.
    table : str
        Name of the table.
    query : callable
        Returns what is wanted of a trace, of which it is given some rows of the table at a time.

    Raises
    ------
    RingtapeError
        If the table was not recorded.
    TraceError
        If a part is missing, damaged, or cannot be read although it passed its checks.
    """
    with ThreadPoolExecutor(1) as pool:
        coming: deque[Future[pl.DataFrame]] = deque()
        for piece in pieces(trace, table):
            coming.append(pool.submit(trace.collect, query(piece)))
            if len(coming) > _AHEAD:
                yield from _filled(coming.popleft())
        for late in coming:
            yield from _filled(late)


def _filled(coming: Future[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    frame = coming.result()
    if len(frame):
        yield frame.rechunk()
