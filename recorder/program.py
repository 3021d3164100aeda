"""The probe program: its text, assembled from table declarations and probe files, and what its bytecode asks for."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ringtape.recorder.bpf import MapType
from ringtape.recorder.btf import KernelTypes
from ringtape.schemas.errors import RecordingError
from ringtape.schemas.table import Table, tables

PROBES = Path(__file__).parent / "probes"
HEADERS = PROBES / "headers"

_MAP = re.compile(r"^MAP\((\w+),\s*(\w+),.*,\s*([^,()]+)\)\s*$", re.MULTILINE)
_PROBE = re.compile(r"^PROBE\((\w+)\)", re.MULTILINE)
_ITERATOR = re.compile(r"^(?:FILE_)?ITERATOR\((\w+)\)", re.MULTILINE)
_FILE_ITERATOR = re.compile(r"^FILE_ITERATOR\((\w+)\)", re.MULTILINE)
_TRACEPOINT = re.compile(r"^TRACEPOINT\((\w+)\)", re.MULTILINE)
_SAMPLER = re.compile(r"^SAMPLER\((\w+)\)", re.MULTILINE)
_INCLUDE = re.compile(r'^#include "(\w+\.bpf\.h)"$', re.MULTILINE)
_VARIABLE = re.compile(r"\bPER_CPU_(\w+)")
_MEMBER = re.compile(
    r"\b(?:READ\(\s*\w+,[^,;]+,|READ_BIT\([^,;]+,|ADDRESS\([^,;]+,)\s*(\w+)\s*,\s*(\w+)\s*\)"
    r"|\bOFFSET_([a-z][a-z0-9]*(?:_[a-z0-9]+)*)__(\w+)"
)


@dataclass(frozen=True)
class MapSpec:
    """A map that the text declares; ``entries`` 0 means that its type needs none."""

    name: str
    type: MapType
    entries: int


@dataclass(frozen=True)
class Source:
    """An assembled program.

    ``maps`` are numbered by their order: the bytecode names them by that number. ``probes`` maps functions to the
    tracepoints that they attach to, ``iterators`` are the names of iterators over tasks, those of ``over_files`` over their
    open files, ``samplers`` those of perf event programs, ``unavailable`` the tables that this kernel cannot supply, and why,
    ``templates`` the programs that are loaded once for each event.
    """

    text: str
    maps: tuple[MapSpec, ...]
    probes: Mapping[str, str]
    iterators: tuple[str, ...]
    unavailable: Mapping[str, str]
    templates: tuple[str, ...] = ()
    over_files: frozenset[str] = frozenset()
    samplers: tuple[str, ...] = ()

    @property
    def functions(self) -> list[str]:
        """Every function whose bytecode is wanted: programs, iterators, and those that tell the sizes of maps."""
        sizes = [f"map_{what}__{spec.name}" for spec in self.maps for what in ("key", "value")]
        programs = [
            *(f"iterator__{name}" for name in self.iterators),
            *(f"template__{name}" for name in self.templates),
            *(f"sampler__{name}" for name in self.samplers),
        ]
        return [*self.probes, *programs, *sizes]


def ring_tables(names: Sequence[str]) -> tuple[Table, ...]:
    """Return the declared tables of these names whose rows come from a ring."""
    return tuple(table for name, table in tables().items() if name in names and table.origin == "ring")


@cache
def _read(name: str) -> str:
    return _INCLUDE.sub("", _without_comments((PROBES / name).read_text()))


@cache
def _headers(name: str) -> tuple[str, ...]:
    """Return the files that a probe file includes; each is put into the program once, before all that include it."""
    return tuple(_INCLUDE.findall((PROBES / name).read_text()))


def _without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)


def members(names: Sequence[str]) -> set[tuple[str, str]]:
    """Return the (struct, member) pairs that the probes of these tables read, on this architecture or another."""
    text = "".join(_read(file) for file in _files(names))
    return {(match[1] or match[3], match[2] or match[4]) for match in _MEMBER.finditer(text) if "structure" not in match[0]}


def variables(names: Sequence[str]) -> set[str]:
    """Return the per-CPU variables of the kernel whose places the probes of these tables use where they are known."""
    return {name for file in _files(names) for name in _VARIABLE.findall(_read(file))}


def needed(names: Sequence[str], machine: str) -> set[tuple[str, str]]:
    """Return the pairs without which the probes of these tables cannot be compiled for this machine.

    What stands under a condition that only the compiler can judge (the number of a tracepoint's arguments) is left to it.
    """
    return {pair for file in _files(names) for pair in _needed_by(file, machine)}


def _needed_by(file: str, machine: str) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    conditions: list[bool | None] = []
    for line in _read(file).splitlines():
        directive, _, condition = line.strip().partition(" ")
        if directive in ("#if", "#ifdef", "#ifndef"):
            conditions.append(machine == "aarch64" if directive + condition == "#ifdef__TARGET_ARCH_arm64" else None)
        elif directive == "#else":
            conditions[-1] = None if conditions[-1] is None else not conditions[-1]
        elif directive == "#endif":
            conditions.pop()
        elif all(conditions):
            found |= {(match[1] or match[3], match[2] or match[4]) for match in _MEMBER.finditer(line) if "structure" not in match[0]}
    return found


def shortcomings(table: Table, types: KernelTypes) -> list[str]:
    """Return what this kernel lacks of what the probes of a table use: members that keep it from being recorded, then tracepoints."""
    file = f"{table.name}.bpf.c"
    absent = sorted({pair for one in (*_headers(file), file) for pair in _needed_by(one, platform.machine())} - types.offsets.keys())
    lacking = [f"no member {member} in struct {structure}" for structure, member in absent]
    return lacking + [f"no tracepoint {name}" for name in dict.fromkeys(_PROBE.findall(_read(file))) if name not in types.tracepoints]


def _files(names: Sequence[str]) -> list[str]:
    # target.bpf.c comes last: it uses what the others define.
    probes = [f"{table.name}.bpf.c" for table in ring_tables(names)]
    headers = dict.fromkeys(header for file in probes for header in _headers(file))
    return ["common.bpf.h", *headers, *probes, "target.bpf.c"]


def assemble(names: Sequence[str], types: KernelTypes, cpus: int) -> Source:
    """Assemble the program that records these tables on a kernel with these types and this number of possible CPUs.

    Raises
    ------
    RecordingError
        If the kernel lacks a structure member that the probes of the default tables read. Other tables are then left out.
    """
    unavailable = {}
    for table in ring_tables(names):
        absent = shortcomings(table, types)
        # Without any of its tracepoints a table would be there and empty, as if nothing had happened.
        if types.tracepoints.keys() & set(_PROBE.findall(_read(f"{table.name}.bpf.c"))):
            absent = [reason for reason in absent if reason.startswith("no member")]
        if absent and not table.default:
            unavailable[table.name] = "this kernel has " + ", ".join(absent)
    names = [name for name in names if name not in unavailable]
    recorded = ring_tables(names)
    files = _files(names)
    declared = [(match[1], match[2], match[3].strip()) for file in files for match in _MAP.finditer(_read(file))]
    for table in recorded:
        # The size of a ring of constant stride is known only when it is made.
        declared.append((f"rings_{table.name}", "ARRAY_OF_MAPS", "CPUS") if table.in_ring_buffer else (f"ring_{table.name}", "ARRAY", "0"))
        declared.append((f"counters_{table.name}", "ARRAY", "CPUS"))
    if missing := sorted(needed(names, platform.machine()) - types.offsets.keys()):
        lacking = ", ".join(f"{member} in struct {structure}" for structure, member in missing)
        raise RecordingError(f"this kernel's types do not have what the probes read: {lacking}", "please report it with `uname -r`")
    symbols = {"CPUS": cpus}
    for file in files:
        symbols |= {name: int(value) for name, value in re.findall(r"^#define (\w+) ([0-9]+)$", _read(file), re.MULTILINE)}
    maps = tuple(MapSpec(name, MapType[kind], _entries(entries, symbols)) for name, kind, entries in declared)
    tracepoints = {name for file in files for name in _PROBE.findall(_read(file))}
    prelude = [f"#define TABLE_COUNT {len(tables())}", f"#define CPUS {cpus}", f"#define PAGE_BYTES {os.sysconf('SC_PAGE_SIZE')}"]
    if platform.machine() == "aarch64":
        prelude.append("#define __TARGET_ARCH_arm64 1")
    for number, table in enumerate(tables().values()):
        if table in recorded:
            prelude += [f"#define TABLE_{table.name} {number}", table.c_struct()]
    for number, spec in enumerate(maps):
        prelude += [f"#define MAP_NUMBER_{spec.name} {number}", f"#define MAP_{spec.name} ((void *)bpf_pseudo_fd(1, {number}))"]
    for structure, member in sorted(members(names)):
        bits = types.offsets.get((structure, member))
        if bits is not None:
            prelude += [f"#define OFFSET_{structure}__{member} {bits // 8}", f"#define BIT_{structure}__{member} {bits % 8}"]
    prelude += [f"#define PER_CPU_{name} {offset}" for name, offset in sorted(types.variables.items()) if name in variables(names)]
    prelude += [f"#define ARGS_{name} {arguments}" for name, (_, arguments) in sorted(types.tracepoints.items()) if name in tracepoints]
    body: list[str] = []
    for file in files:
        body += ["#undef PROBE_FILE", f"#define PROBE_FILE {file.partition('.')[0]}", _read(file)]
        if file == "common.bpf.h":
            for table in recorded:
                array = f"MAP(ring_{table.name}, ARRAY, u32, struct {table.name}_record, 0)"
                body.append(f"MAP(rings_{table.name}, ARRAY_OF_MAPS, u32, u32, 0)" if table.in_ring_buffer else array)
                body.append(f"MAP(counters_{table.name}, ARRAY, u32, struct counters, 0)")
    probes = {f"{file.partition('.')[0]}__{name}": name for file in files for name in _PROBE.findall(_read(file))}
    iterators = tuple(name for file in files for name in _ITERATOR.findall(_read(file)))
    templates = tuple(name for file in files for name in _TRACEPOINT.findall(_read(file)))
    over_files = frozenset(name for file in files for name in _FILE_ITERATOR.findall(_read(file)))
    samplers = tuple(name for file in files for name in _SAMPLER.findall(_read(file)))
    return Source("\n".join([*prelude, *body]) + "\n", maps, probes, iterators, unavailable, templates, over_files, samplers)


def _entries(text: str, symbols: Mapping[str, int]) -> int:
    return math.prod(int(factor) if factor.isdigit() else symbols[factor] for factor in map(str.strip, text.split("*")))


def loss_tables() -> list[str]:
    """Return the table that each number in a key of the loss ledger means: all that this version declares, in the order of their names."""
    return list(tables())
