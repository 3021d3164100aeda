"""Tracepoints as their format files describe them: which bytes of a raw record mean what, and how a manifest says it.

A layout in a manifest comes from a stranger: nothing in it is believed before `parse_events` has compared it with what a
tracepoint of the kernel can be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

HEADER_SIZE: Final = 8
"""Bytes of the common fields (type, flags, preemption count, thread) with which the kernel's record begins; they are not recorded."""
RECORD_LIMIT: Final = 8192
"""PERF_MAX_TRACE_SIZE of the kernel: no record is longer."""
EVENTS_LIMIT: Final = 4096
FIELDS_LIMIT: Final = 256
STRINGS_LIMIT: Final = 8
"""Pointers to strings of one event that are followed (EVENT_STRINGS in probes/events.bpf.c)."""
SYMBOLS_LIMIT: Final = 4096

Shape = Literal["scalar", "array", "loc", "rel"]
"""``loc`` and ``rel`` are arrays whose place and size a 32-bit word tells: ``__data_loc`` and ``__rel_loc`` of the kernel."""
Show = Literal["", "hex", "oct", "dev", "ipv4", "ipv6", "mac", "uuid"]

_EVENT: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}:[A-Za-z0-9_.-]{1,100}")
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_TEXT: Final = 200


@dataclass(frozen=True, slots=True)
class Symbols:
    """Names of the values of a field: those of ``(field >> shift) & mask``.

    ``flags`` says that the names are of bits, which are joined by ``delimiter``; values are signed 64-bit numbers.
    """

    flags: bool
    shift: int
    mask: int
    delimiter: str
    names: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class EventField:
    """One field of a tracepoint.

    Parameters
    ----------
    name, type : str
        As in the format file.
    offset, size : int
        Where it lies in the kernel's record, whose first `HEADER_SIZE` bytes are not recorded.
    item : int
        Bytes of one number: 1, 2, 4 or 8.
    signed : bool
        Whether the numbers are.
    shape : {"scalar", "array", "loc", "rel"}
        One number, several, or a word that tells where several are.
    text : bool
        Whether an array holds characters, up to the first NUL.
    string : int
        For a pointer to a string that was read: which of the record's strings it is; else -1.
    show : str
        How the kernel's own format prints it: in hexadecimal, as an address ...; empty for as it is.
    symbols : Symbols or None
        What its values mean.
    """

    name: str
    type: str
    offset: int
    size: int
    item: int
    signed: bool
    shape: Shape
    text: bool = False
    string: int = -1
    show: Show = ""
    symbols: Symbols | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A tracepoint: ``group:name``, the kernel's number for it, and its fields in the order of their offsets."""

    name: str
    id: int
    fields: tuple[EventField, ...]

    @property
    def fixed_size(self) -> int:
        """Bytes of the recorded part that every record has."""
        return max((field.offset + field.size for field in self.fields), default=HEADER_SIZE) - HEADER_SIZE

    def field(self, name: str) -> EventField | None:
        """Return the field of that name."""
        return next((field for field in self.fields if field.name == name), None)


def describe_events(events: Sequence[Event]) -> dict[str, Any]:
    """Return events as the header of a manifest holds them."""
    described = {}
    for event in events:
        fields = [asdict(field) for field in event.fields]
        for field in fields:
            if field["symbols"] is not None:
                field["symbols"]["names"] = [list(pair) for pair in field["symbols"]["names"]]
        described[event.name] = {"id": event.id, "fields": fields}
    return described


def parse_events(described: Mapping[str, Any]) -> dict[str, Event]:
    """Return the events that a manifest describes, by name.

    Members that a newer version may add are passed over.

    Raises
    ------
    ValueError
        Saying what cannot be: it is then not followed, or a reader would look outside of a record.
    """
    if len(described) > EVENTS_LIMIT:
        raise ValueError(f"{len(described)} events")
    events = {name: _event(name, body) for name, body in described.items()}
    if len({event.id for event in events.values()}) < len(events):
        raise ValueError("two events of one number")
    return events


