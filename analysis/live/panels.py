"""The screen's tables: which frame of a snapshot each shows, and its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from ringtape.analysis.live.cells import Piece, between, fit
from ringtape.analysis.live.columns import NOTHING, Column, bad, chosen, count, duration, head, row, share, size, text


@dataclass(frozen=True)
class Panel:
    """One table of the screen.

    Parameters
    ----------
    name : str
        The frame of the snapshot.
    title : str
        What stands above it.
    columns : tuple of Column
        The first one stays however narrow the screen is.
    sort : str
        The column by which its rows are sorted at first.
    empty : str
        What is said where there are no rows.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    sort: str
    empty: str

    def column(self, name: str) -> Column:
        """Return one of its columns."""
        return next(column for column in self.columns if column.name == name)


CALLS: Final = Panel(
    "syscalls",
    "system calls",
    (
        Column("syscall", "CALL", text, 14, 0, stretch=True, most=28, left=True, descending=False),
        Column("rate", "CALLS/S", count, 8, 1),
        Column("p50", "P50", duration, 8, 2),
        Column("p99", "P99", duration, 8, 3),
        Column("errors", "ERRORS", count, 7, 4, style=bad),
        Column("share", "OF ALL", share, 7, 7),
        Column("time", "TIME", duration, 8, 6),
        Column("calls", "CALLS", count, 7, 5),
    ),
    "rate",
    "no call in this time",
)
PROCESSES: Final = Panel(
    "processes",
    "processes",
    (
        Column("comm", "COMMAND", text, 8, 0, stretch=True, most=24, left=True, descending=False),
        Column("pid", "PID", text, 7, 0, descending=False),
        Column("rate", "CALLS/S", count, 8, 1),
        Column("cpu", "CPU", share, 5, 2),
        Column("wait", "RUNQ", share, 5, 3),
        Column("disk", "DISK/S", size, 9, 4),
        Column("network", "NET/S", size, 9, 5),
        Column("memory", "MEMORY", size, 9, 6),
        Column("errors", "ERRORS", count, 7, 7, style=bad),
    ),
    "rate",
    "no process made a call in this time",
)
CONNECTIONS: Final = Panel(
    "connections",
    "connections",
    (
        Column("peer", "PEER", text, 15, 0, stretch=True, most=47, left=True, descending=False),
        Column("local", "LOCAL", text, 15, 4, stretch=True, most=47, left=True, descending=False),
        Column("comm", "COMMAND", text, 8, 1, stretch=True, most=15, left=True, descending=False),
        Column("pid", "PID", text, 7, 5, descending=False),
        Column("received", "RECV/S", size, 9, 2),
        Column("sent", "SENT/S", size, 9, 3),
    ),
    "bytes",
    "no bytes moved over a socket in this time",
)
SLOWEST: Final = Panel(
    "slowest",
    "slowest calls",
    (
        Column("dur", "TOOK", duration, 8, 0),
        Column("comm", "COMMAND", text, 8, 2, stretch=True, most=15, left=True, descending=False),
        Column("pid", "PID", text, 7, 4, descending=False),
        Column("syscall", "CALL", text, 12, 1, stretch=True, most=28, left=True, descending=False),
        Column("result", "RESULT", text, 10, 3, stretch=True, most=16, left=True, descending=False),
        Column("ago", "AGO", duration, 9, 5, descending=False),
    ),
    "dur",
    "no call in this time",
)
FILES: Final = Panel(
    "files",
    "files",
    (
        Column("path", "PATH", text, 20, 0, stretch=True, most=120, left=True, descending=False),
        Column("calls", "CALLS", count, 7, 1),
    ),
    "calls",
    "no call of this process named a file in this time",
)
WHOLE: Final = (CALLS, PROCESSES, CONNECTIONS, SLOWEST)
"""What is shown of all processes."""
ONE: Final = (CALLS, FILES, CONNECTIONS, SLOWEST)
"""What is shown of one process."""
ALL: Final = {panel.name: panel for panel in (*WHOLE, FILES)}


