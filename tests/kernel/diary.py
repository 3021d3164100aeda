"""Reads the diaries that the programs keep of their own calls (programs/diary.h), and compares recordings with them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ringtape.schemas.abi.syscalls import ABI_IDS, arity
from tests.kernel.recording import Call, Trace, wait_for

ENTRY = np.dtype([(name, "<i8", 6 if name == "args" else ()) for name in ("pid", "tid", "nr", "abi", "args", "ret", "before", "after", "kind")])
RETURNED, NO_RETURN, AT_ATTACH, UNFINISHED, CHILD = range(5)
EXECVE = 59
_ABI_NAMES = {number: name for name, number in ABI_IDS.items()}


class Entry(NamedTuple):
    """A call as the program that made it wrote it down."""

    pid: int
    tid: int
    nr: int
    abi: int
    args: tuple[int, ...]
    ret: int
    before: int
    after: int
    kind: int

    @property
    def visible_args(self) -> tuple[int, ...]:
        """The arguments that a recording holds: those of the call's arity, halves of registers for 32-bit calls."""
        count = 0 if self.kind == CHILD else arity(_ABI_NAMES[self.abi], self.nr)
        args = self.args if self.abi != ABI_IDS["i386"] else tuple(value & 0xFFFFFFFF for value in self.args)
        return (*args[:count], *(0,) * (6 - count))


class Diary:
    """The file that a program keeps its diary in."""

    def __init__(self, path: Path, entries: int = 20_000) -> None:
        self.path = path
        with open(path, "wb") as file:
            file.truncate((1 + entries) * ENTRY.itemsize)
        path.chmod(0o666)
        self.env = {"DIARY": str(path)}

    @property
    def entries(self) -> list[Entry]:
        data = self.path.read_bytes()
        rows = np.frombuffer(data, ENTRY, int(np.frombuffer(data, "<i8", 1)[0]), ENTRY.itemsize)
        columns = {name: rows[name].tolist() for name in Entry._fields}
        columns["args"] = [tuple(args) for args in columns["args"]]
        return [Entry(*values) for values in zip(*columns.values(), strict=True)]

    @property
    def threads(self) -> dict[int, list[Entry]]:
        by_tid: dict[int, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            by_tid[entry.tid].append(entry)
        return dict(by_tid)

    def wait_for(self, nr: int, count: int = 1) -> list[Entry]:
        """Wait until calls of a number have been begun; return them."""
        return wait_for(
            lambda: found if len(found := [one for one in self.entries if one.nr == nr and one.tid]) >= count else None, f"{count} calls of {nr}"
        )


def as_written(entry: Entry) -> tuple[object, ...]:
    return (entry.nr, entry.abi, entry.kind, entry.ret, entry.visible_args)


def as_recorded(call: Call) -> tuple[object, ...]:
    return (call.nr, call.abi, call.kind, call.ret, call.args)


def check_same(trace: Trace, diary: Diary, main: int | None = None) -> None:
    """The recording holds exactly the calls of the diary, thread by thread, in order, each within the time that it took.

    Not compared is what the C library does before a program's first entry, at its start and after each exec. Everything
    else must be in the diary.
    """
    written = diary.threads
    assert written
    main = next(iter(written)) if main is None else main
    for tid, entries in written.items():
        calls = trace.threads.get(tid, [])
        if tid == main:
            calls = [call for call in calls if call.ts >= entries[0].before]
        compared: list[Call] = []
        for image in _images(entries):
            calls = [call for call in calls if call.ts >= image[0].before]
            compared += calls if image[-1] is entries[-1] else calls[: len(image)]
            calls = calls[len(image) :]
        assert [as_recorded(call) for call in compared] == [as_written(entry) for entry in entries], f"thread {tid}"
        for call, entry in zip(compared, entries, strict=True):
            assert call.pid == entry.pid
            assert entry.before <= call.ts
            assert call.dur >= 0
            assert entry.after <= 0 or call.ts + call.dur <= entry.after
    processes = {entry.pid for entry in diary.entries}
    foreign = {call.tid for call in trace.calls if call.pid in processes} - set(written)
    assert not foreign, f"threads that the diary does not know: {foreign}"


def _images(entries: list[Entry]) -> list[list[Entry]]:
    """Cut the entries of a thread after each successful exec."""
    images: list[list[Entry]] = [[]]
    for entry in entries:
        images[-1].append(entry)
        if entry.nr == EXECVE and entry.abi == ABI_IDS["x86_64"] and entry.ret == 0:
            images.append([])
    return [image for image in images if image]
