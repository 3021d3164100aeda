"""Runs a workload once under a treatment, and says what it took."""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringtape.analysis.studies.declaration import Study, Treatment, Workload
from ringtape.analysis.studies.metrics import measure
from ringtape.analysis.studies.noise import Disturbance, disturbance, times
from ringtape.analysis.studies.results import COMPLETED, FAILED, TIME_LIMIT, TOOL_FAILED
from ringtape.analysis.studies.treatments import Outcome, Tally, Tool, tool
from ringtape.schemas.errors import RingtapeError, UsageError

LAUNCHER = Path(__file__).with_name("launcher.py")
PATIENCE = 60.0
"""Seconds that a tool has for its own start and end, beyond those of the servers and the command."""
LARGEST_OUTPUT = 16 << 20
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, include/uapi/linux/prctl.h
_FIELD = re.compile(r"\{(folder|study|port)\}")


@dataclass
class Run:
    """What one run took. Times in ns, sizes in bytes; see the table ``runs``."""

    started: int
    end: int = FAILED
    status: int = 0
    wall: int = 0
    total: int = 0
    user: int = 0
    system: int = 0
    tool: int = 0
    memory: int = 0
    metric: float | None = None
    load: float = 0.0
    message: str = ""
    outcome: Outcome = field(default_factory=Outcome)
    truth: Mapping[str, Tally] = field(default_factory=dict)
    disturbance: Disturbance = field(default_factory=lambda: Disturbance(0.0, 0.0, 0.0))


def run(study: Study, workload: Workload, treatment: Treatment, keep: Path | None = None, place: Path | None = None) -> Run:
    """Run a workload once.

    Parameters
    ----------
    study, workload, treatment
        What, and under what.
    keep : Path, optional
        Where to leave what the tool wrote; it is deleted otherwise.
    place : Path, optional
        Folder in which that of the run is made; the one for temporary files otherwise.

    Raises
    ------
    UsageError
        If the user of the workload does not exist, or may not be taken on.
    """
    user = _user(workload)
    with _scratch(user, place) as scratch, _orphans_ended():
        return _Single(study, workload, treatment, user, scratch).run(keep)


@contextmanager
def _orphans_ended() -> Iterator[None]:
    """Let what a run leaves behind come to this process instead of to init, and end it."""
    libc, known = ctypes.CDLL(None, use_errno=True), _children()
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        try:
            _end_orphans(known)
        finally:
            libc.prctl(_SUBREAPER, 0, 0, 0, 0)


@dataclass(frozen=True)
class _User:
    """As whom programs are run; None where that is who we are."""

    name: str
    ids: dict[str, Any] | None
    home: str


def _user(workload: Workload) -> _User:
    """Find the user of a workload: the one that it names, or who called sudo, or whoever we are."""
    name = workload.user
    if not name and os.geteuid() == 0 and (asked := os.environ.get("SUDO_USER")):
        name = asked
    try:
        entry = pwd.getpwnam(name) if name else pwd.getpwuid(os.geteuid())
    except KeyError:
        hint = f"install {workload.packages}, or name another user" if workload.packages else "name another user"
        raise UsageError(f"the workload {workload.name} runs as {name or os.geteuid()}, and there is no such user", hint) from None
    if entry.pw_uid == os.geteuid():
        return _User(entry.pw_name, None, entry.pw_dir)
    if os.geteuid():
        raise UsageError(f"the workload {workload.name} runs as {name}, and only root may take on that user", "run the study with sudo")
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return _User(entry.pw_name, {"uid": entry.pw_uid, "gid": entry.pw_gid, "groups": groups}, entry.pw_dir)


