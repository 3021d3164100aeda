"""What is read of the output of tools: texts as the tools write them, cut off, and hostile."""

import random
import struct
import subprocess
from contextlib import suppress

import pytest

from ringtape.analysis.studies.tallying import LONGEST, Tallies, lines, perf_counts
from ringtape.analysis.studies.treatments import Tally, bpftrace, perf_trace, strace, strace_count, syscount, tool, tools
from ringtape.schemas.abi.syscalls import native_abi, number
from ringtape.schemas.errors import RingtapeError, UsageError
from ringtape.version import VERSION

STRACE = rb"""101 execve("/bin/x", ["x"], 0x7ffe /* 3 vars */) = 0 <0.000410>
101 getppid()                         = 100 <0.000020>
101 openat(AT_FDCWD, "/no) = 5", O_RDONLY) = -1 ENOENT (No such file or directory) <0.000011>
101 brk(NULL)                         = 0x55fc79c3a000 <0.000001>
101 read(3,  <unfinished ...>
102 read(4, "a = -1 EIO", 10) = 10 <0.000002>
101 <... read resumed>"abc", 3)           = 3 <1.000003>
102 wait4(-1, 0x7ffd, 0, NULL) = ? ERESTARTSYS (To be restarted if SA_RESTART is set) <0.5>
102 --- SIGCHLD {si_signo=SIGCHLD} ---
102 poll([{fd=3, events=POLLIN}], 1, 10) = 0 (Timeout) <0.010100>
102 exit_group(0)                     = ?
102 +++ exited with 0 +++
"""


def outcome_of(module, text, tmp_path, detailed=True):
    path = tmp_path / "output"
    path.write_bytes(text)
    return module.TOOL.outcome(path, detailed)


def test_strace_lines_are_calls_with_results_and_durations(tmp_path):
    found = outcome_of(strace, STRACE, tmp_path)
    assert (found.events, found.lost, found.bytes) == (9, 0, len(STRACE))
    assert found.calls["openat"] == Tally(1, 1, 11_000)
    assert found.calls["read"] == Tally(2, 0, 1_000_005_000, 13)
    assert found.calls["getppid"] == Tally(1, 0, 20_000)
    assert found.calls["brk"] == Tally(1, 0, 1_000)
    assert found.calls["wait4"] == Tally(1, 0, 500_000_000)
    assert found.calls["poll"] == Tally(1, 0, 10_100_000)
    assert found.calls["exit_group"] == Tally(1, 0, 0)
    assert outcome_of(strace, STRACE, tmp_path, detailed=False).calls == {}


@pytest.mark.parametrize(
    "before",
    [
        "",
        "7 ",
        "7<a b> ",
        "10:11:12 ",
        "7 10:11:12.123456 ",
        "7 1700000000.123456 ",
        "7 (+     0.000123) ",
        "7 [00007f0123456789] ",
        "7      0.000012 ",
    ],
)
def test_options_of_strace_that_add_to_its_lines_leave_them_calls(before, tmp_path):
    calls = [
        "accept4(3<TCP:[1.2.3.4:5]>, NULL) = 4<TCP:[1.2.3.4:5->1.2.3.4:6]> <0.000003>",
        'openat(3, "/a) = 7<x> <9.0>") = -1 ENOENT (No file) <0.000005>',
    ]
    found = outcome_of(strace, "".join(f"{before}{call}\n" for call in calls).encode(), tmp_path)
    assert found.calls == {"accept4": Tally(1, 0, 3_000), "openat": Tally(1, 1, 5_000)}


def test_an_output_of_strace_without_any_call_is_not_taken_for_one_of_no_calls(tmp_path):
    assert outcome_of(strace, b"1 +++ exited with 0 +++\n", tmp_path).events == 0
    with pytest.raises(RingtapeError, match="no line of strace's output is a call: 'what is'"):
        outcome_of(strace, b"what is\nthis?\n", tmp_path)


def test_a_table_of_strace_is_read_with_and_without_errors(tmp_path):
    text = b"""% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 82.83    0.261748        3231        81        40 wait4
  0.00    0.000000           0         2           gettid
------ ----------- ----------- --------- --------- ----------------
100.00    0.261748        3153        83        40 total
"""
    found = outcome_of(strace_count, text, tmp_path)
    assert found.calls == {"wait4": Tally(81, 40), "gettid": Tally(2, 0)}
    assert (found.events, found.lost) == (83, 0)


