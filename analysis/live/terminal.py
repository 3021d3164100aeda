"""The terminal as a screen: taken over, drawn line by line, and given back whatever happens."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Final, Self

from ringtape.analysis.live.keys import Keys
from ringtape.schemas.errors import RingtapeError

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[0m\x1b[2J"
"""Alternate screen, no cursor, no wrapping: a line that is too long by a character must not push all others down."""
_LEAVE: Final = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_ESCAPE_DELAY = 0.05
"""Seconds after which an Escape that nothing followed is the key: terminals send their sequences in one piece."""
_ENDING: Final = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGQUIT: 131}
SMALLEST, LARGEST = 1, 1000


class TerminalGoneError(RingtapeError):
    """The terminal was closed."""


class Interrupted(Exception):  # noqa: N818 - no error: somebody asked for the end
    """A signal asked for the end.

    Attributes
    ----------
    status : int
        128 + its number.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Terminal:
    r"""The terminal, as a context: inside, it is a screen without echo; behind it, as it was before.

    Ctrl-C, Ctrl-Z and Ctrl-\ stay signals, for the whole job. After Ctrl-Z and `fg` the screen is drawn anew.

    Parameters
    ----------
    keyboard, screen : int
        Descriptors of a terminal: what is typed is read from the one, the screen is drawn on the other.
    """

    def __init__(self, keyboard: int = 0, screen: int = 1) -> None:
        self._keyboard, self._screen = keyboard, screen
        self._keys = Keys()
        self._drawn: list[str] = []
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._wake_read = self._wake_write = -1
        self._old_wake = -1
        self._signals: list[int] = []
        self.written = 0
        """Bytes sent to the terminal so far."""

    @staticmethod
    def usable(keyboard: int = 0, screen: int = 1) -> bool:
        """Whether there is a terminal that a screen can be drawn on."""
        try:
            return os.isatty(keyboard) and os.isatty(screen) and os.environ.get("TERM", "dumb") not in ("", "dumb")
        except OSError:
            return False

    def __enter__(self) -> Self:
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._old_wake = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
            for number in (*_ENDING, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT):
                self._handlers[number] = signal.signal(number, self._on_signal)
            self._take()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()

    def _release(self) -> None:
        # The terminal may be gone: then there is nothing to give back.
        with contextlib.suppress(OSError, termios.error, TerminalGoneError):
            self._give_back()
        signal.set_wakeup_fd(self._old_wake)
        for number, handler in self._handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._handlers = {}
        for descriptor in (self._wake_read, self._wake_write):
            os.close(descriptor)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _take(self) -> None:
        # Only in the foreground: elsewhere the kernel stops us here (SIGTTOU) until `fg`.
        try:
            self._before = termios.tcgetattr(self._keyboard)
            raw = termios.tcgetattr(self._keyboard)
            raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
            raw[0] &= ~(termios.IXON | termios.ICRNL)
            raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, raw)
        except termios.error as error:
            raise TerminalGoneError(f"the terminal cannot be used: {error.args[-1]}") from None
        self._send(_ENTER)
        self._drawn = []

    def _give_back(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            try:
                self._send(_LEAVE)
            finally:
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, before)

    def _suspend(self) -> None:
        """Stop as Ctrl-Z asks, with the terminal given back, and take it again when it goes on."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._on_signal)
        self._take()

    def size(self) -> tuple[int, int]:
        """Return columns and lines."""
        try:
            lines, columns = struct.unpack("4H", fcntl.ioctl(self._screen, termios.TIOCGWINSZ, bytes(8)))[:2]
        except OSError:
            raise TerminalGoneError("the terminal was closed") from None
        # A terminal that does not know says 0: a serial line, or a pseudo-terminal that nobody has sized.
        return min(columns, LARGEST) or 80, min(lines, LARGEST) or 24

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, of which only those are sent that are not shown already.

        Parameters
        ----------
        lines : sequence of str
            No longer than the terminal is wide, with no control characters but those of colours, which each line ends.
        """
        out = []
        for row, line in enumerate(lines):
            if row >= len(self._drawn) or self._drawn[row] != line:
                out.append(f"\x1b[{row + 1};1H{line}\x1b[0m\x1b[K")
        if len(lines) < len(self._drawn):
            out.append(f"\x1b[{len(lines) + 1};1H\x1b[J")
        if out:
            self._send("".join(out))
        self._drawn = list(lines)

    def forget(self) -> None:
        """Clear the screen, so that all of it is drawn anew: its size has changed, or something else has written on it."""
        self._drawn = []
        self._send("\x1b[0m\x1b[2J")

    def _send(self, text: str) -> None:
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        self.written += len(data)
        while data:
            try:
                data = data[os.write(self._screen, data) :]
            except BlockingIOError:
                select.select([], [self._screen], [], 1)
            except OSError:
                raise TerminalGoneError("the terminal was closed") from None

    def wait(self, seconds: float) -> list[str]:
        """Return the keys that were typed within a time, ``resize`` among them when the size has changed; nothing when it is over.

        Raises
        ------
        Interrupted
            If a signal asks for the end.
        TerminalGoneError
            If the terminal was closed.
        """
        deadline = time.monotonic() + max(0.0, seconds)
        poll = select.poll()
        poll.register(self._keyboard, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if self._keys.pending:
                left = min(left, _ESCAPE_DELAY)
            ready = dict(poll.poll(max(0.0, left) * 1000))
            found: list[str] = []
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            found += self._noticed()
            if self._keyboard in ready:
                found += self._keys.feed(self._read())
            elif self._keys.pending and not ready:
                found += self._keys.flush()
            if found or time.monotonic() >= deadline:
                return found

    def _noticed(self) -> list[str]:
        numbers, self._signals = self._signals, []
        for number in numbers:
            if number in _ENDING:
                raise Interrupted(_ENDING[signal.Signals(number)])
        if signal.SIGTSTP in numbers:
            self._suspend()
            self._signals = []
            return ["resize"]
        if signal.SIGWINCH in numbers or signal.SIGCONT in numbers:
            self.forget()
            return ["resize"]
        return []

    def _read(self) -> bytes:
        try:
            data = os.read(self._keyboard, 4096)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EINTR):
                return b""
            raise TerminalGoneError("the terminal was closed") from None
        if not data:
            raise TerminalGoneError("the terminal was closed")
        return data


def interactive() -> bool:
    """Whether a person sits at standard input and output."""
    try:
        return Terminal.usable(sys.stdin.fileno(), sys.stdout.fileno())
    except (OSError, ValueError):
        return False
