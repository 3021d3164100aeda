"""Tracepoints chosen by name: found, described, and each given a program of its own (probes/events.bpf.c).

A program is the one text with the event's layout behind it, in a frozen map: the verifier sees constants.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from ringtape.recorder import bpf, perf_events
from ringtape.recorder.bpf import MapType
from ringtape.recorder.tracefs import event_names, find_tracefs, is_path, read_events
from ringtape.schemas.errors import RecordingError, UsageError
from ringtape.schemas.events import HEADER_SIZE, RECORD_LIMIT, Event, EventField
from ringtape.schemas.manifest import Probe

EVENTS_MAX = 256
"""Events of one recording: each takes three descriptors and 60 ms to detach."""
TABLE = "events"
_LAYOUT = struct.Struct("=4I8I8I")
_WORDS = 8
_RELATIVE = _USER = 0x10000
_LISTED = 3


@dataclass(frozen=True)
class Choice:
    """Events to record, and those that were asked for but cannot be: name and reason."""

    events: tuple[Event, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


def choose_events(patterns: Sequence[str]) -> Choice:
    """Find the tracepoints that names and globs such as ``sched:*`` mean, and read their descriptions.

    Raises
    ------
    UsageError
        If a pattern means none, with close matches; or all of them mean more than `EVENTS_MAX`.
    RecordingError
        If tracefs cannot be read, or no event is left.
    """
    if not patterns:
        return Choice()
    place = find_tracefs()
    chosen = match_events(patterns, event_names(place))
    if len(chosen) > EVENTS_MAX:
        raise UsageError(
            f"--event names {len(chosen)} events, more than the {EVENTS_MAX} that one recording takes",
            "name fewer: `ringtape events GLOB` lists them",
        )
    events, refused = [], []
    for name, found in read_events(place, chosen):
        if isinstance(found, Event):
            events.append(found)
        else:
            reason = os.strerror(found.errno).lower() if isinstance(found, OSError) and found.errno else str(found)
            refused.append((name, f"its format file cannot be read: {reason}"))
    if not events:
        raise none_left(refused)
    return Choice(tuple(events), tuple(refused))


def none_left(refused: Sequence[tuple[str, str]]) -> RecordingError:
    """Return the error for a recording of events none of which can be recorded."""
    said = "; ".join(f"{name}: {reason}" for name, reason in refused[:_LISTED])
    more = f"; and {len(refused) - _LISTED} more" if len(refused) > _LISTED else ""
    return RecordingError(
        f"none of the events can be recorded ({said}{more})", "`ringtape events` lists what this kernel has, `ringtape doctor` what it lacks"
    )


def match_events(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """Return the names that the patterns mean, each once, in the order of the patterns.

    A pattern is ``group:name`` in which ``*``, ``?`` and ``[...]`` stand for what they do in a shell; perf's and bpftrace's
    ``tracepoint:`` before it and ``/`` between are taken as well.

    Raises
    ------
    UsageError
        If a pattern means none; close matches are in the hint.
    """
    known = set(names)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        plain = pattern.removeprefix("tracepoint:").removeprefix("t:")
        if ":" not in plain:
            plain = plain.replace("/", ":", 1)
        found = [plain] if plain in known else [name for name in names if fnmatchcase(name, plain)]
        if not found:
            raise UsageError(f"no event {pattern!r}", _hint(plain, names))
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def _hint(pattern: str, names: Sequence[str]) -> str:
    event = pattern.rpartition(":")[2]
    groups = sorted({name.partition(":")[0] for name in names})
    if ":" not in pattern and pattern in groups:
        return f"to record all of that group, write {pattern}:*"
    same = [name for name in names if name.partition(":")[2] == event]
    close = [*same, *(name for name in get_close_matches(pattern, names, _LISTED, 0.7) if name not in same)]
    if close:
        return f"did you mean {' or '.join(close[:_LISTED])}?"
    near = get_close_matches(pattern.partition(":")[0], groups, _LISTED, 0.75)
    return f"`ringtape events '{near[0]}:*'` lists that group" if near else "`ringtape events` lists all that this kernel has"


def layout_of(event: Event) -> bytes:
    """Return struct events_layout (probes/events.bpf.c).

    Raises
    ------
    RecordingError
        If the fixed part alone is longer than a record can be.
    """
    words = [one.offset | (_RELATIVE if one.shape == "rel" else 0) for one in event.fields if one.shape in ("loc", "rel")]
    # They follow each other in the order of the fields: of more than the program looks at the last ones tell where the record ends.
    words = words[-_WORDS:]
    strings = [one.offset | (_USER if _in_user_memory(event, one) else 0) for one in event.fields if one.string >= 0]
    if event.fixed_size > RECORD_LIMIT - HEADER_SIZE:
        raise RecordingError(f"{event.name}: its fields take {event.fixed_size} bytes")
    padded = [[*values, *[0] * (8 - len(values))] for values in (words, strings)]
    return _LAYOUT.pack(event.id, event.fixed_size, len(words), len(strings), *padded[0], *padded[1])


def _in_user_memory(event: Event, one: EventField) -> bool:
    group, _, name = event.name.partition(":")
    return group == "syscalls" and is_path(name.removeprefix("sys_enter_"), one.name)


def raise_descriptor_limit() -> None:
    """Let this process hold the descriptors of all its events; the command was started before and keeps its own limit."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 1 << 16)) if hard != resource.RLIM_INFINITY else max(soft, 1 << 16), hard))


