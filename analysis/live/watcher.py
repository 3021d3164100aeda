"""`ringtape top`: a trace that is being written, as it is."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ringtape.analysis.live.follower import Follower
from ringtape.analysis.live.options import Options
from ringtape.analysis.live.state import COLUMNS, TABLES
from ringtape.analysis.live.tracker import Tracker
from ringtape.analysis.live.view import View
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import FILE

START = 10.0
"""Seconds that the folder of a recording may be empty: the probes are compiled and attached after it is made."""
_ENDS = {
    "complete": ("the recording has ended", "head"),
    "interrupted": ("the recording was ended early", "head"),
    "failed": ("THE RECORDER FAILED", "bad"),
    "recovered": ("recovered after its recorder was killed", "warn"),
    "unfinished": ("THE RECORDER IS GONE", "bad"),
}


def being_made(path: str | os.PathLike[str]) -> TraceFolder:
    """Open a trace; of a recording that is just being started, wait for its first line.

    Raises
    ------
    TraceError
        If the folder is no trace, and does not become one within `START` seconds.
    """
    deadline = time.monotonic() + START
    while Path(path).is_dir() and not (Path(path) / FILE).exists() and not any(Path(path).iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return TraceFolder.open(path)


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
        folder = being_made(path)
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
