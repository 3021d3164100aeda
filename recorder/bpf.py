"""bpf(2), as far as a tracepoint recorder needs it: maps, typed raw tracepoints, task iterators, pins.

BCC has no call for typed raw tracepoints and iterators; its loader would also keep LLVM in the recording process.
Constants and layouts are those of include/uapi/linux/bpf.h, which are ABI.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from enum import IntEnum

from ringtape.schemas.errors import PrivilegeError, RecordingError

PAGE = os.sysconf("SC_PAGE_SIZE")
SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}


class Command(IntEnum):
    """First argument of bpf(2)."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    BTF_LOAD = 18
    MAP_FREEZE = 22
    LINK_CREATE = 28
    ITER_CREATE = 33


class MapType(IntEnum):
    """Kinds of map that probes may declare."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    LRU_HASH = 9
    ARRAY_OF_MAPS = 12
    SK_STORAGE = 24
    RINGBUF = 27
    TASK_STORAGE = 29


MAP_NO_PREALLOC = 1 << 0
MAP_RDONLY_PROG = 1 << 7
MAP_CLONE = 1 << 9
MAP_MMAPABLE = 1 << 10

PROG_TYPE_TRACEPOINT = 5
PROG_TYPE_PERF_EVENT = 7
PROG_TYPE_RAW_TRACEPOINT = 17
PROG_TYPE_TRACING = 26
ATTACH_TRACE_RAW_TP = 23
ATTACH_TRACE_ITER = 28
F_SLEEPABLE = 1 << 4
ATTACH_PERF_EVENT = 41

PSEUDO_MAP_FD = 1
PSEUDO_MAP_VALUE = 2
LOAD_IMM64 = 0x18

_libc = ctypes.CDLL(None, use_errno=True)
_ATTR_SIZE = 128


def bpf(command: Command, attributes: bytes) -> int:
    """Call bpf(2).

    Raises
    ------
    OSError
        With the kernel's errno; note that EACCES from PROG_LOAD is the verifier's refusal, not a lack of privilege.
    """
    number = SYSCALL_BPF.get(platform.machine())
    if number is None:
        raise RecordingError(f"recording on {platform.machine()} is not supported", "record on x86_64 or aarch64; traces can be analysed anywhere")
    buffer = ctypes.create_string_buffer(attributes.ljust(_ATTR_SIZE, b"\0"), _ATTR_SIZE)
    result = _libc.syscall(number, int(command), buffer, _ATTR_SIZE)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf({command.name}): {os.strerror(code)}")
    return int(result)


def _address(data: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(data)


@dataclass(frozen=True)
class Map:
    """A map that exists in the kernel."""

    name: str
    fd: int
    type: MapType
    key_size: int
    value_size: int
    max_entries: int

    def update(self, key: bytes, value: bytes) -> None:
        """Set one element.

        Raises
        ------
        ValueError
            If the kernel would read more than that.
        """
        if len(value) < self.value_size:
            raise ValueError(f"{len(value)} bytes for a value of {self.value_size} in map {self.name}")
        keys, values = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
        bpf(Command.MAP_UPDATE_ELEM, struct.pack("=IxxxxQQQ", self.fd, _address(keys), _address(values), 0))

    def lookup(self, key: bytes, value_size: int | None = None) -> bytes | None:
        """Return one element, or None. Per-CPU maps need ``value_size`` = rounded value size times possible CPUs.

        Raises
        ------
        ValueError
            If the kernel would write more than that.
        """
        if value_size is not None and value_size < self.value_size:
            raise ValueError(f"{value_size} bytes for a value of {self.value_size} in map {self.name}")
        keys = ctypes.create_string_buffer(key, len(key))
        values = ctypes.create_string_buffer(value_size or self.value_size)
        try:
            bpf(Command.MAP_LOOKUP_ELEM, struct.pack("=IxxxxQQQ", self.fd, _address(keys), _address(values), 0))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return values.raw

    def keys(self) -> list[bytes]:
        """Return the keys of a hash map."""
        found: list[bytes] = []
        key, following = None, ctypes.create_string_buffer(self.key_size)
        while len(found) <= self.max_entries:
            at = 0 if key is None else _address(key)
            try:
                bpf(Command.MAP_GET_NEXT_KEY, struct.pack("=IxxxxQQ", self.fd, at, _address(following)))
            except OSError as error:
                if error.errno == errno.ENOENT:
                    break
                raise
            found.append(following.raw)
            key = ctypes.create_string_buffer(following.raw, self.key_size)
        return found

    def freeze(self) -> None:
        """Make the map read-only for user space; with MAP_RDONLY_PROG the verifier then treats its content as constant."""
        bpf(Command.MAP_FREEZE, struct.pack("=I", self.fd))

    def close(self) -> None:
        """Give up the descriptor."""
        os.close(self.fd)


def create_map(
    name: str,
    kind: MapType,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    inner: Map | None = None,
) -> Map:
    """Create a map.

    Raises
    ------
    PrivilegeError, RecordingError
        If the kernel refuses, with what it would take.
    """
    in_storage = kind in (MapType.TASK_STORAGE, MapType.SK_STORAGE)
    btf, value_type = _value_btf(value_size) if in_storage else (-1, 0)
    if in_storage:
        flags |= MAP_NO_PREALLOC
    if kind is MapType.SK_STORAGE:
        flags |= MAP_CLONE  # an accepted socket begins with what its listener has
    attributes = struct.pack(
        "=IIIIIII16sIIII",
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
        inner.fd if inner else 0,
        0,
        name.encode()[:15],
        0,
        max(btf, 0),
        1 if btf >= 0 else 0,
        value_type,
    )
    try:
        fd = bpf(Command.MAP_CREATE, attributes)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise privilege_error() from None
        hint = "ask for less memory with --ring-size" if error.errno in (errno.ENOMEM, errno.E2BIG) else None
        what = f"the kernel refused the map {name} ({kind.name}, {max_entries} entries): {os.strerror(error.errno or 0)}"
        raise RecordingError(what, hint) from None
    finally:
        if btf >= 0:
            os.close(btf)
    return Map(name, fd, kind, key_size, value_size, max_entries)


def privilege_error() -> PrivilegeError:
    """Return the error for a process that may not load BPF programs."""
    return PrivilegeError(
        "recording needs the privilege to load BPF programs, which this process does not have",
        "run it with sudo (or give it CAP_BPF and CAP_PERFMON); `ringtape doctor` tells what is missing",
    )


def _value_btf(value_size: int) -> tuple[int, int]:
    """Load type information for task and socket storage, which the kernel asks for: 1 = 32-bit int (key), 2 = byte, 3 = byte[n]."""
    strings = b"\0int\0byte\0"
    kind_int, kind_array = 1 << 24, 3 << 24
    types = struct.pack("=IIII", 1, kind_int, 4, 32)
    types += struct.pack("=IIII", 5, kind_int, 1, 8)
    types += struct.pack("=IIIIII", 0, kind_array, 0, 2, 1, value_size)
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    blob = ctypes.create_string_buffer(header + types + strings, len(header) + len(types) + len(strings))
    try:
        return bpf(Command.BTF_LOAD, struct.pack("=QQIII", _address(blob), 0, len(blob), 0, 0)), 3
    except OSError as error:
        if error.errno == errno.EPERM:
            raise privilege_error() from None
        raise RecordingError(f"the kernel refused type information: {os.strerror(error.errno or 0)}") from None


def load_program(name: str, code: bytes, program_type: int, attach_type: int = 0, attach_btf_id: int = 0, sleepable: bool = False) -> int:
    """Load a program and return its descriptor; one that is ``sleepable`` may wait for memory that is not there.

    Raises
    ------
    PrivilegeError, RecordingError
        RecordingError carries the end of the verifier's log: it means that this kernel differs from what the probe
        expects, not that a privilege is missing, although the errno may be EACCES.
    """
    insns = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        attributes = struct.pack(
            "=IIQQIIQII16sIIIIQIIQII",
            program_type,
            len(code) // 8,
            _address(insns),
            _address(licence),
            1 if log is not None else 0,
            len(log) if log is not None else 0,
            _address(log) if log is not None else 0,
            0,
            F_SLEEPABLE if sleepable else 0,
            name.encode()[:15],
            0,
            attach_type,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            attach_btf_id,
        )
        return bpf(Command.PROG_LOAD, attributes)

    try:
        return attempt(None)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise privilege_error() from None
    log = ctypes.create_string_buffer(1 << 20)
    try:
        return attempt(log)
    except OSError as error:
        lines = log.value.decode(errors="replace").strip().splitlines()
        reason = "; ".join(lines[-4:]) if lines else os.strerror(error.errno or 0)
        raise RecordingError(f"this kernel refused the probe {name}: {reason[-600:]}", "please report it with `uname -r`") from None


def attach_raw_tracepoint(program: int) -> int:
    """Attach a typed raw tracepoint program (its tracepoint is part of the program); closing the descriptor detaches."""
    return bpf(Command.RAW_TRACEPOINT_OPEN, struct.pack("=QI", 0, program))


def create_iterator(program: int) -> int:
    """Return a descriptor whose reads run an iterator program over every task (or open file), once."""
    link = bpf(Command.LINK_CREATE, struct.pack("=IIII", program, 0, ATTACH_TRACE_ITER, 0))
    try:
        return bpf(Command.ITER_CREATE, struct.pack("=II", link, 0))
    finally:
        os.close(link)


def pin(fd: int, path: str) -> None:
    """Pin an object in bpffs, so that it outlives this process."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    bpf(Command.OBJ_PIN, struct.pack("=QII", _address(name), fd, 0))


