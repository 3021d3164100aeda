"""The life of a recording, from the command line to the footer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shlex
import shutil
import signal
import struct
import sys
import time
import uuid
from dataclasses import dataclass
from errno import EIO
from mmap import PROT_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING

from ringtape.recorder import journal as journals
from ringtape.recorder import kernel as kernels
from ringtape.recorder.bpf import PAGE
from ringtape.recorder.descriptors import Descriptor, descriptor_rows, descriptors
from ringtape.recorder.folder import create_folder
from ringtape.recorder.journal import Journal
from ringtape.recorder.kernel import Kernel
from ringtape.recorder.launcher import Launcher
from ringtape.recorder.mappings import Stacks
from ringtape.recorder.options import Options
from ringtape.recorder.privileges import User, acting_as, drop, import_while_readable
from ringtape.recorder.progress import Progress
from ringtape.recorder.viewer import Viewer
from ringtape.schemas import manifest as manifests
from ringtape.schemas.abi.syscalls import native_abi
from ringtape.schemas.errors import RecordingError
from ringtape.schemas.events import describe_events
from ringtape.schemas.host import describe_host
from ringtape.schemas.manifest import Clock, Header, Probe
from ringtape.schemas.table import table
from ringtape.schemas.units import format_size
from ringtape.version import VERSION

if TYPE_CHECKING:
    from ringtape.recorder.pump import Pump

POLL = 0.05
"""Seconds between two looks at the rings: at 4 million calls a second a twentieth of the default ring comes in."""
QUICK = 0.01
"""With a ring that is smaller than its table's default, and while the end is near."""
DRAIN_NICE = -20
GRACE = 1.0
"""Seconds that the command is given to end by itself after Ctrl-C reached it as well."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Outcome:
    """How a recording ended.

    ``wait_status`` is the command's as wait(2) gives it, None without a command or while it still runs; ``signal`` is
    the one that ended the recording, or 0.
    """

    trace: Path
    end: str
    wait_status: int | None
    signal: int
    rows: int
    lost: int
    seconds: float
    size: int


def default_output(options: Options) -> Path:
    """Return a name for the trace in the current folder: what is recorded, and when."""
    subject = Path(options.target.command[0]).name if options.target.command else options.target.select.name.lower()
    if options.target.pids:
        subject = f"pid{options.target.pids[0]}"
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", subject)[:40]
    return Path(f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}.trace")


class Session:
    """One recording. `run` does all of it, in the order in which privileges allow."""

    def __init__(self, options: Options, output: Path, quiet: bool = False, live: bool = False) -> None:
        self._options = options
        self._path = output
        self._user = User.invoking()
        self._trace_id = uuid.uuid4().hex
        self._progress = Progress(not quiet)
        self._quiet = quiet
        self._live = live
        self._viewer: Viewer | None = None
        self._signal = 0
        self._signal_at = 0.0

    def run(self) -> Outcome:
        """Record, and return how it ended.

        Raises
        ------
        RingtapeError
            If the recording could not be started, or what was recorded could not be written.
        """
        command = self._options.target.command
        viewer = self._viewer = Viewer(self._user, self._path) if self._live else None
        launcher = Launcher(command, self._user, viewer.streams if viewer else None) if command else None
        if self._options.flight:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # until the lookout is there: by default it kills
        for number in _ENDING:
            # nohup stays in force; but a script's shell lets what it starts with & ignore SIGINT, by which it then wants to end it.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        with contextlib.ExitStack() as undo:
            if viewer:
                undo.callback(viewer.abandon)
            if launcher:
                undo.callback(launcher.abandon)
            with acting_as(self._user):
                folder = create_folder(self._path)
            undo.callback(self._remove_folder, folder)
            kernel = kernels.load(self._options, viewer.pid if viewer else 0)
            undo.callback(kernel.close)
            journal, reason = self._pin(kernel)
            if journal:
                undo.callback(journal.remove)
            kernel.attach()
            self._warn(kernel)
            existing = kernels.existing(kernel, self._options)
            opened = descriptors(self._options.target, launcher.pid if launcher else None)
            if launcher:
                kernel.arm(launcher.pid)
            kernel.look_at_the_start()  # the launcher is armed: the command inherits its descriptors
            for name in kernel.code.iterators:
                if name.endswith("_detach"):
                    kernel.prepare_iterator(name)
            stacks = Stacks(self._options.target, launcher.pid if launcher else None) if "samples" in kernel.rings else None
            if stacks:
                undo.callback(stacks.close)
            # numpy and pyarrow come in after the privileges are given up: no library that size ever runs with them.
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
            keep_freed_memory()
            import_while_readable(self._user, "ringtape.recorder.lookout")
            # The drain sleeps most of the time; when it wakes it must not queue behind the programs that fill the rings.
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, DRAIN_NICE)
            drop(self._user)
            # All of this before the command runs: the drain is there for its first call, however busy the machine is, and a
            # recorder that is killed from here on leaves a trace that names its rings.
            header = self._header(kernel, journal, reason, time.clock_gettime_ns(time.CLOCK_MONOTONIC))
            pump = self._start(folder, kernel, header, existing, opened)
            undo.callback(pump.discard)
            if stacks:
                stacks.begin(pump)
            if launcher:
                if self._signal:
                    raise SystemExit(128 + self._signal)
                launcher.release()
            if viewer:
                self._progress.hidden = True
                viewer.release()
            undo.pop_all()
        return self._record(kernel, journal, folder, pump, launcher)

    def _warn(self, kernel: Kernel) -> None:
        """Say at once which events will be missing: hours later it would be too late."""
        for name, reason in kernel.tracepoints.refused if not self._quiet else ():
            self._progress.note(f"{name} is not recorded: {reason}")

    def _start(self, folder: int, kernel: Kernel, header: Header, existing: bytes, opened: list[Descriptor]) -> Pump:
        from ringtape.recorder.drain import existing_records
        from ringtape.recorder.lookout import Lookout
        from ringtape.recorder.pump import Pump

        records = existing_records(existing if "processes" in kernel.rings else b"", self._options.target)
        try:
            pump = Pump.start(self._path, os.dup(folder), kernel, header, records)
            pump.add(table("descriptors"), descriptor_rows(opened))
            if self._options.flight:
                Lookout(self._options.flight, pump, self._path, self._quiet)
        except OSError as error:
            raise RecordingError(
                f"{self._path}: {os.strerror(error.errno or 0).lower()}; nothing was recorded", "make room and record again"
            ) from None
        return pump

    def _remove_folder(self, descriptor: int) -> None:
        """Take back the folder of a recording that did not begin."""
        for name in self._options.tables:
            shutil.rmtree(name, ignore_errors=True, dir_fd=descriptor)
        with contextlib.suppress(OSError):
            os.unlink(manifests.FILE, dir_fd=descriptor)
        os.close(descriptor)
        with contextlib.suppress(OSError), acting_as(self._user):
            self._path.rmdir()

    def _pin(self, kernel: Kernel) -> tuple[Journal | None, str]:
        """Pin the rings if bpffs allows; the recording goes on without, and says so."""
        journal = None
        try:
            journals.mount()
            journal = Journal.create(self._trace_id, self._user.uid, self._user.gid)
            journal.pin_path(self._path.absolute(), self._user.uid, self._user.gid)
            kernel.pin(journal, self._user.uid, self._user.gid)
        except OSError as error:
            if journal:
                journal.remove()
            return None, f"{error.filename or journals.BPFFS}: {error.strerror}"
        return journal, ""

    def _on_signal(self, number: int, _frame: object) -> None:
        if not self._signal:
            self._signal_at = time.monotonic()
        self._signal = self._signal or number

    def _header(self, kernel: Kernel, journal: Journal | None, reason: str, attached_at: int) -> Header:
        probes = list(kernel.probes)
        if journal is None:
            probes.append(Probe("journal", False, reason))
        return Header(
            trace_id=self._trace_id,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            host=describe_host(),
            clock=Clock.now(),
            command=list(self._options.target.command),
            options=self._options.describe(),
            tables={name: table(name).version for name in self._options.tables if name not in kernel.code.unavailable},
            probes=probes,
            tools={"ringtape": VERSION, "bcc": kernel.code.bcc, "python": sys.version.split()[0]},
            abi=native_abi(),
            attached_at=attached_at,
            journal=str(journal.path) if journal else "",
            rings={name: kernel.ring_bytes(name) for name in kernel.rings},
            events=describe_events([event for event in self._options.events.events if event.id in kernel.tracepoints.attached]),
        )

    def _record(self, kernel: Kernel, journal: Journal | None, folder: int, pump: Pump, launcher: Launcher | None) -> Outcome:
        began = time.monotonic()
        try:
            self._loop(pump, kernel, launcher, began)
            wait_status = launcher.status if launcher else None
            end, reason = self._end(launcher)
            detached_at = kernel_stop(kernel)
            os.setpriority(os.PRIO_PROCESS, 0, max(0, os.getpriority(os.PRIO_PROCESS, 0)))
            self._progress.clear()
            pump.finish(kernel, end, reason, launcher.exit_status() if launcher else None, detached_at, self._options.merge)
        except OSError as error:
            kernel.detach()
            self._progress.clear()
            self._close_viewer()
            self._let_command_end(launcher)
            raise self._unwritable(error, journal, pump, kernel, folder) from None
        except BaseException:
            # A defect of ours, not of the disk: what is in the rings stays for `recover`.
            kernel.detach()
            pump.abandon()
            self._close_viewer()
            raise
        if journal:
            journal.remove()
        kernel.close()
        pump.close()
        os.close(folder)
        self._close_viewer()
        return Outcome(self._path, end, wait_status, self._signal, pump.total_rows, pump.lost, time.monotonic() - began, pump.writer.size)

    def _loop(self, pump: Pump, kernel: Kernel, launcher: Launcher | None, began: float) -> None:
        """Drain until the target has ended, the time is over, or a signal came."""
        status = mmap(kernel.maps["status"].fd, PAGE, prot=PROT_READ)
        duration = self._options.duration
        small = any(ring.ring_size > self._options.ring_size(ring) for ring in (drain.table for drain in pump.drains))
        poll, noted = QUICK if small else POLL, False
        try:
            while True:
                pump.step()
                self._look_at_viewer()
                self._progress.update(pump.total_rows, pump.lost, pump.writer.size)
                ended = launcher.poll() if launcher else False
                if self._signal and self._may_stop(launcher):
                    return
                if duration is not None and time.monotonic() - began >= duration / 1e9:
                    return
                if launcher or self._options.target.pids:
                    live, _, leaving = struct.unpack_from("=qqq", status, 0)
                    live += leaving
                    # The probe sees the end of the last thread long before wait(2) does: a large memory is given back in between.
                    if ended if launcher and not self._options.wait_for_descendants else live <= 0 and (ended or not launcher):
                        return
                    if ended and live > 0 and not noted and not self._quiet:
                        self._progress.note(f"the command has ended; {live} of its descendants' threads go on (Ctrl-C ends the recording)")
                        noted = True
                if launcher and not ended:
                    launcher.wait(poll)
                else:
                    time.sleep(QUICK if ended else poll)
        finally:
            status.close()

    def _look_at_viewer(self) -> None:
        """Where the screen has closed, go on as without it."""
        if self._viewer is None or not self._viewer.poll():
            return
        self._viewer.pass_on()
        if self._progress.hidden:
            self._progress.show()
            if not self._signal and not self._quiet:
                self._progress.note(self._viewer.why())

    def _close_viewer(self) -> None:
        viewer, self._viewer = self._viewer, None
        if viewer is not None:
            viewer.close()
            self._progress.show()

    def _may_stop(self, launcher: Launcher | None) -> bool:
        """Ctrl-C reaches the command as well: what it does then is recorded, for a moment."""
        if launcher is None or launcher.status is not None or self._signal != signal.SIGINT:
            return True
        return time.monotonic() - self._signal_at > GRACE

    def _end(self, launcher: Launcher | None) -> tuple[str, str]:
        if not self._signal:
            return "complete", ""
        name = signal.Signals(self._signal).name
        if launcher is not None and launcher.status is None:
            return "interrupted", f"{name} while the command was running"
        return "complete", f"stopped by {name}"

    def _let_command_end(self, launcher: Launcher | None) -> None:
        """Wait for the command, which runs on unrecorded, so that its terminal and its exit are not cut off."""
        while launcher is not None and not launcher.poll() and not self._signal:
            time.sleep(QUICK)

    def _unwritable(self, error: OSError, journal: Journal | None, pump: Pump, kernel: Kernel, folder: int) -> RecordingError:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        saved = f"{pump.total_rows} events are in the trace"
        waiting = sum(drain.pending for drain in pump.drains)
        kernel.note_stop(error.errno or EIO)
        pump.abandon()
        if os.fstat(folder).st_nlink == 0:
            if journal:
                journal.remove()
            saved, hint = "its folder was removed", "record again, and leave the folder in place"
        elif journal:
            recover = shlex.join(["sudo", sys.argv[0], "recover", str(self._path)])
            hint = f"make room, then run: {recover} (the rest, {format_size(waiting)}, waits in the kernel)"
        else:
            hint = "make room and record again"
        kernel.close()
        return RecordingError(f"{self._path}: {reason}; recording stopped, {saved}", hint)


def kernel_stop(kernel: Kernel) -> int:
    """Detach the probes, look at what goes on at once, and return when that was."""
    kernel.detach()
    detached_at = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    kernel.look_at_the_end()
    return detached_at


def keep_freed_memory() -> None:
    """Let the C library keep what is freed: each second's columns would come from fresh pages, which cost more than to fill them.

    mallopt(3) of glibc and its likes; where there is none, nothing changes.
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(parameter, 1 << 30)
