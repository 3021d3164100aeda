"""Every read and write of a file with where it lay: what the calls of a trace did to files, access by access."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.file_names import Names
from ringtape.analysis.file_use import _Reader
from ringtape.analysis.positions import SEEK
from ringtape.analysis.trace import Trace

Ints = npt.NDArray[np.int64]


class Accesses(_Reader):
    """The accesses of a trace, window by window."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace, [])
        self._found: list[pl.DataFrame] = []

    @property
    def known(self) -> Names:
        """Names of files by number."""
        return self.names

    def sequential(self, file: Ints, ts: Ints, offset: Ints, count: Ints, writes: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Keep what is looked at, with the place that each access had."""
        found = super().sequential(file, ts, offset, count, writes)
        moves = offset != SEEK
        self._found.append(
            pl.DataFrame(
                {
                    "ts": ts[moves],
                    "name": self.named(file)[moves],
                    "offset": self._positions.starts[moves],
                    "count": count[moves],
                    "write": writes[moves],
                }
            )
        )
        return found

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield reads and writes of files that moved bytes: ``ts``, ``name`` (its number), ``offset``, ``count`` (bytes), ``write``, in time order.

        An offset below 0 means that where the file's position was is not known.
        """
        for since, until in self.cuts:
            self._found.clear()
            self.window(since, until)
            yield from (frame.sort("ts", maintain_order=True) for frame in self._found if len(frame))
