"""Where code lies in the memory of processes, as the kernel itself tells: records of a perf event that counts nothing.

Opened and first read while privileged, so numpy and pyarrow are imported where rows are made, after that.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from errno import EACCES, EPERM
from pathlib import Path
from typing import TYPE_CHECKING

from ringtape.recorder import perf_events
from ringtape.recorder.options import Target, online_cpus
from ringtape.recorder.run_time_code import jit_functions, vdso_functions
from ringtape.schemas.elf import build_id_of
from ringtape.schemas.table import Table, table

if TYPE_CHECKING:
    import pyarrow as pa

    from ringtape.recorder.pump import Pump

PAGE = os.sysconf("SC_PAGE_SIZE")
RING = 1 << 20
"""Bytes of each CPU's ring: what about 1,300 starts of processes leave, which are 46 of 35 KB (measured)."""
EXISTING, MAPPED, EXEC, FORK, LOST = range(5)
_HEAD, _TAIL = 1024, 1032
_RECORD_LOST, _RECORD_COMM, _RECORD_FORK, _RECORD_MMAP2 = 2, 3, 7, 10
_MISC_COMM_EXEC, _MISC_BUILD_ID = 1 << 13, 1 << 14
_MMAP, _COMM, _TASK, _SAMPLE_ID_ALL, _MMAP2, _COMM_EXEC, _USE_CLOCKID, _BUILD_ID = (1 << bit for bit in (8, 9, 13, 18, 23, 24, 25, 34))
_SAMPLE_TIME = 1 << 2
_CLOCK_AT = 92 - 48  # clockid in perf_event_attr, from the end of its bit field on
_LINE = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)")
Row = dict[str, object]


def _row(**values: object) -> Row:
    return {"ts": 0, "start": 0, "length": 0, "offset": 0, "pid": 0, "parent": 0, "kind": 0, "build_id": b"", "path": b"", **values}


VDSO, VDSO_32 = b"[vdso]", b"[vdso32]"


def _place(start: int, path: bytes) -> bytes:
    """Return a path, the vDSO of programs of 32 bits told apart: it is another file, and has no other mark."""
    return VDSO_32 if path == VDSO and 0 <= start < 1 << 32 else path


def _in_no_file(path: bytes) -> bool:
    return not path.startswith((b"/", b"[v")) or path.startswith((b"//", b"/memfd:", b"/dev/zero", b"/SYSV"))


def bytes_of(value: object) -> bytes:
    """Return a value of a row that holds bytes."""
    return value if isinstance(value, bytes) else b""


def _signed(address: int) -> int:
    return address - (1 << 64) if address >> 63 else address


class _Ring:
    """One CPU's ring of perf records."""

    def __init__(self, cpu: int) -> None:
        wanted = _MMAP | _COMM | _TASK | _SAMPLE_ID_ALL | _MMAP2 | _COMM_EXEC | _USE_CLOCKID
        clock = bytes(_CLOCK_AT) + struct.pack("=i", time.CLOCK_MONOTONIC)
        try:
            self._fd = self._open(cpu, wanted | _BUILD_ID, clock)
        except OSError as error:
            if error.errno in (EACCES, EPERM):
                raise
            self._fd = self._open(cpu, wanted, clock)  # before Linux 5.12
        self._memory = mmap.mmap(self._fd, PAGE + RING)

    @staticmethod
    def _open(cpu: int, flags: int, rest: bytes) -> int:
        return perf_events.open_event(perf_events.TYPE_SOFTWARE, perf_events.DUMMY, cpu, flags=flags, sample_type=_SAMPLE_TIME, rest=rest)

    def read(self) -> bytes:
        """Return the whole records since the last call."""
        head, tail = (struct.unpack_from("=Q", self._memory, at)[0] for at in (_HEAD, _TAIL))
        begin, length = tail % RING, head - tail
        data = self._memory[PAGE + begin : PAGE + min(begin + length, RING)]
        data += self._memory[PAGE : PAGE + length - len(data)]
        struct.pack_into("=Q", self._memory, _TAIL, head)
        return data

    def close(self) -> None:
        self._memory.close()
        os.close(self._fd)