@contextmanager
def _scratch(user: _User, place: Path | None) -> Iterator[Path]:
    """Make a folder for one run, with one in it that is the user's."""
    # Short: the path of a Unix socket in it has at most 107 bytes.
    path = Path(tempfile.mkdtemp(prefix="study-", dir=place))
    try:
        path.chmod(0o711)
        (path / "folder").mkdir(mode=0o700)
        if user.ids:
            os.chown(path / "folder", user.ids["uid"], user.ids["gid"])
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class _Single:
    """One run, from its folder to its figures."""

    def __init__(self, study: Study, workload: Workload, treatment: Treatment, user: _User, scratch: Path) -> None:
        self._study, self._workload, self._treatment = study, workload, treatment
        self._user, self._scratch = user, scratch
        self._tool: Tool = tool(treatment.tool)
        self._port = _free_port()
        self._output = scratch / "output"

    def run(self, keep: Path | None) -> Run:
        one = Run(time.time_ns(), load=os.getloadavg()[0])
        try:
            for command in self._workload.setup:
                self._helper(command, "set-up")
            self._traced(one)
            if one.end == COMPLETED:
                self._read(one)
        except RingtapeError as error:
            one.end, one.message = one.end or FAILED, error.what
        finally:
            for command in self._workload.teardown:
                try:
                    self._helper(command, "tear-down")
                except RingtapeError as error:
                    one.end, one.message = one.end or FAILED, one.message or error.what
        if keep is not None and self._output.exists():
            shutil.move(self._output, keep)
        return one

    def _fill(self, word: str) -> str:
        known = {"folder": str(self._scratch / "folder"), "study": str(self._study.path.resolve().parent), "port": str(self._port)}
        return _FIELD.sub(lambda match: known[match[1]], word)

    def _line(self, words: Sequence[str]) -> list[str]:
        return [self._fill(word) for word in words]

    def _environment(self) -> dict[str, str]:
        # The tool must not see that we were called by sudo: it would take on the user a second time.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
        kept.update(HOME=self._user.home, USER=self._user.name, LOGNAME=self._user.name)
        return {**kept, **{name: self._fill(value) for name, value in self._workload.environment.items()}}

    def _helper(self, command: Sequence[str], what: str) -> None:
        """Run a set-up or tear-down command, as the user and outside of the tool."""
        line, ids = self._line(command), self._user.ids or {}
        taken: dict[str, Any] = {"user": ids["uid"], "group": ids["gid"], "extra_groups": ids["groups"]} if ids else {}
        limit = self._workload.time_limit or self._study.time_limit
        try:
            done = subprocess.run(
                line,
                cwd=self._fill(self._workload.directory),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=limit,
                check=False,
                start_new_session=True,
                **taken,
            )
        except subprocess.TimeoutExpired:
            raise RingtapeError(f"the {what} command {line[0]} was still running after {limit:g} s") from None
        except OSError as error:
            raise RingtapeError(f"the {what} command {line[0]}: {(error.strerror or str(error)).lower()}") from None
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()[-300:]
            raise RingtapeError(f"the {what} command {line[0]} ended with status {done.returncode}: {said}")

    def _traced(self, one: Run) -> None:
        """Run servers and command by the launcher, under the tool or with it in the place that the study names."""
        lifeline = self._scratch / "lifeline"
        os.mkfifo(lifeline, 0o600)
        line = self._specified()
        known, before, began = _children(), times(), time.monotonic_ns()
        status, spent, waited_for, last = self._under_tool(line, lifeline)
        one.total = time.monotonic_ns() - began
        # What a tool does not wait for (perf trace) comes to us, and would count as others' until we have waited for it.
        _end_orphans(known)
        one.disturbance = disturbance(before, times())
        said = self._result()
        if said is None:
            how = "did not end in time" if status is None else f"ended with status {status}"
            one.end, one.message = TOOL_FAILED, f"{self._treatment.name} {how}, and the workload was not run to its end: {last}"
            return
        one.end, one.status, one.wall, one.message = said["end"], said["status"], said["wall"], said["message"]
        one.user, one.system, one.memory = said["user"], said["system"], said["memory"]
        if self._treatment.tool != "none":
            # A tool that does not wait for what it runs (perf trace) has nothing of it in its own time.
            one.tool = max(0, spent - min(said["all"], waited_for))
        if one.end in (FAILED, TIME_LIMIT):
            one.message = f"{one.message}: {self._text('stderr') or self._text('stdout')}".rstrip(": ")
        elif status is None or (status and self._treatment.tool != "none"):
            one.end, one.message = (
                TOOL_FAILED,
                f"{self._treatment.name} {'did not end in time' if status is None else f'ended with status {status}'}: {last}",
            )

    def _specified(self) -> list[str]:
        """Write what the launcher is to do, and return the line that does it under the tool."""
        workload, options = self._workload, [self._fill(word) for word in self._treatment.options]

        def under(command: list[str], place: str) -> list[str]:
            return self._tool.wrap(options, self._output, command) if workload.traced == place else command

        servers = [
            {
                "command": under(self._line(server.command), "servers") if place == 0 else self._line(server.command),
                "ready": self._line(server.ready),
                "stop": self._line(server.stop),
                "patience": server.patience,
            }
            for place, server in enumerate(workload.servers)
        ]
        said = {
            "command": under(self._line(workload.command), "command"),
            "servers": servers,
            "directory": self._fill(workload.directory),
            "environment": self._environment(),
            "user": self._user.ids,
            "cpus": list(self._study.cpus),
            "limit": workload.time_limit or self._study.time_limit,
            **{name: str(self._scratch / name) for name in ("lifeline", "stdout", "stderr", "result")},
        }
        path = self._scratch / "specification.json"
        path.write_text(json.dumps(said), encoding="utf-8")
        return under([sys.executable, "-I", "-S", str(LAUNCHER), str(path)], "all")

    def _under_tool(self, line: list[str], lifeline: Path) -> tuple[int | None, int, int, str]:
        """Run a line to its end: its status (None: it had to be ended), CPU times as `_wait` has them, and its last words."""
        workload = self._workload
        limit = (workload.time_limit or self._study.time_limit) + PATIENCE + sum(3 * server.patience for server in workload.servers)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
        # Open for both, so that it opens at once, and has a writer as long as we live.
        with open(self._scratch / "tool", "w+b") as words, open(lifeline, "r+b", buffering=0) as holder:
            try:
                process = subprocess.Popen(
                    line,
                    cwd=self._scratch,
                    env={**environment, **self._tool.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=words,
                    stderr=words,
                    start_new_session=True,
                )
            except OSError as error:
                raise RingtapeError(f"{line[0]}: {(error.strerror or str(error)).lower()}") from None
            try:
                status, spent, waited_for = _wait(process, limit)
            except BaseException:
                holder.close()  # the launcher ends all that it has started, and the tool itself
                _kill(process)
                raise
            words.seek(max(0, words.seek(0, os.SEEK_END) - 400))
            return status, spent, waited_for, " ".join(words.read().decode(errors="replace").split())[-300:]

    def _result(self) -> dict[str, Any] | None:
        try:
            said = json.loads((self._scratch / "result").read_bytes())
        except (OSError, ValueError):
            return None
        return said if isinstance(said, dict) else None

    def _text(self, name: str) -> str:
        return " ".join(self._bytes(name)[-2000:].decode(errors="replace").split())[-300:]

    def _bytes(self, name: str) -> bytes:
        try:
            with open(self._scratch / name, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LARGEST_OUTPUT))
                return file.read()
        except FileNotFoundError:
            return b""

    def _read(self, one: Run) -> None:
        """Read what the command and the tool say."""
        output = self._bytes("stdout")
        if self._workload.metric:
            one.metric = measure(self._workload.metric, output)
        if self._workload.truth:
            from ringtape.analysis.studies.truth import parse_truth

            one.truth = parse_truth(output)
        if self._treatment.tool != "none":
            try:
                one.outcome = self._tool.outcome(self._output, self._workload.truth or self._study.keep != "nothing")
                _check(one.outcome)
            except (RingtapeError, OSError) as error:
                one.end, one.message, one.outcome = (
                    TOOL_FAILED,
                    f"what {self._treatment.name} wrote cannot be read: {error}".splitlines()[0],
                    Outcome(),
                )


