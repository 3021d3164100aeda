"""Logs of strace and text of perf script become traces: every odd line by hand, real recordings against ringtape's own truth."""

import os
import shutil
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ringtape
from ringtape.analysis.analyses.processes import processes
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.analysis.importing.strace_values import arguments, exec_words, path_of, returned, unescape, value_of
from ringtape.analysis.verification import verify
from ringtape.cli import main

T = 1_700_000_000


@pytest.fixture
def imported(tmp_path):
    """Import a text and return the trace; it must be one that `verify` finds nothing wrong with."""
    number = 0

    def run(text, *options, names=("log",)):
        nonlocal number
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        texts = [text] if isinstance(text, str) else text
        for name, each in zip(names, texts, strict=True):
            (folder / name).write_text(each, encoding="utf-8", errors="surrogateescape")
        assert main(["import", *(str(folder / name) for name in names), "-o", str(folder / "out.trace"), *options]) == 0
        assert verify(folder / "out.trace").problems == []
        return ringtape.open(folder / "out.trace")

    return run


def calls(trace, *columns):
    return trace.collect(trace.syscalls.sort("ts", "tid").select(*columns)).rows()


LOG = f"""\
100 {T}.000001 execve("/bin/sh", ["sh", "-c", "true"], 0x7ffc /* 3 vars */) = 0 <0.000321>
100 {T}.000400 openat(AT_FDCWD, "/etc/pass\\"wd\\n", O_RDONLY|O_CLOEXEC) = 3</etc/passwd> <0.000030>
100 {T}.000500 read(3, "a, ) = 7 <b>", 832) = 12 <0.000010>
100 {T}.000600 openat(AT_FDCWD, "/nowhere"..., O_RDONLY) = -1 ENOENT (No such file or directory) <0.000005>
100 {T}.000700 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD|CLONE_SIGHAND, parent_tid=[101]) = 101 <0.000050>
101 {T}.000760 nanosleep({{tv_sec=1, tv_nsec=0}},  <unfinished ...>
100 {T}.000800 vfork( <unfinished ...>
102 {T}.000820 getpid() = 102 <0.000001>
102 {T}.000830 exit_group(7) = ?
102 {T}.000840 +++ exited with 7 +++
100 {T}.000850 <... vfork resumed>) = 102 <0.000045>
100 {T}.000860 --- SIGCHLD {{si_signo=SIGCHLD, si_pid=102}} ---
100 {T}.000900 wait4(-1, 0x7f, WNOHANG, NULL) = ? ERESTARTSYS (To be restarted if SA_RESTART is set) <0.000002>
101 {T}.001760 <... nanosleep resumed>NULL) = 0 <0.001000>
101 {T}.001800 futex(0x7f00, FUTEX_WAIT_PRIVATE, 2, NULL <unfinished ...>
100 {T}.001900 +++ killed by SIGKILL +++
101 {T}.001900 +++ killed by SIGKILL +++
103 {T}.002000 <... poll resumed>[{{fd=3, revents=POLLIN}}], 1, -1) = 1 <0.000500>
103 {T}.002100 syscall_0x3e7(0x1, 0x2) = -1 ENOSYS (Function not implemented) <0.000001>
103 {T}.002200 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7fe3ff798000 <0.000034>
103 {T}.002300 read(0,  <unfinished ...>
"""


def test_a_log_with_all_kinds_of_lines_becomes_rows(imported):
    trace = imported(LOG)
    wanted = [
        (100, 100, "execve", 0, 321_000, 0),
        (100, 100, "openat", 3, 30_000, 0),
        (100, 100, "read", 12, 10_000, 0),
        (100, 100, "openat", -2, 5_000, 0),
        (100, 100, "clone", 101, 50_000, 0),
        (100, 101, "nanosleep", 0, 1_000_000, 0),
        (100, 100, "vfork", 102, 45_000, 0),
        (102, 102, "getpid", 102, 1_000, 0),
        (102, 102, "exit_group", 0, 10_000, 1),
        (100, 100, "wait4", -512, 2_000, 0),
        (103, 103, "poll", 1, 500_000, 2),
        (100, 101, "futex", 0, 100_000, 1),
        (103, 103, "syscall_999", -38, 1_000, 0),
        (103, 103, "mmap", 0x7FE3FF798000, 34_000, 0),
        (103, 103, "read", 0, 0, 3),
    ]
    assert calls(trace, "pid", "tid", "syscall", "ret", "dur", "kind") == wanted
    first = trace.collect(trace.syscalls.select(pl.col("ts").min()))["ts"][0]
    assert first == T * 10**9 + 1000
    assert trace.header.clock.wall == first
    assert trace.header.options["time resolution"] == "1 µs"


