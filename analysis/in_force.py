"""What holds for a thread or process at a given time: a code such as its command name, or which of its lives."""

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
class InForce:
    """A code for each thread (or process) number over time.

    A code is in force from the event that gave it to the next event of the same number. What came before the first event
    known of a number is given its first code: a thread that ran before the recording is listed a moment after the probes are
    attached.
    """

    numbers: Ints
    first: npt.NDArray[np.int32]
    several: npt.NDArray[np.bool_]
    times: Ints
    keys: Ints
    key_codes: npt.NDArray[np.int32]

    @classmethod
    def of(cls, number: npt.NDArray[Any], ts: npt.NDArray[Any], code: npt.NDArray[Any]) -> InForce:
        """Take the events, in any order; those of one number and instant stay in the order given."""
        order = np.lexsort((ts, number))
        number, ts, code = number[order].astype(np.int64), ts[order].astype(np.int64), code[order].astype(np.int32)
        # Events that change nothing (an exit, a fork of the same name) need no look-up.
        news = np.ones(len(number), np.bool_)
        news[1:] = (number[1:] != number[:-1]) | (code[1:] != code[:-1])
        number, ts, code = number[news], ts[news], code[news]
        numbers, begin, counts = np.unique(number, return_index=True, return_counts=True)
        times = np.unique(ts)
        keys = np.searchsorted(numbers, number) * (len(times) + 1) + np.searchsorted(times, ts, "right")
        return cls(numbers, code[begin], counts > 1, times, keys, code)

    def codes(self, number: npt.NDArray[Any], ts: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Return the code for each number and time in ns; -1 where no event names the number."""
        if not len(self.numbers):
            return np.full(len(number), -1, np.int32)
        place = np.searchsorted(self.numbers, number)
        place[place == len(self.numbers)] = 0
        result = self.first[place]
        result[self.numbers[place] != number] = -1
        changing = np.flatnonzero(self.several[place] & (result >= 0))
        if len(changing):
            # One search in (number, time) order: the time is replaced by its rank among all events, so that the key fits 64 bits.
            rank = np.searchsorted(self.times, ts[changing], "right")
            found = np.searchsorted(self.keys, place[changing] * (len(self.times) + 1) + rank, "right") - 1
            before_first = (found < 0) | (self.keys[np.maximum(found, 0)] // (len(self.times) + 1) != place[changing])
            result[changing] = np.where(before_first, result[changing], self.key_codes[found])
        return result


@dataclass(frozen=True)
class CommandsInForce:
    """The command names of threads over time, as codes into ``names``."""

    names: Sequence[str]
    events: InForce

    @classmethod
    def of(cls, events: pa.Table) -> CommandsInForce:
        """Read the events: columns ``ts``, ``tid`` and ``comm`` of the table ``processes``, in any order."""
        coded = events["comm"].combine_chunks().dictionary_encode()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.combine_chunks()
        texts = [escape(raw.split(b"\0", 1)[0]) for raw in coded.dictionary.to_pylist()]
        names = sorted(set(texts))
        place = {text: index for index, text in enumerate(names)}
        recode = np.array([place[text] for text in texts], np.int32)
        name = recode[coded.indices.to_numpy(zero_copy_only=False)] if texts else np.empty(0, np.int32)
        return cls(names, InForce.of(events["tid"].to_numpy(), events["ts"].to_numpy(), name))

    def codes(self, tid: npt.NDArray[Any], ts: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Return, for each thread number and time in ns, the index into ``names``; -1 where no event names the thread."""
        return self.events.codes(tid, ts)
