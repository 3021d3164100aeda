"""Shows a subject as a screen, or writes one snapshot after the other for scripts."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from ringtape.analysis.live import panels
from ringtape.analysis.live.cells import Painter
from ringtape.analysis.live.layout import header_lines
from ringtape.analysis.live.options import Options
from ringtape.analysis.live.screen import POLL
from ringtape.analysis.live.screen import run as run_screen
from ringtape.analysis.live.tracker import Tracker
from ringtape.analysis.live.view import View

_WIDTH = 110


def show(tracker: Tracker, options: Options) -> int:
    """Show it as the options say, and return the exit status."""
    if options.form == "screen":
        return run_screen(tracker, options.interval / 1e9)
    write = _json if options.form == "json" else _text
    while True:
        deadline = time.monotonic() + options.interval / 1e9
        tracker.look()
        if not options.once:
            while time.monotonic() < deadline and not tracker.ended:
                time.sleep(min(POLL, max(0.0, deadline - time.monotonic())))
                tracker.look()
        sys.stdout.write(write(tracker, options))
        sys.stdout.flush()
        if options.once or tracker.ended:
            return 0


def _text(tracker: Tracker, options: Options) -> str:
    """Return a snapshot as lines of text; an empty line ends it."""
    view = View()
    status, frames = tracker.shown(view)
    painter = Painter(colour=False, unicode=(sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8", plain=True)
    lines = [painter.line(pieces, _WIDTH) for pieces in header_lines(status, view, _WIDTH)]
    for panel in panels.WHOLE:
        frame = panels.ordered(panel, frames[panel.name], panels.Place(panel.sort)).head(options.rows)
        hint = panels.missing(panel, tuple(status.tables))
        drawn = panels.draw(panel, frame, panels.Place(panel.sort), _WIDTH, max(1, frame.height) + 2, False, hint)
        lines += ["", *(painter.line(pieces, _WIDTH).rstrip() for pieces in drawn)]
    return "\n".join(line.rstrip() for line in lines) + "\n\n"


def _json(tracker: Tracker, options: Options) -> str:
    """Return a snapshot as one line of JSON; times and durations in ns, rates per second, CPU and waits in shares of one CPU."""
    status, frames = tracker.shown(View())
    found = tracker.snapshot()
    body: dict[str, Any] = {
        "since": found.since,
        "until": found.until,
        "state": status.state,
        "calls": found.calls,
        "errors": found.errors,
        "lost": dict(status.lost),
        "recorder": found.recorder,
    }
    for panel in panels.ALL.values():
        rows = panels.ordered(panel, frames[panel.name], panels.Place(panel.sort)).head(options.rows)
        body[panel.name] = rows.to_dicts()
    return json.dumps(body, separators=(",", ":")) + "\n"