def test_arguments_are_numbers_where_the_log_tells_them(imported):
    rows = dict(calls(imported(LOG).between(), "ret", pl.concat_list(f"arg{index}" for index in range(6))))
    assert rows[3][:3] == [-100, 0, 0o2000000]
    assert rows[12][:3] == [3, 0, 832]
    assert rows[0x7FE3FF798000] == [0, 8192, 3, 0x22, -1, 0]


def test_strings_are_bytes_and_cut_ones_say_so(imported):
    trace = imported(LOG)
    found = trace.collect(trace.scan("paths").sort("ts").select("arg", "value", "cut")).rows()
    assert found == [(0, b"/bin/sh", 0), (1, b'/etc/pass"wd\n', 0), (1, b"/nowhere", 1)]


def test_processes_threads_and_their_ends_are_told(imported):
    found = processes(imported(LOG)).select("process", "parent", "command", "exit", "threads", "argv").rows()
    assert (100, 0, "sh", "SIGKILL", 2, "sh -c true") in found
    assert (102, 100, "sh", "7", 1, None) in found


@pytest.mark.parametrize("form", ["[pid {pid}] ", "{pid}<my \\76 prog> ", "{pid}  "])
def test_other_forms_of_process_numbers_are_read(imported, form):
    text = "".join(f"{form.format(pid=pid)}{T}.00000{pid} getpid() = {pid} <0.000001>\n" for pid in (7, 8))
    assert calls(imported(text), "tid", "ret") == [(7, 7), (8, 8)]


def test_a_log_of_one_process_has_no_number_and_says_so(imported):
    trace = imported(f"{T}.000001 getpid() = 5 <0.000001>\n")
    assert calls(trace, "tid", "ret") == [(1, 5)]
    assert "process numbers" in trace.header.options


def test_a_file_for_each_process_gives_its_number(imported):
    texts = [f"{T}.000001 getpid() = 5 <0.000001>\n", f"{T}.000002 getpid() = 6 <0.000001>\n"]
    assert calls(imported(texts, names=("log.5", "log.6")), "tid", "ret") == [(5, 5), (6, 6)]


def test_times_of_day_go_on_past_midnight(imported):
    trace = imported("7 23:59:59.999999 getpid() = 7 <0.000001>\n7 00:00:00.000001 getpid() = 8 <0.000001>\n")
    begin, end = (row[0] for row in calls(trace, "ts"))
    assert end - begin == 2000


def test_programs_of_32_bits_have_their_own_numbers(imported):
    text = f"[ Process PID=7 runs in 32 bit mode. ]\n7 {T}.1 getpid() = 7 <0.1>\n[ Process PID=7 runs in 64 bit mode. ]\n7 {T}.2 getpid() = 7 <0.1>\n"
    assert calls(imported(text), "abi_name", "nr") == [("i386", 20), ("x86_64", 39)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("read(0) = 1 <0.1>\nread(0) = 1 <0.1>\n", "no times"),
        (f"7 {T}.1 read(0) = 1\n7 {T}.2 read(0) = 1\n", "no durations"),
        ("     0.000031 read(0) = 1 <0.1>\n", "written with -r"),
        ("once upon a time\nthere was no log\n", "of no source that is known"),
        ("", "of no source that is known"),
        (f"7 {T}.1 +++ exited with 0 +++\n" * 3, None),
    ],
)
def test_what_is_no_such_log_is_refused_and_nothing_is_left(tmp_path, capsys, text, said):
    log = tmp_path / "log"
    log.write_text(text)
    status = main(["import", str(log)])
    message = capsys.readouterr().err
    if said is not None:
        assert status == 1
        assert said in message
        assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]


