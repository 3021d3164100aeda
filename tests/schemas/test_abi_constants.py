"""Flags and constants by name, compared with the modules of Python that carry the same constants."""

from __future__ import annotations

import fcntl
import mmap
import os
import platform
import resource
import select
import socket
from types import ModuleType

import pytest

from ringtape.schemas.abi import data
from ringtape.schemas.abi.constants import constants, flags, one
from ringtape.schemas.errors import UsageError

MODULES: tuple[tuple[ModuleType, str, tuple[str, ...]], ...] = (
    (os, "O_", ("open",)),
    (mmap, "MAP_", ("mmap",)),
    (mmap, "PROT_", ("prot",)),
    (mmap, "MADV_", ("madvise",)),
    (socket, "AF_", ("socket_family",)),
    (socket, "SOCK_", ("socket_type",)),
    (socket, "MSG_", ("msg",)),
    (socket, "SO_", ("so",)),
    (socket, "TCP_", ("tcp",)),
    (socket, "SOL_", ("sol",)),
    (fcntl, "F_", ("fcntl", "seals")),
    (fcntl, "LOCK_", ("flock",)),
    (os, "CLONE_", ("clone",)),
    (os, "SEEK_", ("whence",)),
    (os, "GRND_", ("getrandom",)),
    (os, "MFD_", ("memfd",)),
    (os, "SPLICE_F_", ("splice",)),
    (resource, "RLIMIT_", ("rlimit",)),
    (select, "EPOLL_CLOEXEC", ("epoll_create",)),
)
# glibc gives these the value of its own structures (or none): the kernel's differ.
DIFFERENT = {"O_LARGEFILE", "F_GETLK64", "F_SETLK64", "F_SETLKW64"}


@pytest.mark.parametrize(("module", "prefix", "sets"), MODULES, ids=[f"{module.__name__}.{prefix}" for module, prefix, _ in MODULES])
def test_constants_that_python_has_too_are_the_same(module: ModuleType, prefix: str, sets: tuple[str, ...]) -> None:
    abi = "arm64" if platform.machine() == "aarch64" else "x86_64"
    compared = 0
    for name in sets:
        for constant in constants(name, abi):
            theirs = getattr(module, constant.name, None) if constant.name.startswith(prefix) else None
            if theirs is not None and constant.name not in DIFFERENT:
                assert constant.value == int(theirs) & 0xFFFFFFFF, constant.name
                compared += 1
    if not compared:
        pytest.skip(f"this Python's {module.__name__} has no {prefix}*")


def test_no_name_stands_twice_in_a_set_and_no_value_reaches_beyond_its_mask() -> None:
    keys = [(row[0], row[2]) for row in data.rows("constants")]
    assert len(keys) == len(set(keys))
    for name in {row[0] for row in data.rows("constants")}:
        for constant in constants(name):
            assert constant.value & ~constant.mask == 0, constant


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("open", 0, "O_RDONLY"),
        ("open", 0o2102, "O_RDWR|O_CREAT|O_APPEND"),
        ("open", 0o20200000 | 2, "O_RDWR|O_TMPFILE"),
        ("open", 0o4010001, "O_WRONLY|O_SYNC"),
        ("open", 0o10001, "O_WRONLY|O_DSYNC"),
        ("open", 3, "O_ACCMODE"),
        ("open", 0x40000000, "O_RDONLY|0x40000000"),
        ("access", 0, "F_OK"),
        ("access", 6, "W_OK|R_OK"),
        ("mmap", 0x22, "MAP_PRIVATE|MAP_ANONYMOUS"),
        ("socket_type", 0x80801, "SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK"),
        ("futex", 0x80, "FUTEX_WAIT_PRIVATE"),
        ("futex", 0x189, "FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME"),
        ("clone", 0x1200011, "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD"),
        ("clone", 0x80, "CLONE_NEWTIME"),
        ("msg", 0x4040, "MSG_DONTWAIT|MSG_NOSIGNAL"),
        ("at", 0, "0"),
        ("prot", -1, "PROT_READ|PROT_WRITE|PROT_EXEC|PROT_SEM|PROT_GROWSDOWN|PROT_GROWSUP|0xfcfffff0"),
    ],
)
def test_flags_are_shown_by_name(name: str, value: int, text: str) -> None:
    assert flags(name, value, "x86_64") == text


def test_open_flags_of_arm64_have_their_own_bits() -> None:
    assert flags("open", 0o40000, "arm64") == "O_RDONLY|O_DIRECTORY"
    assert flags("open", 0o40000, "x86_64") == "O_RDONLY|O_DIRECT"


def test_one_value_is_shown_by_name_and_negative_ones_too() -> None:
    assert one("rusage", 0xFFFFFFFF) == one("rusage", -1) == "RUSAGE_CHILDREN"
    assert one("ioctl", 0x5401) == "TCGETS"
    assert one("ioctl", 0xDEADBEEF) == "0xdeadbeef"
    with pytest.raises(UsageError, match="unknown set of constants 'opne'"):
        constants("opne")
