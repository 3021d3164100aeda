"""The live screen: follows a source of batches, and shows what they come to until the viewer leaves."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import polars as pl

from ringtape.analysis.live import panels
from ringtape.analysis.live.cells import Painter
from ringtape.analysis.live.layout import Status, compose
from ringtape.analysis.live.terminal import Interrupted, Terminal, TerminalGoneError
from ringtape.analysis.live.view import View
from ringtape.schemas.errors import RingtapeError

POLL: Final = 0.25
"""Seconds between two looks at the source; the screen is drawn when something has come, and at least every second."""


class Subject(Protocol):
    """What a screen shows, and what its keys can do to it."""

    def look(self) -> bool:
        """Take what has come; return whether anything has changed."""

    def shown(self, view: View) -> tuple[Status, Mapping[str, pl.DataFrame]]:
        """Return header and tables as they are now, narrowed as the viewer chose."""

    def key(self, key: str, view: View) -> bool:
        """Do what a key asks for; return whether it was for the subject."""

    def typed(self, text: str, view: View) -> None:
        """Take what was typed at a prompt of the subject's own."""

    @property
    def over(self) -> bool:
        """Whether nothing will ever come again, and the screen is to close by itself."""

    @property
    def native(self) -> str:
        """The ABI whose names of system calls a filter knows."""


@dataclass
class Screen:
    """One viewer's screen.

    Parameters
    ----------
    subject : Subject
        What is shown.
    terminal : Terminal
        Where; entered already.
    interval : float
        Seconds after which it is drawn anew though nothing has come.
    """

    subject: Subject
    terminal: Terminal
    interval: float = 1.0
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        encoding = (sys.stdout.encoding or "utf-8").lower().replace("-", "")
        self._painter = Painter(colour=not os.environ.get("NO_COLOR"), unicode=encoding == "utf8")
        self.view = View()
        self._status: Status | None = None
        self._rows: Mapping[str, pl.DataFrame] = {}

    def run(self) -> int:
        """Show until the viewer leaves, or nothing more comes and nobody asked to stay; return the exit status."""
        drawn = -self.interval
        changed, due = True, False
        while True:
            came = self.subject.look()
            if self.subject.over:
                return 0
            now = self.now()
            due = due or (came and not self.view.frozen)
            # Tables are sealed one after the other: what comes within a moment is drawn once.
            if changed or (due and now - drawn >= 0.7 * self.interval):
                self._refresh(fresh=due or self._status is None)
                drawn, changed, due = now, False, False
            for key in self.terminal.wait(POLL):
                if self._take(key):
                    return 0
                changed = True

    def _refresh(self, fresh: bool) -> None:
        if fresh:
            self._status, rows = self.subject.shown(self.view)
            self._unsorted = rows
        assert self._status is not None
        self._rows = {name: panels.ordered(panels.ALL[name], frame, self.view.places[name]) for name, frame in self._unsorted.items()}
        width, height = self.terminal.size()
        lines = compose(self._status, self._rows, self.view, width, height)
        self.terminal.draw([self._painter.line(pieces, width) for pieces in lines])

    def _take(self, key: str) -> bool:
        """Do what a key asks for; return whether to leave."""
        view = self.view
        view.message = ""
        if view.prompt is not None:
            prompt = view.prompt
            text = view.type(key)
            if text is not None and prompt == "filter":
                view.filter(text, self.subject.native)
                self._status = None
            elif text is not None:
                try:
                    self.subject.typed(text, view)
                except RingtapeError as error:
                    view.message = error.what
                self._status = None
            return False
        if key == "q":
            return True
        if key == "redraw":
            self.terminal.forget()
        elif self.subject.key(key, view):
            self._status = None
        elif key == " ":
            view.frozen = not view.frozen
        else:
            self._move(key)
        return False

    def _move(self, key: str) -> None:
        view = self.view
        size = max(1, self.terminal.size()[1] // 3)
        moves = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -size, "page down": size, "home": -(1 << 30), "end": 1 << 30}
        if key in moves:
            view.move(moves[key], self._rows)
        elif key in ("tab", "back tab"):
            view.turn(1 if key == "tab" else -1)
        elif key in "1234" and len(key) == 1:
            view.focus = int(key) - 1
        elif key in ("s", "right"):
            view.sort(1)
        elif key in ("S", "left"):
            view.sort(-1)
        elif key == "r":
            view.place.reverse = not view.place.reverse
        elif key in ("f", "/"):
            view.prompt = "filter"
        elif key in ("?", "h"):
            view.help = not view.help
        elif key == "enter":
            view.enter(self._rows)
            self._status = None
        elif key == "escape" and view.back():
            self._status = None


def run(subject: Subject, interval: float = 1.0) -> int:
    """Show a subject on the terminal that standard input and output are, and return the exit status.

    A terminal that is closed ends it like any other program that loses its terminal; Ctrl-C is an end like `q`, with the status 130.
    """
    try:
        with Terminal(sys.stdin.fileno(), sys.stdout.fileno()) as terminal:
            return Screen(subject, terminal, interval).run()
    except Interrupted as interrupted:
        return interrupted.status
    except TerminalGoneError:
        return 129
