"""The kernel's side of a recording: maps made and filled, programs loaded and attached, iterators run."""

from __future__ import annotations

import os
import secrets
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path

from ringtape.recorder import bpf, perf_events
from ringtape.recorder.bpf import PAGE, Map, MapType
from ringtape.recorder.calls import fill_calls
from ringtape.recorder.compile import Bytecode, bytecode
from ringtape.recorder.events import Tracepoints
from ringtape.recorder.journal import Journal
from ringtape.recorder.options import Options, cgroup_root, online_cpus, possible_cpus
from ringtape.recorder.program import loss_tables, ring_tables
from ringtape.schemas.errors import RecordingError
from ringtape.schemas.manifest import Probe
from ringtape.schemas.table import Table, table, tables

MAX_RINGS = 64
"""Rings of a table at most; on machines with more CPUs several CPUs share one."""
# The mark is inherited before anything else can be seen; enter before exit, so that no exit lacks an enter that was after the attachment.
_FIRST = ("task_newtask", "sched_process_exit", "sched_process_exec", "task_rename", "sys_enter")


@dataclass
class Kernel:
    """Everything that a recording holds in the kernel.

    ``rings`` holds, per table, one BPF ring buffer per CPU (or per few CPUs) for records of varying size, or one array
    with ``slots`` records for each CPU for records of one size.
    """

    maps: dict[str, Map]
    rings: dict[str, list[Map]]
    slots: dict[str, int]
    programs: dict[str, int]
    code: Bytecode
    cpus: int
    cookie: int
    probes: list[Probe] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    iterators: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    at_start: dict[str, bytes] = field(default_factory=dict)
    at_end: dict[str, bytes] = field(default_factory=dict)
    tracepoints: Tracepoints = field(default_factory=Tracepoints)
    events: list[int] = field(default_factory=list)
    profile: int = 0
    viewer: int = 0

    def attach(self) -> None:
        """Attach every program to its tracepoint, and note what could not be."""
        self.probes.extend(Probe(name, False, reason) for name, reason in self.code.unavailable.items())

        def order(item: tuple[str, str]) -> tuple[int, bool, str]:
            name, tracepoint = item
            # The end of an interrupt before its beginning: one that was counted must not go on for ever.
            return (_FIRST.index(tracepoint) if tracepoint in _FIRST else len(_FIRST), not tracepoint.endswith("_exit"), name)

        for name, tracepoint in sorted(self.code.probes.items(), key=order):
            if name in self.refused:
                self.probes.append(Probe(name, False, self.refused[name]))
                continue
            if name not in self.programs:
                self.probes.append(Probe(name, False, f"this kernel has no tracepoint {tracepoint}"))
                continue
            try:
                self.links.append(bpf.attach_raw_tracepoint(self.programs[name]))
                self.probes.append(Probe(name, True))
            except OSError as error:
                self.probes.append(Probe(name, False, os.strerror(error.errno or 0)))
        self.probes.extend(self.tracepoints.attach())
        for name in self.code.samplers if self.profile else ():
            self._sample(f"sampler__{name}")

    def _sample(self, name: str) -> None:
        """Run a sampler on every CPU that is online."""
        if name in self.refused:
            self.probes.append(Probe(name, False, self.refused[name]))
            return
        flags = perf_events.DISABLED | perf_events.FREQUENCY | perf_events.EXCLUDE_IDLE
        try:
            for cpu in online_cpus():
                event = perf_events.open_event(perf_events.TYPE_SOFTWARE, perf_events.CPU_CLOCK, cpu, period=self.profile, flags=flags)
                self.events.append(event)
                perf_events.run_program(event, self.programs[name])
            self.probes.append(Probe(name, True))
        except OSError as error:
            self.probes.append(Probe(name, False, os.strerror(error.errno or 0)))

    def detach(self) -> None:
        """Detach every program: from here on the target runs as if it had never been recorded."""
        self.tracepoints.detach()  # while new threads of the target are still marked
        for link in (*self.links, *self.events):
            os.close(link)
        self.links.clear()
        self.events.clear()
        self.tracepoints.let_go()  # last: who closes them holds all of the above for a moment

    def iterate(self, name: str) -> bytes:
        """Run a task iterator over every thread of the machine and return what it wrote."""
        descriptor = bpf.create_iterator(self.programs[f"iterator__{name}"])
        return _read_all(descriptor)

    def look_at_the_start(self) -> None:
        """Run the iterators ``<table>_attach``, and keep what they write in ``at_start``."""
        for name in self.code.iterators:
            if name.endswith("_attach"):
                self.at_start[name] = self.iterate(name)

    def prepare_iterator(self, name: str) -> None:
        """Make an iterator that can be run later without privileges."""
        self.iterators[name] = bpf.create_iterator(self.programs[f"iterator__{name}"])

    def skipped(self) -> dict[tuple[str, int], int]:
        """Return, by table and event, how often the kernel has skipped a probe because one was running already on that CPU."""
        found = {("events", event): count for event, count in self.tracepoints.skipped().items()}
        for name, program in self.programs.items():
            of = name.partition("__")[0]
            if of in self.rings and (count := bpf.skipped_runs(program)):
                found[of, -1] = found.get((of, -1), 0) + count
        return found

    def look_at_the_end(self) -> None:
        """Keep in ``at_end`` what the iterators that were prepared write, and the records in maps named ``<table>_open``."""
        for name, descriptor in self.iterators.items():
            self.at_end[name] = _read_all(descriptor)
        self.iterators.clear()
        for name in self.rings:
            if (opened := self.maps.get(f"{name}_open")) is not None:
                values = [opened.lookup(key) or b"" for key in opened.keys()]  # noqa: SIM118 - a method of ours, of a map of the kernel
                cookie = struct.pack("=Q", self.cookie)
                self.at_end[f"{name}_open"] = b"".join(value[: table(name).record_size] for value in values if value.startswith(cookie))

    def arm(self, pid: int) -> None:
        """Mark the launcher, so that it is recorded from its execve on."""
        _, size = self.code.sizes["state"]
        value = bytearray(size)
        value[TRACED_AT] = 2 if "syscalls" in self.rings else 1  # without its probe nobody sees the execve being entered
        pidfd = os.pidfd_open(pid)
        try:
            self.maps["state"].update(struct.pack("=I", pidfd), bytes(value))
        finally:
            os.close(pidfd)
        status = self.maps["status"]
        status.update(struct.pack("=I", 0), struct.pack("=q", 1).ljust(status.value_size, b"\0"))

    def ring_bytes(self, name: str) -> int:
        """Return the bytes of each ring of a table."""
        return self.slots[name] * table(name).record_size if name in self.slots else self.rings[name][0].max_entries

    def pin(self, journal: Journal, uid: int, gid: int) -> None:
        """Pin what a later `recover` needs."""
        for name, rings in self.rings.items():
            for index, ring in enumerate(rings):
                journal.pin(ring.fd, f"ring_{name}_{index}", uid, gid)
            journal.pin(self.maps[f"counters_{name}"].fd, f"counters_{name}", uid, gid)
            if (opened := self.maps.get(f"{name}_open")) is not None:
                journal.pin(opened.fd, f"{name}_open", uid, gid)
        for name in ("losses", "status"):
            journal.pin(self.maps[name].fd, name, uid, gid)
        journal.pin_numbers(loss_tables(), uid, gid)

    def note_stop(self, errno: int) -> None:
        """Leave word for `recover` of why recording stopped: the disk may be full, so the trace cannot say it."""
        with mmap(self.maps["status"].fd, PAGE) as status:
            struct.pack_into("=Q", status, 8, errno)

    def close(self) -> None:
        """Give everything back."""
        self.detach()
        self.tracepoints.close()
        for descriptor in (*self.programs.values(), *self.iterators.values()):
            os.close(descriptor)
        for one in (*self.maps.values(), *(ring for rings in self.rings.values() for ring in rings)):
            one.close()
        self.programs.clear()
        self.iterators.clear()
        self.maps.clear()
        self.rings.clear()


