"""Threads and processes as far as a text of system calls tells of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from ringtape.schemas.columns import SIZES
from ringtape.schemas.table import table

UNKNOWN_CPU = -1
UNKNOWN_USER = -1
EXISTING, FORK, EXEC, EXIT, RENAME = range(5)
THREAD = 0x10000
"""CLONE_THREAD: the new thread belongs to the process of its creator."""


@dataclass
class Thread:
    """One thread: ``number`` is its place in `Threads.numbers`, ``row`` that of its first appearance while it may still be amended."""

    number: int
    tid: int
    start: int
    comm: bytes = b""
    row: dict[str, Any] | None = None
    settled: bool = True


class Threads:
    """The threads that live, and rows of the table ``processes`` about them.

    A thread whose creation was not seen, because its creator's call has not returned yet, gets its process when that returns.
    """

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.numbers: list[list[int]] = []
        self.alive: dict[int, Thread] = {}
        self.members: dict[int, set[int]] = defaultdict(set)
        self._empty = {
            column.name: {"comm": b"", "bytes": b"", "text": ""}.get(column.type, 0) for column in table("processes").columns
        } | {"seq": -1, "cpu": UNKNOWN_CPU, "uid": UNKNOWN_USER, "gid": UNKNOWN_USER}  # fmt: skip

    def pid(self, thread: Thread) -> int:
        """Return the process of a thread."""
        return self.numbers[thread.number][1]

    def at(self, tid: int, ts: int, creator: Thread | None = None, flags: int = 0, pid: int | None = None, comm: bytes = b"") -> Thread:
        """Return the thread of that number, which is new if it was not heard of before.

        Parameters
        ----------
        tid : int
            Its number.
        ts : int
            When it is heard of, ns.
        creator : Thread, optional
            The thread that may have made it, if that is known.
        flags : int
            Flags of the clone.
        pid : int, optional
            Its process, where the source tells.
        comm : bytes
            Its command name, where the source tells.
        """
        known = self.alive.get(tid)
        if known is not None:
            return known
        process = pid if pid is not None else self.pid(creator) if creator is not None and flags & THREAD else tid
        thread = Thread(len(self.numbers), tid, ts, comm or (creator.comm if creator is not None else b""))
        self.numbers.append([tid, process])
        self.alive[tid] = thread
        self.members[process].add(tid)
        thread.settled = creator is not None
        thread.row = self._row(thread, FORK if creator is not None else EXISTING, ts)
        if creator is not None:
            thread.row |= {"clone_flags": flags, "ppid": self.pid(creator), "creator": creator.tid}
        return thread

    def born(self, tid: int, ts: int, creator: Thread, flags: int, pid: int | None = None) -> None:
        """Take the return of a clone: the thread was made by ``creator``, at the latest at ``ts``."""
        known = self.alive.get(tid)
        if known is None:
            self.at(tid, ts, creator, flags, pid)
            return
        if known.settled or known.row is None:
            return
        known.settled = True
        if pid is None and flags & THREAD:
            self.members[self.pid(known)].discard(tid)
            self.numbers[known.number][1] = self.pid(creator)
            self.members[self.pid(creator)].add(tid)
        row = known.row
        if not known.comm:
            known.comm = row["comm"] = creator.comm
        known.start = row["ts"]
        row |= {
            "kind": FORK, "clone_flags": flags, "ppid": self.pid(creator), "creator": creator.tid, "pid": self.pid(known), "start": row["ts"],
        }  # fmt: skip

    def exec(self, thread: Thread, ts: int, comm: bytes, file: bytes, argv: bytes, cut: bool) -> None:
        """Take a successful execve."""
        thread.comm = comm[: SIZES["comm"] - 1]
        self._row(thread, EXEC, ts).update(file=file, argv=argv, cut=int(cut), creator=thread.tid)

    def rename(self, thread: Thread, ts: int, comm: bytes) -> None:
        """Take a new command name."""
        thread.comm = comm[: SIZES["comm"] - 1]
        self._row(thread, RENAME, ts)

    def exit(self, thread: Thread, ts: int, code: int, signal: int) -> None:
        """Take the end of a thread."""
        pid = self.pid(thread)
        members = self.members[pid]
        members.discard(thread.tid)
        if not members:
            del self.members[pid]
        self._row(thread, EXIT, ts).update(exit_code=code, exit_signal=signal, group_dead=int(not members))
        self.alive.pop(thread.tid, None)

    def _row(self, thread: Thread, kind: int, ts: int) -> dict[str, Any]:
        row = self._empty | {"ts": ts, "start": thread.start, "comm": thread.comm, "tid": thread.tid, "pid": self.pid(thread), "kind": kind}
        self.rows.append(row)
        return row