def test_lines_of_perf_trace_are_calls_and_what_it_lost_is_counted(tmp_path):
    text = b"""         ? (         ): python3/19966  ... [continued]: execve())   = 0
     0.082 ( 0.028 ms): python3/19966 read(fd: 3</x y>, buf: 0x55, count: 10)   = 10
    30.915 (         ): a (b)/19966 clone(clone_flags: CHILD) ...
    31.000 ( 0.010 ms): b/7 close(fd: 3) = -1 EBADF (Bad file descriptor)
LOST 23 events!
    30.915 ( 0.309 ms): a (b)/19966  ... [continued]: clone())   = 19967 (b)
         ? (         ): :19967/19967  ... [continued]: clone())   =
   536.554 (         ): python3/19966 exit_group()   = ?
"""
    found = outcome_of(perf_trace, text, tmp_path)
    assert found.calls == {"read": Tally(1, 0, 28_000, 10), "clone": Tally(1, 0, 309_000), "close": Tally(1, 1, 10_000), "exit_group": Tally(1, 0, 0)}
    assert (found.events, found.lost) == (4, 23)


def test_half_shown_calls_of_perf_trace_are_calls_once_and_durations_below_zero_stay_so(tmp_path):
    text = b"""   247.671 ( 0.010 ms): python3/5 getpgid()             =
   247.671 ( 0.033 ms): python3/5  ... [continued]: getpgid())   =
   250.000 (         ): python3/5 getpgid()             ...
   250.100 ( 0.010 ms): python3/5 getpgid()             =
   251.000 (         ): a/6 sched_yield()             ...
   251.100 (         ): a/7 sched_yield()             ...
   251.000 ( 0.100 ms): a/6  ... [continued]: sched_yield())   = 0
   251.100 (18446744073709.541 ms): a/7  ... [continued]: sched_yield())   = 0
"""
    found = outcome_of(perf_trace, text, tmp_path)
    assert found.calls["getpgid"] == Tally(4, 0, 53_000)
    # 18446744073709.541 ms are 2**64 ns less 10.616 us, cut off at the microsecond.
    assert found.calls["sched_yield"] == Tally(2, 0, 100_000 + 18_446_744_073_709_541_000 - (1 << 64))


def test_calls_that_perf_trace_shows_out_of_order_are_counted_once(tmp_path):
    text = b"""    34.212 (         ): python3/2 sched_yield()             ...
    34.212 (18446744073709.402 ms): python3/2  ... [continued]: futex())    = 0
    34.072 (         ): python3/2 futex(uaddr: 0xa5, op: WAIT)    ...
    34.072 ( 0.879 ms): python3/2  ... [continued]: sched_yield())    = 0
    34.962 ( 0.010 ms): python3/2 futex(uaddr: 0xa5)        = -1 EAGAIN (Resource temporarily unavailable)
"""
    found = outcome_of(perf_trace, text, tmp_path)
    assert {name: (tally.count, tally.errors) for name, tally in found.calls.items()} == {"sched_yield": (1, 0), "futex": (2, 1)}


@pytest.mark.parametrize("digits", [19, 25, 5000, 60_000])
def test_numbers_of_any_length_are_read_or_passed_over(digits, tmp_path):
    number = b"9" * digits
    for module, line in (
        (strace, b"1 read(3) = %b <%b.000001>\n" % (number, number)),
        (strace, b"1 read(3) = 0x%b <0.1>\n" % number),
        (strace_count, b" 1.0 0.1 3 %b 2 read\n" % number),
        (perf_trace, b" 1.0 ( %b.000 ms): a/1 read() = %b\nLOST %b events!\n" % (number, number, number)),
        (bpftrace, b"@calls[0]: %b\n[1, 2) %b |@|\nLost %b events\n" % (number, number, number)),
        (syscount, b"read %b %b.000\n" % (number, number)),
    ):
        found = outcome_of(module, line * 2, tmp_path)
        for tally in found.calls.values():
            assert all(value is None or abs(value) < 1 << 63 for value in vars(tally).values())


def test_maps_and_histograms_of_bpftrace_are_read(tmp_path):
    abi = native_abi()
    read, getppid = number(abi, "read"), number(abi, "getppid")
    text = "@latency: \n[128, 256)      12 |@@@|\n[1K, 2K)      3 |@|\nLost 7 events\n"
    found = outcome_of(bpftrace, text.encode(), tmp_path)
    assert (found.events, found.lost, found.calls) == (15, 7, {})
    text = f"@bytes[{read}]: 50\n@bytes[{getppid}]: 9\n@calls[{getppid}]: 4\n@calls[{read}]: 5\n@errors[{read}]: 1\n@time[{read}]: 100\n"
    found = outcome_of(bpftrace, text.encode(), tmp_path)
    assert found.calls == {"getppid": Tally(4, 0, 0), "read": Tally(5, 1, 100, 50)}
    assert found.events == 9


