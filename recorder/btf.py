"""The running kernel's type information (BTF): where struct members lie, and which typed tracepoints exist.

Format: Documentation/bpf/btf.rst of the kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ringtape.schemas.errors import RecordingError

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FUNC, _PROTO = 1, 2, 3, 4, 5, 6, 12, 13
_TYPEDEF, _DECL_TAG, _ENUM64, _VAR, _DATASEC = 8, 17, 19, 14, 15
_FORWARDING = frozenset((8, 9, 10, 11, 18))  # typedef, volatile, const, restrict, type tag
_EXTRA = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_PER_ITEM = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _PROTO: 8, _DATASEC: 12, _ENUM64: 12}


@dataclass(frozen=True)
class KernelTypes:
    """What programs need to know of a kernel.

    ``offsets`` maps (struct, member) to bits, ``tracepoints`` the names of typed raw tracepoints to (BTF id, number of
    arguments), ``iterator`` is the BTF id of ``bpf_iter_task`` or 0, ``variables`` maps per-CPU variables to
    their offsets in each CPU's area, ``file_iterator`` is the BTF id of ``bpf_iter_task_file`` or 0.
    """

    offsets: dict[tuple[str, str], int]
    tracepoints: dict[str, tuple[int, int]]
    iterator: int
    variables: dict[str, int] = field(default_factory=dict)
    file_iterator: int = 0


def read_kernel_types(members: Iterable[tuple[str, str]], path: Path = VMLINUX, variables: Iterable[str] = ()) -> KernelTypes:
    """Read offsets of the given (struct, member) pairs, all typed tracepoints, and where the given per-CPU variables lie.

    Members of anonymous structs and unions inside a struct are found as C finds them. A pair that this kernel does not
    have is absent from the result.

    Raises
    ------
    RecordingError
        If the kernel offers no BTF or the file is not BTF.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}", "recording needs a kernel built with CONFIG_DEBUG_INFO_BTF") from None
    wanted = set(members)
    return _Reader(data, path).kernel_types(wanted, set(variables))


def read_enumerators(names: Iterable[str], path: Path = VMLINUX) -> dict[str, int]:
    """Return the values of the kernel's enumerators of these names; what it does not have, or no types at all, is absent."""
    try:
        return _Reader(path.read_bytes(), path).enumerators(set(names))
    except (OSError, RecordingError):
        return {}