@dataclass
class Place:
    """What a viewer has chosen in one panel: the order of its rows, and the row of the cursor."""

    sort: str
    reverse: bool = False
    cursor: int = 0
    first: int = 0
    marked: tuple[Any, ...] | None = None


KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "syscalls": ("syscall",),
    "processes": ("pid",),
    "connections": ("pid", "local", "peer"),
    "slowest": ("tid", "ts"),
    "files": ("path",),
}
"""Columns that tell the rows of a panel apart: the cursor stays on its row while the others move."""


def ordered(panel: Panel, frame: pl.DataFrame, place: Place) -> pl.DataFrame:
    """Return the rows in the order that was chosen; what is not known comes last, and rows that are equal stay in place."""
    if place.sort not in frame.columns:
        return frame
    known = next((column.descending for column in panel.columns if column.name == place.sort), True)
    ties = [name for name in KEYS[panel.name] if name in frame.columns and name != place.sort]
    directions = [known != place.reverse, *(False for _ in ties)]
    return frame.sort(place.sort, *ties, descending=directions, nulls_last=True, maintain_order=True)


def follow_cursor(panel: Panel, frame: pl.DataFrame, place: Place, height: int) -> None:
    """Put the cursor where its row is now, and scroll so that it is seen."""
    keys = [name for name in KEYS[panel.name] if name in frame.columns]
    if place.marked is not None and keys:
        found = [index for index, values in enumerate(frame.select(keys).iter_rows()) if values == place.marked]
        if found:
            place.cursor = found[0]
    place.cursor = max(0, min(place.cursor, frame.height - 1))
    place.first = min(place.first, place.cursor)
    if place.cursor >= place.first + height:
        place.first = place.cursor - height + 1
    place.first = max(0, min(place.first, frame.height - height))


def mark(panel: Panel, frame: pl.DataFrame, place: Place) -> None:
    """Remember the row that the cursor is on."""
    keys = [name for name in KEYS[panel.name] if name in frame.columns]
    place.marked = frame.select(keys).row(place.cursor) if frame.height and keys and place.cursor else None


def draw(panel: Panel, frame: pl.DataFrame, place: Place, width: int, height: int, focus: bool, hint: str) -> list[list[Piece]]:
    """Return the lines of a panel: its title, the heads of its columns, and as many rows as there is room for.

    Parameters
    ----------
    panel : Panel
        Which.
    frame : DataFrame
        Its rows, in their order.
    place : Place
        The cursor, which is moved with its row.
    width, height : int
        Cells and lines; exactly so many lines are returned.
    focus : bool
        Whether keys go to it.
    hint : str
        Said beside the title: what of it was not recorded.
    """
    shown = max(0, height - 2)
    follow_cursor(panel, frame, place, max(1, shown))
    columns = chosen(panel.columns, width)
    rows = frame.slice(place.first, shown)
    title: list[Piece] = [(f" {panel.title} ", "focus" if focus else "title")]
    if frame.height > shown:
        title.append((f" {place.first + 1}-{place.first + rows.height} of {frame.height}", "dim"))
    lines = [between(title, [(hint, "dim")] if hint else [], width)]
    if height > 1:
        lines.append(head(columns, place.sort, place.reverse))
    for index, values in enumerate(rows.iter_rows(named=True)):
        lines.append(row(columns, values, focus and place.first + index == place.cursor, width))
    if not rows.height and shown:
        lines.append([(fit(panel.empty, width), "dim")])
    lines += [[] for _ in range(height - len(lines))]
    return lines[:height]


def missing(panel: Panel, tables: Mapping[str, Any] | tuple[str, ...]) -> str:
    """Return what a panel cannot show as some table was not recorded, as one hint."""
    wanted = {
        "syscalls": ("syscalls",),
        "processes": ("sched", "block", "transfers", "memory"),
        "connections": ("transfers",),
        "slowest": ("syscalls",),
        "files": ("paths",),
    }[panel.name]
    absent = [name for name in wanted if name not in tables]
    return f"{NOTHING} not recorded: {', '.join(absent)}" if absent else ""
