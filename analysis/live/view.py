"""What a viewer has chosen: which tables in which order, whose calls, and what keys do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import polars as pl

from ringtape.analysis.live import panels
from ringtape.analysis.live.panels import Panel, Place
from ringtape.schemas.abi import syscalls as abis

Prompt = Literal["filter", "seek"]
"""What is being typed."""
_LONGEST: Final = 200


@dataclass
class View:
    """The state of the screen that keys change.

    ``process`` and ``syscall`` narrow what is shown, ``opened`` is the process that was entered; ``prompt`` is what is being typed,
    ``typed`` its text so far; ``message`` is said once.
    """

    focus: int = 1
    places: dict[str, Place] = field(default_factory=lambda: {name: Place(panel.sort) for name, panel in panels.ALL.items()})
    process: str | None = None
    syscall: str | None = None
    opened: int | None = None
    opened_name: str = ""
    prompt: Prompt | None = None
    typed: str = ""
    help: bool = False
    frozen: bool = False
    message: str = ""

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The tables there are to show now."""
        return panels.WHOLE if self.opened is None else panels.ONE

    @property
    def panel(self) -> Panel:
        """The table that keys go to."""
        return self.panels[self.focus]

    @property
    def place(self) -> Place:
        """What was chosen in it."""
        return self.places[self.panel.name]

    def turn(self, by: int) -> None:
        """Go to the next table, or to the one before."""
        self.focus = (self.focus + by) % len(self.panels)

    def sort(self, by: int) -> None:
        """Sort by the next column, or by the one before."""
        names = [column.name for column in self.panel.columns]
        here = names.index(self.place.sort) if self.place.sort in names else -1 if by > 0 else 0
        self.place.sort = names[(here + by) % len(names)]
        self.place.reverse = False

    def move(self, by: int, rows: Mapping[str, pl.DataFrame]) -> None:
        """Move the cursor."""
        frame = rows.get(self.panel.name)
        if frame is None or not frame.height:
            return
        self.place.cursor = max(0, min(self.place.cursor + by, frame.height - 1))
        panels.mark(self.panel, frame, self.place)

    def under_cursor(self, rows: Mapping[str, pl.DataFrame]) -> dict[str, Any] | None:
        """Return the row that the cursor is on."""
        frame = rows.get(self.panel.name)
        if frame is None or not frame.height:
            return None
        return frame.row(min(self.place.cursor, frame.height - 1), named=True)

    def enter(self, rows: Mapping[str, pl.DataFrame]) -> None:
        """Open what the cursor is on: a process, or the calls of one name."""
        row = self.under_cursor(rows)
        if row is None:
            return
        if self.panel.name == "syscalls":
            self.syscall = str(row["syscall"])
        elif row.get("pid") is not None and self.opened is None:
            self.opened, self.opened_name = int(row["pid"]), str(row.get("comm") or "")
            self.focus = 0
            for panel in panels.ONE:
                self.places[panel.name].cursor, self.places[panel.name].marked = 0, None

    def back(self) -> bool:
        """Undo the last of what was entered or filtered; return whether there was something."""
        if self.help:
            self.help = False
        elif self.syscall is not None:
            self.syscall = None
        elif self.opened is not None:
            self.opened, self.focus = None, 1
        elif self.process is not None:
            self.process = None
        else:
            return False
        return True

    def filter(self, text: str, native: str) -> None:
        """Narrow to what was typed: a system call, else a process by number or name; nothing takes the filters away."""
        kind, _, rest = text.strip().partition(":")
        if not text.strip():
            self.process = self.syscall = None
        elif kind in ("c", "call") and rest.strip():
            self.syscall = rest.strip()
        elif kind in ("p", "process") and rest.strip():
            self.process = rest.strip()
        elif text.strip() in abis.names(native).values():
            self.syscall = text.strip()
        else:
            self.process = text.strip()

    def type(self, key: str) -> str | None:
        """Take a key into the text that is being typed; return the text when it is complete."""
        if key == "enter":
            text, self.prompt, self.typed = self.typed, None, ""
            return text
        if key == "escape":
            self.prompt, self.typed = None, ""
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "clear":
            self.typed = ""
        elif len(key) == 1 and len(self.typed) < _LONGEST:
            self.typed += key
        return None
