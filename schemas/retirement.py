"""The manifest line of parts that were dropped: a flight recorder keeps the last minutes, and says what it no longer has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

Counts = Mapping[str, Mapping[str, int]]
"""By table and CPU (decimal)."""


class Sealed(Protocol):
    """What is asked of a part."""

    @property
    def table(self) -> str:
        """Its table."""

    @property
    def file(self) -> str:
        """Its file."""

    @property
    def rows(self) -> int:
        """Its rows."""

    @property
    def bytes(self) -> int:
        """Its size."""

    @property
    def max_ts(self) -> int:
        """Its last time."""


@dataclass(frozen=True, slots=True)
class Retired:
    """Parts that are dropped with this line, and totals of all that was dropped from the beginning of the recording on.

    ``rows`` maps tables to rows, ``numbered`` to those of them that have a sequence number, by CPU; ``lost`` maps tables to
    records that are lost, by CPU, whose rows in ``losses`` are not here; ``bytes`` and ``count`` are those of the dropped
    parts; every row whose ``ts`` lies after ``until`` stands; ``at`` is CLOCK_MONOTONIC in ns of the line.

    Directly behind the header of a manifest that was written anew stands such a line without parts. Only that one has
    ``rings``, the position up to which each ring is sealed, and ``numbers``, the first unused number of a part, by table.
    """

    type: ClassVar[str] = "retired"
    parts: list[str]
    rows: Mapping[str, int]
    numbered: Counts
    lost: Counts
    bytes: int
    count: int
    until: int
    at: int
    rings: Counts = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)


NOTHING = Retired([], {}, {}, {}, 0, 0, 0, 0)


def after(before: Retired, dropped: Sequence[Sealed], numbered: Counts, at: int) -> Retired:
    """Return the line that drops parts; ``numbered`` counts the rows with a sequence number in them."""
    rows = dict(before.rows)
    for part in dropped:
        rows[part.table] = rows.get(part.table, 0) + part.rows
    return Retired(
        parts=[part.file for part in dropped],
        rows=rows,
        numbered=added(before.numbered, numbered),
        lost=before.lost,
        bytes=before.bytes + sum(part.bytes for part in dropped),
        count=before.count + len(dropped),
        until=max(before.until, *(part.max_ts for part in dropped)),
        at=at,
    )


def added(left: Counts, right: Counts) -> Counts:
    """Return the sums of two counts."""
    total = {name: dict(counts) for name, counts in left.items()}
    for name, counts in right.items():
        of = total.setdefault(name, {})
        for cpu, count in counts.items():
            of[cpu] = of.get(cpu, 0) + count
    return total


def objection(line: Retired, before: Retired | None, standing: Mapping[str, Sealed], tables: Mapping[str, str], first: bool) -> str | None:
    """Return why a line cannot be true, or None.

    Parameters
    ----------
    line : Retired
        The line.
    before : Retired or None
        The one before.
    standing : mapping
        Parts that stand, by file.
    tables : mapping
        Tables of the header.
    first : bool
        Whether it stands directly behind the header.
    """
    for name in {*line.rows, *line.numbered, *line.lost, *line.rings, *line.numbers} - {*tables}:
        return f"a total of table {name!r:.60}, which the header does not name"
    for name, counts in line.numbered.items():
        if sum(counts.values()) > line.rows.get(name, 0):
            return f"{sum(counts.values())} numbered rows of {name} among {line.rows.get(name, 0)}"
    if not line.parts:
        return None if first else "it drops nothing: such a line stands directly behind the header only"
    if line.rings or line.numbers:
        return "'rings' and 'numbers' stand directly behind the header only"
    if len({*line.parts}) != len(line.parts) or not {*line.parts} <= {*standing}:
        return "it drops what is no standing part"
    return _untrue(line, before or NOTHING, [standing[file] for file in line.parts])


def _untrue(line: Retired, before: Retired, dropped: Sequence[Sealed]) -> str | None:
    expected = after(before, dropped, {}, line.at)
    for name in {*line.rows, *expected.rows}:
        if line.rows.get(name, 0) != expected.rows.get(name, 0):
            return f"{line.rows.get(name, 0)} rows of {name} dropped so far, where the parts have {expected.rows.get(name, 0)}"
    for what in ("bytes", "count", "until"):
        if getattr(line, what) != getattr(expected, what):
            return f"{what!r} is {getattr(line, what)} where the parts give {getattr(expected, what)}"
    if line.lost != before.lost:
        return "'lost' differs from that of the line before"
    added_rows = {name: line.rows.get(name, 0) - before.rows.get(name, 0) for name in line.rows}
    for name in {*line.numbered, *before.numbered}:
        now, then = line.numbered.get(name, {}), before.numbered.get(name, {})
        grown = [now.get(cpu, 0) - then.get(cpu, 0) for cpu in {*now, *then}]
        if min(grown, default=0) < 0 or sum(grown) > added_rows.get(name, 0):
            return f"the numbered rows of {name} grow by {sum(grown)} where {added_rows.get(name, 0)} rows were dropped"
    return None
