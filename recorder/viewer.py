"""The screen of `record --live`: a process of the user's that follows the trace as any other viewer does.

It shares the terminal with the recorder and the command, and nothing else: killed, hung or closed, it takes nothing from the recording.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any, NoReturn

from ringtape.recorder.privileges import User, drop
from ringtape.schemas.errors import UsageError

RINGTAPE = (sys.executable, "-P", "-c", "import sys; from ringtape.cli import main; sys.exit(main())")
PATIENCE = 5.0
"""Seconds that the screen is given to close once the recording has ended."""
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)
_LEAVE = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
"""What the screen itself sends when it closes: wrapping, the cursor and the terminal's usual screen."""
_CHUNK = 1 << 16


class Viewer:
    """The child that becomes the screen, and what the command writes meanwhile.

    Its process exists before any probe is attached, so that the probes know which one never to record. What the command sends to the
    terminal is kept in a file without a name while the screen is there, and passed on when it has closed.

    Parameters
    ----------
    user : User
        Who asked for the recording, as whom it runs, without any capability.
    trace : Path
        What it shows.

    Raises
    ------
    UsageError
        If there is no terminal to show it on.
    """

    def __init__(self, user: User, trace: Path) -> None:
        if not all(map(_is_terminal, (0, 2))) or os.environ.get("TERM", "dumb") in ("", "dumb"):
            raise UsageError(
                "--live needs a terminal as standard input and standard error",
                "leave --live out, and look with `ringtape top TRACE` from a terminal",
            )
        self._terminal = os.dup(2)
        self._modes: list[Any] = termios.tcgetattr(self._terminal)
        self._held = _unnamed_file()
        self._passed = 0
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.streams = {number: self._null if number == 0 else self._held for number in range(3) if _same_terminal(number, self._terminal)}
        """What the command gets for its standard streams that are the terminal."""
        gate, self._gate = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._child(user, trace, gate)
        os.close(gate)
        self._end = select.poll()
        self._pidfd = os.pidfd_open(self.pid)
        self._end.register(self._pidfd, select.POLLIN)
        self.status: int | None = None

    def _child(self, user: User, trace: Path, gate: int) -> NoReturn:
        try:
            os.close(self._gate)
            for restored in _RESTORED:
                signal.signal(restored, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if os.read(gate, 1):
                environment = user.environment()
                drop(user)
                for number in range(2):
                    os.dup2(self._terminal, number)
                # Its own messages would stand on the screen: it says why it ended by its status.
                os.dup2(self._terminal, 2)
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.execve(RINGTAPE[0], [*RINGTAPE, "top", "--until-end", "--", str(trace)], environment)
        except (OSError, KeyboardInterrupt):
            pass
        finally:
            os._exit(127)

    def release(self) -> None:
        """Let the screen appear: the trace is there."""
        with contextlib.suppress(BrokenPipeError):  # killed while it waited
            os.write(self._gate, b"x")
        os.close(self._gate)
        self._gate = -1

    def abandon(self) -> None:
        """End the child, whatever it does."""
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        self.close()

    def poll(self) -> bool:
        """Return whether the screen is closed; the terminal is then as it was before."""
        if self.status is None and self._end.poll(0):
            _, self.status = os.waitpid(self.pid, 0)
            os.close(self._pidfd)
            if os.WIFSIGNALED(self.status):
                self._restore()
        return self.status is not None

    def _restore(self) -> None:
        """Give the terminal back for a screen that was killed."""
        with contextlib.suppress(OSError, termios.error):
            os.write(self._terminal, _LEAVE)
            termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._modes)

    def why(self) -> str:
        """Return a sentence that says how the screen ended."""
        assert self.status is not None
        if os.WIFSIGNALED(self.status):
            how = f"was ended by {signal.Signals(os.WTERMSIG(self.status)).name}"
        elif code := os.WEXITSTATUS(self.status):
            how = f"ended with status {code}" if code != 127 else "could not be started"
        else:
            how = "is closed"
        return f"the screen {how}; the recording goes on (Ctrl-C ends it)"

    def pass_on(self) -> None:
        """Write what the command has written so far to the terminal."""
        with contextlib.suppress(OSError):  # the terminal is gone, or the disk cannot be read: the recording goes on
            while data := os.pread(self._held, _CHUNK, self._passed):
                self._passed += len(data)
                view = memoryview(data)
                while view:
                    view = view[os.write(self._terminal, view) :]

    def close(self) -> None:
        """Wait for the screen to close, and pass on what was kept back; a screen that hangs is ended."""
        for number in (0, signal.SIGTERM, signal.SIGKILL):
            if self.poll():
                break
            if number:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)
            deadline = time.monotonic() + PATIENCE
            while not self.poll() and (left := deadline - time.monotonic()) > 0:
                self._end.poll(left * 1000)
        self.pass_on()
        for descriptor in (self._terminal, self._held, self._null):
            os.close(descriptor)


def _is_terminal(number: int) -> bool:
    try:
        return os.isatty(number)
    except OSError:
        return False


def _same_terminal(number: int, terminal: int) -> bool:
    try:
        return os.isatty(number) and os.fstat(number).st_rdev == os.fstat(terminal).st_rdev
    except OSError:
        return False


def _unnamed_file() -> int:
    """Open a file for reading and appending that goes away with its last descriptor."""
    with tempfile.TemporaryFile() as file:
        descriptor = os.dup(file.fileno())
    import fcntl

    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
    return descriptor
