"""Runs servers and command of one run, and times the command: a program of its own, which the tool traces with all that it starts.

It is run as ``python -I -S launcher.py SPECIFICATION`` and imports little, because a tool sees its calls as well. It stays with the
privileges that it was started with; what it starts gets those of the user. The specification is a JSON object:

``command``, ``servers`` (of ``command``, ``ready``, ``stop``, ``patience``)
    argument lists.
``directory``, ``environment``, ``user`` (uid, gid, groups; or null), ``cpus``
    in which they are run.
``limit``
    seconds after which the command is ended.
``lifeline``
    FIFO whose other end the runner holds open: when that ends, all ends.
``stdout``, ``stderr``, ``result``
    files that are written.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any

COMPLETED, FAILED, TIME_LIMIT = range(3)
PAUSE = 0.02
LAST_WORDS = 5.0
"""Seconds between SIGTERM and SIGKILL."""


class GoneError(Exception):
    """The runner has ended."""


class Launcher:
    """Starts and ends the programs of one run."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said
        self.lifeline = os.open(said["lifeline"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.out = self._file(said["stdout"])
        self.err = self._file(said["stderr"])
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.usage: list[Any] = []
        self.running: list[int] = []

    def _file(self, path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def start(self, command: list[str], out: int) -> int:
        """Start a program in a process group of its own, as the user."""
        executed, executing = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid:
            os.close(executing)
            os.read(executed, 1)  # ends when the program is executed: before that a signal to its group would find none
            os.close(executed)
            self.running.append(pid)
            return pid
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)  # what is ignored stays so in the program that is executed
            os.dup2(self.null, 0)
            os.dup2(out, 1)
            os.dup2(self.err, 2)
            if self.said["cpus"]:
                os.sched_setaffinity(0, self.said["cpus"])
            if user := self.said["user"]:
                os.setgroups(user["groups"])
                os.setresgid(user["gid"], user["gid"], user["gid"])
                os.setresuid(user["uid"], user["uid"], user["uid"])
            os.chdir(self.said["directory"])
            os.execvpe(command[0], command, self.said["environment"])
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def wait(self, pid: int, seconds: float) -> int | None:
        """Wait for a program; its status, below 0 for a signal, or None if it is still running after so many seconds."""
        descriptor = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self.lifeline, 0)
        end = time.monotonic() + seconds
        try:
            while True:
                ready = poll.poll(max(0.0, end - time.monotonic()) * 1000)
                if any(which == self.lifeline for which, _ in ready):
                    raise GoneError
                if ready:
                    break
                if time.monotonic() >= end:
                    return None
        finally:
            os.close(descriptor)
        _, status, usage = os.wait4(pid, 0)
        self.running.remove(pid)
        self.usage.append(usage)
        return os.waitstatus_to_exitcode(status)

    def end(self, pid: int) -> None:
        """End a program and its process group: first asked, then made to."""
        if pid in self.running:
            self.signal(pid, signal.SIGTERM)
            if self.wait(pid, LAST_WORDS) is None:
                self.signal(pid, signal.SIGKILL)
                self.wait(pid, LAST_WORDS)
        self.signal(pid, signal.SIGKILL)

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process group that may have ended."""
        with suppress(ProcessLookupError):
            os.killpg(pid, number)

    def serve(self, server: dict[str, Any]) -> tuple[int, str]:
        """Start a server and wait until it is ready; what went wrong is the second."""
        pid = self.start(server["command"], self.err)
        end = time.monotonic() + server["patience"]
        while True:
            if self.wait(pid, 0) is not None:
                return pid, f"the server {server['command'][0]} ended before it was ready"
            if not server["ready"] or self.helped(server["ready"], end - time.monotonic()):
                return pid, ""
            if time.monotonic() > end:
                return pid, f"the server {server['command'][0]} was not ready after {server['patience']:g} s"
            time.sleep(PAUSE)

    def helped(self, command: list[str], seconds: float) -> bool:
        """Run a command that asks or tells a server something; whether it ended well. What it used is not the workload's."""
        pid = self.start(command, self.err)
        kept = list(self.usage)
        status = self.wait(pid, max(seconds, PAUSE))
        if status is None:
            self.end(pid)
        self.usage = kept
        return status == 0

    def stop(self, pid: int, server: dict[str, Any]) -> None:
        """Stop a server as it wants to be stopped, or else by signals."""
        if pid in self.running and server["stop"]:
            self.helped(server["stop"], server["patience"])
            self.wait(pid, server["patience"])
        self.end(pid)

    def run(self) -> dict[str, Any]:
        """Do all of it."""
        result: dict[str, Any] = {"end": FAILED, "status": 0, "wall": 0, "message": ""}
        servers: list[tuple[int, dict[str, Any]]] = []
        try:
            for server in self.said["servers"]:
                pid, wrong = self.serve(server)
                servers.append((pid, server))
                if wrong:
                    result["message"] = wrong
                    return result
            began = time.monotonic_ns()
            pid = self.start(self.said["command"], self.out)
            status = self.wait(pid, self.said["limit"])
            result["wall"] = time.monotonic_ns() - began
            if status is None:
                result.update(end=TIME_LIMIT, message=f"still running after {self.said['limit']:g} s")
                self.end(pid)
            elif status:
                how = f"with status {status}" if status > 0 else f"by signal {-status}"
                result.update(status=status, message=f"{self.said['command'][0]} ended {how}")
            else:
                result.update(end=COMPLETED)
            self.signal(pid, signal.SIGKILL)
        except GoneError:
            result["message"] = "the runner ended"
            for pid in list(self.running):
                self.signal(pid, signal.SIGKILL)
        finally:
            for pid, server in reversed(servers):
                if result["message"] != "the runner ended":
                    self.stop(pid, server)
        return result


def main() -> int:
    """Read the specification, run, and write the result."""
    with open(sys.argv[1], encoding="utf-8") as file:
        said = json.load(file)
    before = sum(os.times()[:4])  # a tool that became this program by exec has used something already
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A terminal's Ctrl-C reaches the runner, which decides; the programs are in sessions of their own.
        signal.signal(number, signal.SIG_IGN)
    launcher = Launcher(said)
    result = launcher.run()
    result["user"] = sum(round(usage.ru_utime * 1e9) for usage in launcher.usage)
    result["system"] = sum(round(usage.ru_stime * 1e9) for usage in launcher.usage)
    result["memory"] = max((usage.ru_maxrss * 1024 for usage in launcher.usage), default=0)
    result["all"] = round((sum(os.times()[:4]) - before) * 1e9)
    with open(said["result"], "w", encoding="utf-8") as file:
        json.dump(result, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
