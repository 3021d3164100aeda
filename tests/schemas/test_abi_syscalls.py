"""The tables of system calls, compared with what the headers and the kernel of this machine say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ringtape.schemas.abi import data, syscalls
from ringtape.schemas.columns import ABI
from ringtape.schemas.errors import RingtapeError, UsageError

TRACEFS = Path("/sys/kernel/tracing/events/syscalls")
HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")
ABIS = ("x86_64", "i386", "x32", "arm64")
POINTERS = {
    "path",
    "str",
    "buf",
    "ptr",
    "iovec",
    "timespec",
    "sockaddr_in",
    "sockaddr_out",
    "addrlen_ptr",
    "fds_out",
    "msg_in",
    "msg_out",
    "msgs_in",
    "msgs_out",
}
# Names of the function in the kernel where they differ from the name in the table.
KERNEL_NAMES = {"stat": "newstat", "fstat": "newfstat", "lstat": "newlstat", "uname": "newuname", "sendfile": "sendfile64", "umount2": "umount"}


def tracefs_arguments(name: str) -> list[tuple[str, str]] | None:
    path = TRACEFS / f"sys_enter_{KERNEL_NAMES.get(name, name)}" / "format"
    try:
        fields = re.findall(r"field:(.*?)\s*(\w+);\s*offset:(\d+);", path.read_text())
    except OSError:
        return None
    return [(kind, field) for kind, field, offset in fields if int(offset) >= 16]


@pytest.mark.parametrize(("abi", "header"), [("x86_64", "unistd_64.h"), ("i386", "unistd_32.h"), ("x32", "unistd_x32.h")])
def test_every_number_of_the_installed_header_has_the_header_s_name(abi: str, header: str) -> None:
    if not (HEADERS / header).exists():
        pytest.skip(f"{HEADERS / header} is not installed")
    defined = re.findall(r"#define __NR_(\w+) (?:\(__X32_SYSCALL_BIT \+ )?(\d+)\)?", (HEADERS / header).read_text())
    bit = syscalls.X32_BIT if abi == "x32" else 0
    expected = {int(nr) | bit: name for name, nr in defined}
    ours = syscalls.names(abi)
    assert expected
    assert {nr: ours.get(nr) for nr in expected} == expected


def test_every_number_of_the_generic_header_has_the_header_s_name_on_arm64() -> None:
    header = Path("/usr/include/asm-generic/unistd.h")
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    plain = re.findall(r"#define __NR_(\w+) (\d+)", header.read_text())
    aliased = dict(re.findall(r"#define __NR3264_(\w+) (\d+)", header.read_text()))
    expected = {int(nr): name for name, nr in plain if not 244 <= int(nr) < 260 and not 403 <= int(nr) <= 423 and "syscalls" not in name}
    ours = syscalls.names("arm64")
    assert {nr: ours.get(nr) for nr in expected} == expected
    assert {ours[int(nr)] for nr in aliased.values()} >= {"fcntl", "lseek", "mmap", "fstat", "newfstatat", "statfs", "sendfile", "fadvise64"}


def test_every_call_of_the_running_kernel_is_in_the_table() -> None:
    if not TRACEFS.exists():
        pytest.skip("tracefs is not readable here")
    back = {kernel: name for name, kernel in KERNEL_NAMES.items()}
    listed = {path.name.removeprefix("sys_enter_") for path in TRACEFS.glob("sys_enter_*")}
    known = {name for abi in ABIS for name in syscalls.names(abi).values()}
    assert {back.get(name, name) for name in listed} - known == set()


def test_arguments_agree_with_the_prototypes_of_the_running_kernel() -> None:
    prototypes = {nr: tracefs_arguments(name) for nr, name in syscalls.names("x86_64").items()}
    listed = {nr: prototype for nr, prototype in prototypes.items() if prototype is not None}
    if not listed:
        pytest.skip("tracefs is not readable here")
    assert len(listed) > 300
    for nr, prototype in listed.items():
        ours = syscalls.signature("x86_64", nr)
        assert ours is not None
        assert len(ours) == len(prototype) == syscalls.arity("x86_64", nr), syscalls.names("x86_64")[nr]
        for argument, (kind, _) in zip(ours, prototype, strict=True):
            where = (syscalls.names("x86_64")[nr], argument, kind)
            if "*" in kind:
                assert argument.type in POINTERS, where
            if argument.type in POINTERS - {"ptr"}:
                assert "*" in kind, where


@pytest.mark.parametrize("name", ["x86_64", "i386", "arm64", "signatures"])
def test_no_line_stands_twice(name: str) -> None:
    keys = [row[0] for row in data.rows(name)]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("abi", ABIS)
def test_no_name_stands_twice_in_an_abi(abi: str) -> None:
    names = list(syscalls.names(abi).values())
    assert len(names) == len(set(names))


def test_every_signature_belongs_to_a_call_and_uses_the_documented_types() -> None:
    words = {
        "int",
        "uint",
        "long",
        "size",
        "hex",
        "mode",
        "filemode",
        "fd",
        "dirfd",
        "pid",
        "uid",
        "gid",
        "signal",
        "off",
        "off_lo",
        "off_hi",
        "unused",
        "dev",
    }
    sets = {row[0] for row in data.rows("constants")}
    known = {name for abi in ABIS for name in syscalls.names(abi).values()}
    for key, arguments in data.rows("signatures"):
        name, _, abi = key.partition("@")
        assert name in (syscalls.names(abi).values() if abi else known)
        for part in arguments.split(", ") if arguments else ():
            kind = part.split(":", 1)[1]
            family, _, chosen = kind.partition(":")
            assert (family in ("flags", "enum") and chosen in sets) or kind in words | POINTERS | {"addrlen"}, (key, part)


@pytest.mark.parametrize("abi", ABIS)
def test_only_calls_that_no_supported_kernel_implements_have_no_signature(abi: str) -> None:
    without = {name for nr, name in syscalls.names(abi).items() if syscalls.signature(abi, nr) is None}
    assert without <= {
        "create_module", "get_kernel_syms", "query_module", "nfsservctl", "getpmsg", "putpmsg", "afs_syscall", "tuxcall", "security",
        "epoll_ctl_old", "epoll_wait_old", "vserver", "break", "stty", "gtty", "ftime", "prof", "lock", "mpx", "ulimit", "profil", "idle",
    }  # fmt: skip
    assert all(syscalls.arity(abi, nr) == 6 for nr, name in syscalls.names(abi).items() if name in without)


def test_newest_calls_are_known_under_one_number_everywhere() -> None:
    for name, nr in {"statmount": 457, "mseal": 462, "setxattrat": 463, "file_getattr": 468, "listns": 470, "rseq_slice_yield": 471}.items():
        assert {syscalls.number(abi, name) for abi in ("x86_64", "i386", "arm64")} == {nr}
        assert syscalls.number("x32", name) == nr | 0x40000000


def test_x32_has_its_own_numbers_from_512_on_and_shares_the_rest() -> None:
    x32 = syscalls.names("x32")
    assert x32[0x40000000] == "read"
    assert x32[0x40000000 | 520] == "execve"
    assert 0x40000000 | 59 not in x32
    assert 520 not in syscalls.names("x86_64")
    assert syscalls.strings("x32", 0x40000000 | 520) == syscalls.strings("x86_64", 59)


def test_strings_are_the_paths_and_socket_addresses_of_a_call() -> None:
    def of(name: str, abi: str = "x86_64") -> list[tuple[int, str, int | None]]:
        return [tuple(string) for string in syscalls.strings(abi, syscalls.number(abi, name))]

    assert of("openat") == [(1, "path", None)]
    assert of("execve") == [(0, "path", None)]
    assert of("renameat2") == [(1, "path", None), (3, "path", None)]
    assert of("mount") == [(0, "path", None), (1, "path", None)]
    assert of("setxattr") == [(0, "path", None)]
    assert of("symlinkat") == [(0, "path", None), (2, "path", None)]
    assert of("fanotify_mark") == [(4, "path", None)]
    assert of("fanotify_mark", "i386") == [(5, "path", None)]
    assert of("connect") == of("bind") == [(1, "sockaddr_in", 2)]
    assert of("sendto") == [(4, "sockaddr_in", 5)]
    assert of("accept4") == of("accept") == of("getsockname") == of("getpeername") == [(1, "sockaddr_out", 2)]
    assert of("recvfrom") == [(4, "sockaddr_out", 5)]
    assert of("pipe2") == of("pipe", "i386") == [(0, "fds_out", None)]
    assert of("socketpair") == [(3, "fds_out", None)]
    assert of("sendmsg") == [(1, "msg_in", None)]
    assert of("recvmsg", "i386") == [(1, "msg_out", None)]
    assert of("sendmmsg") == [(1, "msgs_in", 2)]
    assert of("recvmmsg") == of("recvmmsg_time64", "i386") == [(1, "msgs_out", 2)]
    assert of("read") == []


def test_arguments_that_differ_between_abis() -> None:
    def kinds(abi: str, name: str) -> list[str]:
        return [argument.name for argument in syscalls.signature(abi, syscalls.number(abi, name)) or ()]

    assert kinds("x86_64", "clone") == ["flags", "stack", "parent_tid", "child_tid", "tls"]
    assert kinds("i386", "clone") == kinds("arm64", "clone") == ["flags", "stack", "parent_tid", "tls", "child_tid"]
    assert syscalls.arity("x86_64", 17) == 4
    assert syscalls.arity("i386", syscalls.number("i386", "pread64")) == 5
    assert syscalls.arity("i386", syscalls.number("i386", "mmap2")) == 6
    assert syscalls.arity("i386", syscalls.number("i386", "mmap")) == 1


def test_abi_codes_come_from_the_column() -> None:
    assert {number: name for name, number in syscalls.ABI_IDS.items()} == dict(ABI.values)


def test_machines_and_their_compat_abis() -> None:
    assert syscalls.native_abi("x86_64") == "x86_64"
    assert syscalls.native_abi("aarch64") == "arm64"
    assert syscalls.compat_abi("x86_64") == "i386"
    assert syscalls.compat_abi("arm64") is None
    with pytest.raises(RingtapeError, match="machine 'riscv64' is not supported"):
        syscalls.native_abi("riscv64")


def test_unknown_names_are_refused_with_close_matches() -> None:
    with pytest.raises(UsageError, match="unknown system call 'opne'") as caught:
        syscalls.number("x86_64", "opne")
    assert caught.value.hint is not None
    assert "open" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        syscalls.number("arm64", "open")
    assert caught.value.hint == "x86_64 has it, arm64 has not"
    with pytest.raises(UsageError, match="unknown ABI 'vax'"):
        syscalls.names("vax")


def test_an_unknown_number_has_no_signature_and_six_arguments() -> None:
    assert syscalls.signature("x86_64", 100_000) is None
    assert syscalls.arity("x86_64", 100_000) == 6
    assert syscalls.strings("x86_64", 100_000) == ()
    assert syscalls.names("arm") == {}


def test_importing_the_tables_stays_cheap_for_the_privileged_process() -> None:
    import sys

    code = "import sys; import ringtape.schemas.abi.syscalls; print(sorted({'numpy', 'pyarrow', 'polars', 'difflib'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": "src"}, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
