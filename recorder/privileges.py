"""Who asked for the recording, and how the recorder gives up what it no longer needs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ringtape.schemas.errors import RecordingError

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAPSET = {"x86_64": 126, "aarch64": 91}
PATIENCE = 5.0
"""Seconds in which threads that have done their work must have left."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class User:
    """The person behind the recording: the one who called sudo, or whoever runs this process."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    through_sudo: bool

    @classmethod
    def invoking(cls) -> User:
        """Find out who asked; SUDO_UID counts only for root, to whom alone sudo gives it."""
        name = os.environ.get("SUDO_UID", "")
        if os.geteuid() == 0 and name.isascii() and name.isdecimal() and int(name) != 0:
            uid = int(name)
            try:
                entry = pwd.getpwuid(uid)
                return cls(uid, entry.pw_gid, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)), True)
            except KeyError:
                gid = int(os.environ.get("SUDO_GID", name))
                return cls(uid, gid, (gid,), True)
        return cls(os.getuid(), os.getgid(), tuple(os.getgroups()), False)

    def become(self) -> None:
        """Take this user's identity for good (for the command)."""
        if os.geteuid() == 0 and self.through_sudo:
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)

    def environment(self) -> dict[str, str]:
        """Return the environment for the command: under sudo the one that the user had when calling it.

        sudo replaces PATH, HOME and more; but its own process still shows what the user gave it. Where that process
        cannot be seen, the user's account fills in.
        """
        if not self.through_sudo:
            return dict(os.environ)
        found = _environment_of_sudo()
        if found is not None:
            return found
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
        try:
            entry = pwd.getpwuid(self.uid)
        except KeyError:
            return environment
        return environment | {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}


def _environment_of_sudo() -> dict[str, str] | None:
    pid = os.getppid()
    for _ in range(8):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            if Path(f"/proc/{pid}/exe").readlink().name == "sudo":
                pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                values = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
                # sudo's monitor process has the environment of root; its parent has the user's.
                if values and b"SUDO_UID" not in values:
                    return {os.fsdecode(name): os.fsdecode(value) for name, value in values.items()}
            pid = int(fields["PPid"])
        except (OSError, KeyError, ValueError):
            return None
        if pid <= 1:
            return None
    return None


@contextlib.contextmanager
def acting_as(user: User) -> Iterator[None]:
    """Touch files as the invoking user does: what he may not write, a recording for him does not write either."""
    if os.geteuid() != 0 or user.uid == 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups(user.groups)
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def import_while_readable(user: User, module: str) -> None:
    """Import a module early if the user may not read it, as in a virtual environment that lies in root's home."""
    if os.geteuid() != 0 or user.uid == 0:
        return
    with acting_as(user):
        readable = all(os.access(path, os.R_OK, effective_ids=True) for path in (__file__, os.__file__))
    if not readable:
        _renounce()  # first: the module may start threads, which keep what this one has now
        import_module(module)


def _renounce() -> None:
    """Make sure that this thread and those that it starts can never gain privileges, by exec or otherwise."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # EINVAL: beyond the last capability; EPERM: we had none to begin with
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def drop(user: User) -> None:
    """Become the invoking user without any capability, for good; to be called when no other thread goes on.

    Raises
    ------
    RecordingError
        If a thread has a capability that it does not lose within `PATIENCE`: the recorder then does not go on.
    """
    _renounce()
    if os.geteuid() == 0 and user.uid != 0:
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    nothing = ctypes.create_string_buffer(24)
    _libc.syscall(_CAPSET[os.uname().machine], header, nothing)
    # A thread that Python has joined may still be on its way out of the kernel, on a busy machine for some time.
    deadline = time.monotonic() + PATIENCE
    while any((left := capabilities()).values()) and time.monotonic() < deadline:
        time.sleep(0.001)
    if any(left.values()):
        raise RecordingError(f"capabilities could not be given up: {', '.join(name for name, mask in left.items() if mask)}")


def capabilities(pid: int | str = "self") -> dict[str, int]:
    """Return the permitted, effective, inheritable and ambient capability masks, united over all threads of a process."""
    masks = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), 0)
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (task / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        for line in status.splitlines():
            name, _, value = line.partition(":\t")
            if name in masks:
                masks[name] |= int(value, 16)
    return masks
