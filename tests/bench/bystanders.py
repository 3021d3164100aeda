"""Whether somebody else had BPF programs attached during a run: they would be timed with it."""

from __future__ import annotations

import errno
import struct
import sys
import time
from collections.abc import Callable
from enum import IntEnum
from typing import TypeVar

from ringtape.recorder import bpf

Result = TypeVar("Result")
PATIENCE = 60.0
"""Seconds that a run waits for other people's programs to be detached."""


class Query(IntEnum):
    """First argument of bpf(2), as `ringtape.recorder.bpf` has no use for it."""

    LINK_GET_NEXT_ID = 31


def links() -> frozenset[int]:
    """Return the ids of all BPF links of the machine."""
    found: set[int] = set()
    last = 0
    while True:
        try:
            last = _next(last)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return frozenset(found)
            raise
        found.add(last)


def _next(after: int) -> int:
    # The id comes back in the attributes, so the wrapper of the recorder, which keeps them to itself, does not do.
    import ctypes
    import os
    import platform

    attributes = ctypes.create_string_buffer(struct.pack("=III", after, 0, 0), 128)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(bpf.SYSCALL_BPF[platform.machine()], int(Query.LINK_GET_NEXT_ID), attributes, 128) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(struct.unpack_from("=I", attributes.raw, 4)[0])


class Quiet:
    """Runs things while nobody else attaches BPF programs; what was attached from the beginning on is part of the machine.

    Attributes
    ----------
    repeated, disturbed : int
        Runs that were thrown away and repeated, and runs that were kept although others were at it all the time.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._standing = links()
        self.repeated = 0
        self.disturbed = 0

    @property
    def standing(self) -> int:
        """Links that were there from the beginning on."""
        return len(self._standing)

    def run(self, what: Callable[[], Result]) -> Result:
        """Return what a run returns, repeated if somebody else's programs came or went."""
        deadline = time.monotonic() + self._patience
        while True:
            while (before := links()) - self._standing and time.monotonic() < deadline:
                time.sleep(0.05)
            self._standing &= before
            result = what()
            after = links()
            self._standing &= after
            if not (before | after) - self._standing:
                return result
            if time.monotonic() >= deadline:
                self.disturbed += 1
                return result
            self.repeated += 1
            print("bench: somebody else's BPF programs were attached during a run: repeating it", file=sys.stderr)
