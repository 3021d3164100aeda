"""What a person at the terminal sees while the recording goes on."""

from __future__ import annotations

import os
import sys
import time

from ringtape.schemas.units import format_size

INTERVAL = 0.25


def count(value: float) -> str:
    """Return a count with three digits and k, M or G.

    >>> count(1234567)
    '1.23M'
    """
    for limit, unit in ((1e3, ""), (1e6, "k"), (1e9, "M"), (1e12, "G")):
        if value < limit:
            scaled = value / (limit / 1e3)
            return f"{scaled:.0f}{unit}" if unit == "" else f"{scaled:.{max(0, 3 - len(str(int(scaled))))}f}{unit}"
    return f"{value:.2e}"


class Progress:
    """One line on standard error, redrawn in place; nothing where that is no terminal.

    A terminal that has gone away ends the line, never the recording.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled and sys.stderr.isatty()
        self._next = 0.0
        self._rows, self._at = 0, time.monotonic()
        self._rate = 0.0
        self._drawn = False
        self.hidden = False
        """Somebody else has the screen: the line is not drawn, and what is to be said is kept until `show`."""
        self._kept: list[str] = []
        self._began = time.monotonic()
        self._cpu = time.process_time()

    def update(self, rows: int, lost: int, size: int) -> None:
        """Redraw, at most four times a second."""
        now = time.monotonic()
        if not self._enabled or self.hidden or now < self._next:
            return
        if now - self._at >= 1.0 or not self._drawn:
            self._rate = (rows - self._rows) / (now - self._at) if now > self._at else 0.0
            self._rows, self._at = rows, now
        elapsed = now - self._began
        share = (time.process_time() - self._cpu) / elapsed if elapsed else 0.0
        self._next = now + INTERVAL
        text = (
            f"{int(elapsed) // 3600:02d}:{int(elapsed) // 60 % 60:02d}:{int(elapsed) % 60:02d}  {count(rows)} events  {count(self._rate)}/s  "
            f"lost {count(lost)}  {format_size(size)} on disk  recorder {share:.0%} CPU"
        )
        self._write("\r" + text[: _width() - 1] + "\x1b[K")
        self._drawn = True

    def note(self, text: str) -> None:
        """Say something, above the line."""
        if self.hidden:
            self._kept.append(text)
            return
        if self._drawn:
            self._write("\r\x1b[K")
        self._write(f"ringtape: {text}\n", always=True)

    def show(self) -> None:
        """Draw again, after what was to be said meanwhile."""
        self.hidden = False
        kept, self._kept = self._kept, []
        for text in kept:
            self.note(text)

    def clear(self) -> None:
        """Remove the line."""
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str, *, always: bool = False) -> None:
        if not (self._enabled or always):
            return
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self._enabled = False


def _width() -> int:
    try:
        return max(20, os.get_terminal_size(sys.stderr.fileno()).columns)
    except OSError:
        return 80
