"""Puts a screen together for the room that there is: header, tables, and the line of keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from ringtape.analysis.live import panels
from ringtape.analysis.live.cells import Piece, between
from ringtape.analysis.live.columns import count, share, size
from ringtape.analysis.live.panels import Panel
from ringtape.analysis.live.view import View

_LEAST: Final = 7
"""Lines that a table needs to be worth showing beside others: title, heads, five rows."""
_WIDE: Final = 150
"""Cells from which two tables stand side by side."""


@dataclass(frozen=True)
class Status:
    """What the header says: where the trace stands, what is counted over which time, and what may not be trusted.

    ``clocks`` are ways to tell the time, longest first; ``state`` and ``style`` are a word for how things are; ``lost`` maps tables to
    the records lost since the recording began.
    """

    program: str
    trace: str
    clocks: Sequence[str]
    state: str
    style: str
    covers: str
    calls: float | None = None
    errors: float | None = None
    processes: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    recorder_cpu: float | None = None
    recorder_memory: int | None = None
    ring: float | None = None
    tables: Sequence[str] = ()
    replay: bool = False


def compose(status: Status, rows: Mapping[str, pl.DataFrame], view: View, width: int, height: int) -> list[list[Piece]]:
    """Return the lines of the screen, exactly ``height``.

    Parameters
    ----------
    status : Status
        For the header.
    rows : mapping
        The rows of each table, in their order.
    view : View
        What the viewer chose; cursors move with their rows.
    width, height : int
        Room, in cells and lines.
    """
    lines = header_lines(status, view, width)[: max(1, height - 1)]
    room = height - len(lines) - 1
    if view.help:
        lines += _help(status.replay, width, room)
    elif room > 0:
        lines += _tables(status, rows, view, width, room)
    lines += [[] for _ in range(height - 1 - len(lines))]
    return [*lines[: height - 1], _bottom(status, view, width)][:height]


def header_lines(status: Status, view: View, width: int) -> list[list[Piece]]:
    """Return the three lines that stand above everything."""
    left: list[Piece] = [(f"{status.program} ", "head"), (status.trace, ""), ("  ", ""), (f"{status.state}", status.style)]
    # Where there is little room, the time of day gives way to how far the recording has come.
    used = sum(len(text) for text, _ in left)
    first = between(left, [(next((text for text in status.clocks if used + len(text) < width), ""), "")], width)
    second: list[Piece] = [("calls ", "dim"), (f"{count(status.calls)}/s", "head"), ("  errors ", "dim")]
    second += [(f"{count(status.errors)}/s", "warn" if status.errors else "head"), ("  processes ", "dim"), (count(status.processes), "head")]
    second = between(second, [(status.covers, "dim")], width)
    third = [*_loss(status), ("  recorder ", "dim"), (f"{share(status.recorder_cpu)} CPU", "head")]
    memory: list[Piece] = [] if status.recorder_memory is None else [(f", {size(status.recorder_memory)}", "")]
    ring: list[Piece] = []
    if status.ring is not None:
        ring = [("  ring ", "dim"), (f"{status.ring:.0%} full", "warn" if status.ring > 0.5 else "")]
    chosen = _chosen(view)
    # That not everything is shown is said before what the recorder's memory is.
    for more in ([*memory, *ring], ring, []):
        if not chosen or sum(len(text) for text, _ in (*third, *more)) + len(chosen) < width:
            third += more
            break
    return [first, second, between(third, [(chosen, "warn")] if chosen else [], width)]


def _loss(status: Status) -> list[Piece]:
    total = sum(status.lost.values())
    if not total:
        return [("lost ", "dim"), ("nothing", "good")]
    named = ", ".join(f"{count(number)} {table}" for table, number in sorted(status.lost.items(), key=lambda item: -item[1]) if number)
    return [(f"LOST {named}", "bad")]


def _chosen(view: View) -> str:
    words = []
    if view.opened is not None:
        words.append(f"{view.opened_name} {view.opened}".strip())
    elif view.process is not None:
        words.append(f"process {view.process}")
    if view.syscall is not None:
        words.append(f"call {view.syscall}")
    return f"only {', '.join(words)}" if words else ""


def shown_panels(view: View, width: int, room: int) -> list[list[Panel]]:
    """Return which tables are shown: columns side by side, each a list of tables one above the other.

    The table with the focus is always among them; those next to it come in their order, as far as there is room.
    """
    every = list(view.panels)
    columns = 2 if width >= _WIDE else 1
    fitting = min(len(every), columns * max(1, room // _LEAST))
    page = view.focus // fitting * fitting
    first = min(page, len(every) - fitting)
    chosen = every[first : first + fitting]
    if columns == 1 or len(chosen) == 1:
        return [chosen]
    half = (len(chosen) + 1) // 2
    return [chosen[:half], chosen[half:]]


def _tables(status: Status, rows: Mapping[str, pl.DataFrame], view: View, width: int, room: int) -> list[list[Piece]]:
    stacks = shown_panels(view, width, room)
    cells = (width - 2 * (len(stacks) - 1)) // len(stacks)
    drawn = []
    for stack in stacks:
        lines: list[list[Piece]] = []
        for index, panel in enumerate(stack):
            height = (room - len(lines)) // (len(stack) - index)
            frame = rows.get(panel.name, pl.DataFrame())
            hint = panels.missing(panel, tuple(status.tables))
            lines += panels.draw(panel, frame, view.places[panel.name], cells, height, panel is view.panel, hint)
        drawn.append(lines)
    if len(drawn) == 1:
        return drawn[0]
    return [[*_padded(left, cells), ("  ", ""), *right] for left, right in zip(*drawn, strict=True)]


def _padded(pieces: list[Piece], width: int) -> list[Piece]:
    from rich.cells import cell_len

    return [*pieces, (" " * (width - sum(cell_len(text) for text, _ in pieces)), "")]


_KEYS: Final = (("q", "quit"), ("?", "help"), ("Tab", "next"), ("s", "sort"), ("f", "filter"), ("Enter", "open"), ("Esc", "back"), ("Space", "pause"))
_REPLAY_KEYS: Final = (
    *(("q", "quit"), ("?", "help"), ("Space", "pause"), ("+-", "speed"), (".", "step"), ("n", "next slow"), ("g", "go to"), ("Tab", "next")),
    *(("s", "sort"), ("f", "filter"), ("Enter", "open"), ("Esc", "back")),
)


def _bottom(status: Status, view: View, width: int) -> list[Piece]:
    if view.prompt == "filter":
        return [
            ("filter ", "head"),
            ("(process, number or system call; p:NAME, c:CALL; nothing: all) ", "dim"),
            (view.typed, "head"),
            (" ", "cursor"),
        ]
    if view.prompt == "seek":
        return [("go to ", "head"), ("(time since the beginning, such as 1.5s or 2min) ", "dim"), (view.typed, "head"), (" ", "cursor")]
    if view.message:
        return [(view.message, "warn")]
    pieces: list[Piece] = []
    used = 0
    for key, what in _REPLAY_KEYS if status.replay else _KEYS:
        used += len(key) + len(what) + 3
        if used > width + 2:
            break
        pieces += [(key, "key"), (f" {what}  ", "dim")]
    return pieces


_HELP: Final = (
    ("Tab, 1-4", "the next table, or the one of that number"),
    ("up, down, page", "move the cursor"),
    ("s, left, right", "sort by another column; r turns the order round"),
    ("f or /", "show one process (name or number) or one system call only"),
    ("Enter", "a process: its calls, files, connections; a call: only that one"),
    ("Esc", "one step back"),
    ("Space", "pause: the picture stands, the recording goes on"),
    ("q, Ctrl-C", "quit; a recording that is shown by `record --live` goes on after q"),
    ("", ""),
    ("P50, P99", "half of the calls, and 99 of 100, took no longer"),
    ("CPU, RUNQ", "share of one CPU that was used, and that was waited for"),
    ("TIME", "what the calls took together"),
    ("-", "was not recorded: record with the table that the hint names"),
    ("LOST", "records that found no room since the recording began; what is shown is without them"),
)
_REPLAY_HELP: Final = (
    ("+ and -", "faster and slower, 0.1 to 1000 times"),
    (".", "step: what a second shows at this speed; stops the clock"),
    ("n", "go to the end of the next slow call (--slow says what is slow)"),
    ("g", "go to a time since the beginning"),
)


def _help(replay: bool, width: int, room: int) -> list[list[Piece]]:
    lines: list[list[Piece]] = [[(" keys ", "title")]]
    entries = list(_HELP)
    if replay:
        entries[6:7] = [("Space", "pause: the clock stands"), *_REPLAY_HELP]
        entries = [entry for entry in entries if "record --live" not in entry[1]]
        entries.insert(entries.index(("", "")), ("q, Ctrl-C", "quit"))
    for key, what in entries:
        lines.append([(f"  {key:<16}", "key"), (what, "")] if key else [])
    del width
    return lines[:room]
