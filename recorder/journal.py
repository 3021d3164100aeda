"""The journal: the rings of a recording, pinned in bpffs so that a killed recorder loses nothing.

A journal is the folder ``/sys/fs/bpf/ringtape/<trace id>`` with one pin per ring (``ring_<table>_<index>``), per counter
map (``counters_<table>``), for the loss ledger (``losses``), for what has begun and not ended (``<table>_open``), and for maps
that hold the path of the trace (``trace``) and the names of the tables that the ledger numbers (``numbers``).
It belongs to the invoking user, so that the recorder can remove it after it has given up its privileges.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ringtape.recorder import bpf

BPFFS = Path("/sys/fs/bpf")
ROOT = BPFFS / "ringtape"
TRACE_PIN = "trace"
NUMBERS_PIN = "numbers"
NAME_MAX = 64
PATH_MAX = 4096
TRACE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Journal:
    """A folder of pins, held open by ``descriptor`` so that it can be removed without passing through its parents."""

    path: Path
    descriptor: int
    parent: int

    @classmethod
    def create(cls, trace_id: str, uid: int, gid: int) -> Journal:
        """Make the folder of a new recording.

        Raises
        ------
        OSError
            If bpffs is not mounted or not writable.
        """
        if not is_mounted():
            raise FileNotFoundError(2, "bpffs is not mounted", str(BPFFS))
        ROOT.mkdir(exist_ok=True)
        with contextlib.suppress(PermissionError):  # made by root, for whom it is meant
            ROOT.chmod(0o1777)  # each user removes his own journal, without privileges, and no other's
        path = ROOT / trace_id
        path.mkdir(mode=0o700)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.chown(path, uid, gid)
        return cls(path, os.open(path, flags), os.open(ROOT, flags))

    def pin(self, descriptor: int, name: str, uid: int, gid: int) -> None:
        """Pin a map for its owner."""
        bpf.pin(descriptor, str(self.path / name))
        os.chown(self.path / name, uid, gid)

    def pin_path(self, trace: Path, uid: int, gid: int) -> None:
        """Pin the path of the trace, so that a later reader of the journal knows what it belongs to."""
        where = bpf.create_map("trace", bpf.MapType.ARRAY, 4, PATH_MAX, 1)
        where.update(bytes(4), os.fsencode(trace)[:PATH_MAX].ljust(PATH_MAX, b"\0"))
        self.pin(where.fd, TRACE_PIN, uid, gid)
        where.close()

    def pin_numbers(self, names: Sequence[str], uid: int, gid: int) -> None:
        """Pin the names of the tables in the order in which the loss ledger numbers them: another version may declare others."""
        where = bpf.create_map("numbers", bpf.MapType.ARRAY, 4, NAME_MAX, len(names))
        for number, name in enumerate(names):
            where.update(number.to_bytes(4, sys.byteorder), name.encode().ljust(NAME_MAX, b"\0"))
        self.pin(where.fd, NUMBERS_PIN, uid, gid)
        where.close()

    def remove(self) -> None:
        """Remove the pins and the folder; the kernel frees what nothing else holds."""
        for name in os.listdir(self.descriptor):  # noqa: PTH208 - pathlib knows no descriptors
            os.unlink(name, dir_fd=self.descriptor)
        os.rmdir(self.path.name, dir_fd=self.parent)
        os.close(self.descriptor)
        os.close(self.parent)

    @classmethod
    def open(cls, trace_id: str) -> Journal:
        """Open the journal of a recording that was cut off.

        Raises
        ------
        OSError
            If it is gone, for example because the machine was restarted.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return cls(ROOT / trace_id, os.open(ROOT / trace_id, flags), os.open(ROOT, flags))

    @property
    def owner(self) -> int:
        """User whose recording it is."""
        return os.fstat(self.descriptor).st_uid

    def maps(self) -> dict[str, bpf.Map]:
        """Return every pinned map by the name of its pin."""
        names = set(os.listdir(self.descriptor)) - {TRACE_PIN}  # noqa: PTH208 - pathlib knows no descriptors
        return {name: bpf.get_pinned_map(f"/proc/self/fd/{self.descriptor}/{name}") for name in names}


def numbered_tables(numbers: bpf.Map) -> list[str]:
    """Return the names that `Journal.pin_numbers` has pinned."""
    values = [numbers.lookup(number.to_bytes(4, sys.byteorder)) or b"" for number in range(numbers.max_entries)]
    return [value.rstrip(b"\0").decode() for value in values]


def is_mounted() -> bool:
    """Return whether bpffs is mounted at its usual place."""
    return any(line.split()[1:3] == [str(BPFFS), "bpf"] for line in Path("/proc/self/mounts").read_text().splitlines())


def mount() -> bool:
    """Mount bpffs where root finds it missing, as bpftool does; return whether it is mounted now."""
    if not is_mounted() and os.geteuid() == 0 and BPFFS.is_dir():
        subprocess.run(["mount", "-t", "bpf", "-o", "mode=0700", "bpf", str(BPFFS)], check=False, capture_output=True)
    return is_mounted()


def left_behind() -> list[Path]:
    """Return the journals that hold pins: of recordings that go on, and of such that were killed."""
    try:
        return sorted(path for path in ROOT.iterdir() if TRACE_ID.fullmatch(path.name) and any(path.iterdir()))
    except OSError:
        return []


def trace_of(path: Path) -> Path | None:
    """Return the trace that a journal belongs to; None where this user may not look."""
    try:
        where = bpf.get_pinned_map(str(path / TRACE_PIN))
    except OSError:
        return None
    value = where.lookup(bytes(4))
    where.close()
    return Path(os.fsdecode(value.rstrip(b"\0"))) if value else None