TRACED_AT = 8 + 64 + 4 + 2
NO_STACKS = (1 << 64) - 1
"""As the shortest time off a CPU whose stack is wanted: none is."""
SLEEPABLE = ("samples_attach",)
"""Iterators that read the memory of other processes."""
"""Offset of ``traced`` in struct task_state (probes/common.bpf.h)."""


def _read_all(descriptor: int) -> bytes:
    chunks = []
    try:
        # Less than half of the kernel's buffer of 8 pages: it runs the program again for a row that does not fit in.
        while chunk := os.read(descriptor, 2 * PAGE):
            chunks.append(chunk)
    finally:
        os.close(descriptor)
    return b"".join(chunks)


def load(options: Options, viewer: int = 0) -> Kernel:
    """Make maps and programs for a recording; nothing is attached yet. ``viewer`` is a process that is never recorded, or 0.

    Raises
    ------
    PrivilegeError, RecordingError
        Naming what the kernel refused.
    """
    cpus = possible_cpus()
    _check_privilege()
    code = bytecode(options.tables, cpus)
    if options.offcpu is None:
        code.probes.pop("samples__sched_switch", None)
    recorded = [one for one in ring_tables(options.tables) if one.name not in code.unavailable]
    shards = min(cpus, MAX_RINGS)
    slots = {one.name: slots_of(one, options.ring_size(one), cpus) for one in recorded if not one.in_ring_buffer}
    kernel = Kernel({}, {one.name: [] for one in recorded}, slots, {}, code, cpus, secrets.randbits(64) | 1, profile=options.profile, viewer=viewer)
    kernel.tracepoints = Tracepoints.of(options.events)
    try:
        # The kernel clears every page of a ring as it makes it, which takes as long as all the rest: side by side.
        with ThreadPoolExecutor(2) as pool:
            sizes = {one.name: ring_bytes(options.ring_size(one), shards) for one in recorded}
            buffers = [one for one in recorded if one.in_ring_buffer]
            pending = {one.name: [pool.submit(_create_ring, one, index, sizes[one.name]) for index in range(shards)] for one in buffers}
            arrays = {name: pool.submit(_create_array, name, cpus * count) for name, count in slots.items()}
            try:
                _create_maps(kernel, options, 0 if shards == cpus else shards)
                for name, array_map in arrays.items():
                    kernel.rings[name].append(array_map.result())
                _load_programs(kernel, options)
            finally:
                for name, futures in pending.items():
                    # Lists grow in place, so that close() frees what was made when a later one is refused.
                    for future in futures:
                        if future.exception() is None:
                            kernel.rings[name].append(future.result())
        for name, futures in pending.items():
            for index, future in enumerate(futures):
                kernel.maps[f"rings_{name}"].update(struct.pack("=I", index), struct.pack("=I", future.result().fd))
    except BaseException:
        kernel.close()
        raise
    return kernel