def get_pinned(path: str) -> int:
    """Return a descriptor for a pinned object."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return bpf(Command.OBJ_GET, struct.pack("=QII", _address(name), 0, 0))


def get_pinned_map(path: str) -> Map:
    """Return a pinned map with its shape as the kernel tells it."""
    fd = get_pinned(path)
    info = ctypes.create_string_buffer(256)
    bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(info), _address(info)))
    kind, _, key_size, value_size, max_entries, _ = struct.unpack_from("=6I", info.raw)
    return Map(os.path.basename(path), fd, MapType(kind), key_size, value_size, max_entries)  # noqa: PTH119


def skipped_runs(program: int) -> int:
    """Return how often the kernel did not run a program because it was running already (struct bpf_prog_info: recursion_misses)."""
    info = ctypes.create_string_buffer(256)
    bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", program, len(info), _address(info)))
    return int(struct.unpack_from("=Q", info.raw, 208)[0])  # 0 before Linux 5.12, which does not tell


def relocate(code: bytes, maps: dict[int, int]) -> bytes:
    """Return the program with map numbers, as the compiler left them, replaced by descriptors."""
    patched = bytearray(code)
    position = 0
    while position < len(patched):
        opcode, registers, _, imm = struct.unpack_from("=BBhi", patched, position)
        if opcode == LOAD_IMM64:
            if registers >> 4 in (PSEUDO_MAP_FD, PSEUDO_MAP_VALUE):
                struct.pack_into("=i", patched, position + 4, maps[imm])
            position += 8
        position += 8
    return bytes(patched)
