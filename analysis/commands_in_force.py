"""Which command name a thread had at a given time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ringtape.schemas.escape import escape

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CommandsInForce:
    """The names of threads over time.

    A name is in force from the event that gave it to the next event of the same thread number. What came before the
    first event known of a number is given the first name: a thread that ran before the recording is listed a moment
    after the probes are attached.
    """

    names: Sequence[str]
    tids: Ints
    first: npt.NDArray[np.int32]
    several: npt.NDArray[np.bool_]
    times: Ints
    keys: Ints
    key_names: npt.NDArray[np.int32]

    @classmethod
    def of(cls, events: pa.Table) -> CommandsInForce:
        """Read the events: columns ``ts``, ``tid`` and ``comm`` of the table ``processes``, in any order."""
        ts = events["ts"].to_numpy().astype(np.int64)
        tid = events["tid"].to_numpy().astype(np.int64)
        coded = events["comm"].combine_chunks().dictionary_encode()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.combine_chunks()
        texts = [escape(raw.split(b"\0", 1)[0]) for raw in coded.dictionary.to_pylist()]
        names = sorted(set(texts))
        place = {text: index for index, text in enumerate(names)}
        recode = np.array([place[text] for text in texts], np.int32)
        name = recode[coded.indices.to_numpy(zero_copy_only=False)] if texts else np.empty(0, np.int32)
        order = np.lexsort((ts, tid))  # stable: rows of one instant stay in the order of the table
        ts, tid, name = ts[order], tid[order], name[order]
        # Events that change nothing (an exit, a fork of the same name) need no look-up.
        news = np.ones(len(tid), np.bool_)
        news[1:] = (tid[1:] != tid[:-1]) | (name[1:] != name[:-1])
        ts, tid, name = ts[news], tid[news], name[news]
        tids, begin, counts = np.unique(tid, return_index=True, return_counts=True)
        times = np.unique(ts)
        keys = np.searchsorted(tids, tid) * (len(times) + 1) + np.searchsorted(times, ts, "right")
        return cls(names, tids, name[begin].astype(np.int32), counts > 1, times, keys, name)

    def numbers(self, tid: npt.NDArray[Any], ts: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Return, for each thread number and time in ns, the index into ``names``; -1 where no event names the thread."""
        if not len(self.tids):
            return np.full(len(tid), -1, np.int32)
        place = np.searchsorted(self.tids, tid)
        place[place == len(self.tids)] = 0
        result = self.first[place]
        result[self.tids[place] != tid] = -1
        changing = np.flatnonzero(self.several[place] & (result >= 0))
        if len(changing):
            # One search in (thread, time) order: the time is replaced by its rank among all events, so that the key fits 64 bits.
            rank = np.searchsorted(self.times, ts[changing], "right")
            found = np.searchsorted(self.keys, place[changing] * (len(self.times) + 1) + rank, "right") - 1
            before_first = (found < 0) | (self.keys[np.maximum(found, 0)] // (len(self.times) + 1) != place[changing])
            result[changing] = np.where(before_first, result[changing], self.key_names[found])
        return result
