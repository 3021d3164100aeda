# ruff: noqa: E501 - lines of logs stand as they are
"""Recordings of strace and perf as traces: each kind of line, and real recordings of programs whose calls are known."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis.analyses.latency import latency
from ringtape.analysis.importing import strace_values as values
from ringtape.analysis.importing.importing import import_recording
from ringtape.analysis.verification import verify
from ringtape.cli import main
from ringtape.schemas.abi.syscalls import number as nr_of
from ringtape.schemas.errors import RingtapeError, UsageError

S = 1700000000


def imported(tmp_path: Path, text: str | bytes, name: str = "log", checked: bool = True, **options: Any) -> tuple[Any, Any]:
    """Return the trace and the findings of a text."""
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = import_recording(file, tmp_path / f"{name}.trace", abi=options.pop("abi", "x86_64"), **options)
    trace = ringtape.open(tmp_path / f"{name}.trace")
    if checked:
        assert verify(trace.path).problems == []
    return trace, found


def calls(trace: Any, *columns: str) -> list[tuple[Any, ...]]:
    return list(trace.collect(trace.syscalls.sort("ts").select(*columns)).iter_rows())


def line(text: str, at: float = 0.0, tid: int = 10) -> str:
    return f"{tid} {S + at:.6f} {text}\n"


def test_a_call_becomes_its_row(tmp_path: Path) -> None:
    trace, found = imported(tmp_path, line('openat(AT_FDCWD, "/etc/\\303\\244 b", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file) <0.000017>'))
    row = trace.collect(trace.syscalls).row(0, named=True)
    assert (row["syscall"], row["ret"], row["dur"], row["kind"]) == ("openat", -2, 17_000, 0)
    assert (row["tid"], row["pid"], row["cpu"], row["seq"]) == (10, 10, -1, -1)
    assert (row["arg0"], row["arg2"]) == (-100, 0o2000000)
    assert trace.collect(trace.scan("paths").select("value", "arg", "cut")).rows() == [("/etc/ä b".encode(), 1, 0)]
    assert trace.header.clock.wall + row["ts"] - trace.header.clock.mono == S * 10**9
    assert (found.calls, found.unread) == (1, 0)


@pytest.mark.parametrize(
    ("text", "ret", "kind", "dur"),
    [
        ("getpid() = 10 <0.000003>", 10, 0, 3000),
        ("brk(NULL)                               = 0x55f8a5e3b000 <0.000007>", 0x55F8A5E3B000, 0, 7000),
        ("umask(022)                   = 077 <0.000001>", 0o77, 0, 1000),
        ("dup(3</a) = 5>) = 4</a) = 5> <0.000001>", 4, 0, 1000),
        ("poll([{fd=3, events=POLLIN}], 1, 10) = 0 (Timeout) <0.010000>", 0, 0, 10**7),
        ("fcntl(3, F_GETFL) = 0x8002 (flags O_RDWR|O_LARGEFILE) <0.000001>", 0x8002, 0, 1000),
        ("nanosleep({tv_sec=1}, NULL) = ? ERESTART_RESTARTBLOCK (Interrupted by signal) <0.5>".replace("0.5", "0.500000"), -516, 0, 5 * 10**8),
        ("pause() = ? ERESTARTNOHAND (To be restarted if no handler) <0.000100>", -514, 0, 100_000),
        ("exit_group(3) = ?", 0, 1, 0),
        ("read(3,  <unfinished ...>) = ?", 0, 1, 0),
        ("write(1, \"a) = 3 <0.5>\\n\", 12) = 12 <0.000002>", 12, 0, 2000),
        ("write(1, \"\"..., 12) = -1 EAGAIN (Resource temporarily unavailable) <0.000002>", -11, 0, 2000),
        ("madvise(NULL, 1, 99) = -1 (errno 4000) <0.000002>", -4000, 0, 2000),
        ("read(3, 0x7f, 1) = 1 <0.000002123>", 1, 0, 2123),
        ("[ 39] getpid() = 10 <0.000003>", 10, 0, 3000),
        ("[00007f1122334455] getpid() = 10 <0.000003>", 10, 0, 3000),
    ],
)  # fmt: skip
def test_results(tmp_path: Path, text: str, ret: int, kind: int, dur: int) -> None:
    trace, found = imported(tmp_path, line(text))
    assert calls(trace, "ret", "kind", "dur") == [(ret, kind, dur)]
    assert found.unread == 0


def test_arguments_as_the_kernel_got_them(tmp_path: Path) -> None:
    trace, _ = imported(
        tmp_path,
        line("mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0x1000) = 0x7f0000000000 <0.000001>")
        + line("close(3<TCP:[127.0.0.1:4->127.0.0.1:5]>) = 0 <0.000001>", 0.1)
        + line("kill(12, SIGTERM) = 0 <0.000001>", 0.2)
        + line("clone(child_stack=0x7f10, flags=CLONE_VM|CLONE_THREAD, parent_tid=[11], tls=0x7f20, child_tidptr=0x7f30) = 11 <0.000001>", 0.3)
        + line("openat(4</d>, \"x\", 0x2 /* O_RDWR */, 0644) = 5</d/x> <0.000001>", 0.4),
    )  # fmt: skip
    rows = calls(trace, "arg0", "arg1", "arg2", "arg3", "arg4", "arg5")
    assert rows[0] == (0, 8192, 3, 0x22, -1, 0x1000)
    assert rows[1][0] == 3
    assert rows[2][:2] == (12, 15)
    assert rows[3][:5] == (0x10100, 0x7F10, 0, 0x7F30, 0x7F20)
    assert rows[4][:4] == (4, 0, 2, 0o644)


def test_unfinished_and_resumed_calls_and_the_threads_that_made_them(tmp_path: Path) -> None:
    text = (
        line('execve("/usr/bin/prog", ["prog", "a b"], 0x7ffd /* 3 vars */) = 0 <0.001000>')
        + line("clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0}, 88 <unfinished ...>", 1)
        + line("getpid() = 10 <0.000005>", 1.1, 11)
        + line("<... clone3 resumed> => {parent_tid=[11]}, 88) = 11 <0.200000>", 1.2)
        + line("vfork( <unfinished ...>", 2)
        + line('execve("/bin/ls", ["ls"], 0x1 /* 0 vars */ <unfinished ...>', 2.1, 12)
        + line("<... vfork resumed>) = 12 <0.200000>", 2.2)
        + line("<... execve resumed>) = 0 <0.300000>", 2.4, 12)
        + line("futex(0x7f, FUTEX_WAIT_PRIVATE, 0, NULL <unfinished ...>", 3, 11)
        + line("--- SIGCHLD {si_signo=SIGCHLD, si_pid=12} ---", 3.1)
        + line("+++ killed by SIGKILL +++", 3.5, 11)
        + line("+++ exited with 2 +++", 3.6, 12)
        + line("wait4(-1,  <unfinished ...>", 4)
        + line("getppid() = 1 <0.000001>", 4.5, 13)
    )
    trace, found = imported(tmp_path, text)
    rows = {(name, tid): rest for name, tid, *rest in calls(trace, "syscall", "tid", "pid", "kind", "dur")}
    assert rows["clone3", 10] == [10, 0, 200_000_000]
    assert rows["getpid", 11] == [10, 0, 5000]  # a thread of process 10
    assert rows["execve", 12] == [12, 0, 300_000_000]
    assert rows["futex", 11] == [10, 1, 500_000_000]
    assert rows["wait4", 10] == [10, 3, 500_001_000]
    lives = trace.collect(trace.scan("processes").select("kind", "tid", "pid", "ppid", "comm", "exit_code", "exit_signal")).rows()
    assert (1, 12, 12, 10, b"prog", 0, 0) in lives
    assert (2, 12, 12, 0, b"ls", 0, 0) in lives
    assert (3, 11, 10, 0, b"prog", 0, 9) in lives
    assert (3, 12, 12, 0, b"ls", 2, 0) in lives
    assert trace.header.command == ["prog", "a b"]
    assert found.unread == 0


def test_what_is_broken_off_within_the_arguments_is_put_together(tmp_path: Path) -> None:
    text = (
        line('newfstatat(AT_FDCWD, "/a",  <unfinished ...>')
        + line("getpid() = 11 <0.000001>", 0.1, 11)
        + line("<... newfstatat resumed>0x7ffe, 0x100) = 0 <0.200000>", 0.2)
    )
    text += line("read(4,  <unfinished ...>", 1) + line('<... read resumed> "ab", 9) = 2 <0.000003>', 1.1)
    trace, _ = imported(tmp_path, text)
    assert calls(trace, "syscall", "arg0", "arg2", "arg3") == [("newfstatat", -100, 0x7FFE, 0x100), ("getpid", 0, 0, 0), ("read", 4, 9, 0)]
    assert trace.collect(trace.scan("paths").select("value")).rows() == [(b"/a",)]


def test_a_thread_that_attached_inside_a_call_and_one_that_was_left_inside(tmp_path: Path) -> None:
    text = (
        "strace: Process 10 attached\n" + line("getpid() = 10 <0.000001>") + line("<... epoll_wait resumed>[], 5, 9) = 0 <0.300000>", 1, 11)
        + line("poll(NULL, 0, -1 <detached ...>", 2, 11) + "strace: Process 11 detached\n" + line("restart_syscall(<... resuming interrupted read ...>) = 0 <1.000000>", 3)
    )  # fmt: skip
    trace, found = imported(tmp_path, text)
    assert calls(trace, "syscall", "kind") == [("getpid", 0), ("epoll_wait", 2), ("poll", 3), ("restart_syscall", 0)]
    assert found.unread == 0


def test_32_bit_programs_and_unknown_calls(tmp_path: Path) -> None:
    text = line("[ Process PID=10 runs in 32 bit mode. ]").split(" ", 2)[2] + line("mmap2(NULL, 1, PROT_READ, MAP_PRIVATE, 3, 0) = 0xf7 <0.000001>")
    text += (
        line("[ Process PID=10 runs in 64 bit mode. ]")
        + line("getpid() = 10 <0.000001>", 1)
        + line("syscall_0x1f4(0x1, 0x2) = -1 ENOSYS (x) <0.000001>", 2)
    )
    trace, found = imported(tmp_path, text + line("frobnicate(1) = 0 <0.000001>", 3))
    assert calls(trace, "abi_name", "syscall")[:2] == [("i386", "mmap2"), ("x86_64", "getpid")]
    assert calls(trace, "nr", "arg0")[2:] == [(500, 1), (-1, 1)]
    assert any("frobnicate (1)" in text for text in found.text())


def test_addresses_and_descriptor_pairs(tmp_path: Path) -> None:
    text = line(
        'connect(3, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28) = 0 <0.000001>'
    )
    text += line('bind(3, {sa_family=AF_UNIX, sun_path=@"ab"}, 5) = 0 <0.000001>', 1) + line("pipe2([3, 4], O_CLOEXEC) = 0 <0.000001>", 2)
    text += line("accept(3, {sa_family=AF_NETLINK, nl_pid=0}, [12]) = 4 <0.000001>", 3)
    trace, _ = imported(tmp_path, text)
    expected = struct.pack("<HHI", socket.AF_INET6, socket.htons(443), 0) + socket.inet_pton(socket.AF_INET6, "::1") + bytes(4)
    assert trace.collect(trace.scan("paths").select("kind", "value")).rows() == [(1, expected), (1, b"\1\0\0ab"), (2, struct.pack("<ii", 3, 4))]


def test_what_is_not_understood_is_counted_with_its_place(tmp_path: Path) -> None:
    good = line("getpid() = 10 <0.000001>")
    trace, found = imported(tmp_path, good + "hello from the program\n" + good + line("read(3, ") + line("getppid() = 1") + line("@@@"))
    assert (found.calls, found.unread, found.lines) == (2, 4, 6)
    text = "\n".join(found.text())
    assert "log:2: hello from the program" in text
    assert "without its duration (-T)" in text
    assert "4 of 6 lines were not understood" in trace.footer.reason
    assert set(found.text()) == set(trace.header.options["remarks"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"10 {S}.000001 getpid() = 10\n" * 3, "without -T"),
        (f"10 {S}.000001 getpid() = 10\n10 {S}.000002 exit_group(0) = ?\n10 {S}.000003 +++ exited with 0 +++\n", "without -T"),
        ("10 12:00:01.000001 getpid() = 10 <0.000001>\n" * 3, "times of day"),
        ("10 12:00:01 getpid() = 10 <0.000001>\n" * 3, "times of day"),
        ("10      0.000021 getpid() = 10 <0.000001>\n" * 3, "since the line before"),
        ("getpid() = 10 <0.000001>\n" * 3, "-ttt"),
        ("From: me\nTo: you\n", "not recognised"),
        ("", "empty"),
        ("PERFILE2\0\0\0", "perf's own file"),
        ("\x7fELF\x02\x01" + "\0" * 400, "not recognised"),
        ("  sh 1 [000] 1.000000: sched:sched_switch: prev_comm=sh\n", "no event of raw_syscalls"),
    ],
)  # fmt: skip
def test_a_wrong_file_gives_one_error_and_leaves_nothing(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "log").write_text(text)
    with pytest.raises(RingtapeError, match=said):
        import_recording(tmp_path / "log", tmp_path / "out.trace")
    assert not (tmp_path / "out.trace").exists()


def test_a_trace_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(line("getpid() = 10 <0.000001>"))
    (tmp_path / "log.trace").mkdir()
    (tmp_path / "log.trace" / "mine").write_text("x")
    with pytest.raises(RingtapeError, match="exists already"):
        import_recording(tmp_path / "log", tmp_path / "log.trace")
    assert (tmp_path / "log.trace" / "mine").exists()
    with pytest.raises(UsageError, match="unknown source"):
        import_recording(tmp_path / "log", tmp_path / "b.trace", source="dtruss")


def test_a_wall_clock_that_steps_back_does_not_take_the_axis_with_it(tmp_path: Path) -> None:
    trace, found = imported(
        tmp_path, line("getpid() = 10 <0.000001>", 100) + line("getpid() = 10 <0.000001>", 50) + line("getpid() = 10 <0.000001>", 51)
    )
    ts = [row[0] for row in calls(trace, "ts")]
    assert [later - ts[0] for later in ts] == [0, 0, 10**9]
    assert any("went back" in text for text in found.text())


def test_files_of_ff_and_compressed_ones(tmp_path: Path) -> None:
    (tmp_path / "t.10").write_bytes(gzip.compress(f"{S}.000001 getpid() = 10 <0.000001>\n".encode()))
    (tmp_path / "t.11").write_text(f"{S}.000002 getppid() = 10 <0.000001>\n")
    found = import_recording([tmp_path / "t.11", tmp_path / "t.10"], tmp_path / "t.trace", abi="x86_64")
    assert found.calls == 2
    assert calls(ringtape.open(tmp_path / "t.trace"), "tid", "syscall") == [(10, "getpid"), (11, "getppid")]


def test_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ringtape.analysis.importing import writer

    monkeypatch.setattr(writer, "ROW_GROUP", 100)
    trace, _ = imported(tmp_path, "".join(line("getpid() = 10 <0.000001>", index / 1000) for index in range(950)))
    assert len(trace.parts("syscalls")) == 10
    assert trace.rows("syscalls") == 950


# perf script


def event(text: str, at: float, tid: int = 20, comm: str = "my prog", cpu: int = 1) -> str:
    return f"{comm:>16} {tid:5d} [{cpu:03d}] {at:.9f}: {text}\n"


def enter(nr: int, at: float, *args: int, **kwargs: Any) -> str:
    shown = ", ".join(f"{value & (2**64 - 1):x}" for value in (*args, *[0] * (6 - len(args))))
    return event(f"raw_syscalls:sys_enter: NR {nr} ({shown})", at, **kwargs)


def leave(nr: int, at: float, ret: int, **kwargs: Any) -> str:
    return event(f" raw_syscalls:sys_exit: NR {nr} = {ret}", at, **kwargs)


def test_entries_and_exits_are_paired_by_thread(tmp_path: Path) -> None:
    text = (
        enter(0, 5.0, 3, 0x7F00, 100, 99) + enter(0, 5.5, 4, tid=21) + leave(0, 6.0, -4, tid=21) + leave(0, 7.000000001, 64)
        + enter(56, 8.0, 0x10F00) + leave(56, 8.1, 22) + leave(56, 8.2, 0, tid=22) + enter(39, 8.3, tid=22) + leave(39, 8.4, 20, tid=22)
        + enter(231, 9.0, 3) + enter(7, 9.5, tid=21)
    )  # fmt: skip
    trace, found = imported(tmp_path, text)
    rows = calls(trace, "ts", "dur", "nr", "ret", "kind", "tid", "pid", "cpu", "arg0", "arg2", "arg3")
    assert rows[0] == (5 * 10**9, 2_000_000_001, 0, 64, 0, 20, 20, 1, 3, 100, 0)  # read has three arguments
    assert rows[1][1:6] == (500_000_000, 0, -4, 0, 21)
    assert {row[5:7] for row in rows if row[5] == 22} == {(22, 20)}  # CLONE_THREAD
    assert [(row[2], row[4]) for row in rows if row[5] == 22] == [(56, 4), (39, 0)]
    assert (231, 1) in [(row[2], row[4]) for row in rows]
    assert (7, 3) in [(row[2], row[4]) for row in rows]
    assert trace.lost() == {}
    assert found.unread == 0


def test_a_call_that_was_running_at_the_beginning(tmp_path: Path) -> None:
    trace, _ = imported(tmp_path, enter(39, 1.0, tid=21) + leave(39, 1.1, 21, tid=21) + leave(7, 3.0, 1))
    assert calls(trace, "nr", "kind", "ts", "dur")[0] == (39, 0, 10**9, 100_000_000)
    assert (7, 2, 10**9, 2 * 10**9) in calls(trace, "nr", "kind", "ts", "dur")


def test_lost_events_stand_in_the_ledger_and_never_pair_two_calls(tmp_path: Path) -> None:
    text = enter(0, 1.0) + leave(0, 1.1, 5) + enter(0, 2.0) + event("PERF_RECORD_LOST lost 7", 2.5, comm="swapper", tid=0) + leave(0, 3.0, 5)
    trace, found = imported(tmp_path, text + enter(1, 4.0) + leave(1, 4.1, 9) + leave(3, 5.0, 0))
    assert calls(trace, "nr", "dur") == [(0, 100_000_000), (1, 100_000_000)]
    # The read across the gap, the close without a beginning, and of 6 more events 3 calls at most.
    assert sorted(trace.collect(trace.scan("losses").select("nr", "count", "cause")).rows()) == [(-1, 3, 4), (0, 1, 4), (3, 1, 4)]
    assert trace.lost() == {"syscalls": 5}
    # One of unknown number may be any call: the bounds say so.
    assert latency(trace).filter(pl.col("syscall") == "read").select("p50", "p50_low").rows() == [(None, 0)]
    assert any("two to a call" in text for text in found.text())


def test_a_percentage_that_perf_warns_of_is_a_loss(tmp_path: Path) -> None:
    trace, _ = imported(tmp_path, enter(0, 1.0) + leave(0, 1.1, 5) + "Warning:\nProcessed 1000 samples and lost 10.00%!\n\n")
    assert trace.lost() == {"syscalls": 50}


def test_microseconds_are_said_to_be_such(tmp_path: Path) -> None:
    text = "sh  20/21  [000]  28225.250797: raw_syscalls:sys_enter: NR 39 (0, 0, 0, 0, 0, 0)\nsh  20/21  [000]  28225.250798:  raw_syscalls:sys_exit: NR 39 = 20\n"
    trace, _ = imported(tmp_path, "# hostname : box\n# arch : aarch64\n# os release : 6.1\n# perf version : 6.1\n" + text)
    assert calls(trace, "tid", "pid", "dur", "abi_name", "syscall") == [(21, 20, 1000, "arm64", "umount2")]
    assert trace.header.options["precision"] == "1 µs"
    assert (trace.header.host["name"], trace.header.tools["perf"]) == ("box", "6.1")


# properties

TEXT = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=40)


@given(st.binary(max_size=60))
def test_a_string_survives_the_escapes_of_strace(data: bytes) -> None:
    assert values.string('"' + "".join(f"\\x{byte:02x}" for byte in data) + '"...') == (data, True)
    octal = "".join(chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}" for byte in data)
    assert values.string(f'"{octal}"') == (data, False)


ARGUMENT = st.one_of(
    st.integers(-(2**31), 2**31).map(str), st.integers(0, 2**64 - 1).map(hex), st.sampled_from(["NULL", "AT_FDCWD</a, (b>", "[{fd=3, events=POLLIN}]", '"a\\", ("', "1<<3|2"])
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["read", "write", "close", "ioctl", "futex", "getpid"]), st.lists(ARGUMENT, max_size=6), st.integers(-200, 2**40),
                  st.integers(0, 10**9), st.integers(1, 5)),
        min_size=1, max_size=20,
    )
)  # fmt: skip
def test_generated_lines_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    from ringtape.schemas.abi.errors import errno_name, errnos

    text, expected = "", []
    for index, (name, args, ret, dur, tid) in enumerate(rows):
        result = ret if ret >= 0 or -ret in errnos() else 0
        shown = str(result) if result >= 0 else f"-1 {errno_name(result)} (what)"
        at = index
        text += f"{tid} {S + at}.{index:06d} {name}({', '.join(args)}) = {shown} <{dur // 1000000}.{dur % 1000000:06d}>\n"
        expected.append((tid, nr_of("x86_64", name), result, dur * 1000))
    trace, found = imported(tmp_path_factory.mktemp("generated"), text, checked=False)
    assert calls(trace, "tid", "nr", "ret", "dur") == expected
    assert found.unread == 0


LINES = st.lists(
    st.one_of(
        TEXT,
        st.builds(lambda text: f"10 {S}.000001 {text}", TEXT),
        st.builds(lambda text: f"10 {S}.000001 read({text}) = 1 <0.000001>", TEXT),
        st.builds(lambda text: f" sh 1 [000] 1.000000: {text}", TEXT),
        st.builds(lambda text, nr: f" sh {nr} [000] 1.000000: raw_syscalls:sys_enter: NR {nr} ({text})", TEXT, st.integers(-(2**70), 2**70)),
        st.builds(lambda ret, nr: f" sh 1 [000] 1.000000: raw_syscalls:sys_exit: NR {nr} = {ret}", st.integers(-(2**70), 2**70), st.integers(-(2**40), 2**40)),
    ),
    max_size=15,
)  # fmt: skip


@pytest.mark.parametrize("source", ["strace", "perf-script"])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(lines=LINES)
def test_no_text_does_more_than_an_error(tmp_path_factory: pytest.TempPathFactory, source: str, lines: list[str]) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "log").write_bytes("\n".join(lines).encode("latin-1"))
    try:
        import_recording(folder / "log", folder / "t", source=source, abi="x86_64")
    except RingtapeError:
        assert not (folder / "t").exists()
    else:
        trace = ringtape.open(folder / "t")
        assert all(trace.collect(trace.scan(table)).height == trace.rows(table) for table in trace.tables)


# real recordings

PROGRAM = r"""
import os, threading
path = os.fsencode("/nonexistent/\u00e4 \n")
for _ in range(137):
    try:
        os.stat(path)
    except OSError:
        pass
