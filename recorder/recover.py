"""Completing a trace whose recorder was killed: the part of it that needs privileges.

The manifest is read as the owner of the folder, the pins are opened with the caller's privileges, and these are given
up before anything is written (`salvage`). numpy and pyarrow come in after that: they start threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ringtape.recorder import bpf
from ringtape.recorder.journal import ROOT, TRACE_ID, Journal
from ringtape.recorder.privileges import User, acting_as, drop, import_while_readable
from ringtape.schemas import manifest as manifests
from ringtape.schemas.errors import RecordingError, TraceError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.table import tables

if TYPE_CHECKING:
    from ringtape.recorder.salvage import Recovered

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Unfinished:
    """A trace without a footer, locked for writing, and the maps that its recorder left pinned.

    ``folder`` and ``manifest`` are descriptors; ``maps`` is empty where the journal is gone.
    """

    trace: TraceFolder
    folder: int
    manifest: int
    journal: Journal | None
    maps: dict[str, bpf.Map]


def recover(path: Path) -> Recovered:
    """Complete a trace that has no footer.

    Raises
    ------
    RecordingError
        If the trace is complete, is still being recorded, its journal may not be opened, or holds records of another version.
    TraceError
        If its manifest is damaged before its last line.
    """
    owner = owner_of(path)
    with acting_as(owner):
        trace = TraceFolder.open(path)
        if trace.state == "recording":
            raise RecordingError(f"{path} is still being recorded", "end the recording first: its recorder then completes the trace itself")
    if trace.footer is not None:
        _remove_rings_of_complete(trace, owner)
        raise RecordingError(f"{path} is complete ({trace.footer.end})", "there is nothing to recover; `ringtape verify` checks it")
    with acting_as(owner):
        folder = os.open(path, _FOLDER)
        manifest = os.open(manifests.FILE, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecordingError(f"{path} is held by another process", "wait until it has finished") from None
        if os.fstat(manifest).st_ino != os.stat(manifests.FILE, dir_fd=folder).st_ino:
            raise RecordingError(f"{path} is held by another process", "its recorder has just written the manifest anew")
        # What was read before the lock may be of before another recovery, whose parts this one would take for orphans.
        trace = TraceFolder.open(path)
    if trace.footer is not None:
        raise RecordingError(f"{path} is complete ({trace.footer.end})", "another recovery has just completed it")
    journal, maps = _open_journal(trace, owner)
    _check_versions(trace, maps)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import_while_readable(owner, "ringtape.recorder.salvage")
    drop(owner)
    from ringtape.recorder.salvage import salvage

    return salvage(Unfinished(trace, folder, manifest, journal, maps))


def _check_versions(trace: TraceFolder, maps: dict[str, bpf.Map]) -> None:
    """Refuse rings whose records another version of ringtape has laid out."""
    for name, version in trace.header.tables.items():
        if f"counters_{name}" not in maps or (name in tables() and tables()[name].version == version):
            continue
        here = f"writes {tables()[name].schema_id}" if name in tables() else "has no such table"
        recorder = trace.header.tools.get("ringtape", "that recorded it")
        hint = f"nothing is lost while the machine runs: recover it with ringtape {recorder}"
        raise RecordingError(f"{trace.path}: its rings hold records of {name}@{version}, this ringtape {here}", hint)


def _remove_rings_of_complete(trace: TraceFolder, owner: User) -> None:
    """Free the rings that a recorder left which was killed after it had written the footer."""
    with contextlib.suppress(RecordingError, TraceError):  # they are not needed: whoever may not free them has lost nothing
        journal, maps = _open_journal(trace, owner)
        for one in maps.values():
            one.close()
        if journal:
            journal.remove()


def owner_of(path: Path) -> User:
    """Return as whom a trace is touched: root acts as its owner."""
    try:
        status = path.lstat()
    except OSError as error:
        raise TraceError(f"{path}: {os.strerror(error.errno or 0).lower()}", "name the folder that `ringtape record` made") from None
    if os.geteuid() != 0 or status.st_uid == 0:
        return User(os.getuid(), os.getgid(), tuple(os.getgroups()), False)
    return User(status.st_uid, status.st_gid, (status.st_gid,), True)


def _open_journal(trace: TraceFolder, owner: User) -> tuple[Journal | None, dict[str, bpf.Map]]:
    """Open the pinned maps if they are there.

    Raises
    ------
    RecordingError
        If they are there but may not be opened: without them rows would be given up that are not lost.
    TraceError
        If the trace claims the journal of another one.
    """
    if not trace.header.journal:
        return None, {}
    name = trace.header.trace_id
    if TRACE_ID.fullmatch(name) is None or Path(trace.header.journal) != ROOT / name:
        raise TraceError(f"{trace.path}: the header names the journal {trace.header.journal!r}, which is not that of its trace id")
    try:
        journal = Journal.open(name)
        if journal.owner not in (owner.uid, os.getuid()):
            raise TraceError(f"{trace.path}: the journal {journal.path} belongs to user {journal.owner}, the trace to user {owner.uid}")
        return journal, journal.maps()
    except FileNotFoundError:
        return None, {}
    except OSError as error:
        raise RecordingError(f"{ROOT / name}: {os.strerror(error.errno or 0).lower()}", "run it with sudo") from None
