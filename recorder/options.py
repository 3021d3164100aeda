"""What a recording was asked to do, checked before anything is touched."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from ringtape.recorder.bpf import PAGE
from ringtape.recorder.events import Choice
from ringtape.recorder.flight import Flight
from ringtape.schemas.abi import syscalls as abi
from ringtape.schemas.errors import UsageError
from ringtape.schemas.table import Table, table, tables
from ringtape.schemas.units import format_size, parse_size

CHOICES = 8
"""Values of --comm or --uid at most (CHOICES in probes/common.bpf.h)."""
DEFAULT_PROFILE = 99
"""Samples per second where the table is asked for without a frequency: no multiple of what timers usually fire at."""
COMM_LENGTH = 15
"""Longest command name that the kernel keeps (TASK_COMM_LEN - 1)."""


class Select(IntEnum):
    """How the probes decide whether a thread is recorded (SELECT_* in probes/common.bpf.h)."""

    MARKED = 0
    ALL = 1
    COMM = 2
    UID = 3
    CGROUP = 4


@dataclass(frozen=True)
class Target:
    """Which threads are recorded.

    ``command`` is run with all its descendants; else exactly one of the others says which threads of the machine are
    meant. ``cgroup`` is a folder of the version 2 hierarchy.
    """

    command: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    uids: tuple[int, ...] = ()
    cgroup: Path | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        chosen = [name for name, value in self.kinds.items() if value]
        if not chosen:
            raise UsageError("nothing to record was named", "end with `-- COMMAND`, or name --pid, --comm, --uid, --cgroup or --all")
        if len(chosen) > 1:
            raise UsageError(f"{' and '.join(chosen)} were named together", "name one of them")

    @property
    def kinds(self) -> Mapping[str, object]:
        """The ways to name a target, with what was named."""
        return {
            "a command": self.command,
            "--pid": self.pids,
            "--comm": self.comms,
            "--uid": self.uids,
            "--cgroup": self.cgroup,
            "--all": self.everything,
        }

    @property
    def select(self) -> Select:
        """The probes' way to decide."""
        if self.everything:
            return Select.ALL
        if self.comms:
            return Select.COMM
        if self.uids:
            return Select.UID
        return Select.CGROUP if self.cgroup else Select.MARKED

    def describe(self) -> dict[str, object]:
        """Return what was named, as the header of a trace holds it."""
        named: dict[str, object] = {"pid": list(self.pids), "comm": list(self.comms), "uid": list(self.uids)}
        named |= {"cgroup": str(self.cgroup or ""), "all": self.everything}
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True)
class Options:
    """A recording as asked for.

    ``calls`` are the numbers (ABI name, number) of the system calls to record, empty for all; ``min_duration`` is in
    ns; ``profile`` is in samples per second, 0 for none; ``offcpu`` is the shortest time off a CPU in ns whose stack is
    kept, None for no such stacks; ``ring_sizes`` maps tables to bytes for all CPUs together; ``duration`` is in ns, None for no limit;
    ``flight`` is what a flight recorder keeps and when it saves it.
    """

    target: Target
    tables: tuple[str, ...]
    calls: frozenset[tuple[str, int]] = frozenset()
    call_names: tuple[str, ...] = ()
    min_duration: int = 0
    ring_sizes: Mapping[str, int] = field(default_factory=dict)
    duration: int | None = None
    wait_for_descendants: bool = True
    merge: bool = True
    events: Choice = field(default_factory=Choice)
    event_patterns: tuple[str, ...] = ()
    profile: int = 0
    offcpu: int | None = None
    flight: Flight | None = None

    def ring_size(self, wanted: Table) -> int:
        """Return the bytes for the rings of a table, all CPUs together."""
        return self.ring_sizes.get(wanted.name, wanted.ring_size)

    def describe(self) -> dict[str, object]:
        """Return the options as the header of a trace holds them."""
        return {
            "target": self.target.describe(),
            "syscall": list(self.call_names),
            "event": list(self.event_patterns),
            "min_duration": self.min_duration,
            "duration": self.duration,
            "ring_size": {name: self.ring_size(table(name)) for name in self.tables if table(name).origin == "ring"},
            "wait_for_descendants": self.wait_for_descendants,
            **(self.flight.describe() if self.flight else {}),
            **({"profile": self.profile, "offcpu_stacks": self.offcpu} if "samples" in self.tables else {}),
        }


