"""Packets of a Perfetto trace: track events by the column, and the few that describe tracks one by one.

Fields are numbered as in https://github.com/google/perfetto/tree/main/protos/perfetto/trace; tests read them back with the classes of
the package ``perfetto``, which makes the few packets that are made one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ringtape.analysis.wire import Piece, fixed, joined, message, number, record, where

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
SEQUENCE = 1
CLEARED, NEEDED = 1, 2
BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4
BYTES_UNIT, COUNT_UNIT = 3, 2


class Packets:
    """Makes packets; strings that packets name by number are interned as they come."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._strings: dict[tuple[str, str], int] = {}
        self._fresh: list[tuple[str, int, str]] = []
        self._next = 1

    def iid(self, kind: str, text: str) -> int:
        """Return the number of a string: ``event_names``, ``event_categories``, ``debug_annotation_names``."""
        known = self._strings.get((kind, text))
        if known is None:
            known = self._strings[kind, text] = self._new(kind, text)
        return known

    def passing(self, texts: Sequence[str]) -> Ints:
        """Return new numbers for values of annotations, which are not remembered."""
        return np.array([self._new("debug_annotation_string_values", text) for text in texts], np.int64)

    def _new(self, kind: str, text: str) -> int:
        self._fresh.append((kind, self._next, text))
        self._next += 1
        return self._next - 1

    def interned(self) -> bytes:
        """Return the packet that must come before those that use the strings asked for since the last."""
        proto = _classes()
        if not self._fresh:
            return b""
        packet = proto.TracePacket(trusted_packet_sequence_id=SEQUENCE, sequence_flags=NEEDED)
        for kind, iid, text in self._fresh:
            entry = getattr(packet.interned_data, kind).add(iid=iid)
            if kind == "debug_annotation_string_values":
                entry.str = text.encode("utf-8", "backslashreplace")
            else:
                entry.name = text.encode("utf-8", "backslashreplace").decode()
        self._fresh.clear()
        return record(1, packet.SerializeToString())

    def event(self, ts: Ints, kind: int, track: Ints | int, *more: Piece) -> Piece:
        """Return track events, a packet each."""
        inner = [number(9, kind), number(11, track), *more]
        return message(1, [number(8, ts + self._offset), number(10, SEQUENCE), number(13, NEEDED), message(11, inner)])

    def noted(self, name: str, values: npt.NDArray[Any] | int) -> Piece:
        """Return an annotation that is a number."""
        return message(4, [number(1, self.iid("debug_annotation_names", name)), number(4, values)])

    def named(self, name: str, iids: Ints) -> Piece:
        """Return an annotation that is an interned text."""
        return message(4, [number(1, self.iid("debug_annotation_names", name)), number(17, iids)])

    def title(self, name: str | Ints, category: str | Ints) -> Piece:
        """Return name and category of events."""
        names = self.iid("event_names", name) if isinstance(name, str) else name
        categories = self.iid("event_categories", category) if isinstance(category, str) else category
        return [*number(3, categories), *number(10, names)]

    def counters(self, ts: Ints, track: Ints | int, values: Ints) -> bytes:
        """Return values of counters."""
        return joined(len(ts), self.event(ts, COUNTER, track, number(30, values)))

    def instants(self, ts: Ints, track: Ints | int, *more: Piece) -> bytes:
        """Return instants."""
        return joined(len(ts), self.event(ts, INSTANT, track, *more))

    def slices(self, ts: Ints, end: Ints, open_: Bools, point: Bools, track: Ints, *more: Piece) -> bytes:
        """Return slices, begin and end one behind the other; ``open_`` ones have no end, those that are a ``point`` are instants."""
        kind = np.where(point, INSTANT, BEGIN)
        inner = [number(9, kind), number(11, track), *more]
        first = message(1, [number(8, ts + self._offset), number(10, SEQUENCE), number(13, NEEDED), message(11, inner)])
        return joined(len(ts), [*first, *where(~open_ & ~point, self.event(end, END, track))])

    def flowing(self, ids: Ints, ends: bool) -> Piece:
        """Return the numbers of flows that pass events, or end there."""
        return fixed(48 if ends else 47, ids)

    # What the kernel would have told.

    def switches(self, cpu: int, ts: Ints, before: Ints, state: Ints, after: Ints) -> bytes:
        """Return switches of one CPU."""
        switch = message(4, [number(2, before), number(4, state), number(6, after)])
        event = message(2, [number(1, ts + self._offset), number(2, before), switch])
        return record(1, record(1, number_bytes(1, cpu) + joined(len(ts), event)))

    def wakings(self, cpu: int, ts: Ints, waker: Ints, woken: Ints) -> bytes:
        """Return wake-ups of threads that then ran on one CPU."""
        waking = message(20, [number(2, woken), number(4, 1), number(5, cpu)])
        event = message(2, [number(1, ts + self._offset), number(2, waker), waking])
        return record(1, record(1, number_bytes(1, cpu) + joined(len(ts), event)))


def _classes() -> Any:
    # Imported when it is used: it takes longer than all else that a help text needs.
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2  # type: ignore[import-untyped]

    return perfetto_trace_pb2


def number_bytes(tag: int, value: int) -> bytes:
    """Return a field of one number."""
    return joined(1, number(tag, value))


def preamble(clock: tuple[int, int, int], host: Mapping[str, Any]) -> bytes:
    """Return the packets that begin a trace: clocks (monotonic, wall, boot) and machine."""
    proto = _classes()
    first = proto.TracePacket(trusted_packet_sequence_id=SEQUENCE, sequence_flags=CLEARED, first_packet_on_sequence=True)
    for clock_id, value in ((3, clock[0]), (1, clock[1]), (6, clock[2])):
        first.clock_snapshot.clocks.add(clock_id=clock_id, timestamp=max(value, 0))
    second = proto.TracePacket(trusted_packet_sequence_id=SEQUENCE)
    name = second.system_info.utsname
    name.sysname, name.release, name.machine = "Linux", str(host.get("kernel", "")), str(host.get("machine", ""))
    return record(1, first.SerializeToString()) + record(1, second.SerializeToString())


def track(uuid: int, **fields: Any) -> bytes:
    """Return the packet that describes a track; ``process`` and ``thread`` are dictionaries, ``counter`` the unit of a counter."""
    proto = _classes()
    packet = proto.TracePacket(trusted_packet_sequence_id=SEQUENCE, sequence_flags=NEEDED)
    made = packet.track_descriptor
    made.uuid = uuid
    for name, value in fields.items():
        if name == "counter":
            made.counter.SetInParent()
            if isinstance(value, int):
                made.counter.unit = value
            else:
                made.counter.unit_name = value
        elif isinstance(value, dict):
            part = getattr(made, name)
            for inner, content in value.items():
                if inner == "cmdline":
                    part.cmdline.extend(content)
                else:
                    setattr(part, inner, content)
        else:
            setattr(made, name, value)
    return record(1, packet.SerializeToString())
