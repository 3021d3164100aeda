"""Which file lies where in the memory of a process, and when: the table ``mappings``, made ready to be asked."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringtape.analysis.in_force import InForce

EXISTING, MAPPED, EXEC, FORK, LOST = range(5)
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class File:
    """A mapped file: what tells it apart, and its path as the process named it."""

    build_id: bytes
    path: bytes


@dataclass
class Space:
    """Mappings that hold together: none overlaps another unless they say the same."""

    starts: list[int] = field(default_factory=list)
    pieces: list[tuple[int, int, int]] = field(default_factory=list)  # end, start - offset in the file, file
    users: int = 1

    def copy(self) -> Space:
        """Return the same mappings, to go on differently."""
        return Space(list(self.starts), list(self.pieces))

    def overlaps(self, start: int, end: int) -> list[int]:
        """Return the places of the mappings that reach into an area."""
        place = bisect_right(self.starts, start) - 1
        found = [place] if place >= 0 and self.pieces[place][0] > start else []
        place += 1
        while place < len(self.starts) and self.starts[place] < end:
            found.append(place)
            place += 1
        return found

    def put(self, start: int, piece: tuple[int, int, int], replaced: list[int]) -> None:
        """Map an area; what of others sticks out of it stays."""
        left: list[tuple[int, tuple[int, int, int]]] = []
        for place in reversed(replaced):
            begin, (end, bias, file) = self.starts[place], self.pieces[place]
            del self.starts[place], self.pieces[place]
            if begin < start:
                left.append((begin, (start, bias, file)))
            if end > piece[0]:
                left.append((piece[0], (end, bias, file)))
        for begin, one in [*left, (start, piece)]:
            at = bisect_right(self.starts, begin)
            self.starts.insert(at, begin)
            self.pieces.insert(at, one)


class AddressSpaces:
    """The mappings of every process over time.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of the table ``mappings``.

    Attributes
    ----------
    files : list of File
        Every file that was mapped.
    lost : int
        Mappings that the recorder could not take.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.files: list[File] = []
        self.lost = 0
        self._spaces: list[Space] = []
        numbers: dict[File, int] = {}
        now: dict[int, int] = {}
        events: list[tuple[int, int, int]] = []

        def begin(pid: int, ts: int, space: Space) -> None:
            now[pid] = len(self._spaces)
            self._spaces.append(space)
            events.append((pid, ts, now[pid]))

        # What a process began with was there before anything that is told of it.
        for row in sorted(rows, key=lambda row: 0 if row["kind"] == EXISTING else row["ts"]):
            pid, kind, ts = row["pid"], row["kind"], 0 if row["kind"] == EXISTING else row["ts"]
            if kind == EXEC:
                begin(pid, ts, Space())
            elif kind == FORK:
                if row["parent"] in now:
                    now[pid] = now[row["parent"]]
                    self._spaces[now[pid]].users += 1
                    events.append((pid, ts, now[pid]))
                else:
                    begin(pid, ts, Space())
            elif kind == LOST:
                self.lost += row["length"]
            elif kind in (EXISTING, MAPPED):
                start, length = row["start"] & _WORD, row["length"] & _WORD
                file = numbers.setdefault(File(row["build_id"], row["path"]), len(numbers))
                end = min(start + length, _WORD)
                if pid not in now:
                    begin(pid, ts, Space())
                space = self._spaces[now[pid]]
                bias = start - (row["offset"] & _WORD)
                replaced = space.overlaps(start, end)
                if any(space.pieces[place][1:] != (bias, file) for place in replaced) or space.users > 1:
                    begin(pid, ts, space.copy())
                    space.users -= 1
                    space = self._spaces[now[pid]]
                space.put(start, (end, bias, file), replaced)
        self.files = list(numbers)
        columns = np.array(events, np.int64).reshape(-1, 3)
        self._in_force = InForce.of(columns[:, 0], columns[:, 1], columns[:, 2])

    def at(self, pid: NDArray[Any], ts: NDArray[Any]) -> NDArray[np.int32]:
        """Return the number of the space that each process had at a time; -1 where nothing is known of it."""
        return self._in_force.codes(pid, ts)

    def find(self, space: int, addresses: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Return, for each address, the number of its file (-1: none) and its place in that file (or the address itself)."""
        found = np.full(len(addresses), -1, np.int64)
        places = addresses.copy()
        if space < 0 or not self._spaces[space].starts:
            return found, places
        one = self._spaces[space]
        at = np.searchsorted(np.array(one.starts, np.uint64), addresses, "right").astype(np.int64) - 1
        ends = np.array([end for end, _, _ in one.pieces], np.uint64)
        inside = (at >= 0) & (addresses < ends[at])
        found[inside] = np.array([file for _, _, file in one.pieces], np.int64)[at[inside]]
        bias = np.array([value & _WORD for _, value, _ in one.pieces], np.uint64)
        places[inside] = addresses[inside] - bias[at[inside]]
        return found, places
