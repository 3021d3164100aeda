"""A program under test that makes numbered calls until it is told to stop (programs/load.c)."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow.compute as pc

from tests.kernel.recording import Trace, wait_for

NUMBER = 9999
STATUS = 42


class Load:
    """The control file of one run of the program, and the words that start it."""

    def __init__(self, program: Path, control: Path, threads: int = 2, pause: int = 0, limit: int = 0) -> None:
        control.write_bytes(bytes(4096))
        control.chmod(0o666)
        self.threads = threads
        self.words = (str(program), str(control), str(threads), str(pause), str(limit))
        with open(control, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 4096)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _word(self, index: int) -> int:
        return int(struct.unpack_from("<q", self._memory, 8 * index)[0])

    @property
    def pid(self) -> int:
        return self._word(1)

    @property
    def finished(self) -> bool:
        return bool(self._word(2))

    @property
    def returned(self) -> list[int]:
        """Numbered calls of each thread that have returned."""
        return [self._word(8 + 8 * index) for index in range(self.threads)]

    def stop(self) -> None:
        struct.pack_into("<q", self._memory, 0, 1)

    def wait_until_running(self) -> None:
        wait_for(lambda: all(self.returned), "every thread of the load makes calls")

    def check_goes_on(self) -> None:
        """It is unharmed: its threads make further calls."""
        before = self.returned
        wait_for(lambda: self.finished or all(now > then for now, then in zip(self.returned, before, strict=True)), "the load goes on")

    def stop_and_wait(self) -> None:
        self.stop()
        wait_for(lambda: self.finished, "the load ends")


def check_numbered(trace: Trace, at_least: list[int]) -> None:
    """The numbered calls of each thread are there from the first on, without a gap, and at least this many."""
    table = trace.table("syscalls").select(["nr", "arg0", "arg1", "arg2", "ret"])
    numbered = table.filter(pc.equal(table["nr"], NUMBER))
    thread, i, negative, ret = (numbered[name].to_numpy() for name in ("arg0", "arg1", "arg2", "ret"))
    assert (negative == -i).all()
    assert (ret == -38).all()
    for index, count in enumerate(at_least):
        found = np.sort(i[thread == index])
        if trace.footer.lost["syscalls"]:
            assert (np.diff(found) > 0).all()
            found = found[: int(np.argmax(np.append(found, -1) != np.arange(len(found) + 1)))]
        assert np.array_equal(found, np.arange(len(found))), f"thread {index}"
        assert len(found) >= count, f"thread {index}: {len(found)} recorded, {count} had returned before the kill"
