"""Adds up calls by system call from what tools write: text of any size is read line by line, and nothing of it is believed."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from ringtape.analysis.file_calls import RETURN_BYTES
from ringtape.analysis.studies.treatments import Tally

LONGEST = 1 << 16
"""Bytes of a line that are looked at: a tool that writes a longer one has gone wrong."""
LARGEST = 1 << 32
"""No call moves so many bytes at once (MAX_RW_COUNT is below 2 GiB): what returns more returns something else."""
NAMES = 2000
"""System calls by name that are told apart: kernels have some 500; a file that names more is not what it should be."""
LAST = (1 << 63) - 1
"""Largest value of a table's column; sums of a file that is not what it should be stay there."""
_LOST, _SAMPLE, _LOST_SAMPLES, _COMPRESSED = 2, 9, 13, (81, 83)
_FILTERED = 1 << 15
"""PERF_RECORD_MISC_LOST_SAMPLES_BPF: samples that a filter left out."""
_MAGIC = b"PERFILE2"


def lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, long ones cut."""
    with open(path, "rb") as file:
        while line := file.readline(LONGEST):
            yield line
            while not line.endswith(b"\n") and (line := file.readline(LONGEST)):
                pass


class Tallies:
    """Calls so far, by system call."""

    def __init__(self, timed: bool = True) -> None:
        self._found: dict[str, list[int]] = {}
        self._timed = timed

    def begin(self, name: bytes | str) -> None:
        """Count a call."""
        if known := self._known(name):
            known[0] += 1

    def end(self, name: bytes | str, result: int | None, time: int) -> None:
        """Add what a call returned (None: nothing, or no number) and how long it took (ns)."""
        if known := self._known(name):
            failed = result is not None and result < 0
            known[1] += failed
            known[2] += time
            if result is not None and not failed and result < LARGEST:
                known[3] += result

    def _known(self, name: bytes | str) -> list[int] | None:
        text = name if isinstance(name, str) else name.decode("ascii", "backslashreplace")
        found = self._found.get(text)
        if found is None and len(self._found) < NAMES:
            found = self._found[text] = [0, 0, 0, 0]
        return found

    def calls(self) -> Mapping[str, Tally]:
        """Return them."""
        return {
            name: Tally(count, errors, max(0, min(time, LAST)) if self._timed else None, min(moved, LAST) if name in RETURN_BYTES else None)
            for name, (count, errors, time, moved) in self._found.items()
            if count
        }

    @property
    def count(self) -> int:
        """How many calls there were."""
        return sum(values[0] for values in self._found.values())


def perf_counts(path: Path) -> tuple[int | None, int | None]:
    """Return how many samples a perf.data file holds, and how many perf says were lost.

    The records are walked as tools/perf/Documentation/perf.data-file-format.txt of the kernel describes them: ``perf report
    --stats`` tells how many times something was lost, and not how much. None for a compressed file, or one that is cut off.

    A lost sample is counted twice by a kernel from 6.0 on: in the next record LOST of its ring buffer, which other records that were
    lost are in as well, and which is never written if nothing follows; and by event, in the records LOST_SAMPLES that perf from 6.1
    on adds at the end. The larger of both sums is returned.
    """
    with open(path, "rb") as file:
        head = file.read(104)
        if len(head) < 104 or not head.startswith(_MAGIC):
            return None, None
        start, size = struct.unpack_from("<QQ", head, 40)
        if start + size > path.stat().st_size or not size:
            return None, None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _walk(data, start, start + size)


def _walk(data: mmap.mmap, position: int, end: int) -> tuple[int | None, int | None]:
    samples = lost = lost_samples = 0
    header, number = struct.Struct("<IHH").unpack_from, struct.Struct("<Q").unpack_from
    while position + 8 <= end:
        kind, misc, size = header(data, position)
        if size < 8 or position + size > end:
            return None, None
        if kind == _SAMPLE:
            samples += 1
        elif kind == _LOST and size >= 24:
            lost += number(data, position + 16)[0]
        elif kind == _LOST_SAMPLES and size >= 16 and not misc & _FILTERED:
            lost_samples += number(data, position + 8)[0]
        elif kind in _COMPRESSED:
            return None, None
        position += size
    return samples, min(max(lost, lost_samples), LAST)
