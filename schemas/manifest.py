"""The manifest: an append-only file of checksummed JSON lines that says what a trace folder holds.

Each line is one JSON object. Its ``sum`` is the first 16 hex digits of SHA-256 over the ``sum`` of the line before
(empty for the first) and the canonical JSON of the object without ``sum``; so a changed, missing, added or reordered
line is noticed. A last line without its newline is a write that was cut off and counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from ringtape.schemas.errors import TraceError
from ringtape.schemas.events import parse_events
from ringtape.schemas.retirement import Retired, objection

FORMAT = "ringtape-trace"
VERSION = "1.2"
FILE = "manifest.jsonl"

_DAMAGED = "the file was damaged, or changed after it was written: restore it from a copy"
_FORGED = "its checksum is right, so this is no damage: what wrote it is not ringtape, or has a fault"


@dataclass(frozen=True, slots=True)
class Clock:
    """One instant on three clocks, in ns: a change of ``wall - mono`` is a clock step, of ``boot - mono`` a suspend."""

    mono: int
    wall: int
    boot: int

    @classmethod
    def now(cls) -> Clock:
        """Read the three, one after the other."""
        return cls(time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))


@dataclass(frozen=True, slots=True)
class Probe:
    """A tracepoint that the recording asked for, and why it is not attached if it is not."""

    name: str
    attached: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """First line: what was recorded, where and how.

    ``tables`` maps each table to its ``major.minor`` version; ``journal`` is the folder of bpffs in which the rings are
    pinned, or empty; ``rings`` maps each ring table to the bytes of each of its rings; ``attached_at`` is the
    CLOCK_MONOTONIC time in ns from which calls are complete; ``events`` describes the recorded tracepoints (since 1.1, see
    `schemas.events`). Strings that are not UTF-8 are held with surrogate escapes.
    """

    type: ClassVar[str] = "header"
    trace_id: str
    created: str
    host: Mapping[str, Any]
    clock: Clock
    command: list[str]
    options: Mapping[str, Any]
    tables: Mapping[str, str]
    probes: list[Probe]
    tools: Mapping[str, str]
    abi: str
    attached_at: int
    journal: str = ""
    rings: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, Any] = field(default_factory=dict)
    format: str = FORMAT
    version: str = VERSION


@dataclass(frozen=True, slots=True)
class Part:
    """A sealed Parquet file: everything needed to check it and to carry on after it.

    ``rings`` maps each ring (by index) to the half-open range of its positions that the part covers; a merged part
    covers none, and names the files that it replaces. ``lost`` is the table's total in the loss ledger at that moment.
    """

    type: ClassVar[str] = "part"
    table: str
    file: str
    rows: int
    bytes: int
    sha256: str
    min_ts: int
    max_ts: int
    clock: Clock
    rings: Mapping[str, list[int]] = field(default_factory=dict)
    replaces: list[str] = field(default_factory=list)
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Footer:
    """Last line: how the recording ended.

    ``end`` is ``complete``, ``interrupted``, ``failed``, ``recovered`` or ``snapshot``; ``rows`` counts
    retired ones as well; ``exit_status`` is the command's wait status
    as a shell would show it, or None where no command was run or it was still running; ``attempted`` maps each ring
    table to the records attempted on each CPU; ``filtered`` counts calls that the filters left out; ``cost`` holds the
    recorder's own CPU seconds and memory.
    """

    type: ClassVar[str] = "footer"
    end: str
    reason: str
    exit_status: int | None
    rows: Mapping[str, int]
    lost: Mapping[str, int]
    attempted: Mapping[str, Mapping[str, int]]
    filtered: int
    cost: Mapping[str, float]
    clock: Clock
    detached_at: int


Line = Header | Part | Retired | Footer
_TYPES: Mapping[str, type[Line]] = {kind.type: kind for kind in (Header, Part, Retired, Footer)}
ENDS = ("complete", "interrupted", "failed", "recovered", "snapshot")


def _canonical(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(previous: str, body: Mapping[str, Any]) -> str:
    return hashlib.sha256((previous + _canonical(body)).encode()).hexdigest()[:16]


def encode(line: Line, previous: str) -> tuple[bytes, str]:
    """Return the line's bytes, newline included, and its checksum, which the next line needs as ``previous``."""
    body = {"type": line.type, **asdict(line)}
    total = _checksum(previous, body)
    return (_canonical({**body, "sum": total}) + "\n").encode(), total


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest.

    ``parts`` are those that still stand, in the order of their lines; ``replaced`` those that do not, because they were merged
    or retired; ``cut`` says that the last line was cut off; ``size`` is the number of bytes of whole lines and ``checksum``
    that of the last of them; ``retired`` holds the totals of what was dropped; ``numbers`` the parts of a manifest before this.
    """

    header: Header
    parts: tuple[Part, ...]
    footer: Footer | None
    replaced: frozenset[str]
    sealed_rings: Mapping[str, Mapping[int, int]]
    cut: bool
    size: int
    checksum: str
    retired: Retired | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)


def parse(data: bytes, name: str) -> Manifest:
    """Check and parse the bytes of a manifest.

    Parameters
    ----------
    data : bytes
        Content of ``manifest.jsonl``.
    name : str
        What to call the file in errors.

    Raises
    ------
    TraceError
        Naming line and reason, if anything is not as this module writes it.
    """
    header: Header | None = None
    footer: Footer | None = None
    parts: dict[str, Part] = {}
    replaced: set[str] = set()
    rings: dict[str, dict[int, int]] = {}
    retired: Retired | None = None
    numbers: Mapping[str, int] = {}
    previous, size = "", 0
    for number, raw in _whole_lines(data):
        where = f"{name}, line {number}"
        line, previous = _decode(raw, previous, where)
        size += len(raw) + 1
        if footer is not None:
            raise TraceError(f"{where}: a line after the footer", _FORGED)
        if isinstance(line, Header):
            if header is not None:
                raise TraceError(f"{where}: a second header", _FORGED)
            header = line
        elif header is None:
            raise TraceError(f"{where}: the first line is not a header", _FORGED)
        elif isinstance(line, Part):
            if line.table not in header.tables:
                raise TraceError(f"{where}: part of table {line.table!r}, which the header does not name", _FORGED)
            if line.file in parts or line.file in replaced:
                raise TraceError(f"{where}: part {line.file!r} stands twice", _FORGED)
            for old in line.replaces:
                if old not in parts or parts[old].table != line.table:
                    raise TraceError(f"{where}: replaces {old!r}, which is no standing part of {line.table}", _FORGED)
                del parts[old]
                replaced.add(old)
            for ring, (start, end) in ((int(ring), span) for ring, span in line.rings.items()):
                expected = rings.setdefault(line.table, {}).get(ring, 0)
                if start != expected or end < start:
                    raise TraceError(f"{where}: ring {ring} goes from {start} to {end}, but {expected} is where the part before ended", _FORGED)
                rings[line.table][ring] = end
            parts[line.file] = line
        elif isinstance(line, Retired):
            if (reason := objection(line, retired, parts, header.tables, number == 2)) is not None:
                raise TraceError(f"{where}: {reason}", _FORGED)
            retired = line
            if not line.parts:
                numbers, rings = line.numbers, {name: {int(ring): end for ring, end in ends.items()} for name, ends in line.rings.items()}
            for old in line.parts:
                del parts[old]
                replaced.add(old)
        else:
            for table in {*line.rows, *line.lost, *line.attempted} - {*header.tables}:
                raise TraceError(f"{where}: a total of table {table!r:.60}, which the header does not name", _FORGED)
            footer = line
    if header is None:
        raise TraceError(f"{name} is empty", "the recording ended before it began, or this is no trace folder")
    return Manifest(header, tuple(parts.values()), footer, frozenset(replaced), rings, size < len(data), size, previous, retired, numbers)


def _whole_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    yield from enumerate(data.split(b"\n")[:-1], 1)


def _decode(raw: bytes, previous: str, where: str) -> tuple[Line, str]:
    try:
        body = json.loads(raw, parse_int=_int64)
    except OverflowError:
        raise TraceError(f"{where}: holds an integer of more than 64 bits", _FORGED) from None
    except (ValueError, RecursionError):
        raise TraceError(f"{where}: not JSON", "the file is damaged, or not a ringtape manifest") from None
    if not isinstance(body, dict) or not isinstance(total := body.pop("sum", None), str):
        raise TraceError(f"{where}: no checksum", "the file is damaged, or not a ringtape manifest")
    kind = body.pop("type", None)
    if kind == Header.type:
        _refuse_foreign(body, where)
    try:
        expected = _checksum(previous, {"type": kind, **body})
        written = _canonical({"type": kind, **body, "sum": total}).encode() == raw
    except ValueError:
        raise TraceError(f"{where}: holds a number that JSON does not have", _FORGED) from None
    except RecursionError:
        raise TraceError(f"{where}: nested too deeply", "the file is damaged, or not a ringtape manifest") from None
    if total != expected:
        raise TraceError(
            f"{where}: checksum {total:.16} where {expected} was expected", "a line was changed, removed or moved: restore the file from a copy"
        )
    if not written:  # the same values in other bytes: what the checksum cannot see
        raise TraceError(f"{where}: not the canonical JSON of its values", _DAMAGED)
    if not isinstance(kind, str) or kind not in _TYPES:
        raise TraceError(f"{where}: unknown line type {kind!r:.60}", "the trace was written by a newer ringtape")
    return _build(_TYPES[kind], body, where), total


def _int64(digits: str) -> int:
    if len(digits) > 20 or not -(1 << 63) <= (value := int(digits)) < 1 << 63:
        raise OverflowError(digits[:30])
    return value


def _refuse_foreign(body: Mapping[str, Any], where: str) -> None:
    if body.get("format") != FORMAT:
        raise TraceError(f"{where}: format {body.get('format')!r:.60} is not {FORMAT!r}", "this is no ringtape trace")
    version = body.get("version")
    if not isinstance(version, str) or re.fullmatch(r"[0-9]{1,6}\.[0-9]{1,6}", version) is None or version.split(".")[0] != VERSION.split(".")[0]:
        raise TraceError(f"{where}: format version {version!r:.60} is not one that this ringtape reads ({VERSION})", "use a newer ringtape")


_RING = re.compile("0|[1-9][0-9]{0,5}")
_CHECKS: Mapping[str, Any] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63,
    "int | None": lambda value: value is None or _CHECKS["int"](value),
    "bool": lambda value: isinstance(value, bool),
    "list[str]": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "Mapping[str, Any]": lambda value: isinstance(value, dict),
    "Mapping[str, str]": lambda value: isinstance(value, dict) and all(isinstance(item, str) for item in value.values()),
    "Mapping[str, int]": lambda value: isinstance(value, dict) and all(_CHECKS["int"](item) for item in value.values()),
    "Mapping[str, float]": lambda value: isinstance(value, dict) and all(_CHECKS["int"](item) or isinstance(item, float) for item in value.values()),
    "Mapping[str, list[int]]": lambda value: (
        isinstance(value, dict)
        and all(
            _RING.fullmatch(ring) and isinstance(span, list) and len(span) == 2 and all(map(_CHECKS["int"], span)) for ring, span in value.items()
        )
    ),
    "Counts": lambda value: (
        _CHECKS["Mapping[str, Mapping[str, int]]"](value) and all(_RING.fullmatch(key) for counts in value.values() for key in counts)
    ),
    "Mapping[str, Mapping[str, int]]": lambda value: isinstance(value, dict) and all(_CHECKS["Mapping[str, int]"](item) for item in value.values()),
}


_TIME = 1 << 62
"""ns: 146 years. Sums and differences of two times fit into 64 bits."""
_COUNT = 1 << 56
"""Three years of 640 million events a second; the totals of all tables fit into 64 bits."""
_SIZE = 1 << 40
"""Bytes, or rows, of one part or ring: the parts of the longest manifest fit into 64 bits."""
_SECONDS = 10**9
_LIMITS: Mapping[type, Mapping[str, int]] = {
    Clock: {"mono": _TIME, "wall": _TIME, "boot": _TIME},
    Header: {"attached_at": _TIME, "rings": _SIZE},
    Part: {"rows": _SIZE, "bytes": _SIZE, "min_ts": _TIME, "max_ts": _TIME, "lost": _COUNT},
    Retired: {
        **dict.fromkeys(("rows", "numbered", "lost", "bytes", "count", "rings", "numbers"), _COUNT),
        "until": _TIME,
        "at": _TIME,
    },
    Footer: {"detached_at": _TIME, "filtered": _COUNT, "rows": _COUNT, "lost": _COUNT, "attempted": _COUNT, "cost": _COUNT},
}
"""What no number of a recording exceeds; none is negative. What analyses compute from them then cannot overflow."""
_SINCE: Mapping[tuple[type, str], int] = {(Header, "events"): 1}
"""Minor versions before which a line does not have a member."""


def _build(kind: type[Any], body: Mapping[str, Any], where: str) -> Any:
    """Make the dataclass, every value checked against its annotation; columns of newer minor versions are passed over."""
    values: dict[str, Any] = {}
    for spec in fields(kind):
        if spec.name not in body and (since := _SINCE.get((kind, spec.name))) and int(body["version"].split(".")[1]) < since:
            continue
        if spec.name not in body:
            raise TraceError(f"{where}: {kind.__name__.lower()} without {spec.name!r}", _FORGED)
        value = body[spec.name]
        if spec.type == "Clock" and isinstance(value, dict):
            value = _build(Clock, value, where)
        elif spec.type == "list[Probe]" and isinstance(value, list) and all(isinstance(item, dict) for item in value):
            value = [_build(Probe, item, where) for item in value]
        elif spec.type not in _CHECKS or not _CHECKS[str(spec.type)](value):
            raise TraceError(f"{where}: {spec.name!r} of the {kind.__name__.lower()} is {_shown(value)}, not {spec.type}", _FORGED)
        values[spec.name] = value
    for name, limit in _LIMITS.get(kind, {}).items():
        for key, number in _numbers(name, values[name]):
            most = _SECONDS if key.endswith("_seconds") else limit
            if not 0 <= number <= most:
                raise TraceError(f"{where}: {name!r} of the {kind.__name__.lower()} holds {number}, not 0 to {most}", _FORGED)
    if kind is Part and values["min_ts"] > values["max_ts"]:
        raise TraceError(f"{where}: the part ends at {values['max_ts']}, before it begins at {values['min_ts']}", _FORGED)
    if kind is Header:
        try:
            parse_events(values.get("events", {}))
        except ValueError as error:
            raise TraceError(f"{where}: 'events' of the header: {error}", _FORGED) from None
    if kind is Footer:
        _check_footer(values, where)
    return kind(**values)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a value, each with the innermost key that it stands under."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(key, item)
    else:
        yield name, value


def _check_footer(values: Mapping[str, Any], where: str) -> None:
    if values["end"] not in ENDS:
        raise TraceError(f"{where}: end {values['end']!r:.60} is not one of {', '.join(ENDS)}", "the trace was written by a newer ringtape")
    for cpu in (cpu for counts in values["attempted"].values() for cpu in counts):
        if _RING.fullmatch(cpu) is None or int(cpu) >= 1 << 15:
            raise TraceError(f"{where}: {_shown(cpu)} in 'attempted' of the footer is no CPU", _FORGED)


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.60}"
    except (RecursionError, ValueError):  # nested too deeply, or a number of more digits than Python prints
        return f"a {type(value).__name__}"
