"""Starts the command so that nothing of it is missed: a small child waits at a pipe until the probes are attached.

The child is forked before any large library is imported: the command inherits the peak memory of whoever forks it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from ringtape.recorder.privileges import User
from ringtape.schemas.errors import UsageError

# Python ignores these two for itself; programs expect them as the shell gave them.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)


def resolve(command: Sequence[str], environment: dict[str, str]) -> str:
    """Return the file that the command's name means in the user's PATH.

    Raises
    ------
    UsageError
        If there is none, or it cannot be executed.
    """
    name = command[0]
    path = shutil.which(name, path=environment.get("PATH", os.defpath))
    if path is not None:
        return path
    if "/" in name and Path(name).exists():
        kind = "a folder" if Path(name).is_dir() else "not executable"
        raise UsageError(f"{name}: {kind}", "name a program that can be run")
    raise UsageError(f"command not found: {name}", "check the name, or give its path")


class Launcher:
    """The waiting child.

    Parameters
    ----------
    command : sequence of str
        The program's name and its arguments.
    user : User
        Who runs it.
    streams : mapping, optional
        Standard streams (0, 1, 2) that it gets other descriptors for.

    Attributes
    ----------
    pid : int
        Its process, which becomes the command's.
    """

    def __init__(self, command: Sequence[str], user: User, streams: Mapping[int, int] | None = None) -> None:
        self._streams = dict(streams or {})
        environment = user.environment()
        self._path = resolve(command, environment)
        gate_read, gate_write = os.pipe()
        error_read, error_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._child(list(command), user, environment, gate_read, gate_write, error_write)
        os.close(gate_read)
        os.close(error_write)
        self._end = select.poll()
        self._end.register(os.pidfd_open(self.pid), select.POLLIN)
        self._gate, self._error = gate_write, error_read
        self.status: int | None = None

    def _child(self, command: list[str], user: User, environment: dict[str, str], gate: int, gate_write: int, error: int) -> None:
        try:
            os.close(gate_write)  # or the child would hold its own gate shut when the recorder dies
            for restored in _RESTORED:
                signal.signal(restored, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number, other in self._streams.items():
                os.dup2(other, number)
            user.become()
            if os.read(gate, 1):
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.execve(self._path, command, environment)
        except OSError as problem:
            with contextlib.suppress(OSError):
                os.write(error, (problem.errno or errno.EIO).to_bytes(4, "little"))
        except KeyboardInterrupt:
            pass
        finally:
            os._exit(127)

    def release(self) -> None:
        """Let the command run.

        Raises
        ------
        UsageError
            If the kernel refuses to execute the file.
        """
        os.write(self._gate, b"x")
        os.close(self._gate)
        code = os.read(self._error, 4)
        os.close(self._error)
        if code:
            reason = os.strerror(int.from_bytes(code, "little"))
            raise UsageError(f"{self._path}: {reason.lower()}", _exec_hint(self._path, int.from_bytes(code, "little")))

    def abandon(self) -> None:
        """End the child without running the command."""
        with contextlib.suppress(OSError):  # it may have ended by itself
            os.close(self._gate)
            os.waitpid(self.pid, 0)

    def poll(self) -> bool:
        """Return whether the command has ended; ``status`` then holds its wait status."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
        return self.status is not None

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than the command runs."""
        self._end.poll(seconds * 1000)

    def exit_status(self) -> int | None:
        """Return the exit status as a shell shows it (128 + signal), or None while the command runs."""
        if self.status is None:
            return None
        return 128 + os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else os.WEXITSTATUS(self.status)


def exit_as(status: int) -> int:
    """Return the exit status for a command's wait status; end by the same signal if a signal ended the command."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core that matters is the command's
            if number != signal.SIGKILL:
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        return 128 + number
    return os.WEXITSTATUS(status)


def _exec_hint(path: str, code: int) -> str:
    if code == errno.ENOEXEC:
        return "a script needs a first line such as #!/bin/sh"
    if code == errno.ENOENT and Path(path).exists():
        return "the interpreter that it names does not exist"
    if code == errno.EACCES and Path(path).exists() and not Path(path).stat().st_mode & stat.S_IXOTH:
        return "the user who runs the command may not execute it"
    return "check that it can be run without ringtape"