@dataclass
class Tracepoints:
    """The programs of a recording's events, attached."""

    events: dict[str, int] = field(default_factory=dict)
    programs: dict[int, int] = field(default_factory=dict)
    links: list[int] = field(default_factory=list)
    perf: list[int] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    attached: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, choice: Choice) -> Tracepoints:
        """Begin with what could not even be described."""
        return cls(refused=list(choice.refused))

    def load(self, chosen: Sequence[Event], code: bytes, maps: Mapping[int, int], layout: int, sizes: tuple[int, int]) -> None:
        """Load a program for each event; ``layout`` is the number in the bytecode of the map that holds an event's layout."""
        if sizes[1] != _LAYOUT.size:
            raise RecordingError(f"struct events_layout has {sizes[1]} bytes in the probe and {_LAYOUT.size} here")
        raise_descriptor_limit()
        for event in chosen:
            one = bpf.create_map("layout", MapType.ARRAY, 4, _LAYOUT.size, 1, bpf.MAP_RDONLY_PROG)
            try:
                one.update(bytes(4), layout_of(event))
                one.freeze()
                program = bpf.relocate(code, {**maps, layout: one.fd})
                self.programs[event.id] = bpf.load_program(event.name.partition(":")[2], program, bpf.PROG_TYPE_TRACEPOINT)
                self.events[event.name] = event.id
            except RecordingError as error:
                self.refused.append((event.name, error.what))
            finally:
                one.close()
        if chosen and not self.programs:
            raise none_left(self.refused)

    def attach(self) -> list[Probe]:
        """Attach the programs, and return what was attached and what could not be.

        Raises
        ------
        RecordingError
            If none could be.
        """
        probes = []
        for name, number in list(self.events.items()):
            try:
                event = perf_events.open_event(perf_events.TYPE_TRACEPOINT, number, 0, flags=perf_events.DISABLED)
            except OSError as error:
                self.refused.append((name, f"it cannot be attached: {os.strerror(error.errno or 0).lower()}"))
                continue
            self.perf.append(event)
            try:
                link = perf_events.attach_program(event, self.programs[number])
            except OSError as error:
                self.refused.append((name, f"no program can be attached to it: {os.strerror(error.errno or 0).lower()}"))
                continue
            if link is not None:
                self.links.append(link)
            self.attached.add(number)
            probes.append(Probe(name, True))
        if self.events and not probes:
            raise none_left(self.refused)
        return probes + [Probe(name, False, reason) for name, reason in self.refused]

    def detach(self) -> None:
        """Detach every program; none runs any more when this returns."""
        links, self.links = self.links, []
        if links:
            # Each waits until no CPU can be inside of the program, all of them at the same time (measured: 57 ms for 20).
            with ThreadPoolExecutor(len(links)) as pool:
                list(pool.map(os.close, links))
        elif self.perf:
            opened, self.perf = self.perf, []
            for event in opened:
                os.close(event)

    def let_go(self) -> None:
        """Give up the events themselves. Everything else of the kernel's that should end now has to be closed before."""
        opened, self.perf = self.perf, []
        if opened:
            _close_elsewhere(opened)

    def skipped(self) -> dict[int, int]:
        """Return, by event, how often the kernel did not run its program because another one was running on that CPU."""
        return {number: count for number, program in self.programs.items() if (count := bpf.skipped_runs(program))}

    def close(self) -> None:
        """Give everything back."""
        self.detach()
        self.let_go()
        for program in self.programs.values():
            os.close(program)
        self.programs.clear()


def _close_elsewhere(descriptors: Sequence[int]) -> None:
    """Close events whose programs are detached, in a process of its own.

    The kernel closes one after the other and waits 45 ms at each, ten seconds for all that a recording may have: nobody
    should wait for that, and nothing is recorded by then. For a moment the process holds whatever this one holds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that the child does not have: it closes and ends
        try:
            child = os.fork() if descriptors else -1
        except OSError:
            child = -1
    if child == 0:
        try:
            signal.alarm(60)  # whatever happens here, it ends
            # Whoever waits for the end of a pipe, or for the lock on the trace, must not wait for this.
            for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
                if int(name) not in descriptors:
                    with contextlib.suppress(OSError):
                        os.close(int(name))
        finally:
            os._exit(0)  # the kernel closes the rest
    for descriptor in descriptors:
        os.close(descriptor)


def list_events(patterns: Sequence[str]) -> tuple[Path, list[str]]:
    """Return where tracefs is, and the names that the patterns mean; all without a pattern."""
    place = find_tracefs()
    names = event_names(place)
    return place, match_events(patterns, names) if patterns else names
