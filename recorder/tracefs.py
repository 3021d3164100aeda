"""The kernel's own description of its tracepoints: which there are, and what their records look like."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ringtape.recorder.btf import read_enumerators
from ringtape.recorder.print_format import parse_print_format
from ringtape.schemas.errors import RecordingError
from ringtape.schemas.events import HEADER_SIZE, RECORD_LIMIT, STRINGS_LIMIT, Event, EventField, Shape, describe_events, parse_events

PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
FORMAT_LIMIT = 1 << 18
_USER_GROUP = "syscalls"

_FIELD = re.compile(
    r"^\tfield(?: special)?:(?P<declared>[^;]{1,1000});"
    r"\s*offset:(?P<offset>[0-9]{1,9});\s*size:(?P<size>[0-9]{1,9});(?:\s*signed:(?P<signed>[01]);)?\s*$"
)
_DECLARED = re.compile(r"(?P<type>.*?)(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*(?P<array>\[(?P<count>[^\]]*)\])?\s*$", re.DOTALL)
_ITEM_SIZES = {
    **dict.fromkeys(("char", "signed char", "unsigned char", "bool", "_Bool", "u8", "s8", "__u8", "__s8", "uint8_t", "int8_t"), 1),
    **dict.fromkeys(("short", "unsigned short", "u16", "s16", "__u16", "__s16", "uint16_t", "__le16", "__be16", "umode_t"), 2),
    **dict.fromkeys(
        ("int", "unsigned int", "unsigned", "u32", "s32", "__u32", "__s32", "uint32_t", "int32_t", "__le32", "__be32", "pid_t", "dev_t", "gfp_t"), 4
    ),
    **dict.fromkeys(("long", "unsigned long", "long long", "unsigned long long", "u64", "s64", "__u64", "__s64", "uint64_t", "int64_t"), 8),
    **dict.fromkeys(("__le64", "__be64", "size_t", "ssize_t", "loff_t", "sector_t", "cpumask_t", "dma_addr_t"), 8),
}
_SIGNED = frozenset(
    ("int", "short", "long", "long long", "signed char", "s8", "s16", "s32", "s64", "__s8", "__s16", "__s32", "__s64", "pid_t", "ssize_t", "loff_t")
)


class FormatError(ValueError):
    """A format file does not say what format files say."""


def find_tracefs() -> Path:
    """Return where tracefs is mounted and may be read.

    Raises
    ------
    RecordingError
        Saying what is missing: the mount, or the permission.
    """
    for place in PLACES:
        if os.access(place / "events", os.R_OK | os.X_OK):
            return place
    mounted = [place for place in PLACES if os.path.isdir(place)]  # noqa: PTH112 - Path.is_dir() raises where it may not look
    if os.geteuid() != 0:
        raise RecordingError(
            f"{mounted[0] if mounted else PLACES[0]}: tracefs may not be read", "run it with sudo: tracepoints are described to root only"
        )
    raise RecordingError("tracefs is not mounted, so the kernel does not describe its tracepoints", f"mount it: mount -t tracefs tracefs {PLACES[0]}")


def event_names(place: Path) -> list[str]:
    """Return every tracepoint that can be attached to, as ``group:name``, sorted.

    Raises
    ------
    RecordingError
        If the list may not be read.
    """
    try:
        return sorted(set((place / "available_events").read_text(errors="replace").split()))
    except OSError as error:
        raise RecordingError(f"{place / 'available_events'}: {os.strerror(error.errno or 0).lower()}", "run it with sudo") from None


def read_events(place: Path, names: Sequence[str]) -> Iterator[tuple[str, Event | OSError | FormatError]]:
    """Yield each name with the tracepoint as its format file describes it, or with what is wrong with that file.

    What the kernel's formats call by the names of enumerators has the values that the kernel's types tell.
    """
    found: dict[str, Event | OSError | FormatError] = {}
    unknown: dict[str, set[str]] = {}
    for name in names:
        try:
            found[name] = read_event(place, name, unknown=unknown.setdefault(name, set()))
        except (OSError, FormatError) as error:
            found[name] = error
    wanted = {constant for constants in unknown.values() for constant in constants}
    values = read_enumerators(wanted) if wanted else {}
    for name, one in found.items():
        yield name, read_event(place, name, values) if isinstance(one, Event) and unknown[name] & values.keys() else one


def read_event(place: Path, name: str, constants: Mapping[str, int] = MappingProxyType({}), unknown: set[str] | None = None) -> Event:
    """Return a tracepoint as its format file describes it; parameters as those of `parse_format`.

    Raises
    ------
    OSError
        If the file is not there or may not be read.
    FormatError
        If it is not what a format file is.
    """
    group, _, event = name.partition(":")
    with (place / "events" / group / event / "format").open("rb") as file:
        content = file.read(FORMAT_LIMIT + 1)
    return parse_format(content.decode("utf-8", "replace"), group, constants, unknown)


def parse_format(text: str, group: str, constants: Mapping[str, int] = MappingProxyType({}), unknown: set[str] | None = None) -> Event:
    """Return the tracepoint that a format file describes.

    Parameters
    ----------
    text : str
        Content of the file.
    group : str
        The folder that it lies in: the part of the name before the colon.
    constants : mapping
        Values of the kernel's enumerators.
    unknown : set, optional
        Takes the names of constants that have no value.

    Raises
    ------
    FormatError
        Saying what is not as the kernel writes it.
    """
    if len(text) > FORMAT_LIMIT:
        raise FormatError(f"more than {FORMAT_LIMIT} characters")
    head, found, print_format = text.partition("\nprint fmt: ")
    lines = head.splitlines()
    name = _after(lines, "name: ")
    number = _after(lines, "ID: ")
    if not re.fullmatch(r"[0-9]{1,5}", number) or int(number) >= 1 << 16:
        raise FormatError(f"ID {number!r:.40} is no number of an event")
    meaning = parse_print_format(print_format.strip() if found else "", constants)
    if unknown is not None:
        unknown |= meaning.unknown
    fields: list[EventField] = []
    for line in lines:
        if line.startswith("\tfield"):
            one = _parse_field(line)
            # What the kernel puts into a syscall's record for perf and ftrace alone is not in what a program is given.
            if one.offset >= HEADER_SIZE and not (group == _USER_GROUP and one.shape in ("loc", "rel")):
                fields.append(_argument(one) if group == _USER_GROUP else one)
    strings = 0
    for index, one in enumerate(fields):
        show = meaning.shows.get(one.name, "dev" if one.type == "dev_t" else "hex" if "*" in one.type else "")
        symbols = meaning.symbols.get(one.name) if one.shape == "scalar" else None
        string = -1
        if _points_at_string(one, group, name) and strings < STRINGS_LIMIT:
            string, symbols = strings, None
            strings += 1
        fields[index] = replace(one, string=string, show=show, symbols=symbols)
    event = Event(f"{group}:{name}", int(number), tuple(fields))
    try:
        parse_events(describe_events([event]))  # what no reader of the trace would accept is not recorded
    except ValueError as error:
        raise FormatError(str(error)) from None
    return event


def _after(lines: list[str], label: str) -> str:
    for line in lines:
        if line.startswith(label):
            return line.removeprefix(label).strip()
    raise FormatError(f"no line {label.strip()!r}")


def _parse_field(line: str) -> EventField:
    match = _FIELD.match(line)
    declared = match and _DECLARED.match(match["declared"])
    if not match or not declared:
        raise FormatError(f"no description of a field: {line.strip()!r:.80}")
    offset, size = int(match["offset"]), int(match["size"])
    if offset + size > RECORD_LIMIT:
        raise FormatError(f"field {declared['name']} at {offset} of {size} bytes is outside of any record")
    kind = " ".join(declared["type"].split())[:200]
    signed = match["signed"] == "1"
    for prefix, shape in (("__data_loc ", "loc"), ("__rel_loc ", "rel"), ("__rel_data_loc ", "rel")):
        if kind.startswith(prefix):
            if size != 4:
                raise FormatError(f"field {declared['name']} of {size} bytes tells where an array is")
            # The kernel writes `__data_loc char[] name`, and `__data_loc char name` of bitmaps' types.
            base = kind.removeprefix(prefix).replace("[]", "").strip()
            item = _ITEM_SIZES.get(base, 1)
            return EventField(declared["name"], kind, offset, size, item, base in _SIGNED, shape, text=base == "char")  # type: ignore[arg-type]
    if declared["array"] is not None:
        return _array(declared["name"], kind, declared["count"], offset, size, signed)
    if size in (1, 2, 4, 8):
        return EventField(declared["name"], kind, offset, size, size, signed, "scalar")
    return EventField(declared["name"], kind, offset, size, 1, False, "array")  # a structure: its bytes


def _array(name: str, kind: str, count: str, offset: int, size: int, signed: bool) -> EventField:
    item = size // int(count) if re.fullmatch(r"[1-9][0-9]{0,4}", count) and size % int(count) == 0 else _ITEM_SIZES.get(kind, 1)
    if item not in (1, 2, 4, 8) or size % item:
        item = 1
    shape: Shape = "array"
    return EventField(name, f"{kind}[{count}]"[:200], offset, size, item, signed, shape, text=kind == "char" and item == 1)


def _argument(one: EventField) -> EventField:
    """Return an argument of a system call as what the program passed: it fills the low half of its register only if it is an int."""
    item = _ITEM_SIZES.get(one.type, one.item)
    if one.shape != "scalar" or item >= one.item:
        return one
    return replace(one, size=item, item=item, signed=one.type in _SIGNED)


def _points_at_string(one: EventField, group: str, event: str) -> bool:
    """Whether a pointer leads to a string: in the kernel those of characters do, from programs only those that are paths."""
    if one.shape != "scalar" or one.size != 8 or one.type.replace("const ", "").replace(" ", "") != "char*":
        return False
    return group != _USER_GROUP or (event.startswith("sys_enter_") and is_path(event.removeprefix("sys_enter_"), one.name))


def is_path(call: str, argument: str) -> bool:
    """Return whether an argument of a system call is a path: many others of that type are buffers."""
    return argument in (
        "filename",
        "pathname",
        "path",
        "oldname",
        "newname",
        "old_name",
        "new_name",
        "linkpath",
        "target",
        "put_old",
        "new_root",
    ) or (argument in ("name", "dev_name", "dir_name") and call in ("mount", "umount", "swapon", "swapoff", "name_to_handle_at", "acct"))
