"""Which system calls work on descriptors and paths: which arguments say so, which way bytes go, and what becomes of descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ringtape.schemas.abi import syscalls as calls
from ringtape.schemas.columns import ABI

NUMBERS = 1024
"""Call numbers looked up; x32 numbers are taken without their bit, since its own ones (512 to 547) collide with none of x86_64."""
O_APPEND, O_CLOEXEC = 0o2000, 0o2000000
MAP_ANONYMOUS = 0x20
NO_POSITION = -2
IMPLICIT = -1


class Op(IntEnum):
    """What a call does to the descriptors of its process."""

    NONE = 0
    OPEN = 1
    MAKE = 2
    ACCEPT = 3
    PAIR = 4
    DUP = 5
    DUP_TO = 6
    FCNTL = 7
    IOCTL = 8
    CLOSE = 9
    CLOSE_RANGE = 10
    CONNECT = 11
    BIND = 12
    CHDIR = 13
    FCHDIR = 14
    UNSHARE = 15
    SIGNALFD = 16
    BPF = 17


class Bytes(IntEnum):
    """Which way the bytes go that a call returns the number of."""

    NONE = 0
    READ = 1
    WRITTEN = 2
    TO_SECOND = 3
    FROM_SECOND = 4


class Made(NamedTuple):
    """How a call makes descriptors: what they are called, and where it says whether they are closed by exec.

    ``flags`` is the index of the argument with the bit ``mask``; -1 means never, -2 always.
    """

    op: Op
    label: str = ""
    flags: int = -1
    mask: int = O_CLOEXEC


ALWAYS = -2
MAKERS: dict[str, Made] = {
    "open": Made(Op.OPEN, "", 1),
    "openat": Made(Op.OPEN, "", 2),
    # The flags of openat2 lie in a structure: whether exec closes the descriptor is not known, and taken for no.
    "openat2": Made(Op.OPEN),
    "creat": Made(Op.OPEN),
    "open_tree": Made(Op.OPEN, "", 2),
    "open_tree_attr": Made(Op.OPEN, "", 2),
    "open_by_handle_at": Made(Op.MAKE, "(opened by handle)", 2),
    "mq_open": Made(Op.OPEN, "mqueue:", ALWAYS),
    "memfd_create": Made(Op.OPEN, "memfd:", 1, 1),
    "memfd_secret": Made(Op.MAKE, "secretmem", 0),
    "socket": Made(Op.MAKE, "socket", 1),
    "accept": Made(Op.ACCEPT),
    "accept4": Made(Op.ACCEPT, "", 3),
    "pipe": Made(Op.PAIR, "pipe"),
    "pipe2": Made(Op.PAIR, "pipe", 1),
    "socketpair": Made(Op.PAIR, "socketpair", 1),
    "eventfd": Made(Op.MAKE, "anon_inode:[eventfd]"),
    "eventfd2": Made(Op.MAKE, "anon_inode:[eventfd]", 1),
    "epoll_create": Made(Op.MAKE, "anon_inode:[eventpoll]"),
    "epoll_create1": Made(Op.MAKE, "anon_inode:[eventpoll]", 0),
    "timerfd_create": Made(Op.MAKE, "anon_inode:[timerfd]", 1),
    "signalfd": Made(Op.SIGNALFD, "anon_inode:[signalfd]"),
    "signalfd4": Made(Op.SIGNALFD, "anon_inode:[signalfd]", 3),
    "inotify_init": Made(Op.MAKE, "anon_inode:inotify"),
    "inotify_init1": Made(Op.MAKE, "anon_inode:inotify", 0),
    "fanotify_init": Made(Op.MAKE, "anon_inode:[fanotify]", 0, 1),
    "pidfd_open": Made(Op.MAKE, "anon_inode:[pidfd]", ALWAYS),
    "io_uring_setup": Made(Op.MAKE, "anon_inode:[io_uring]", ALWAYS),
    "userfaultfd": Made(Op.MAKE, "anon_inode:[userfaultfd]", 0),
    "perf_event_open": Made(Op.MAKE, "anon_inode:[perf_event]", 4, 8),
    "landlock_create_ruleset": Made(Op.MAKE, "anon_inode:[landlock-ruleset]", ALWAYS),
    "fsopen": Made(Op.MAKE, "anon_inode:[fscontext]", 1, 1),
    "fspick": Made(Op.MAKE, "anon_inode:[fscontext]", 2, 1),
    "fsmount": Made(Op.MAKE, "anon_inode:[mount]", 1, 1),
    "pidfd_getfd": Made(Op.MAKE, "(taken from another process)", ALWAYS),
    "bpf": Made(Op.BPF, "anon_inode:bpf", ALWAYS),
}
OPS: dict[str, Op] = {
    **{name: made.op for name, made in MAKERS.items()},
    "dup": Op.DUP,
    "dup2": Op.DUP_TO,
    "dup3": Op.DUP_TO,
    "fcntl": Op.FCNTL,
    "fcntl64": Op.FCNTL,
    "ioctl": Op.IOCTL,
    "close": Op.CLOSE,
    "close_range": Op.CLOSE_RANGE,
    "connect": Op.CONNECT,
    "bind": Op.BIND,
    "chdir": Op.CHDIR,
    "fchdir": Op.FCHDIR,
    "unshare": Op.UNSHARE,
}
BPF_MAKES = (0, 5, 7, 13, 14, 17, 18, 19, 28, 30, 32, 33)
"""Commands of bpf(2) that return a descriptor (enum bpf_cmd in include/uapi/linux/bpf.h)."""
_READ = ("read", "readv", "pread64", "preadv", "preadv2", "recv", "recvfrom", "recvmsg", "mq_timedreceive", "mq_timedreceive_time64")
_WRITTEN = ("write", "writev", "pwrite64", "pwritev", "pwritev2", "send", "sendto", "sendmsg")
_BYTES = {
    **dict.fromkeys(_READ, Bytes.READ),
    **dict.fromkeys(_WRITTEN, Bytes.WRITTEN),
    **dict.fromkeys(("splice", "tee", "copy_file_range"), Bytes.TO_SECOND),
    **dict.fromkeys(("sendfile", "sendfile64"), Bytes.FROM_SECOND),
}
RETURN_BYTES = frozenset(_BYTES)
"""Names of the calls that return how many bytes they have moved."""
_OFFSETS = dict.fromkeys(("pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2"), 3)
_AT_POSITION = ("read", "readv", "write", "writev")
# The descriptors among the arguments are not what these calls work on.
_WITHOUT_FD = ("perf_event_open",)
_FIRST_FD_ONLY = ("dup2", "dup3", "pidfd_getfd")
# The first path of these is a text or a name that no folder holds.
_TEXTS = ("symlink", "symlinkat", "mount", "memfd_create", "mq_open", "mq_unlink")


@dataclass(frozen=True, slots=True)
class Shape:
    """What one call's arguments say; every member is the index of an argument, -1 for none, unless it says otherwise.

    ``fd`` and ``path`` (with its ``folder``) are what the call works on first, ``fd2``, ``path2`` and ``folder2`` what
    it names beside it. ``offset`` is where its bytes lie, IMPLICIT at the file's position, NO_POSITION where that does
    not apply; ``seek`` is 1 for lseek, 2 for _llseek. ``bytes`` is a `Bytes`, ``op`` an `Op`, ``maps`` 1 for mmap.
    """

    fd: int = -1
    path: int = -1
    folder: int = -1
    fd2: int = -1
    path2: int = -1
    folder2: int = -1
    bytes: int = Bytes.NONE
    offset: int = NO_POSITION
    seek: int = 0
    maps: int = 0
    op: int = Op.NONE


def shape_of(abi: str, nr: int) -> Shape | None:
    """Return what a call works on; None if it names neither descriptor nor path and makes none."""
    name = calls.names(abi).get(nr)
    if name is None:
        return None
    types = [argument.type for argument in calls.signature(abi, nr) or ()]
    fds = [] if name in _WITHOUT_FD else [at for at, kind in enumerate(types) if kind == "fd"]
    paths = [at for at, kind in enumerate(types) if kind == "path"]
    if name in _FIRST_FD_ONLY:
        fds = fds[:1]
    if name in _TEXTS:
        paths = paths[1:]
    if not (fds or paths or name in MAKERS):
        return None

    def folder(path: int) -> int:
        return path - 1 if path > 0 and types[path - 1] == "dirfd" else -1

    first, second = [*paths, -1, -1][:2]
    fd, fd2 = [*fds, -1, -1][:2]
    if first >= 0:
        fd, fd2 = -1, fd
    return Shape(
        fd=fd,
        path=first,
        folder=folder(first),
        fd2=fd2,
        path2=second,
        folder2=folder(second),
        bytes=_BYTES.get(name, Bytes.NONE),
        offset=_OFFSETS.get(name, IMPLICIT if name in _AT_POSITION else NO_POSITION),
        seek={"lseek": 1, "_llseek": 2}.get(name, 0),
        maps=int(name in ("mmap", "mmap2") and fd >= 0),
        op=OPS.get(name, Op.NONE),
    )


class Shapes:
    """The shapes of all calls as arrays, so that many calls are looked up at once."""

    def __init__(self) -> None:
        self._shapes: list[Shape] = [Shape()]
        self._index = np.zeros((128, NUMBERS), np.int16)
        self._makers: list[Made | None] = [None]
        self._numbers: dict[int, list[int]] = {}
        self._changing: dict[int, list[int]] = {}
        for code, abi in ABI.values.items():
            for nr, name in calls.names(abi).items():
                shape = shape_of(abi, nr)
                if shape is not None or name in OPS:
                    self._index[code, nr & NUMBERS - 1] = len(self._shapes)
                    self._shapes.append(shape or Shape(op=OPS[name]))
                    self._makers.append(MAKERS.get(name))
                    self._numbers.setdefault(code, []).append(nr)
                if name in OPS:
                    self._changing.setdefault(code, []).append(nr)
        self._columns: dict[str, npt.NDArray[np.int8]] = {
            field.name: np.array([getattr(shape, field.name) for shape in self._shapes], np.int8) for field in fields(Shape)
        }

    def numbers(self, native: str, changing: bool = False) -> tuple[list[int], list[int]]:
        """Return the numbers of the calls that have a shape (or of those that change descriptors): of the machine's own ABI, of all others."""
        found = self._changing if changing else self._numbers
        own = calls.ABI_IDS.get(native, 0)
        return sorted(found.get(own, [])), sorted({nr for code, numbers in found.items() if code != own for nr in numbers})

    def index(self, abi: npt.NDArray[Any], nr: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
        """Return the number of each call's shape; 0 for calls that have none."""
        plain = nr & ~calls.X32_BIT
        known = (plain >= 0) & (plain < NUMBERS) & (abi >= 0)
        found: npt.NDArray[np.int16] = self._index[np.where(known, abi, 0), np.where(known, plain, 0)]
        return found

    def column(self, name: str, index: npt.NDArray[np.int16]) -> npt.NDArray[np.int8]:
        """Return one member of each call's shape."""
        found: npt.NDArray[np.int8] = self._columns[name][index]
        return found

    def members(self, name: str) -> list[int]:
        """Return one member of every shape."""
        return [int(value) for value in self._columns[name]]

    def touches(self, index: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
        """Return which calls name a descriptor or a path, or make a descriptor."""
        makes = among(self.column("op", index), (Op.OPEN, Op.MAKE, Op.ACCEPT, Op.PAIR, Op.SIGNALFD, Op.BPF))
        touching: npt.NDArray[np.bool_] = (self.column("fd", index) >= 0) | (self.column("path", index) >= 0) | makes
        return touching

    def made(self, index: int) -> Made:
        """Return how a call makes descriptors."""
        made = self._makers[index]
        assert made is not None
        return made


@cache
def shapes() -> Shapes:
    """Return the shapes of all calls."""
    return Shapes()


def among(values: npt.NDArray[np.int8], codes: Iterable[int]) -> npt.NDArray[np.bool_]:
    """Return which of many small numbers, none below 0, are among a few: what np.isin does by sorting."""
    chosen = np.zeros(128, np.bool_)
    chosen[list(codes)] = True
    return chosen[values]


def argument(args: list[npt.NDArray[np.int64]], index: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """Return, for each call, the argument of that index; 0 where the index is negative."""
    found = np.zeros(len(index), np.int64)
    for at, values in enumerate(args):
        chosen = index == at
        if chosen.any():
            found[chosen] = values[chosen]
    return found


def descriptor(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Return descriptors as the kernel takes them: the low 32 bits, signed."""
    return values.astype(np.int32)
