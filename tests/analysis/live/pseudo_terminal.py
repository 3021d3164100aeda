"""Runs a program in a pseudo-terminal of its own, and reads what a person would see there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import pyte

RINGTAPE = (sys.executable, "-P", "-c", "import sys; from ringtape.cli import main; sys.exit(main())")
# Makes the slave its controlling terminal, so that Ctrl-C, Ctrl-Z and the closing of the terminal are what they are to a shell.
_OWN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
PATIENCE = 60.0
KEYS = {
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "left": "\x1b[D",
    "enter": "\r",
    "escape": "\x1b",
    "tab": "\t",
    "ctrl-c": "\x03",
    "ctrl-z": "\x1a",
}


class PseudoTerminal:
    """A program on a terminal of a size; a context, at whose end nothing of the program is left.

    Parameters
    ----------
    command : sequence of str
        The program.
    columns, lines : int
        The terminal's size.
    environment : mapping, optional
        Beside, or in place of, variables of this process.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        columns: int = 80,
        lines: int = 24,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._master, slave = os.openpty()
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        self.modes = termios.tcgetattr(slave)
        variables = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8"}
        variables.pop("NO_COLOR", None)
        variables |= environment or {}
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", _OWN, *command], stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=variables, cwd=cwd
        )
        self._slave = slave

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self.close()

    def close(self) -> None:
        """Close the terminal, as a person closes its window."""
        for descriptor in (self._slave, self._master):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._slave = self._master = -1

    def read(self, seconds: float = 0.0) -> bool:
        """Take what the program has written; return whether there was anything."""
        if self._master < 0 or not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    @property
    def text(self) -> str:
        """The lines of the screen, without the blanks at their ends."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def styles(self, row: int) -> list[tuple[str, str, bool, bool]]:
        """Return character, colour, bold and reverse of each cell of a line."""
        cells = self._screen.buffer[row]
        return [(cells[column].data, cells[column].fg, cells[column].bold, cells[column].reverse) for column in range(self._screen.columns)]

    def until(self, wanted: str | Callable[[str], bool], patience: float = PATIENCE) -> str:
        """Read until the screen shows a text, or is as a function wants it; return it."""
        deadline = time.monotonic() + patience
        seen: Callable[[str], bool] = wanted if callable(wanted) else lambda text: wanted in text
        while not seen(self.text):
            if time.monotonic() > deadline:
                raise AssertionError(f"{wanted!r} did not appear; the screen shows:\n{self.text}\nand was sent {self.raw[-600:]!r}")
            if self.process.poll() is not None and not self.read(0.1) and not seen(self.text):
                raise AssertionError(f"{wanted!r} did not appear before the end with {self.process.returncode}:\n{self.text}")
            self.read(0.1)
        return self.text

    def send(self, *keys: str) -> None:
        """Type keys, by their names or themselves."""
        for key in keys:
            os.write(self._master, KEYS.get(key, key).encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the terminal's size; the kernel tells whoever runs in it."""
        self._screen.resize(lines, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def end(self, patience: float = PATIENCE) -> int:
        """Read until the program ends; return its status."""
        deadline = time.monotonic() + patience
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"still running; the screen shows:\n{self.text}")
            self.read(0.1)
        while self.read(0.05):
            pass
        return self.process.returncode

    def restored(self) -> bool:
        """Whether the terminal is as it was: its modes, its usual screen, and the cursor."""
        plain = termios.tcgetattr(self._slave)[:4] == self.modes[:4]
        return plain and self.raw.rfind(b"\x1b[?1049l") > self.raw.rfind(b"\x1b[?1049h") and not self._screen.cursor.hidden