class Mappings:
    """The source of the table ``mappings``; made while privileged.

    Of a command and of named processes only they and their descendants are kept; else every process of the machine.
    """

    def __init__(self, target: Target, launched: int | None) -> None:
        self._rings: list[_Ring] = []
        self._later: list[Row] = []
        self._compiling: set[int] = set()
        self._inodes: dict[tuple[int, int, int], bytes] = {}
        self._wanted = {*target.pids, *([launched] if launched else [])} if target.command or target.pids else None
        try:
            for cpu in online_cpus():
                self._rings.append(_Ring(cpu))
            self._existing = list(self._of_existing())
        except BaseException:
            self.close()
            raise

    def _of_existing(self) -> Iterator[Row]:
        pids = sorted(self._wanted) if self._wanted is not None else [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        known: dict[tuple[bytes, ...], bytes] = {}
        for pid in pids:
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            try:
                text = Path(f"/proc/{pid}/maps").read_bytes()
            except OSError:
                continue  # has ended
            for line in text.splitlines():
                if not (match := _LINE.fullmatch(line)):
                    continue
                start, end, offset = (int(part, 16) for part in match.groups()[:3])
                path = match[7]
                file = (match[4], match[5], match[6])
                if path.startswith(b"/") and file not in known:
                    # The very file, even if it was replaced or lies in another mount namespace.
                    known[file] = build_id_of(f"/proc/{pid}/map_files/{start:x}-{end:x}")
                place = {"start": _signed(start), "length": end - start, "offset": offset}
                name = _place(start, path.removesuffix(b" (deleted)")) or b"//anon"
                yield _row(ts=now, pid=pid, kind=EXISTING, build_id=known.get(file, b""), path=name, **place)

    def rows(self, closing: bool) -> Iterable[tuple[Table, pa.Table]]:
        """Return what the kernel told since the last call, and at the end what compilers at run time told."""
        # The rings are read one after the other: what happened since the first was read may have its cause, a fork, still there.
        until = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        rows = [*self._later, *(row for ring in self._rings for row in parse(ring.read()))]
        found = sorted(rows, key=lambda row: int(str(row["ts"])))
        if not closing:
            self._later = [row for row in found if int(str(row["ts"])) > until]
            found = found[: len(found) - len(self._later)]
        if self._wanted is not None:
            # In the order of time: a process is wanted before its children are.
            found = [row for row in found if self._wants(row, self._wanted)]
        for row in found:
            self._identify(row)
        found = [*self._existing, *found]
        self._existing = []
        self._compiling.update(int(str(row["pid"])) for row in found if row["kind"] in (EXISTING, MAPPED) and _in_no_file(bytes_of(row["path"])))
        if found:
            import pyarrow as pa

            from ringtape.schemas.arrow import arrow_schema

            one = table("mappings")
            yield one, pa.Table.from_pylist(found, schema=arrow_schema(one)).sort_by("ts")
        if closing and (functions := list(jit_functions(self._compiling))):
            yield table("symbols"), function_rows([(pid, *function, b"[jit]") for pid, function in functions], until)

    def _identify(self, row: Row) -> None:
        """Find the build id that the kernel did not: one of more than 20 bytes, or in a part of the file that was not in memory."""
        inode = row.pop("inode", None)
        if isinstance(inode, tuple) and not row["build_id"] and not _in_no_file(bytes_of(row["path"])):
            device, number, _ = inode
            if inode not in self._inodes:
                self._inodes[inode] = build_id_of(bytes_of(row["path"]), (device, number))
            row["build_id"] = self._inodes[inode]

    @staticmethod
    def _wants(row: Row, wanted: set[int]) -> bool:
        if row["kind"] == FORK and row["parent"] in wanted:
            wanted.add(int(str(row["pid"])))
        return row["kind"] == LOST or row["pid"] in wanted

    def close(self) -> None:
        """Give the rings back."""
        for ring in self._rings:
            ring.close()
        self._rings.clear()


def parse(data: bytes) -> Iterator[Row]:
    """Yield a row for each record that tells something of code."""
    at = 0
    while at + 8 <= len(data):
        kind, misc, size = struct.unpack_from("=IHH", data, at)
        if size < 16:
            return
        (ts,) = struct.unpack_from("=Q", data, at + size - 8)
        if kind == _RECORD_MMAP2:
            pid, _, start, length, offset = struct.unpack_from("=IIQQQ", data, at + 8)
            held = data[at + 40]
            build_id = data[at + 44 : at + 44 + min(held, 20)] if misc & _MISC_BUILD_ID else b""
            # Where there is no build id the same bytes hold the inode.
            major, minor, number, generation = struct.unpack_from("=IIQQ", data, at + 40)
            inode = None if misc & _MISC_BUILD_ID else (os.makedev(major, minor), number, generation)
            path = _place(start, data[at + 72 : at + size - 8].split(b"\0", 1)[0].removesuffix(b" (deleted)"))
            # Guest and module mappings of the kernel come with the number -1.
            if pid != 0xFFFFFFFF:
                where = {"start": _signed(start), "length": _signed(length), "offset": _signed(offset)}
                yield _row(ts=ts, pid=pid, kind=MAPPED, build_id=build_id, path=path, inode=inode, **where)
        elif kind == _RECORD_COMM and misc & _MISC_COMM_EXEC:
            yield _row(ts=ts, pid=struct.unpack_from("=I", data, at + 8)[0], kind=EXEC)
        elif kind == _RECORD_FORK:
            pid, parent = struct.unpack_from("=II", data, at + 8)
            if pid != parent:
                yield _row(ts=ts, pid=pid, parent=parent, kind=FORK)
        elif kind == _RECORD_LOST:
            yield _row(ts=ts, length=_signed(struct.unpack_from("=Q", data, at + 16)[0]), kind=LOST)
        at += size


class Stacks:
    """What the table ``samples`` needs beside it, taken while privileged."""

    def __init__(self, target: Target, launched: int | None) -> None:
        self._mappings = Mappings(target, launched)
        self._symbols = kernel_symbols()
        self._vdso = vdso_functions()

    def begin(self, pump: Pump) -> None:
        """Write what is known so far, which a kill then leaves, and let the pump ask for mappings from now on."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        if (rows := symbol_rows(self._symbols, now)) is not None:
            pump.add(table("symbols"), rows)
        if self._vdso:
            pump.add(table("symbols"), function_rows([(0, *function, VDSO) for function in self._vdso], now))
        self._symbols = b""
        for to, rows in self._mappings.rows(closing=False):
            pump.add(to, rows)
        pump.sources.append(self._mappings)

    def close(self) -> None:
        """Give the rings back."""
        self._mappings.close()


def kernel_symbols() -> bytes:
    """Return /proc/kallsyms, which shows addresses only to the privileged."""
    try:
        return Path("/proc/kallsyms").read_bytes()
    except OSError:
        return b""


def symbol_rows(text: bytes, now: int) -> pa.Table | None:
    """Return the functions of the kernel as rows of ``symbols``; None if it hides them."""
    found: Sequence[tuple[bytes, bytes, bytes]] = re.findall(rb"^([0-9a-f]{16}) [tTwW] (\S+)(?:\t\[(\S+)\])?$", text, re.MULTILINE)
    import numpy as np
    import pyarrow as pa

    from ringtape.schemas.arrow import arrow_schema

    addresses = np.frombuffer(bytes.fromhex(b"".join(address for address, _, _ in found).decode()), ">i8").astype(np.int64)
    if not len(addresses) or not addresses.any():
        return None
    order = pa.array(np.argsort(addresses, kind="stable"))
    columns = {
        "ts": pa.array(np.full(len(addresses), now, np.int64)),
        "address": pa.array(addresses).take(order),
        "length": pa.array(np.zeros(len(addresses), np.int64)),
        "pid": pa.array(np.zeros(len(addresses), np.int32)),
        "name": pa.array([name for _, name, _ in found], pa.binary()).take(order),
        "module": pa.array([module for _, _, module in found], pa.binary()).take(order),
    }
    return pa.table(columns, schema=arrow_schema(table("symbols")))


def function_rows(functions: Sequence[tuple[int, int, int, bytes, bytes]], now: int) -> pa.Table:
    """Return functions (process, address, length, name, module) as rows of ``symbols``."""
    import pyarrow as pa

    from ringtape.schemas.arrow import arrow_schema

    pids, addresses, lengths, names, modules = zip(*functions, strict=True)
    columns = {"ts": (now,) * len(functions), "address": addresses, "length": lengths, "pid": pids, "name": names, "module": modules}
    return pa.table({name: list(values) for name, values in columns.items()}, schema=arrow_schema(table("symbols")))
