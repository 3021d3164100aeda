"""Calls as text; the expected lines follow from the manual pages and from strace's way of writing."""

from __future__ import annotations

import struct

import pytest

from ringtape.analysis.decode.calls import ADDRESSES, ARGV, CHILD, DESCRIPTORS, NO_RETURN, PATH, SOCKADDR, UNFINISHED, Text, call, result
from ringtape.analysis.decode.events import event
from ringtape.analysis.decode.lines import json_string, plain
from ringtape.analysis.decode.sockaddr import sockaddr
from ringtape.schemas.abi.syscalls import names, number


def shown(name: str, *args: int, abi: str = "x86_64", **texts: Text) -> str:
    padded = [*args, *[0] * (6 - len(args))]
    return call(abi, number(abi, name), padded, {int(key[1:]): text for key, text in texts.items()})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (shown("read", 3, 0x7FFC0, 832), "read(3, 0x7ffc0, 832)"),
        (shown("close", 0xFFFFFFFF), "close(-1)"),
        (shown("getpid"), "getpid()"),
        (shown("openat", 0xFFFFFF9C, 1, 0o2000000, 0o644, a1=Text(PATH, b"/etc/passwd")), 'openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC)'),
        (shown("openat", 5, 1, 0o1101, 0o644, a1=Text(PATH, b"x")), 'openat(5, "x", O_WRONLY|O_CREAT|O_TRUNC, 0644)'),
        (shown("open", 1, 0, a0=Text(PATH, b"a" * 3, True)), 'open("aaa"..., O_RDONLY)'),
        (shown("open", 0, 0), "open(NULL, O_RDONLY)"),
        (shown("open", 0xDEAD0000, 0), "open(0xdead0000, O_RDONLY)"),
        (
            shown("mmap", 0, 4096, 3, 0x22, -1, 0),
            "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0)",
        ),
        (shown("lseek", 4, -1, 2), "lseek(4, -1, SEEK_END)"),
        (shown("kill", 0xFFFFFFFF, 15), "kill(-1, SIGTERM)"),
        (shown("chown", 1, 0xFFFFFFFF, 100, a0=Text(PATH, b"f")), 'chown("f", -1, 100)'),
        (shown("mkdir", 1, 0o755, a0=Text(PATH, b"d")), 'mkdir("d", 0755)'),
        (shown("mknod", 1, 0o020666, 0x103, a0=Text(PATH, b"n")), 'mknod("n", S_IFCHR|0666, makedev(0x1, 0x3))'),
        (shown("fcntl", 3, 1, 7), "fcntl(3, F_GETFD)"),
        (shown("fcntl", 3, 2, 1), "fcntl(3, F_SETFD, FD_CLOEXEC)"),
        (shown("fcntl", 3, 4, 0o4002), "fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK)"),
        (shown("fcntl", 3, 1030, 10), "fcntl(3, F_DUPFD_CLOEXEC, 10)"),
        (shown("futex", 0x1000, 0x80, 2, 0), "futex(0x1000, FUTEX_WAIT_PRIVATE, 2, NULL)"),
        (shown("futex", 0x1000, 0x81, 0x7FFFFFFF, 99, 99, 99), "futex(0x1000, FUTEX_WAKE_PRIVATE, 2147483647)"),
        (
            shown("futex", 0x1000, 0x189, 0, 0, 0, 0xFFFFFFFF),
            "futex(0x1000, FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME, 0, NULL, FUTEX_BITSET_MATCH_ANY)",
        ),
        (
            shown("clone", 0x1200011, 0, 0, 0x7F10, 0),
            "clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f10)",
        ),
        (shown("mremap", 0x1000, 4096, 8192, 1, 5), "mremap(0x1000, 4096, 8192, MREMAP_MAYMOVE)"),
        (shown("socket", 2, 0o2000001, 6), "socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_TCP)"),
        (shown("socket", 16, 3, 0), "socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)"),
        (shown("setsockopt", 3, 1, 2, 0x10, 4), "setsockopt(3, SOL_SOCKET, SO_REUSEADDR, 0x10, 4)"),
        (shown("setsockopt", 3, 6, 1, 0x10, 4), "setsockopt(3, SOL_TCP, TCP_NODELAY, 0x10, 4)"),
        (shown("prctl", 1, 9, 1, 2, 3), "prctl(PR_SET_PDEATHSIG, SIGKILL)"),
        (shown("ioctl", 1, 0x5413, 0x7F), "ioctl(1, TIOCGWINSZ, 0x7f)"),
        (shown("wait4", 0xFFFFFFFF, 0, 1, 0), "wait4(-1, NULL, WNOHANG, NULL)"),
        (shown("execve", 1, 2, 3, a0=Text(PATH, b"/bin/ls"), a1=Text(ARGV, b"ls\0-l\0\0")), 'execve("/bin/ls", ["ls", "-l", ""], 0x3)'),
        (shown("renameat2", -100, 1, 3, 1, 1, a1=Text(PATH, b"a"), a3=Text(PATH, b"b")), 'renameat2(AT_FDCWD, "a", 3, "b", RENAME_NOREPLACE)'),
        (shown("pread64", 3, 0x10, 5, 1, 1, abi="i386"), "pread64(3, 0x10, 5, 4294967297)"),
        (shown("preadv", 3, 0x10, 5, 64, 0), "preadv(3, 0x10, 5, 64)"),
        (shown("mmap2", 0, 4096, 1, 2, 0xFFFFFFFF, 1, abi="i386"), "mmap2(NULL, 4096, PROT_READ, MAP_PRIVATE, -1, 0x1)"),
        (shown("openat", -100, 1, 0o40000, abi="arm64", a1=Text(PATH, b".")), 'openat(AT_FDCWD, ".", O_RDONLY|O_DIRECTORY)'),
        (call("x86_64", 9999, [1, 0, 3, 0, 0, 0]), "syscall_0x270f(0x1, 0, 0x3, 0, 0, 0)"),
    ],
)  # fmt: skip
def test_a_call_reads_as_strace_writes_it(text: str, expected: str) -> None:
    assert text == expected


