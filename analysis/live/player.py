"""`ringtape replay`: a trace on a clock that the viewer holds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import polars as pl

from ringtape.analysis.live.options import Options
from ringtape.analysis.live.replayed import Replayed
from ringtape.analysis.live.state import COLUMNS, TABLES, State
from ringtape.analysis.live.tracker import Tracker
from ringtape.analysis.live.view import View
from ringtape.analysis.naming import syscall_name
from ringtape.schemas.units import format_duration, parse_duration


class Player(Tracker):
    """A recording on a clock.

    Parameters
    ----------
    path : path
        The trace folder.
    options : Options
        How it is shown.
    speed : float
        Seconds of the recording per second.
    start : int, optional
        Where it begins, in ns of CLOCK_MONOTONIC.
    slow : int
        From how many ns on a call is a slow one.
    until_end : bool
        Whether the screen closes by itself at the end.
    now : callable
        The clock behind it.
    """

    program = "ringtape replay"
    replay = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: Options,
        *,
        speed: float = 1.0,
        start: int | None = None,
        slow: int = 10**7,
        until_end: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replayed = Replayed(path, TABLES, start, speed=speed, history=options.window, now=now, columns=COLUMNS)
        self._slow = slow
        super().__init__(self._replayed, options, until_end)

    def look(self) -> bool:
        """Take what has come; the clock's moving is a change as well."""
        was = self._replayed.now
        return super().look() or self._replayed.now != was

    @property
    def first(self) -> int:
        """The time before which nothing was read since the clock was set."""
        return max(self.begin, self._replayed.since)

    def elapsed(self, now: int) -> str:
        """Return where the clock stands between beginning and end."""
        return f"{super().elapsed(now)} of {super().elapsed(self._replayed.end)[1:]}"

    def state(self, view: View) -> tuple[str, str]:
        """Return the speed, or why it does not matter."""
        del view
        speed = f"{self._replayed.clock.speed:g}x"
        if self._replayed.clock.paused:
            return f"paused ({speed})", "warn"
        if self._replayed.ended:
            return "at the end" if not self._replayed.gone else "at the end; the recorder was killed", "head"
        return speed, "good"

    def key(self, key: str, view: View) -> bool:
        """Take the keys of the clock."""
        clock = self._replayed.clock
        if key == " ":
            clock.pause(not clock.paused)
        elif key in ("+", "=", "-"):
            clock.faster(-1 if key == "-" else 1)
        elif key in (".", ">"):
            clock.pause(True)
            clock.set(min(self._replayed.now + round(clock.speed * 1e9), self._replayed.end))
        elif key == "n":
            self._next_slow(view)
        elif key == "g":
            view.prompt = "seek"
        else:
            return False
        if key != "g":
            self.look()
        return True

    def typed(self, text: str, view: View) -> None:
        """Go to the time that was typed."""
        del view
        if text.strip():
            self.seek(self.begin + parse_duration(text.strip().lstrip("+")))

    def seek(self, position: int) -> None:
        """Set the clock; the totals are then those of the window before its new time."""
        self._replayed.seek(position)
        self._state = State(self._options.window)
        self.look()

    def _next_slow(self, view: View) -> None:
        wanted = None if view.syscall is None else syscall_name() == view.syscall
        if view.opened is not None:
            mine = pl.col("pid") == view.opened
            wanted = mine if wanted is None else wanted & mine
        found = self._replayed.next_slow(self._slow, wanted)
        if found is None:
            view.message = f"no call from here on takes {format_duration(self._slow)} or longer (--slow)"
            return
        self._replayed.clock.pause(True)
        self.seek(found + 1)