class _Reader:
    def __init__(self, data: bytes, path: Path) -> None:
        magic, version, _, header, types_at, types_len, strings_at, strings_len = struct.unpack_from("=HBBIIIII", data)
        if magic != 0xEB9F or version != 1:
            raise RecordingError(f"{path}: not BTF of version 1")
        self._data = data
        self._strings = data[header + strings_at : header + strings_at + strings_len]
        self._begin, self._end = header + types_at, header + types_at + types_len

    def _name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(0, offset)].decode()

    def kernel_types(self, wanted: set[tuple[str, str]], variables: set[str]) -> KernelTypes:
        # Names are compared as string offsets; a name stands once in the string section, so one look per type is enough.
        names = {struct_name for struct_name, _ in wanted}
        name_offsets = {offset for name in names if (offset := self._strings.find(b"\0" + name.encode() + b"\0")) >= 0}
        name_offsets = {offset + 1 for offset in name_offsets}
        data, position, end = self._data, self._begin, self._end
        unpack = struct.Struct("=III").unpack_from
        where: list[int] = [0]
        structs: list[int] = []
        typedefs: list[int] = []
        iterator = file_iterator = 0
        per_cpu = 0
        number = 0
        strings = self._strings
        while position < end:
            number += 1
            where.append(position)
            name, info, _ = unpack(data, position)
            kind = info >> 24 & 31
            if kind == _STRUCT and name in name_offsets:
                structs.append(number)
            elif kind == _TYPEDEF and strings.startswith(b"btf_trace_", name):
                typedefs.append(number)
            elif kind == _FUNC and strings.startswith(b"bpf_iter_task\0", name):
                iterator = number
            elif kind == _FUNC and strings.startswith(b"bpf_iter_task_file\0", name):
                file_iterator = number
            elif kind == _DATASEC and strings.startswith(b".data..percpu\0", name):
                per_cpu = position
            position += 12 + _EXTRA.get(kind, 0) + _PER_ITEM.get(kind, 0) * (info & 0xFFFF)
        self._where = where
        offsets: dict[tuple[str, str], int] = {}
        for number in structs:
            name = self._name(unpack(data, where[number])[0])
            found = self._members(number, 0)
            for struct_name, member in wanted:
                if struct_name == name and member in found:
                    offsets.setdefault((struct_name, member), found[member])
        tracepoints = {}
        for number in typedefs:
            name_at, _, target = unpack(data, where[number])
            arguments = self._arguments(target)
            if arguments is not None:
                tracepoints[self._name(name_at).removeprefix("btf_trace_")] = (number, arguments)
        found = self._variables(per_cpu, variables) if per_cpu and variables else {}
        return KernelTypes(offsets, tracepoints, iterator, found, file_iterator)

    def _variables(self, section: int, wanted: set[str]) -> dict[str, int]:
        """Return the offsets of the wanted variables in a section."""
        found = {}
        for index in range(struct.unpack_from("=I", self._data, section + 4)[0] & 0xFFFF):
            variable, offset, _ = struct.unpack_from("=III", self._data, section + 12 + 12 * index)
            name = self._name(struct.unpack_from("=I", self._data, self._where[variable])[0])
            if name in wanted:
                found[name] = offset
        return found

    def enumerators(self, wanted: set[str]) -> dict[str, int]:
        """Return the values of the wanted enumerators; of one name with two values neither."""
        names = {offset + 1: name for name in wanted if (offset := self._strings.find(b"\0" + name.encode() + b"\0")) >= 0}
        found: dict[str, int] = {}
        doubtful = set()
        position = self._begin
        while position < self._end:
            _, info, _ = struct.unpack_from("=III", self._data, position)
            kind, count = info >> 24 & 31, info & 0xFFFF
            if kind in (_ENUM, _ENUM64):
                for index in range(count):
                    at = position + 12 + _PER_ITEM[kind] * index
                    (offset,) = struct.unpack_from("=I", self._data, at)
                    if (name := names.get(offset)) is not None:
                        (value,) = struct.unpack_from("=i" if kind == _ENUM else "=q", self._data, at + 4)
                        if found.setdefault(name, value) != value:
                            doubtful.add(name)
            position += 12 + _EXTRA.get(kind, 0) + _PER_ITEM.get(kind, 0) * count
        return {name: value for name, value in found.items() if name not in doubtful}

    def _resolve(self, number: int) -> tuple[int, int, int, int]:
        """Follow typedefs and qualifiers; return (type number, kind, info, size or type)."""
        while True:
            _, info, target = struct.unpack_from("=III", self._data, self._where[number])
            kind = info >> 24 & 31
            if kind not in _FORWARDING or number == 0:
                return number, kind, info, target
            number = target

    def _members(self, number: int, base: int) -> dict[str, int]:
        number, kind, info, _ = self._resolve(number)
        if kind not in (_STRUCT, _UNION):
            return {}
        found: dict[str, int] = {}
        at = self._where[number] + 12
        for index in range(info & 0xFFFF):
            name, member_type, bits = struct.unpack_from("=III", self._data, at + 12 * index)
            if info >> 31:
                bits &= 0xFFFFFF
            if name:
                found[self._name(name)] = base + bits
            else:
                found.update(self._members(member_type, base + bits))
        return found

    def _arguments(self, pointer: int) -> int | None:
        """Return the number of arguments of a tracepoint's typedef, without the leading ``void *data``."""
        _, kind, _, target = self._resolve(pointer)
        if kind != _PTR:
            return None
        _, kind, info, _ = self._resolve(target)
        return (info & 0xFFFF) - 1 if kind == _PROTO else None