def _event(name: str, body: Any) -> Event:
    if not _EVENT.fullmatch(name):
        raise ValueError(f"event {name!r:.60}")
    if not isinstance(body, dict):
        raise ValueError(f"event {name} is no object")
    number, listed = _integer(body, "id", 0, (1 << 16) - 1), body.get("fields")
    if not isinstance(listed, list) or len(listed) > FIELDS_LIMIT:
        raise ValueError(f"event {name}: no list of fields, or too many")
    fields = tuple(_field(item) for item in listed)
    if len({field.name for field in fields}) < len(fields):
        raise ValueError(f"event {name}: two fields of one name")
    strings = [field.string for field in fields if field.string >= 0]
    if strings != list(range(len(strings))) or len(strings) > STRINGS_LIMIT:
        raise ValueError(f"event {name}: its strings are numbered {strings!r:.60}")
    return Event(name, number, fields)


def _field(body: Any) -> EventField:
    if not isinstance(body, dict) or not isinstance(name := body.get("name"), str) or not _FIELD.fullmatch(name):
        raise ValueError("a field without a name")
    kind: Any = body.get("type")
    shape: Any = body.get("shape")
    show: Any = body.get("show")
    if not isinstance(kind, str) or len(kind) > _TEXT or shape not in get_args(Shape) or show not in get_args(Show):
        raise ValueError(f"field {name}: type {kind!r:.60}, shape {shape!r:.60}, show {show!r:.60}")
    offset = _integer(body, "offset", HEADER_SIZE, RECORD_LIMIT)
    size = _integer(body, "size", 0, RECORD_LIMIT - offset)
    item = _integer(body, "item", 1, 8)
    expected = {"scalar": size == item, "array": size % item == 0, "loc": size == 4, "rel": size == 4}
    if item not in (1, 2, 4, 8) or not expected[shape]:
        raise ValueError(f"field {name}: {shape} of {size} bytes with {item} each")
    signed, text = body.get("signed"), body.get("text")
    if not isinstance(signed, bool) or not isinstance(text, bool) or (text and (shape == "scalar" or item != 1)):
        raise ValueError(f"field {name}: signed {signed!r:.20}, text {text!r:.20}")
    string = _integer(body, "string", -1, STRINGS_LIMIT - 1)
    if string >= 0 and (shape, size) != ("scalar", 8):
        raise ValueError(f"field {name}: a pointer of {size} bytes")
    symbols = body.get("symbols")
    if symbols is not None and (text or string >= 0 or shape != "scalar"):
        raise ValueError(f"field {name}: names for what is no number")
    return EventField(name, kind, offset, size, item, signed, shape, text, string, show, None if symbols is None else _symbols(name, symbols))


def _symbols(name: str, body: Any) -> Symbols:
    if not isinstance(body, dict) or not isinstance(flags := body.get("flags"), bool):
        raise ValueError(f"field {name}: its symbols are no object")
    delimiter, pairs = body.get("delimiter"), body.get("names")
    if not isinstance(delimiter, str) or len(delimiter) > 8 or not isinstance(pairs, list) or not 0 < len(pairs) <= SYMBOLS_LIMIT:
        raise ValueError(f"field {name}: delimiter {delimiter!r:.20}, or no list of names, or too many")
    names = []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not _is_int64(pair[0]) or not isinstance(pair[1], str) or len(pair[1]) > _TEXT:
            raise ValueError(f"field {name}: {pair!r:.60} is no value with its name")
        names.append((pair[0], pair[1]))
    mask = body.get("mask")
    if not isinstance(mask, int) or not _is_int64(mask):
        raise ValueError(f"field {name}: mask {mask!r:.60}")
    return Symbols(flags, _integer(body, "shift", 0, 63), mask, delimiter, tuple(names))


def _is_int64(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63


def _integer(body: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r:.60}, not {low} to {high}")
    return value