def choose_tables(text: str | None, also: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the tables to record: those named, the default set, or all; ``also``; those that they need, and the recorder's own.

    ``events`` says whether any event is named; the table ``events`` is recorded exactly then.

    Raises
    ------
    UsageError
        If a name is not that of a table that can be chosen.
    """
    rings = [name for name, one in tables().items() if one.origin == "ring"]
    if text is None:
        chosen = [name for name in rings if table(name).default]
    elif text == "all":
        chosen = rings
    else:
        chosen = [name.strip() for name in text.split(",") if name.strip()]
        for name in chosen:
            if name not in rings:
                raise UsageError(f"unknown table {name!r}", f"choose from {', '.join(rings)}, or all")
        if not chosen:
            raise UsageError("--tables names no table", f"choose from {', '.join(rings)}, or all")
    if "events" not in also:
        if text == "all":
            chosen = [name for name in chosen if name != "events"]
        elif "events" in chosen:
            raise UsageError("the table events without an event", "name some with --event, such as --event sched:sched_process_exit")
    chosen = [*chosen, *also]
    needed = {need for name in chosen for need in table(name).needs}
    own = {name for name, one in tables().items() if one.origin == "recorder" and one.default}
    return tuple(sorted({*chosen, *needed, *own}))


def choose_calls(names: Sequence[str]) -> frozenset[tuple[str, int]]:
    """Return (ABI, number) of each named call in the native numbering and in that of 32-bit programs.

    Raises
    ------
    UsageError
        If this machine has no call of that name; close matches are in the hint.
    """
    native = abi.native_abi()
    compat = abi.compat_abi(native)
    chosen = set()
    for name in names:
        numbers = {(native, number) for number, known in abi.names(native).items() if known == name}
        if compat is not None:
            numbers |= {(compat, number) for number, known in abi.names(compat).items() if known == name}
        if not numbers:
            abi.number(native, name)  # raises with the close matches
        chosen |= numbers
    return frozenset(chosen)


def check_pids(pids: Sequence[int]) -> tuple[int, ...]:
    """Return the processes if each exists; a thread's number stands for its process.

    Raises
    ------
    UsageError
        Naming the first that does not exist.
    """
    processes = []
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            raise UsageError(f"no process {pid}", "`ps -e` lists the processes") from None
        process = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Tgid:"))
        if process == os.getpid():
            raise UsageError(f"{pid} is this recorder itself", "it never records its own calls")
        processes.append(process)
    return tuple(dict.fromkeys(processes))


def check_comms(comms: Sequence[str]) -> tuple[str, ...]:
    """Return the command names, cut as the kernel cuts them."""
    if len(comms) > CHOICES:
        raise UsageError(f"{len(comms)} values of --comm", f"at most {CHOICES} can be named")
    if any(not comm for comm in comms):
        raise UsageError("an empty command name", "name what `ps -eo comm` shows")
    return tuple(os.fsdecode(os.fsencode(comm)[:COMM_LENGTH]) for comm in comms)


def check_uids(users: Sequence[str]) -> tuple[int, ...]:
    """Return user ids for numbers and names.

    Raises
    ------
    UsageError
        If a name is unknown.
    """
    if len(users) > CHOICES:
        raise UsageError(f"{len(users)} values of --uid", f"at most {CHOICES} can be named")
    uids = []
    for user in users:
        try:
            uid = int(user) if user.isascii() and user.isdecimal() else pwd.getpwnam(user).pw_uid
        except KeyError:
            raise UsageError(f"no user {user!r}", "name a user or a number") from None
        if uid >= 1 << 32:
            raise UsageError(f"{uid} is no user id", "user ids have 32 bits")
        uids.append(uid)
    return tuple(uids)


def check_profile(frequency: int | None) -> int:
    """Return the samples per second, 0 for none.

    Raises
    ------
    UsageError
        If the kernel would not sample that often.
    """
    if frequency is None:
        return 0
    most = 100_000
    with contextlib.suppress(OSError, ValueError):
        most = int(Path("/proc/sys/kernel/perf_event_max_sample_rate").read_text())
    if not 1 <= frequency <= most:
        raise UsageError(f"--profile {frequency}", f"this kernel takes 1 to {most} samples a second (kernel.perf_event_max_sample_rate)")
    return frequency


def check_cgroup(path: Path) -> Path:
    """Return the folder if it is a cgroup of the version 2 hierarchy.

    Raises
    ------
    UsageError
        If it is not; version 1 hierarchies have no ids that a probe could compare cheaply.
    """
    resolved = path.resolve()
    root = cgroup_root()
    if root is None:
        raise UsageError("this machine has no cgroup version 2 hierarchy mounted", "mount -t cgroup2 none /sys/fs/cgroup/unified")
    if not resolved.is_dir() or (resolved != root and root not in resolved.parents):
        raise UsageError(f"{path} is no cgroup of the version 2 hierarchy", f"name a folder in {root}")
    return resolved


def cgroup_root() -> Path | None:
    """Return where the version 2 hierarchy is mounted, or None."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where.encode().decode("unicode_escape"))
    return None


def possible_cpus() -> int:
    """Return one more than the highest CPU number that can ever be (the kernel's nr_cpu_ids, by which it lays out per-CPU values)."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return max(int(part.split("-")[-1]) for part in text.split(",")) + 1


def online_cpus() -> list[int]:
    """Return the CPUs that run now."""
    text = Path("/sys/devices/system/cpu/online").read_text().strip()
    ranges = [part.partition("-") for part in text.split(",")]
    return [cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)]


def parse_ring_sizes(text: str | None, names: Sequence[str]) -> dict[str, int]:
    """Return bytes per table from ``SIZE`` (each table) or ``TABLE=SIZE,...``.

    Raises
    ------
    UsageError
        If a table is not recorded or a size is none.
    """
    if text is None:
        return {}
    rings = [name for name in names if table(name).origin == "ring"]
    if "=" not in text:
        text = ",".join(f"{name}={text}" for name in rings)
    sizes = {}
    for item in text.split(","):
        name, _, size = item.partition("=")
        if name not in rings:
            raise UsageError(f"--ring-size names {name!r}, which is not recorded", f"the recorded tables with rings are {', '.join(rings)}")
        sizes[name] = parse_size(size)
        if not PAGE <= sizes[name] <= 64 << 30:
            raise UsageError(f"a ring size of {size} for {name}", f"choose between {format_size(PAGE)} and 64 GiB")
    return sizes
