"""Strings that nobody should print are stored byte for byte: paths, socket addresses, arguments."""

import socket
import struct
import subprocess

import pytest

from ringtape.schemas.escape import escape
from tests.kernel.recording import ringtape

OPEN, CONNECT, BIND, BAD_PATH, BAD_ADDRESS, RENAME, SENDTO, UNMAPPED_END = range(8)
PATH, SOCKADDR = 0, 1
EXEC = 2

HOSTILE = {
    "terminal escapes": b"/tmp/\x1b[2J\x1b]0;owned\x07\x1b[31m",
    "invalid UTF-8": b"/tmp/\xff\xfe\xc3\x28\xed\xa0\x80",
    "new lines": b"/tmp/a\nb\r\nc\td",
    "every byte": b"/tmp/" + bytes(byte for byte in range(1, 256) if byte != 47),
    "bidirectional controls": "/tmp/\u202egpj.exe".encode(),
    "empty": b"",
    "4095 bytes": b"/" + b"x" * 4094,
    "4096 bytes": b"/" + b"y" * 4095,
    "8190 bytes": b"/" + b"z" * 8189,
}


@pytest.fixture
def hand(record, programs, tmp_path):
    """Have the program hand over (what, bytes) and return the trace and its path rows, those of the C library's start left out."""

    def run(*items):
        source = tmp_path / "items"
        source.write_bytes(b"".join(struct.pack("<II", what, len(value)) + value for what, value in items))
        done = record("--", programs("strings"), source)
        assert done.status == 0
        trace = done.trace.check()
        rows = trace.rows("paths")
        start = next(index for index, row in enumerate(rows) if row["value"] == str(source).encode() and row["nr"] == 257)
        return trace, rows[start + 1 :]

    return run


def test_paths_are_stored_byte_for_byte(hand):
    trace, rows = hand(*((OPEN, value) for value in HOSTILE.values()))
    assert [row["value"] for row in rows] == list(HOSTILE.values())
    assert {(row["kind"], row["arg"], row["cut"]) for row in rows} == {(PATH, 1, 0)}
    calls = {(call.tid, call.ts): call for call in trace.calls}
    results = [calls[row["tid"], row["ts"]].ret for row in rows]
    assert results == [-2, -2, -2, -2, -2, -2, -36, -36, -36]  # ENOENT; ENAMETOOLONG for names above 255 bytes


def test_a_longer_path_than_any_that_the_kernel_takes_is_cut_and_says_so(hand):
    _, (row,) = hand((OPEN, b"/" + b"w" * 12_000))
    assert row["cut"] == 1
    assert row["value"] == b"/" + b"w" * (len(row["value"]) - 1)
    assert len(row["value"]) >= 8190


def test_both_paths_of_a_rename(hand):
    _, rows = hand((RENAME, b"/nonexistent/\x1bfrom\0/nonexistent/\xffto"))
    assert [(row["arg"], row["value"]) for row in rows] == [(0, b"/nonexistent/\x1bfrom"), (1, b"/nonexistent/\xffto")]
    assert len({row["ts"] for row in rows}) == 1


def test_a_bad_pointer_is_a_failed_call_and_no_loss(hand):
    trace, rows = hand((BAD_PATH, b""), (BAD_ADDRESS, b""), (UNMAPPED_END, b"/no-end"))
    assert rows == []
    failed = [call for call in trace.calls if call.ret == -14]
    assert [call.nr for call in failed] == [257, 42, 257]
    assert trace.footer.lost["paths"] == 0
    assert [row for row in trace.rows("losses") if row["table"] == "paths"] == []


def test_socket_addresses_are_stored_byte_for_byte(hand):
    addresses = {
        "inet": struct.pack("<H", socket.AF_INET) + struct.pack(">H", 9) + socket.inet_aton("127.0.0.1") + bytes(8),
        "inet6": struct.pack("<H", socket.AF_INET6)
        + struct.pack(">HI", 9, 0x12345)
        + socket.inet_pton(socket.AF_INET6, "::1")
        + struct.pack("<I", 3),
        "unix": struct.pack("<H", socket.AF_UNIX) + b"/nonexistent/\x1b\xff\nsocket\0",
        "abstract": struct.pack("<H", socket.AF_UNIX) + b"\0ringtape\0with\0zeros\xff",
        "longest unix": struct.pack("<H", socket.AF_UNIX) + b"/" + b"u" * 107,
        "two bytes": struct.pack("<H", socket.AF_UNIX),
    }
    items = [(what, value) for value in addresses.values() for what in (CONNECT, SENDTO)]
    items.append((BIND, struct.pack("<H", socket.AF_UNIX) + b"\0ringtape-bound"))
    _, rows = hand(*items)
    assert [row["value"] for row in rows] == [value for _, value in items]
    assert {row["kind"] for row in rows} == {SOCKADDR}
    assert [row["nr"] for row in rows] == [{CONNECT: 42, SENDTO: 44, BIND: 49}[what] for what, _ in items]
    assert {row["arg"] for row in rows if row["nr"] == 44} == {4}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([b"\x1b[31m", b"\xff\xfe", b"", b"new\nline", "\u202e".encode()], id="hostile"),
        pytest.param([b"a" * (128 * 1024 - 1)], id="one of 128 KiB"),
        pytest.param([b"b%06d" % i for i in range(16 * 1024)], id="16384 arguments, 128 KiB"),
        pytest.param([b"c" * 100_000] * 12, id="1.2 MB"),
        pytest.param([], id="none"),
    ],
)
def test_arguments_are_stored_byte_for_byte(record, arguments):
    done = record("--ring-size", "syscalls=4M,paths=4M,processes=32M", "--", "/bin/true", *arguments)
    assert done.status == 0
    trace = done.trace.check()
    (row,) = [row for row in trace.rows("processes") if row["kind"] == EXEC]
    assert row["argv"] == b"".join(word + b"\0" for word in (b"/bin/true", *arguments))
    assert row["file"] == b"/bin/true"
    assert row["cut"] == 0


def test_arguments_that_no_ring_can_hold_are_cut_and_say_so(record):
    trace = record("--ring-size", "processes=16K", "--", "/bin/true", "x" * 100_000).trace.check()
    rows = [row for row in trace.rows("processes") if row["kind"] == EXEC]
    if not rows:
        assert trace.footer.lost["processes"] > 0
    else:
        assert rows[0]["cut"] == 1
        assert rows[0]["argv"] == (b"/bin/true\0" + b"x" * 100_000)[: len(rows[0]["argv"])]


def test_a_hostile_program_name_is_stored_and_never_printed_as_it_is(record, open_folder):
    program = bytes(open_folder) + b"/\x1b[31m\xff\n"
    subprocess.run(["cp", "/bin/true", program], check=True)
    done = record("--", program)
    assert done.status == 0
    trace = done.trace.check()
    (row,) = [row for row in trace.rows("processes") if row["kind"] == EXEC]
    assert row["file"] == program
    assert row["comm"].rstrip(b"\0") == b"\x1b[31m\xff\n"
    shown = ringtape("print", done.path)
    assert shown.status == 0
    assert b"\x1b" not in shown.stdout
    assert escape(program).encode() in shown.stdout.replace(b"\\\\", b"\\") or b"\\x1b[31m\\xff" in shown.stdout
    assert "\x1b" not in shown.stderr