def _check(outcome: Outcome) -> None:
    """Refuse numbers that are none: what a tool wrote may be damaged."""
    tallies = [value for tally in outcome.calls.values() for value in vars(tally).values()]
    for value in (outcome.events, outcome.lost, outcome.bytes, *tallies):
        if value is not None and not 0 <= value < 1 << 63:
            raise RingtapeError(f"it counts {value}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], limit: float) -> tuple[int | None, int, int]:
    """Wait for a tool; after the limit end it. Return status, CPU time with that of all that it waited for, and of these alone (ns)."""
    descriptor = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        in_time = bool(poll.poll(limit * 1000))
    finally:
        os.close(descriptor)
    if not in_time:
        _signal_session(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    # Of one that has ended and is not waited for: its own time, and that of the children that it has waited for (proc(5)).
    words = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
    waited_for = sum(int(word) for word in words[13:15]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (process.returncode if in_time else None), round((usage.ru_utime + usage.ru_stime) * 1e9), waited_for


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        _signal_session(process.pid, signal.SIGKILL)
        process.wait()


def _signal_session(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def _end_orphans(known: set[int]) -> None:
    """End whatever of the run has come to us as an orphan, and everything that comes of it; ``known`` were our children before."""
    deadline = time.monotonic() + PATIENCE
    while children := _children() - known:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in children:
            with suppress(ChildProcessError):
                os.waitpid(child, 0)
        if time.monotonic() > deadline:
            raise RingtapeError(f"{len(children)} processes of the run do not end", "look at them with ps")


def _children() -> set[int]:
    return {int(word) for task in Path("/proc/self/task").iterdir() for word in (task / "children").read_text().split()}
