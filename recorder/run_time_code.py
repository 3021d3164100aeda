"""Names of code that lies in no file: the kernel's page of quick calls, and what compilers at run time write of themselves."""

from __future__ import annotations

import ctypes
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from ringtape.schemas.elf import Elf

FOLDER = Path("/tmp")
"""Where compilers at run time keep ``perf-PID.map``, as perf reads them."""
LARGEST, MOST = 64 << 20, 256 << 20
"""Bytes of one such file, and of all of them, beyond which they are left alone."""
_LINE = re.compile(rb"^(?:0x)?([0-9a-f]{1,16}) (?:0x)?([0-9a-f]{1,16}) ([^\n]+)$", re.MULTILINE | re.IGNORECASE)
_VDSO = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .*\[vdso\]$", re.MULTILINE)
_FUNCTION = 2  # STT_FUNC
_SYMBOL = "<IBBHQQ"
_HIGHEST = (1 << 63) - 1
Function = tuple[int, int, bytes]
"""Address, length and name."""


def vdso_functions() -> list[Function]:
    """Return the functions of this process's vDSO, which is that of every process of the same word size; none if there is none."""
    try:
        found = _VDSO.search(Path("/proc/self/maps").read_text())
        if found is None or struct.calcsize("P") != 8:
            return []
        start, end = (int(part, 16) for part in found.groups())
        descriptor = os.memfd_create("vdso")
    except (OSError, ValueError):
        return []
    try:
        os.write(descriptor, ctypes.string_at(start, end - start))
        with Elf(f"/proc/self/fd/{descriptor}") as elf:
            for entries, strings in elf.symbol_tables():
                return [
                    (value, size, strings[at : strings.index(b"\0", at)])
                    for at, info, _, section, value, size in struct.iter_unpack(_SYMBOL, entries)
                    if info & 15 == _FUNCTION and section
                ]
    except (OSError, ValueError, struct.error):
        pass
    finally:
        os.close(descriptor)
    return []


def jit_functions(pids: Iterable[int]) -> Iterator[tuple[int, Function]]:
    """Yield process and function of what compilers at run time told in their ``perf-PID.map``."""
    left = MOST
    for pid in sorted(pids):
        data = _read(pid, min(LARGEST, left))
        left -= len(data)
        for address, length, name in _LINE.findall(data):
            if (start := int(address, 16)) <= _HIGHEST:
                yield pid, (start, min(int(length, 16), _HIGHEST), name.rstrip(b"\r"))


def _read(pid: int, most: int) -> bytes:
    """Return the file, unless it may be someone else's invention: anybody can make a file of that name."""
    try:
        descriptor = os.open(FOLDER / f"perf-{pid}.map", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in _owners(pid) or status.st_size > most:
            return b""
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _owners(pid: int) -> set[int]:
    try:
        return {Path(f"/proc/{pid}").stat().st_uid, 0}
    except OSError:
        return {os.geteuid(), 0}  # has ended: whose it was cannot be asked