def _create_maps(kernel: Kernel, options: Options, shards: int) -> None:
    code, made = kernel.code, kernel.maps
    template = bpf.create_map("template", MapType.RINGBUF, 0, 0, PAGE)
    try:
        for spec in code.maps:
            if spec.name.startswith("ring_"):
                continue
            key, value = code.sizes[spec.name]
            flags = bpf.MAP_RDONLY_PROG if spec.name == "config" else 0
            if spec.name in ("calls", "status") or spec.name.startswith("counters_"):
                flags |= bpf.MAP_MMAPABLE
            inner = template if spec.type is MapType.ARRAY_OF_MAPS else None
            made[spec.name] = bpf.create_map(spec.name, spec.type, key, value, spec.entries, flags, inner)
    finally:
        template.close()
    made["config"].update(struct.pack("=I", 0), _config(options, kernel, shards, code.sizes["config"][1]))
    made["config"].freeze()
    if "calls" in made:
        # Neither frozen nor read-only: the verifier refuses constants with more than one element, the kernel to map them.
        fill_calls(made["calls"], options)
    for pid in options.target.pids:
        made["targets"].update(struct.pack("=I", pid), struct.pack("=I", 1))


def _load_programs(kernel: Kernel, options: Options) -> None:
    code = kernel.code
    maps = {**kernel.maps, **{f"ring_{name}": kernel.rings[name][0] for name in kernel.slots}}
    numbers = {number: maps[spec.name].fd for number, spec in enumerate(code.maps)}
    for name, tracepoint in code.probes.items():
        if tracepoint in code.tracepoints:
            program = bpf.relocate(code.code[name], numbers)
            btf_id = code.tracepoints[tracepoint][0]
            try:
                kernel.programs[name] = bpf.load_program(name, program, bpf.PROG_TYPE_TRACING, bpf.ATTACH_TRACE_RAW_TP, btf_id)
            except RecordingError as error:
                of = name.partition("__")[0]
                if of not in kernel.rings or table(of).default:
                    raise
                kernel.refused[name] = error.what  # the other tables do not need it
    for name in code.samplers:
        program = bpf.relocate(code.code[f"sampler__{name}"], numbers)
        try:
            kernel.programs[f"sampler__{name}"] = bpf.load_program(name, program, bpf.PROG_TYPE_PERF_EVENT)
        except RecordingError as error:
            kernel.refused[f"sampler__{name}"] = error.what
    for name in code.iterators:
        program = bpf.relocate(code.code[f"iterator__{name}"], numbers)
        over = code.file_iterator if name in code.over_files else code.iterator
        kernel.programs[f"iterator__{name}"] = bpf.load_program(name, program, bpf.PROG_TYPE_TRACING, bpf.ATTACH_TRACE_ITER, over, name in SLEEPABLE)
    if "events" in kernel.rings:
        layout = next(number for number, spec in enumerate(code.maps) if spec.name == "events_layout")
        kernel.tracepoints.load(options.events.events, code.code["template__event"], numbers, layout, code.sizes["events_layout"])