def test_lines_that_are_not_understood_are_counted_and_shown(imported, capsys):
    good = "".join(f"7 {T}.00000{at} getpid() = 7 <0.000001>\n" for at in range(8))
    trace = imported(good + "a stranger \x1b[31m\n" + f"7 {T}.1 frobnicate(1) = 0 <0.1>\n")
    message = capsys.readouterr().err
    assert "line 9 was not understood: a stranger \\x1b[31m" in message
    assert "frobnicate" in message
    assert trace.header.options["lines not understood"] == 2
    assert len(calls(trace, "ts")) == 8


def test_an_existing_folder_is_never_written_into(tmp_path, capsys):
    (tmp_path / "log").write_text(f"7 {T}.1 getpid() = 7 <0.1>\n")
    (tmp_path / "log.trace").mkdir()
    assert main(["import", str(tmp_path / "log")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "absent"), "--source", "strace"]) == 1
    assert main(["import", str(tmp_path / "log"), "--source", "ltrace"]) == 2


PERF = """\
# a comment
          my sh    7 [001]    10.000000100: raw_syscalls:sys_exit: NR 59 = 0
          my sh    7 [001]    10.000000200: raw_syscalls:sys_enter: NR 1 (1, ffffffffffffff9c, 5, 9, 9, 9)
           tool 8/9 [000]    10.000000250: raw_syscalls:sys_enter: NR 0 (3, 0, 0, 0, 0, 0)
          my sh    7 [000]    10.000000700: raw_syscalls:sys_exit: NR 1 = -11
          my sh    7 [000]    10.000000800: raw_syscalls:sys_enter: NR 0 (3, 0, 0, 0, 0, 0)
          my sh    7 [000]    10.000000900: raw_syscalls:sys_enter: NR 39 (0, 0, 0, 0, 0, 0)
          my sh    7 [000]    10.000000950: raw_syscalls:sys_exit: NR 39 = 7
          my sh    7 [000]    10.000000960: raw_syscalls:sys_exit: NR 39 = 7
          my sh    7 [000]    10.000000970: sched:sched_switch: whatever
          my sh    7 [000]    10.000000980: PERF_RECORD_LOST lost 44
          my sh    7 [000]    10.000001000: raw_syscalls:sys_enter: NR 231 (0, 0, 0, 0, 0, 0)
"""


def test_perf_events_are_paired_by_thread_and_halves_are_losses(imported):
    trace = imported(PERF)
    assert calls(trace, "tid", "syscall", "ret", "dur", "kind", "cpu") == [
        (7, "execve", 0, 0, 2, 1),
        (7, "write", -11, 500, 0, 0),
        (9, "read", 0, 750, 3, 0),
        (7, "getpid", 7, 50, 0, 0),
        (7, "exit_group", 0, 0, 1, 0),
    ]
    assert calls(trace.process(8), "pid", "comm") == [(8, "tool")]
    (arguments_of_write,) = trace.collect(trace.syscalls.filter(syscall="write").select("arg0", "arg1", "arg2", "arg3")).rows()
    assert arguments_of_write == (1, -100, 5, 0)
    lost = trace.collect(trace.scan("losses").sort("ts").select("nr", "count", "cause")).rows()
    assert lost == [(0, 1, 1), (39, 1, 1)]
    assert trace.header.options["events that perf lost"] == 44
    assert trace.header.options["calls of which half is missing"] == 2
    assert syscall_mix(trace).filter(syscall="read")["lost"].to_list() == [1]


# ---- values