def test_hostile_names_cannot_break_out_of_their_quotes_and_stay_distinct() -> None:
    hostile = b'a"b\\\n\x1b[31m\xff'
    assert shown("chdir", 1, a0=Text(PATH, hostile)) == 'chdir("a\\"b\\\\\\n\\x1b[31m\\xff")'
    assert shown("chdir", 1, a0=Text(PATH, b"\\x1b")) != shown("chdir", 1, a0=Text(PATH, b"\x1b"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\x02\x00\x01\xbb\x08\x08\x04\x04" + bytes(8), '{sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("8.8.4.4")}'),
        (
            b"\x0a\x00\x00\x50" + bytes(4) + bytes(15) + b"\x01" + b"\x02\0\0\0",
            '{sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=2}',
        ),
        (b"\x01\x00/run/x.sock\0rest", '{sa_family=AF_UNIX, sun_path="/run/x.sock"}'),
        (b"\x01\x00", "{sa_family=AF_UNIX}"),
        (b"\x01\x00\0ab\0c", '{sa_family=AF_UNIX, sun_path=@"ab\\0c"}'),
        (b"\x10\x00\0\0\x07\0\0\0\x01\0\0\0", "{sa_family=AF_NETLINK, nl_pid=7, nl_groups=00000001}"),
        (b"\x02\x00\x01", '{sa_family=AF_INET, sa_data="\\x01"}'),
        (b"\x63\x00ab", '{sa_family=0x63, sa_data="ab"}'),
        (b"\x02", '"\\x02"'),
        (b"", '""'),
    ],
)  # fmt: skip
def test_socket_addresses(value: bytes, expected: str) -> None:
    assert sockaddr(value) == expected


def test_an_address_that_the_kernel_filled_in_shows_its_length() -> None:
    address = Text(SOCKADDR, b"\x01\x00")
    assert shown("accept4", 3, 0x10, 0x20, 0o2000000, a1=address) == "accept4(3, {sa_family=AF_UNIX}, [2], SOCK_CLOEXEC)"
    assert shown("accept4", 3, 0, 0, 0) == "accept4(3, NULL, NULL, 0)"


@pytest.mark.parametrize(
    ("name", "args", "ret", "kind", "expected"),
    [
        ("open", [], -2, 0, "-1 ENOENT (No such file or directory)"),
        ("read", [], -512, 0, "? ERESTARTSYS (To be restarted if SA_RESTART is set)"),
        ("nanosleep", [], -516, 0, "? ERESTART_RESTARTBLOCK (Interrupted by signal)"),
        ("ioctl", [], -515, 0, "-1 ENOIOCTLCMD (No ioctl command)"),
        ("mmap", [], 0x7F0000001000, 0, "0x7f0000001000"),
        ("mmap", [], -12, 0, "-1 ENOMEM (Cannot allocate memory)"),
        ("umask", [], 0o22, 0, "022"),
        ("poll", [], 0, 0, "0 (Timeout)"),
        ("fcntl", [3, 3], 0o100002, 0, "0x8002 (flags O_RDWR|O_LARGEFILE)"),
        ("fcntl", [3, 1], 1, 0, "0x1 (flags FD_CLOEXEC)"),
        ("lseek", [], 1 << 40, 0, "1099511627776"),
        ("lseek", [], -5000, 0, "-5000"),
        ("exit_group", [], 0, NO_RETURN, "?"),
        ("clone", [], 0, CHILD, "0"),
    ],
)
def test_results(name: str, args: list[int], ret: int, kind: int, expected: str) -> None:
    assert result("x86_64", number("x86_64", name), [*args, *[0] * (6 - len(args))], ret, kind) == expected


