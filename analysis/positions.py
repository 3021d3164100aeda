"""Whether bytes were moved where the access before them had ended: sequential or random access."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ringtape.analysis.file_calls import IMPLICIT

Ints = npt.NDArray[np.int64]
SEEK = -3
"""In place of an offset: the row sets the position instead of moving bytes."""


class Positions:
    """Position and end of the last access of every file, carried from one stretch of time to the next."""

    def __init__(self, begin: Ints, appends: npt.NDArray[np.bool_]) -> None:
        self._position = begin.copy()
        self._end = begin.copy()
        self._appends = appends
        self.starts: Ints = np.zeros(0, np.int64)
        """Where each access of the last call of `sequential` began."""

    def sequential(self, file: Ints, ts: Ints, offset: Ints, count: Ints, writes: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which accesses began where the access of their file before them had ended, the first one where the file was opened.

        Parameters
        ----------
        file, ts : array
            Open file and time; every row is later than those of earlier calls of this method.
        offset : array
            Where bytes were moved, IMPLICIT at the position of the file, SEEK where the row sets the position.
        count : array
            Bytes moved, more than 0; for SEEK the new position.
        writes : array
            Whether an access writes: if the file was opened to append, the kernel puts it at the end, whatever the position.
        """
        order = np.lexsort((ts, file))
        file, offset, count, writes = file[order], offset[order], count[order], writes[order]
        if not len(file):
            self.starts = np.zeros(0, np.int64)
            return np.zeros(0, np.bool_)
        first = np.ones(len(file), np.bool_)
        first[1:] = file[1:] != file[:-1]
        seeks, implicit = offset == SEEK, offset == IMPLICIT
        moved = np.where(implicit, count, 0)
        total = np.cumsum(moved)
        before = total - moved
        # The position before a row: what the last seek set, or the file had, and what was moved at the position since.
        rows = np.arange(len(file))
        anchor = np.where(first, rows, 0)
        after_seek = np.zeros(len(file), np.bool_)
        after_seek[1:] = seeks[:-1] & ~first[1:]
        anchor = np.maximum.accumulate(np.where(first | after_seek, rows, 0))
        base = np.where(after_seek, np.roll(count, 1), self._position[file])[anchor]
        position = base + before - before[anchor]
        start = np.where(implicit, position, offset)
        end = start + count
        self.starts = np.empty(len(file), np.int64)
        self.starts[order] = start
        # The access before it in the same file, seeks left out.
        place = np.maximum.accumulate(np.where(~seeks, rows, -1))
        previous = np.empty(len(file), np.int64)
        previous[0], previous[1:] = -1, place[:-1]
        group = np.maximum.accumulate(np.where(first, rows, 0))
        within = previous >= group
        expected = np.where(within, end[np.maximum(previous, 0)], self._end[file])
        found = ~seeks & ((start == expected) | (implicit & writes & self._appends[file]))
        last = np.append(first[1:], True)
        self._position[file[last]] = np.where(seeks, count, position + moved)[last]
        known = last & (place >= group)
        self._end[file[known]] = end[place[known]]
        result = np.empty(len(file), np.bool_)
        result[order] = found
        return result