def test_values_are_what_they_stand_for():
    assert arguments('1, "a\\", b", [{x="]"}, 2], ~[RT_1]') == ["1", '"a\\", b"', '[{x="]"}, 2]', "~[RT_1]"]
    assert arguments("") == []
    assert value_of("0x7f /* 35 vars */", "ptr", "x86_64") == 0
    assert value_of("S_IFREG|0644", "mode", "x86_64") == 0
    assert value_of("0644", "mode", "x86_64") == 0o644
    assert value_of("18446744073709551615", "size", "x86_64") == -1
    assert returned("-1 (errno 524)") == -524
    assert returned("0 (Timeout)") == 0
    assert returned("0x5 (flags O_RDONLY)") == 5
    assert returned("nonsense") is None
    assert path_of("0x7f") is None
    assert exec_words('["a", "b"..., ...]') == (b"a\0b\0", 1)
    assert exec_words("0x7f00") == (b"", 1)


@given(st.binary(max_size=60))
def test_strings_survive_being_quoted(data):
    following = (*data[1:], 0x78)
    quoted = "".join(f"\\{byte:03o}" if 0x30 <= after < 0x38 else f"\\{byte:o}" for byte, after in zip(data, following, strict=False))
    assert unescape(quoted) == data


PIECES = st.sampled_from(
    [
        "7 ",
        f"{T}.1 ",
        "read(",
        "0, ",
        '"',
        "\\",
        ") = ",
        "1",
        "<0.1>",
        "<unfinished ...>",
        "<... read resumed>",
        "+++ exited with 0 +++",
        "[",
        "{",
        " ",
        "\x00",
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.lists(PIECES, max_size=14).map("".join), max_size=8))
def test_garbage_is_refused_or_read_and_never_more_than_that(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("garbage")
    (folder / "log").write_text("\n".join(lines))
    for source in ("strace", "perf-script"):
        status = main(["import", str(folder / "log"), "--source", source, "-o", str(folder / source)])
        assert status in (0, 1)
        assert (folder / source).exists() == (status == 0)
        if status == 0:
            assert verify(folder / source).problems == []


# ---- the real tools


def needs(tool):
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


PROGRAM = "import os, threading\nt = threading.Thread(target=lambda: [os.getppid() for _ in range(50)])\nt.start(); t.join()\n"
PROGRAM += "for _ in range(40): os.write(1, b'x')\nfor _ in range(30):\n try: os.stat('/nowhere')\n except OSError: pass\nos.system('exit 3')\n"


@needs("strace")
def test_a_real_log_of_strace_tells_what_the_program_did(tmp_path, imported):
    log = tmp_path / "strace.log"
    done = subprocess.run(["strace", "-f", "-ttt", "-T", "-o", log, sys.executable, "-S", "-c", PROGRAM], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        pytest.skip("strace cannot trace here")
    trace = imported(log.read_text(errors="surrogateescape"))
    assert "lines not understood" not in trace.header.options
    mix = {row["syscall"]: row for row in syscall_mix(trace).iter_rows(named=True)}
    assert mix["getppid"]["calls"] >= 50
    nowhere = trace.collect(trace.scan("paths").filter(pl.col("value") == b"/nowhere"))
    assert len(nowhere) == 30
    threads = trace.collect(trace.syscalls.filter(syscall="getppid").select("pid", "tid").unique())
    assert (threads["pid"] != threads["tid"]).any()
    found = processes(trace)
    assert found.filter(pl.col("exit") == "3")["parent"].to_list() == [found["process"][0]]
    assert found["exit"][0] == "0"


@needs("perf")
def test_real_text_of_perf_tells_what_the_program_did(tmp_path, imported):
    data = tmp_path / "perf.data"
    events = ["-e", "raw_syscalls:sys_enter", "-e", "raw_syscalls:sys_exit"]
    if (
        os.geteuid()
        or subprocess.run(
            ["perf", "record", "-q", *events, "-o", data, sys.executable, "-S", "-c", PROGRAM], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("perf cannot record here")
    text = subprocess.run(["perf", "script", "--ns", "-i", data], capture_output=True, text=True, check=True).stdout
    trace = imported(text)
    assert trace.header.options["time resolution"] == "1 ns"
    mix = {row["syscall"]: row for row in syscall_mix(trace).iter_rows(named=True)}
    assert mix["getppid"]["calls"] >= 50
    assert mix["write"]["calls"] >= 40
    assert mix["newfstatat"]["errors"] >= 30
