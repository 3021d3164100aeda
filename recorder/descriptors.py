"""What recorded processes have open at the start, read from /proc after the probes are attached.

What a process does while it is being looked at is recorded as well, and later: an analysis lets the later row win.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ringtape.recorder.options import Target, cgroup_root

if TYPE_CHECKING:
    import pyarrow as pa

AT_FDCWD = -100
MOST = 100_000
"""Descriptors that are looked at, at most: 10 to 20 µs each, while the start of the command waits."""


class Descriptor(NamedTuple):
    """One row of the table ``descriptors``."""

    ts: int
    pos: int
    pid: int
    fd: int
    flags: int
    target: bytes


def descriptors(target: Target, launched: int | None = None) -> list[Descriptor]:
    """Return what the processes that are to be recorded have open; those that end meanwhile, or hide it, are left out.

    Parameters
    ----------
    target : Target
        Which processes are recorded.
    launched : int or None
        The process that becomes the command.
    """
    found: list[Descriptor] = []
    for pid in _processes(target, launched):
        found += _of_process(pid, MOST - len(found))
        if len(found) >= MOST:
            break
    return found


def _processes(target: Target, launched: int | None) -> Iterator[int]:
    if launched is not None:
        yield launched
        return
    if target.pids:
        yield from target.pids
        return
    folder = f"/{target.cgroup.relative_to(cgroup_root() or '/')}".removesuffix("/.") if target.cgroup else ""
    for name in os.listdir("/proc"):  # noqa: PTH208 - thousands of them: no Path for each
        if name.isdecimal() and int(name) != os.getpid() and _is_meant(name, target, folder):
            yield int(name)


def _is_meant(pid: str, target: Target, folder: str) -> bool:
    try:
        if target.comms:
            names = {_read(f"/proc/{pid}/task/{tid}/comm").rstrip(b"\n") for tid in os.listdir(f"/proc/{pid}/task")}  # noqa: PTH208
            return bool(names & {os.fsencode(comm) for comm in target.comms})
        if target.uids:
            line = next(line for line in _read(f"/proc/{pid}/status").splitlines() if line.startswith(b"Uid:"))
            return int(line.split()[2]) in target.uids
        if target.cgroup:
            own = next((line[3:].decode() for line in _read(f"/proc/{pid}/cgroup").splitlines() if line.startswith(b"0::")), "")
            return own == folder or own.startswith(folder.rstrip("/") + "/")
    except (OSError, StopIteration, ValueError):
        return False
    return True


def _of_process(pid: int, most: int) -> list[Descriptor]:
    found = []
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    try:
        found.append(Descriptor(now, -1, pid, AT_FDCWD, -1, _link(f"/proc/{pid}/cwd")))
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except OSError:
        return found
    for name in names[:most]:
        try:
            target = _link(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue  # closed since it was listed
        pos, flags = _state(pid, name)
        found.append(Descriptor(now, pos, pid, int(name), flags, target))
    return found


def _state(pid: int, fd: str) -> tuple[int, int]:
    """Return position and flags: the first two lines of fdinfo (fs/proc/fd.c, since 2.6.22)."""
    try:
        values = dict(line.split(b":\t", 1) for line in _read(f"/proc/{pid}/fdinfo/{fd}").splitlines()[:2])
        return int(values[b"pos"]), int(values[b"flags"], 8)
    except (OSError, ValueError, KeyError):
        return -1, -1


def _link(path: str) -> bytes:
    return os.readlink(os.fsencode(path))  # noqa: PTH115 - a Path would not give bytes


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def descriptor_rows(found: list[Descriptor]) -> pa.Table | None:
    """Make rows of what was found, sorted; None if there is nothing."""
    import pyarrow as pa

    from ringtape.schemas.arrow import arrow_schema
    from ringtape.schemas.table import table

    if not found:
        return None
    schema = arrow_schema(table("descriptors"))
    columns = zip(*sorted(found), strict=True)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema)