def test_a_table_of_syscount_is_read(tmp_path):
    text = b"Tracing syscalls, printing top 1000... Ctrl+C to quit.\n[10:00:00]\n"
    text += b"SYSCALL                   COUNT        TIME (us)\nread                         37       264357.123\n"
    found = outcome_of(syscount, text, tmp_path)
    assert found.calls == {"read": Tally(37, None, 264_357_123)}
    assert (found.events, found.lost) == (37, None)


def perf_data(records, cut=0):
    body = b"".join(struct.pack("<IHH", kind, 0, 8 + len(rest)) + rest for kind, rest in records)
    head = b"PERFILE2" + struct.pack("<QQQQ", 104, 136, 0, 0) + struct.pack("<QQ", 104, len(body)) + b"\0" * 48
    whole = head + body
    return whole[: len(whole) - cut]


def test_samples_and_losses_of_perf_are_counted_in_its_file(tmp_path):
    path = tmp_path / "perf.data"
    lost, samples = struct.pack("<QQ", 1, 40), struct.pack("<Q", 2)
    path.write_bytes(perf_data([(9, b"x" * 16)] * 5 + [(2, lost), (13, samples), (3, b"y" * 8), (9, b"")]))
    assert perf_counts(path) == (6, 40)
    # What is lost is in both kinds of record; the last loss of a ring buffer is in the second kind only.
    path.write_bytes(perf_data([(9, b""), (2, lost), (13, struct.pack("<Q", 44)), (13, samples)]))
    assert perf_counts(path) == (1, 46)
    left_out = bytearray(perf_data([(13, samples)]))
    struct.pack_into("<H", left_out, 104 + 4, 1 << 15)
    path.write_bytes(left_out)
    assert perf_counts(path) == (0, 0)
    path.write_bytes(perf_data([(9, b"x" * 16)] * 5, cut=3))
    assert perf_counts(path) == (None, None)
    path.write_bytes(perf_data([(81, b"z" * 8)]))
    assert perf_counts(path) == (None, None)
    path.write_bytes(perf_data([(9, b"")])[:-8] + struct.pack("<IHH", 9, 0, 0))
    assert perf_counts(path) == (None, None)
    path.write_bytes(b"")
    assert perf_counts(path) == (None, None)


@pytest.mark.parametrize("module", [strace, strace_count, perf_trace, bpftrace, syscount])
def test_no_text_makes_a_reader_stumble_or_count_without_bound(module, tmp_path):
    generator = random.Random(module.__name__)
    whole = STRACE * 3
    for _ in range(100):
        text = bytearray(whole[: generator.randrange(len(whole))])
        for _ in range(generator.randrange(1, 20)):
            if text:
                text[generator.randrange(len(text))] = generator.randrange(256)
        with suppress(RingtapeError):
            outcome_of(module, bytes(text), tmp_path)
    many = b"".join(b"1 name%d() = 0 <0.1>\n" % at for at in range(5000))
    assert len(outcome_of(module, many, tmp_path).calls) <= 2000
    outcome_of(module, b"1 read(" + b"9" * 1_000_000 + b") = 99999999999999999999999999 <0.1>\n", tmp_path)


def test_long_lines_are_cut_and_no_line_is_lost(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(b"a" * (3 * LONGEST + 5) + b"\nb\n" + b"c" * LONGEST + b"\nd")
    assert [line[:1] for line in lines(path)] == [b"a", b"b", b"c", b"d"]
    assert max(map(len, lines(path))) == LONGEST


def test_pointers_are_no_bytes():
    tallies = Tallies()
    tallies.begin("read")
    tallies.end("read", 0x7F0000000000, 5)
    assert tallies.calls() == {"read": Tally(1, 0, 5, 0)}


def test_every_tool_says_what_it_does_and_whether_it_can():
    for name, one in tools().items():
        assert one.name == name
        assert one.summary.endswith(".")
        why = one.missing()
        assert why is None or len(why) > 10
    with pytest.raises(UsageError, match="unknown tool 'stace'"):
        tool("stace")


def test_what_is_known_of_a_tool_explains_the_differences_that_it_makes_and_no_others():
    assert "ring buffer was full" in tool("perf record").known_limits("count", -3)
    assert "twice" in tool("perf record").known_limits("count", 3)
    assert tool("perf record").known_limits("bytes", 3) is None
    assert tool("strace").known_limits("count", -1) is None


def test_ringtape_is_the_one_that_studies_whatever_lies_in_the_folder_of_a_workload(tmp_path):
    (tmp_path / "ringtape").mkdir()
    (tmp_path / "ringtape" / "__init__.py").write_text("open('ran', 'w').close()\n")
    command = tool("ringtape").wrap([], tmp_path / "out.trace", ["true"])
    done = subprocess.run([*command[: command.index("record")], "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == f"ringtape {VERSION}\n"
    assert not (tmp_path / "ran").exists()