def other():
    for _ in range(41):
        os.getppid()
thread = threading.Thread(target=other); thread.start(); thread.join()
if os.fork() == 0:
    os._exit(7)
os.wait()
os._exit(3)
"""


def test_a_real_recording_of_strace(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "log"
    done = subprocess.run(
        [strace, "-f", "-ttt", "-T", "-y", "-o", log, "/usr/bin/python3", "-I", "-S", "-c", PROGRAM], capture_output=True, timeout=60, check=False
    )
    if done.returncode != 3:
        pytest.skip(f"strace does not work here: {done.stderr[-200:]!r}")
    found = import_recording(log, tmp_path / "t")
    trace = ringtape.open(tmp_path / "t")
    assert found.unread == 0, list(found.text())
    assert verify(trace.path).problems == []
    wanted = trace.scan("paths").filter(pl.col("value") == "/nonexistent/ä \n".encode()).select(pl.len())
    assert trace.collect(wanted).item() == 137
    by_name = trace.collect(trace.syscalls.group_by("syscall").agg(pl.len())).rows()
    assert dict(by_name)["getppid"] == 41
    # Each line with a call or its end is one call: counted without any of the code above.
    text = log.read_text(errors="replace").splitlines()
    whole = [line for line in text if "+++" not in line and "---" not in line and "resumed>" not in line]
    assert trace.rows("syscalls") == len(whole) == found.calls
    members = trace.collect(
        trace.syscalls.filter(pl.col("syscall") == "getppid").select(pl.col("pid").unique(), pl.col("tid").unique().alias("t"))
    ).rows()
    assert [pid != tid for pid, tid in members] == [True]  # made by a thread of the process
    exits = trace.collect(trace.scan("processes").filter(pl.col("kind") == 3, pl.col("group_dead") == 1).select("exit_code")).to_series().to_list()
    assert sorted(exits) == [3, 7]
    assert trace.footer.exit_status == 3
    assert main(["report", str(trace.path)]) == 0
    assert main(["print", str(trace.path)]) == 0
    import_recording(log, tmp_path / "u")
    assert main(["compare", str(trace.path), "--with", str(tmp_path / "u")]) == 0


def test_a_real_recording_of_perf(tmp_path: Path) -> None:
    perf = shutil.which("perf")
    if perf is None or os.geteuid() != 0:
        pytest.skip("perf is not installed, or this is not root")
    data = tmp_path / "perf.data"
    command = ["/usr/bin/python3", "-I", "-S", "-c", PROGRAM]
    done = subprocess.run(
        [perf, "record", "-q", "-m", "8M", "-e", "raw_syscalls:sys_enter,raw_syscalls:sys_exit", "-o", data, *command],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if not data.exists() or b"rror" in done.stderr:
        pytest.skip(f"perf does not work here: {done.stderr[-200:]!r}")
    text = subprocess.run(
        [perf, "script", "--ns", "--header", "-F", "+pid", "--show-lost-events", "-i", data], capture_output=True, timeout=60, check=True
    ).stdout
    trace, found = imported(tmp_path, text, abi=None)
    assert found.unread == 0, list(found.text())
    by_name = dict(trace.collect(trace.syscalls.filter(pl.col("kind") == 0).group_by("syscall").agg(pl.len())).rows())
    assert by_name["getppid"] + trace.lost().get("syscalls", 0) >= 41 >= by_name["getppid"]
    if not trace.lost():
        assert by_name["getppid"] == 41
        assert trace.rows("syscalls") == text.count(b"sys_enter: NR") + int(
            (trace.collect(trace.syscalls.select(pl.col("kind").is_in([2, 4]).sum()))).item()
        )
    assert main(["report", str(trace.path)]) == 0
