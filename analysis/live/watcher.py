"""`ringtape top`: a trace that is being written, as it is."""

from __future__ import annotations

import os
from pathlib import Path

from ringtape.analysis.live.follower import Follower
from ringtape.analysis.live.options import Options
from ringtape.analysis.live.state import COLUMNS, TABLES
from ringtape.analysis.live.tracker import Tracker
from ringtape.analysis.live.view import View
from ringtape.schemas.folder import TraceFolder

_ENDS = {
    "complete": ("the recording has ended", "head"),
    "interrupted": ("the recording was ended early", "head"),
    "failed": ("THE RECORDER FAILED", "bad"),
    "recovered": ("recovered after its recorder was killed", "warn"),
    "unfinished": ("THE RECORDER IS GONE", "bad"),
}


class Watcher(Tracker):
    """A recording that goes on.

    Parameters
    ----------
    path : path
        The trace folder.
    options : Options
        How it is shown.
    until_end : bool
        Whether the screen closes by itself when the recording has ended.
    """

    program = "ringtape top"

    def __init__(self, path: str | os.PathLike[str], options: Options, until_end: bool = False) -> None:
        folder = TraceFolder.open(path)
        # Of a recording that has gone on for hours only its last seconds are wanted.
        last = max((part.max_ts for part in folder.manifest.parts), default=folder.header.attached_at)
        self._first = max(folder.header.attached_at, last - options.window)
        self._follower = Follower(Path(path), TABLES, self._first if self._first > folder.header.attached_at else None, COLUMNS)
        super().__init__(self._follower, options, until_end)

    @property
    def first(self) -> int:
        """The time before which nothing was fed."""
        return self._first

    def state(self, view: View) -> tuple[str, str]:
        """Return a word for how things are, and its style."""
        if self._follower.deleted:
            return "THE TRACE WAS DELETED", "bad"
        word, style = _ENDS.get(self._follower.folder.state, ("live", "good"))
        return (f"{word}, paused", "warn") if view.frozen else (word, style)