def test_how_a_call_began_and_ended_is_shown() -> None:
    assert plain("pause()", "?", UNFINISHED) == "pause( <unfinished ...>"
    assert plain("read(0, 0x1, 5)", "5", 2) == "read(0, 0x1, 5 <running at attach>)     = 5"
    assert plain("exit_group(0)", "?", NO_RETURN) == "exit_group(0)".ljust(39) + " = ?"
    assert plain("clone(NULL)", "0", CHILD) == "clone(...)".ljust(39) + " = 0 <child>"


@pytest.mark.parametrize("abi", ["x86_64", "i386", "x32", "arm64"])
def test_every_call_decodes_whatever_its_arguments_are(abi: str) -> None:
    for nr, name in names(abi).items():
        for value in (0, -1, 1 << 63, 0x7FFFFFFF):
            signed = value - (1 << 64) if value >> 63 == 1 else value
            text = call(abi, nr, [signed] * 6)
            assert text.startswith(f"{name}(")
            assert text.endswith(")")
            assert result(abi, nr, [signed] * 6, signed)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"kind": 3, "exit_code": 3, "exit_signal": 0}, "+++ exited with 3 +++"),
        ({"kind": 3, "exit_code": 0, "exit_signal": 9}, "+++ killed by SIGKILL +++"),
        ({"kind": 1, "clone_flags": 0x11, "creator": 7, "comm": b"sh\0"}, '+++ process created by 7: "sh" +++'),
        ({"kind": 1, "clone_flags": 0x10F00, "creator": 7, "comm": b"sh"}, '+++ thread created by 7: "sh" +++'),
        ({"kind": 2, "file": b"/bin/ls", "argv": b"ls\0a b\0", "cut": 0, "creator": 5, "tid": 5}, '+++ executes "/bin/ls" ["ls", "a b"] +++'),
        ({"kind": 2, "file": b"/x", "argv": b"", "cut": 0, "creator": 6, "tid": 5}, '+++ executes "/x" [] (was thread 6) +++'),
        ({"kind": 4, "comm": b"new\nname"}, '+++ renamed to "new\\nname" +++'),
        ({"kind": 0, "comm": b"bash"}, '+++ running already: "bash" +++'),
    ],
)
def test_process_events(row: dict[str, object], expected: str) -> None:
    assert event(row) == expected


def test_strings_in_json_keep_every_byte() -> None:
    assert json_string("caf\u00e9 \\x41\n".encode()) == {"value": "caf\u00e9 \\x41\n"}
    assert json_string(b"\xff\\") == {"value": "\\xff\\\\", "hex": "ff5c"}


def test_messages_show_the_addresses_that_were_recorded() -> None:
    where = struct.pack("<HHI", 2, 0x3500, 0x0100007F) + bytes(8)
    text = '{sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.1")}'
    args = [3, 0x1000, 2, 0, 0, 0]
    assert call("x86_64", number("x86_64", "sendmsg"), args, {1: Text(SOCKADDR, where)}) == f"sendmsg(3, {{msg_name={text}, ...}}, MSG_PEEK)"
    many = struct.pack("<I", 16) + where.ljust(28, b"\0") + bytes(32)
    shown = call("x86_64", number("x86_64", "sendmmsg"), args, {1: Text(ADDRESSES, many, True)})
    assert shown == f"sendmmsg(3, [{{msg_hdr={{msg_name={text}, ...}}, ...}}, {{msg_hdr={{msg_name=NULL, ...}}, ...}}, ...], 2, 0)"
    assert call("x86_64", number("x86_64", "sendmsg"), args) == "sendmsg(3, 0x1000, MSG_PEEK)"


def test_descriptors_that_a_call_gave_back_stand_in_brackets():
    pair = Text(DESCRIPTORS, struct.pack("<ii", 3, 40))
    assert call("x86_64", 293, [0x1000, 0o2000000, 0, 0, 0, 0], {0: pair}) == "pipe2([3, 40], O_CLOEXEC)"
    assert call("x86_64", 53, [1, 1, 0, 0x1000, 0, 0], {3: pair}) == "socketpair(AF_UNIX, SOCK_STREAM, 0, [3, 40])"
    assert call("x86_64", 22, [0, 0, 0, 0, 0, 0]) == "pipe(NULL)"
