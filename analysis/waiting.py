"""What a thread that is blocked in a system call waits for: from the call, its descriptor, and the state it was left in."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.descriptors import Follower
from ringtape.analysis.file_calls import argument, descriptor, shapes
from ringtape.analysis.file_events import file_events, windows
from ringtape.analysis.file_names import FILE, OTHER, PIPE, SOCKET, Names
from ringtape.analysis.naming import syscall_name
from ringtape.analysis.timelines import Timeline
from ringtape.analysis.trace import Trace

Ints = npt.NDArray[np.int64]
DISK, NETWORK, LOCAL, PIPES, TERMINAL, LOCK, SLEEP, CHILD, POLL, MESSAGES, MEMORY, ELSE = KINDS = (
    "disk",
    "network",
    "unix socket",
    "pipe",
    "terminal",
    "lock",
    "sleep",
    "child",
    "poll",
    "message queue",
    "memory",
    "other",
)
"""What a call can wait for."""
MEANING = (
    "disk, network, unix socket, pipe, terminal, lock, sleep, child, poll (any of several descriptors, or an event), message queue,"
    " memory (its address space is locked, or there is none to be had) or other"
)
BY_CALL = {
    LOCK: ("futex", "futex_waitv", "futex_wait", "flock", "semop", "semtimedop", "semtimedop_time64"),
    SLEEP: ("nanosleep", "clock_nanosleep", "clock_nanosleep_time64", "pause", "rt_sigsuspend", "rt_sigtimedwait", "sigsuspend",
            "sched_yield", "restart_syscall"),
    CHILD: ("wait4", "waitid", "waitpid", "vfork", "clone", "clone3", "fork"),
    POLL: ("poll", "ppoll", "select", "pselect6", "_newselect", "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_wait_old",
           "io_getevents", "io_uring_enter"),
    NETWORK: ("accept", "accept4", "connect", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg", "recv", "send",
              "socketcall"),
    DISK: ("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync"),
    MESSAGES: ("msgrcv", "msgsnd", "mq_timedreceive", "mq_timedsend", "mq_timedreceive_time64", "mq_timedsend_time64"),
    MEMORY: ("mmap", "mmap2", "munmap", "mremap", "mprotect", "pkey_mprotect", "brk", "madvise", "process_madvise", "mlock", "mlock2",
             "munlock", "mlockall", "munlockall", "shmat", "shmdt", "remap_file_pages", "mseal"),
}  # fmt: skip
_OF_CALL = {name: reason for reason, names in BY_CALL.items() for name in names}
_LOCKING = {"fcntl": (7, 38), "fcntl64": (7, 14, 38)}
"""F_SETLKW, F_SETLKW64, F_OFD_SETLKW"""
_BETWEEN_TWO = ("sendfile", "sendfile64", "splice", "tee", "copy_file_range")
_EVENTS = (b"anon_inode:[eventfd]", b"anon_inode:[eventpoll]", b"anon_inode:[signalfd]", b"anon_inode:inotify", b"inotify",
           b"anon_inode:[fanotify]", b"anon_inode:[userfaultfd]", b"anon_inode:[io_uring]", b"anon_inode:[perf_event]")  # fmt: skip
_TIMERS = (b"anon_inode:[timerfd]",)
_TERMINALS = (b"/dev/pts/", b"/dev/tty", b"/dev/console", b"/dev/ptmx")


def reason() -> pl.Expr:
    """Return the expression for what a thread was blocked for, from the call (``nr``, ``abi``), ``waited`` and ``uninterruptible``.

    A call that waits by its nature says it itself, and a socket, pipe, terminal or queue of events says it for the call that works on it
    (``waited``). Of what is left, a call that names a descriptor or a path and cannot be interrupted waits for a disk, or for a lock of
    the kernel on its way there.
    """
    name = syscall_name()
    known = name.replace_strict(list(_OF_CALL), list(_OF_CALL.values()), default=None, return_dtype=pl.String)
    stuck = pl.col("uninterruptible").fill_null(False)
    told = pl.when((known.is_null() | (known == NETWORK)) & ~(stuck & name.is_in(_BETWEEN_TWO).fill_null(False))).then(pl.col("waited"))
    on_disk = pl.when(stuck & _names_files()).then(pl.lit(DISK))
    return pl.coalesce(told, known, on_disk, pl.lit(ELSE)).alias("reason")


def _names_files() -> pl.Expr:
    """Return the expression that is true for calls that name a descriptor or a path."""

    def look(pairs: pl.Series) -> pl.Series:
        abi, nr = (pairs.struct.field(name).fill_null(-1).to_numpy() for name in ("abi", "nr"))
        index = shapes().index(abi, nr)
        return pl.Series((shapes().column("fd", index) >= 0) | (shapes().column("path", index) >= 0))

    return pl.struct("abi", "nr").map_batches(look, return_dtype=pl.Boolean, is_elementwise=True)


class Waiting:
    """Tells what descriptors are that calls were blocked on.

    Parameters
    ----------
    trace : Trace
        The recording; its descriptors are followed when the first call asks, from the beginning.
    """

    COLUMNS = ("tid", "pid", "ts", "nr", "abi", "arg0", "arg1", "arg2")

    def __init__(self, trace: Trace) -> None:
        self._trace = trace.whole

    def told(self, calls: pl.DataFrame) -> pl.Series:
        """Return what the descriptor of each call says it waits for (`KINDS`); null where there is none, or it is a file or unknown.

        Parameters
        ----------
        calls : DataFrame
            The columns `COLUMNS`.
        """
        index = shapes().index(calls["abi"].to_numpy(), calls["nr"].to_numpy())
        found = np.full(len(calls), None, object)
        for member in ("fd2", "fd"):
            place = shapes().column(member, index)
            rows = np.flatnonzero((place >= 0) & (place < 3))
            if len(rows):
                kinds = self._kinds(calls[rows], place[rows])
                found[rows] = np.where(kinds == None, found[rows], kinds)  # noqa: E711  (element by element)
        command = calls["arg1"].to_numpy() & 0xFFFFFFFF
        names = calls.select(syscall_name())["syscall"].to_numpy()
        for name, commands in _LOCKING.items():
            found[(names == name) & np.isin(command, commands)] = LOCK
        return pl.Series("waited", found.tolist(), dtype=pl.String)

    def _kinds(self, calls: pl.DataFrame, place: npt.NDArray[np.int8]) -> npt.NDArray[np.object_]:
        threads, descriptors, files, kinds = self._followed
        tid, pid, ts = (calls[name].to_numpy().astype(np.int64) for name in ("tid", "pid", "ts"))
        table = threads.at(tid, ts)
        table = np.where(table < 0, threads.at(pid, ts), table)
        fd = descriptor(argument([calls[name].to_numpy() for name in ("arg0", "arg1", "arg2")], place)).astype(np.int64)
        file = descriptors.at(np.where(table < 0, -1, table << 32 | fd & 0xFFFFFFFF), ts)
        found = np.full(len(calls), None, object)
        known = np.flatnonzero(file >= 0)
        found[known] = kinds[files[file[known]]]
        return found

    @cached_property
    def _followed(self) -> tuple[Timeline, Timeline, Ints, npt.NDArray[np.object_]]:
        names = Names()
        follower = Follower(names)
        follower.follow(file_events(self._trace, windows(self._trace)))
        threads, _, descriptors, _ = follower.timelines()
        kinds = np.array([kind_of(name, kind) for name, kind in names.values], object)
        return threads, descriptors, np.frombuffer(follower.file_names, np.int64), kinds


def kind_of(name: bytes, kind: str) -> str | None:
    """Return what a call waits for that works on a file of this name and kind; None where that does not tell.

    >>> kind_of(b"pipe:[123]", "pipe"), kind_of(b"socket:UNIX pair made by 7", "socket"), kind_of(b"/etc/passwd", "file")
    ('pipe', 'unix socket', None)
    """
    if kind == PIPE:
        return PIPES
    if kind == SOCKET:
        return LOCAL if name.startswith(b"socket:UNIX") else ELSE if name.startswith(b"socket:NETLINK") else NETWORK
    if kind == OTHER:
        return POLL if name in _EVENTS else SLEEP if name in _TIMERS else MESSAGES if name.startswith(b"mqueue:") else None
    return TERMINAL if kind == FILE and name.startswith(_TERMINALS) else None
