"""Follows descriptors through open, dup, socket, pipe, close, fork, exec and exit: which file each one means at each time.

Only the calls that change descriptors are looked at one by one; what they leave are timelines in which all other calls are
looked up at once.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ringtape.analysis.file_calls import ALWAYS, BPF_MAKES, O_APPEND, O_CLOEXEC, Made, Op, shapes
from ringtape.analysis.file_names import FILE, OTHER, PIPE, SOCKET, UNKNOWN, Names, address, family_of, socket_name
from ringtape.analysis.timelines import Changes, Timeline

AT_FDCWD = -100
ALWAYS_BEFORE = -(1 << 62)
CLOSED = -1
SNAPSHOT, PROCESS, CALL = range(3)
"""Where an event comes from; of the same time they hold in this order."""
EXISTING, FORK, EXEC, EXIT = range(4)
CLONE_FS, CLONE_FILES, CLONE_NEWNS = 0x200, 0x400, 0x20000
F_DUPFD, F_SETFD, F_DUPFD_CLOEXEC = 0, 2, 1030
FIONCLEX, FIOCLEX = 0x5450, 0x5451
RANGE_UNSHARE, RANGE_CLOEXEC = 2, 4
EBADF = 9


class _Table:
    """A table of descriptors: for each its file times two, plus one if exec closes it; CLOSED where there is none."""

    __slots__ = ("children", "fds", "number", "users")

    def __init__(self, number: int, fds: dict[int, int], users: set[int]) -> None:
        self.number, self.fds, self.users = number, fds, users
        self.children: list[_Table] = []


class _Place:
    """A working folder, as the number of its name; -1 while it is not known."""

    __slots__ = ("folder", "number")

    def __init__(self, number: int, folder: int) -> None:
        self.number, self.folder = number, folder


def key(table: int, fd: int) -> int:
    """Return the number by which a descriptor of a table is looked up."""
    return table << 32 | fd & 0xFFFFFFFF


class Follower:
    """Takes events in the order of time.

    Attributes
    ----------
    names : Names
        Names of files.
    file_names : array
        Number of the name, by file. A file is one open file description: what open made and dup and fork share.
    births, positions, appends, makers : array
        When each file came to be (in ns), where its position was then, whether every write goes to its end, and the process
        whose call made it, 0 where none was recorded.
    threads, places : Changes
        Which table and which working folder a thread has.
    descriptors, folders : Changes
        Which file a descriptor of a table is (by `key`), which name a working folder has.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.file_names, self.births, self.positions = array("q"), array("q"), array("q")
        self.appends, self.makers = array("b"), array("q")
        self.threads, self.places, self.descriptors, self.folders = Changes(), Changes(), Changes(), Changes()
        self._states: dict[int, tuple[_Table, _Place]] = {}
        self._tables: dict[int, _Table] = {}
        self._count = 0
        self._protocols: dict[int, str] = {}
        self._bound: dict[int, str] = {}

    def follow(self, events: Iterable[tuple[Any, ...]]) -> None:
        """Take events: (time, source, number, ...) as `file_events` gives them."""
        for event in events:
            if event[1] == CALL:
                self._call(*event[3:])
            elif event[1] == PROCESS:
                self._process(event[0], *event[3:])
            else:
                self._snapshot(event[0], *event[3:])

    def still_open(self) -> Counter[tuple[int, int]]:
        """Return how many descriptors of processes that have not ended mean each name, by (name, process)."""
        found: Counter[tuple[int, int]] = Counter()
        for table in self._tables.values():
            pid = min(table.users)
            found.update((self.file_names[value >> 1], pid) for value in table.fds.values() if value != CLOSED)
        return found

    # Threads and their tables.

    def _state(self, tid: int, pid: int) -> tuple[_Table, _Place]:
        state = self._states.get(tid)
        if state is None:
            # It was there before the recording, or its beginning was lost: it shares what its process has.
            state = self._states.get(pid) or (self._new_table({}, {pid}), self._new_place(-1, ALWAYS_BEFORE))
            self._enter(tid, ALWAYS_BEFORE, state)
            if pid not in self._states:
                self._enter(pid, ALWAYS_BEFORE, state)
        return state

    def _enter(self, tid: int, time: int, state: tuple[_Table, _Place]) -> None:
        self._states[tid] = state
        self.threads.add(tid, time, state[0].number)
        self.places.add(tid, time, state[1].number)

    def _new_table(self, fds: dict[int, int], users: set[int]) -> _Table:
        self._count += 1
        table = self._tables[self._count] = _Table(self._count, fds, users)
        return table

    def _copy(self, table: _Table, pid: int, time: int) -> _Table:
        copy = self._new_table({fd: value for fd, value in table.fds.items() if value != CLOSED}, {pid})
        for fd, value in copy.fds.items():
            self.descriptors.add(key(copy.number, fd), time, value >> 1)
        table.children.append(copy)
        return copy

    def _new_place(self, folder: int, time: int) -> _Place:
        self._count += 1
        place = _Place(self._count, folder)
        if folder >= 0:
            self.folders.add(place.number, time, folder)
        return place

    def _process(self, time: int, kind: int, tid: int, pid: int, ppid: int, creator: int, flags: int, last: int) -> None:
        if kind == EXISTING:
            self._state(tid, pid)
        elif kind == FORK:
            table, place = self._state(creator, creator if creator in self._states else ppid)
            if flags & CLONE_FILES:
                table.users.add(pid)
            else:
                table = self._copy(table, pid, time)
            self._enter(tid, time, (table, place if flags & CLONE_FS else self._new_place(place.folder, time)))
        elif kind == EXEC:
            table, place = self._states.get(creator) or self._state(tid, pid)
            if table.users != {pid}:
                table.users.discard(pid)
                table = self._copy(table, pid, time)
            for fd, value in table.fds.items():
                if value != CLOSED and value & 1:
                    self._bind(table, fd, time, CLOSED)
            if self._states.get(tid) != (table, place):
                self._enter(tid, time, (table, place))
        elif kind == EXIT:
            state = self._states.get(tid) or self._states.get(pid)
            if last and state is not None:
                state[0].users.discard(pid)
                if not state[0].users:
                    self._tables.pop(state[0].number, None)
                self._states.pop(pid, None)
            if tid != pid or last:
                self._states.pop(tid, None)

    def _snapshot(self, time: int, pid: int, fd: int, flags: int, pos: int, target: bytes) -> None:
        table, place = self._state(pid, pid)
        name = self.names.target(target)
        if fd == AT_FDCWD:
            if place.folder < 0:
                place.folder = name
                self.folders.add(place.number, ALWAYS_BEFORE, name)
            return
        if table.fds.get(fd, CLOSED) != CLOSED:
            return  # a call that was recorded says the same
        known = max(flags, 0)
        file = self._new_file(name, time, max(pos, 0), bool(known & O_APPEND))
        value = file << 1 | bool(known & O_CLOEXEC)
        # It was so before, unless a call has closed that number in between; and a child made meanwhile has inherited it.
        self._bind(table, fd, time if fd in table.fds else ALWAYS_BEFORE, value)
        for child in table.children:
            if fd not in child.fds:
                self._bind(child, fd, ALWAYS_BEFORE, value)

    # Files.

    def _new_file(self, name: int, time: int, pos: int = 0, append: bool = False, maker: int = 0) -> int:
        self.file_names.append(name)
        self.births.append(time)
        self.positions.append(pos)
        self.appends.append(append)
        self.makers.append(maker)
        return len(self.file_names) - 1

    def _bind(self, table: _Table, fd: int, time: int, value: int) -> None:
        table.fds[fd] = value
        self.descriptors.add(key(table.number, fd), time, CLOSED if value == CLOSED else value >> 1)

    def _file(self, table: _Table, fd: int, time: int) -> int:
        """Return the file of a descriptor; one that nothing explains becomes a file of its own."""
        value = table.fds.get(fd, CLOSED)
        if value == CLOSED:
            value = self._new_file(self.names.unknown(fd), time) << 1
            self._bind(table, fd, time, value)
        return value >> 1

    def _call(self, shape: int, tid: int, pid: int, time: int, ret: int, args: list[int], value: bytes | None) -> None:
        table, place = self._state(tid, pid)
        op = _OPS[shape]
        if op == Op.CLOSE:
            self._bind(table, _fd(args[0]), time, CLOSED)
        elif op in _MAKING:
            self._make(op, shape, table, place, pid, time, ret, args, value)
        elif op == Op.ACCEPT:
            made = _MADE(shape)
            file = self._new_file(self._accepted(self._file(table, _fd(args[0]), time), value), time, maker=pid)
            self._protocols[file] = self._protocols.get(table.fds[_fd(args[0])] >> 1, "")
            self._bind(table, ret, time, file << 1 | _cloexec(made, args))
        elif op == Op.PAIR:
            self._pair(_MADE(shape), table, pid, time, args, value)
        elif op == Op.DUP:
            self._bind(table, ret, time, self._file(table, _fd(args[0]), time) << 1)
        elif op == Op.DUP_TO:
            if _fd(args[0]) != _fd(args[1]):
                self._bind(table, ret, time, self._file(table, _fd(args[0]), time) << 1 | bool(args[2] & O_CLOEXEC))
        elif op == Op.FCNTL:
            command = args[1] & 0xFFFFFFFF
            if command == F_SETFD:
                self._mark(table, _fd(args[0]), args[2] & 1)
            else:
                self._bind(table, ret, time, self._file(table, _fd(args[0]), time) << 1 | (command == F_DUPFD_CLOEXEC))
        elif op == Op.IOCTL:
            self._mark(table, _fd(args[0]), args[1] & 0xFFFFFFFF == FIOCLEX)
        elif op == Op.CLOSE_RANGE:
            if args[2] & RANGE_UNSHARE:
                table = self._unshare(tid, pid, time, CLONE_FILES)
            first, last = args[0] & 0xFFFFFFFF, args[1] & 0xFFFFFFFF
            for fd in [fd for fd, held in table.fds.items() if first <= fd <= last and held != CLOSED]:
                if args[2] & RANGE_CLOEXEC:
                    self._mark(table, fd, 1)
                else:
                    self._bind(table, fd, time, CLOSED)
        elif op == Op.CONNECT:
            self._name_socket(self._file(table, _fd(args[0]), time), "to", value)
        elif op == Op.BIND:
            self._name_socket(self._file(table, _fd(args[0]), time), "at", value)
        elif op in (Op.CHDIR, Op.FCHDIR):
            if op == Op.FCHDIR:
                name = self.file_names[self._file(table, _fd(args[0]), time)]
                name = name if self.names.values[name][1] == FILE else -1
            else:
                name = -1 if value is None else self.names.path(place.folder, value)
            place.folder = name
            self.folders.add(place.number, time, name)
        elif op == Op.UNSHARE:
            self._unshare(tid, pid, time, args[0])

    def _make(self, op: Op, shape: int, table: _Table, place: _Place, pid: int, time: int, ret: int, args: list[int], value: bytes | None) -> None:
        made = _MADE(shape)
        if (op == Op.SIGNALFD and _fd(args[0]) >= 0) or (op == Op.BPF and args[0] & 0xFFFFFFFF not in BPF_MAKES):
            return
        append, protocol = False, ""
        if op == Op.OPEN and made.label:
            name = self.names.number(made.label.encode() + (value or b""), OTHER)
        elif op == Op.OPEN:
            name = self.names.not_recorded if value is None else self._path(table, place, args, value, shape)
            append = made.flags >= 0 and bool(args[made.flags] & O_APPEND)
        elif made.label == "socket":
            protocol = socket_name(args[0] & 0xFFFFFFFF, args[1] & 0xFFFFFFFF)
            name = self.names.number(f"socket:{protocol}".encode(), SOCKET)
        else:
            name = self.names.number(made.label.encode(), UNKNOWN if made.label.startswith("(") else OTHER)
        file = self._new_file(name, time, append=append, maker=pid)
        if protocol:
            self._protocols[file] = protocol
        self._bind(table, ret & 0xFFFFFFFF, time, file << 1 | _cloexec(made, args))

    def _path(self, table: _Table, place: _Place, args: list[int], value: bytes, shape: int) -> int:
        folder = -1
        if not value.startswith(b"/"):
            at = _FOLDERS[shape]
            if at < 0 or _fd(args[at]) == AT_FDCWD:
                folder = place.folder
            else:
                held = table.fds.get(_fd(args[at]), CLOSED)
                folder = self.file_names[held >> 1] if held != CLOSED else -1
        if not value and folder >= 0:
            return folder
        return self.names.path(folder, value)

    def _pair(self, made: Made, table: _Table, pid: int, time: int, args: list[int], value: bytes | None) -> None:
        if value is None or len(value) != 8:
            return  # which two they are was not recorded: they show as unknown
        name = pair_name(self.names, made, pid, args)
        for at in (0, 4):
            fd = int.from_bytes(value[at : at + 4], "little", signed=True)
            self._bind(table, fd, time, self._new_file(name, time, maker=pid) << 1 | _cloexec(made, args))

    def _mark(self, table: _Table, fd: int, cloexec: int) -> None:
        held = table.fds.get(fd, CLOSED)
        if held != CLOSED:
            table.fds[fd] = held & ~1 | bool(cloexec)

    def _unshare(self, tid: int, pid: int, time: int, flags: int) -> _Table:
        table, place = self._state(tid, pid)
        if flags & CLONE_FILES:
            table = self._copy(table, pid, time)
        if flags & (CLONE_FS | CLONE_NEWNS):
            place = self._new_place(place.folder, time)
        self._enter(tid, time, (table, place))
        return table

    def _name_socket(self, file: int, how: str, value: bytes | None) -> None:
        found = None if value is None else address(value)
        if value is None or found is None:
            return
        protocol = self._protocols.setdefault(file, socket_name(family_of(value), 0))
        if how == "at":
            self._bound[file] = found
        self.file_names[file] = self.names.number(f"socket:{protocol} {how} {found}".encode("utf-8", "surrogateescape"), SOCKET)

    def _accepted(self, listening: int, value: bytes | None) -> int:
        """Name a connection by the peer's host, without the port that the peer's kernel picked, and by where it was accepted."""
        peer = None if value is None else address(value, port=False)
        protocol = self._protocols.get(listening) or socket_name(family_of(value or b""), 0)
        text = f"socket:{protocol} " + (f"from {peer}" if peer else "accepted")
        if listening in self._bound:
            text += f" at {self._bound[listening]}"
        return self.names.number(text.encode("utf-8", "surrogateescape"), SOCKET)

    def timelines(self) -> tuple[Timeline, Timeline, Timeline, Timeline]:
        """Return the tables of threads, their working folders, the files of descriptors, the names of working folders."""
        return Timeline(self.threads), Timeline(self.places), Timeline(self.descriptors), Timeline(self.folders)


def pair_name(names: Names, made: Made, pid: int, args: list[int]) -> int:
    """Return the number of the name that both ends of a pipe or pair of sockets share."""
    if made.label == "pipe":
        return names.number(b"pipe made by %d" % pid, PIPE)
    return names.number(f"socket:{socket_name(args[0] & 0xFFFFFFFF, args[1] & 0xFFFFFFFF)} pair made by {pid}".encode(), SOCKET)


def _fd(value: int) -> int:
    return (value + (1 << 31) & 0xFFFFFFFF) - (1 << 31)


def _cloexec(made: Made, args: list[int]) -> bool:
    return made.flags == ALWAYS or (made.flags >= 0 and bool(args[made.flags] & made.mask))


_MAKING = frozenset((Op.OPEN, Op.MAKE, Op.SIGNALFD, Op.BPF))
_MADE = shapes().made
_OPS = [Op(number) for number in shapes().members("op")]
_FOLDERS = shapes().members("folder")