def slots_of(one: Table, total: int, cpus: int) -> int:
    """Return how many records of one size each CPU has room for: a power of two, so that a position is masked, not divided."""
    room = max(1, total // cpus // one.record_size)
    return int(1 << room.bit_length() - 1)


def _create_array(name: str, entries: int) -> Map:
    one = table(name)
    try:
        return bpf.create_map(f"ring_{name}", MapType.ARRAY, 4, one.record_size, entries, bpf.MAP_MMAPABLE)
    except RecordingError as error:
        raise RecordingError(error.what, "ask for less memory with --ring-size") from None


def ring_bytes(total: int, rings: int) -> int:
    """Return the size of each ring: the largest power of two of pages whose sum stays within the total, a page at least."""
    pages = max(1, total // rings // PAGE)
    return int(PAGE * (1 << pages.bit_length() - 1))


def _check_privilege() -> None:
    """Make the smallest map: the one sure way to know whether this process may."""
    bpf.create_map("probe", MapType.ARRAY, 4, 4, 1).close()


def _create_ring(one: Table, index: int, size: int) -> Map:
    return bpf.create_map(f"{one.name[:11]}_{index}", MapType.RINGBUF, 0, 0, size)


def _config(options: Options, kernel: Kernel, shards: int, size: int) -> bytes:
    """Return struct config (probes/common.bpf.h)."""
    target = options.target
    cgroup, level = 0, 0
    if target.cgroup is not None:
        root = cgroup_root()
        if root is None:
            raise RecordingError("the cgroup hierarchy was unmounted")
        cgroup, level = target.cgroup.stat().st_ino, len(target.cgroup.relative_to(root).parts)
    uids = [*target.uids, *[0] * (8 - len(target.uids))]
    comms = b"".join(os.fsencode(name).ljust(16, b"\0") for name in target.comms).ljust(128, b"\0")
    choices = len(target.comms) or len(target.uids)
    head = struct.pack(
        "=QQQIIIIIII",
        kernel.cookie,
        options.min_duration,
        cgroup,
        level,
        target.select,
        os.getpid(),
        kernel.viewer or os.getpid(),
        shards,
        bool(options.calls),
        choices,
    )
    slots = b"".join(struct.pack("=I", kernel.slots.get(name, 0)) for name in tables())
    head += slots + bytes(-(len(head) + len(slots)) % 8)
    packed = head + struct.pack("=8Q", *uids) + comms + struct.pack("=Q", NO_STACKS if options.offcpu is None else options.offcpu)
    if len(packed) != size:
        raise RecordingError(f"struct config has {size} bytes in the probe and {len(packed)} here")
    return packed


def existing(kernel: Kernel, options: Options) -> bytes:
    """Mark what exists at the start; return the rows that the iterator made of it (struct processes_record or a count).

    A thread that a not yet marked one makes between two steps is found by the next pass; passes end when one finds none.
    """
    if options.target.command:
        return b""
    rows = b""
    for _ in range(64):
        found = kernel.iterate("attach")
        rows += found
        if not found:
            break
    return rows


def cgroup_ids(folder: Path) -> set[int]:
    """Return the ids of a cgroup and of all below it."""
    return {folder.stat().st_ino, *(path.stat().st_ino for path in folder.rglob("*") if path.is_dir())}
