"""Private disks: loop devices on files, one of which can be made to stand still, and what the kernel itself counts of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kernel.recording import wait_for

MIB = 1 << 20


class Counts(NamedTuple):
    """Completed requests of a disk by kind, and the bytes of those that carry data (/proc/diskstats)."""

    reads: int
    bytes_read: int
    writes: int
    bytes_written: int
    discards: int
    bytes_discarded: int
    flushes: int

    def since(self, before: Counts) -> Counts:
        return Counts(*(now - then for now, then in zip(self, before, strict=True)))


class Disk:
    """A loop device."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = Path(path).name
        self.queue = Path("/sys/block", self.name, "queue")

    @property
    def number(self) -> int:
        major, minor = Path("/sys/block", self.name, "dev").read_text().split(":")
        return int(major) << 20 | int(minor)

    def counts(self) -> Counts:
        fields = next(line.split()[3:] for line in Path("/proc/diskstats").read_text().splitlines() if line.split()[2] == self.name)
        number = [int(field) for field in fields]
        return Counts(number[0], number[2] * 512, number[4], number[6] * 512, number[11], number[13] * 512, number[15])

    @property
    def in_flight(self) -> int:
        """Requests that were made and have not ended, as the kernel counts them."""
        return sum(int(field) for field in Path("/sys/block", self.name, "inflight").read_text().split())


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode:
        pytest.skip(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def loop(file: Path, size: int = 64 * MIB, *options: str) -> Iterator[Disk]:
    """Make a loop device on a new file, and take it away in any case."""
    with file.open("wb") as made:
        made.truncate(size)
    path = run("losetup", "--find", "--show", *options, file)
    try:
        disk = Disk(path)
        wait_for(lambda: disk.in_flight == 0, "whoever looks at new disks has done so")
        yield disk
    finally:
        subprocess.run(["losetup", "--detach", path], check=True, timeout=60)


@contextmanager
def freezable(folder: Path) -> Iterator[tuple[Disk, Freezer]]:
    """Make a loop device on a file of a file system of its own; while that is frozen, writes to the device stay at the device."""
    with loop(folder / "outer.img") as outer:
        run("mkfs.ext4", "-q", "-O", "^has_journal", outer.path)
        mount = folder / "mount"
        mount.mkdir()
        run("mount", outer.path, mount)
        freezer = Freezer(mount)
        try:
            with loop(mount / "inner.img", 8 * MIB) as inner:
                try:
                    yield inner, freezer
                finally:
                    freezer.thaw()
        finally:
            subprocess.run(["umount", mount], check=True, timeout=60)


class Freezer:
    """Freezes a file system and thaws it."""

    def __init__(self, mount: Path) -> None:
        self._mount = mount
        self._frozen = False

    def freeze(self) -> None:
        run("fsfreeze", "--freeze", self._mount)
        self._frozen = True

    def thaw(self) -> None:
        if self._frozen:
            self._frozen = False
            subprocess.run(["fsfreeze", "--unfreeze", self._mount], check=True, timeout=60)
