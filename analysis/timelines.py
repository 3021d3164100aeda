"""What holds for a key at a time, for many keys and times at once."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
ABSENT = -1


class Changes:
    """Changes as they come: from a time on, a key has a value."""

    def __init__(self) -> None:
        self.keys, self.times, self.values = array("q"), array("q"), array("q")

    def add(self, key: int, time: int, value: int) -> None:
        """Note a change; those of one key and time hold in the order given."""
        self.keys.append(key)
        self.times.append(time)
        self.values.append(value)


class Timeline:
    """Changes in order, for look-ups."""

    def __init__(self, changes: Changes) -> None:
        keys, times, values = (np.frombuffer(column, np.int64) for column in (changes.keys, changes.times, changes.values))
        order = np.lexsort((times, keys))
        keys, times = keys[order], times[order]
        self._values = values[order]
        self._keys = np.unique(keys)
        self._times = np.unique(times)
        # The time is replaced by its rank, so that key and time together fit 64 bits and one search finds both.
        self._places = np.searchsorted(self._keys, keys) * (len(self._times) + 1) + np.searchsorted(self._times, times, "right")

    def at(self, keys: npt.NDArray[Any], times: npt.NDArray[Any]) -> Ints:
        """Return the value of each key at each time: of the last change that is not later; ABSENT before the first, and for strange keys."""
        if not len(self._keys):
            return np.full(len(keys), ABSENT, np.int64)
        place = np.searchsorted(self._keys, keys)
        place[place == len(self._keys)] = 0
        width = len(self._times) + 1
        found = np.searchsorted(self._places, place * width + np.searchsorted(self._times, times, "right"), "right") - 1
        known = (found >= 0) & (self._keys[place] == keys)
        found[~known] = 0
        known &= self._places[found] // width == place
        return np.where(known, self._values[found], ABSENT)
