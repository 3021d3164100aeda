"""Resident and mapped memory over time, stalls and OOM kills, against what the kernel itself tells of them."""

import itertools
import os
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

import ringtape
from ringtape.analysis.analyses.memory import memory
from ringtape.analysis.analyses.reclaim import reclaim
from ringtape.recorder import compile, program
from ringtape.recorder.btf import KernelTypes, read_kernel_types
from tests.kernel.recording import wait_for
from tests.kernel.test_faults import child_of, marks_of

TABLES = ("--tables", "memory")
SAMPLE, DIRECT, CGROUP, NODE, COMPACTION, OOM = range(6)
EXIT = 3
PAGE = 4096
N = 16384
CPUS = os.sysconf("SC_NPROCESSORS_CONF")
BATCH = max(32, 2 * CPUS) * CPUS * PAGE
"""What the kernel's own running total of a counter may lack."""
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
LIMIT = 30 << 20


def news(resident):
    """Return by how much a kind may differ from the last sample."""
    return max(128 * PAGE, resident >> 6) + BATCH


def samples_of(rows, pid):
    return [row for row in rows if row["pid"] == pid and row["kind"] == SAMPLE]


def resident(row):
    return row["anon"] + row["file"] + row["shmem"]


def test_at_every_mark_the_last_sample_is_what_the_kernel_says(record, programs):
    done = record(*TABLES, "--", programs("memory"), "shrink", str(N))
    trace = done.trace.check()
    marks = marks_of(done.stdout)
    samples = samples_of(trace.rows("memory"), marks[0]["pid"])
    assert {mark["name"]: round(mark["rss"] / N / PAGE * 4) for mark in marks} == {
        "start": 0,
        "grown": 4,
        "halved": 2,
        "gone": 0,
        "heap": 1,
        "end": 0,
    }
    for mark in marks:
        last = [row for row in samples if row["ts"] <= mark["time"]][-1]
        assert abs(resident(last) - mark["rss"]) <= news(mark["rss"]), mark["name"]
        assert last["swap"] == 0
        assert resident(last) <= last["peak"] <= last["mapped_peak"]
        assert last["mapped"] <= last["mapped_peak"]
    grown, halved = ([row for row in samples if row["ts"] <= mark["time"]][-1] for mark in marks[1:3])
    assert grown["mapped"] == halved["mapped"] == marks[1]["mapped"]
    assert max(row["mapped_peak"] for row in samples) == max(mark["mapped_peak"] for mark in marks)


def test_the_peak_is_that_of_the_kernel_within_one_batch_of_pages(record, programs):
    done = record(*TABLES, "--", programs("memory"), "shrink", str(N))
    trace = done.trace.check()
    marks = marks_of(done.stdout)
    samples = samples_of(trace.rows("memory"), marks[0]["pid"])
    peak = max(mark["peak"] for mark in marks)
    assert abs(max(row["peak"] for row in samples) - peak) <= BATCH
    assert abs(max(resident(row) for row in samples) - peak) <= news(peak)
    (end,) = [row for row in trace.rows("processes") if row["kind"] == EXIT]
    assert abs(end["maxrss"] - peak) <= BATCH
    (found,) = memory(ringtape.open(done.path)).to_dicts()
    assert abs(found["peak"] - peak) <= BATCH
    assert found["mapped_peak"] == max(mark["mapped_peak"] for mark in marks)


def test_calls_that_map_memory_are_summed_and_those_that_fail_counted(record, programs):
    done = record("--tables", "memory,syscalls", "--", programs("memory"), "shrink", str(N))
    done.trace.check()
    (found,) = memory(ringtape.open(done.path)).to_dicts()
    assert found["refused"] == 1, "64 TiB"
    assert N * PAGE <= found["heap"] < N * PAGE * 1.1
    assert N * PAGE <= found["mmapped"] < N * PAGE * 1.1
    assert N * PAGE <= found["munmapped"] < N * PAGE * 1.1


def test_samples_are_exact_where_the_kernels_total_lags_behind(record, programs):
    """A process smaller than the part of the counters that each CPU holds back would else seem to have nothing."""
    done = record(*TABLES, "--", programs("memory"), "touch", "8")
    trace = done.trace.check()
    (end,) = [row for row in trace.rows("processes") if row["kind"] == EXIT]
    last = samples_of(trace.rows("memory"), end["pid"])[-1]
    if last["ts"] < end["ts"] - 1_000_000:
        pytest.skip("before Linux 6.16 there is no sample at the exit")
    assert 0 < last["anon"] < BATCH
    assert resident(last) <= last["peak"] == end["maxrss"] or end["maxrss"] > last["peak"], "maxrss is that of the program before the exec, too"


def test_samples_are_few_however_many_pages_are_touched(record, programs):
    done = record(*TABLES, "--", programs("memory"), "touch", "50000")
    trace = done.trace.check()
    begin, end = marks_of(done.stdout)
    found = [row for row in samples_of(trace.rows("memory"), begin["pid"]) if begin["time"] <= row["ts"] <= end["time"]]
    # One for each 128 pages, then for each 64th more, and one for each jiffy, of which there are 1000 a second at most.
    assert len(found) <= 64 + 64 * 3 + (end["time"] - begin["time"]) / 1e6
    ordered = [row["anon"] for row in found]
    assert ordered == sorted(ordered)
    assert max(after - before for before, after in itertools.pairwise(ordered)) <= news(ordered[-1])


def test_a_child_has_its_parents_memory_from_the_first_moment(record, programs):
    done = record(*TABLES, "--", programs("memory"), "cow", str(N))
    trace = done.trace.check()
    begin, _ = marks_of(done.stdout)
    first = samples_of(trace.rows("memory"), begin["pid"])[0]
    assert abs(first["anon"] - N * PAGE) <= news(N * PAGE)
    forks = [row for row in trace.rows("processes") if row["kind"] == 1 and row["pid"] == begin["pid"]]
    assert first["ts"] - forks[0]["ts"] < 1_000_000_000
    assert first["actor"] == forks[0]["creator"]


def test_attached_in_the_middle_a_process_has_a_sample_at_the_start_and_at_the_end(start, programs, tmp_path):
    go = tmp_path / "go"
    with start("--tables", "syscalls", "--", programs("memory"), "wait", str(N), go) as outer:
        outer.wait_until_recording()
        pid = wait_for(lambda: child_of(outer), "the program runs")
        wait_for(lambda: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) > N // 2, "half of it is touched")
        with start(*TABLES, "--pid", str(pid)).wait_until_recording() as inner:
            trace = inner.stop().trace.check()
        go.touch()
        waiting, *_ = marks_of(outer.wait().stdout)
    rows = samples_of(trace.rows("memory"), pid)
    assert len(rows) >= 2
    assert all(abs(resident(row) - waiting["rss"]) <= BATCH for row in rows)
    assert rows[0]["seq"] == rows[-1]["seq"] == -1
    assert abs(rows[-1]["mapped"] - waiting["mapped"]) <= BATCH


def test_the_whole_machine_has_a_row_of_every_process_and_none_of_the_recorder(start, programs):
    with subprocess.Popen(["sleep", "1000"]) as idle:
        wait_for(lambda: Path(f"/proc/{idle.pid}/comm").read_text() == "sleep\n", "a process that does nothing")
        try:
            rows, begin, recorder = whole_machine(start, programs)
        finally:
            idle.kill()
    assert max(row["anon"] for row in rows if row["pid"] == begin["pid"]) >= N * PAGE - news(N * PAGE)
    assert recorder.pid not in {row["pid"] for row in rows}
    assert len(samples_of(rows, idle.pid)) >= 2


def whole_machine(start, programs):
    with start(*TABLES, "--all").wait_until_recording() as recorder:
        with start("--tables", "syscalls", "--", programs("memory"), "touch", str(N)) as other:
            begin, _ = marks_of(other.wait().stdout)
        trace = recorder.stop().trace.check()
    return trace.rows("memory"), begin, recorder


def test_what_a_tiny_ring_loses_is_in_the_ledger(record, programs):
    done = record(*TABLES, "--ring-size", "memory=4K,processes=8M", "--", programs("memory"), "shrink", "60000")
    trace = done.trace.check()
    lost = sum(row["count"] for row in trace.rows("losses") if row["table"] == "memory" and row["cause"] == 0)
    assert trace.footer.lost["memory"] == lost > 0
    rows = [row for row in trace.rows("memory") if row["seq"] >= 0]
    assert len(rows) + lost == sum(trace.footer.attempted["memory"].values())


@pytest.fixture
def small_cgroup():
    """A cgroup that may use 30 MB, and the words that start a program in it."""
    version1 = (V1 / "memory.limit_in_bytes").exists()
    root = V1 if version1 else V2
    folder = root / f"ringtape-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        for name, value in [("memory.limit_in_bytes" if version1 else "memory.max", LIMIT), ("memory.swappiness", 0), ("memory.swap.max", 0)]:
            if (folder / name).exists():
                (folder / name).write_text(str(value))
        if not (folder / ("memory.limit_in_bytes" if version1 else "memory.max")).exists():
            folder.rmdir()
            pytest.skip("the memory controller is not enabled in the cgroup hierarchy")
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made: {error}")
    yield folder, ("sh", "-c", f'echo $$ > {folder}/cgroup.procs; exec "$@"', "sh")
    wait_for(lambda: not (folder / "cgroup.procs").read_text(), "the cgroup is empty")
    folder.rmdir()


def test_an_oom_kill_names_the_victim_that_dies_of_signal_9(record, programs, small_cgroup):
    folder, enter = small_cgroup
    done = record(*TABLES, "--", *enter, programs("memory"), "fill", "100000")
    assert done.status == -signal.SIGKILL, "it ends as the program did"
    trace = done.trace.check()
    rows = trace.rows("memory")
    (kill,) = [row for row in rows if row["kind"] == OOM]
    (end,) = [row for row in trace.rows("processes") if row["kind"] == EXIT and row["exit_signal"] == signal.SIGKILL]
    assert (kill["pid"], kill["tid"], kill["actor"]) == (end["pid"], end["tid"], end["tid"])
    assert kill["ts"] <= end["ts"]
    assert LIMIT * 0.8 <= kill["anon"] <= LIMIT
    assert kill["mapped"] >= 100_000 * PAGE
    kills = [line.split()[1] for name in ("memory.oom_control", "memory.events") if (folder / name).exists()
             for line in (folder / name).read_text().splitlines() if line.startswith("oom_kill ")]  # fmt: skip
    assert kills == ["1"]
    log = Path("/dev/kmsg")
    if os.access(log, os.R_OK):
        said = kernel_log()
        assert any(f"Killed process {end['pid']} " in line for line in said), "dmesg names the same process"
    assert max(row["peak"] for row in rows if row["pid"] == end["pid"]) <= end["maxrss"] + BATCH


def kernel_log():
    """Return the lines of the kernel's log that are still there."""
    lines = []
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                lines.append(os.read(descriptor, 8192).decode(errors="replace"))
            except BrokenPipeError:  # overwritten meanwhile: the next read goes on behind it
                continue
            except BlockingIOError:
                return lines
    finally:
        os.close(descriptor)


class Tracefs:
    """The kernel's own record of the same events, in an instance of its own: what it has of a process."""

    def __init__(self, *events):
        self.folder = Path("/sys/kernel/tracing/instances") / f"ringtape-test-{uuid.uuid4().hex[:8]}"
        self.events = events

    def __enter__(self):
        try:
            self.folder.mkdir()
        except OSError as error:
            pytest.skip(f"tracefs: {error}")
        (self.folder / "buffer_size_kb").write_text("16384")
        (self.folder / "trace_clock").write_text("mono")
        for event in self.events:
            (self.folder / "events" / event / "enable").write_text("1")
        return self

    def __exit__(self, *_):
        (self.folder / "events" / "enable").write_text("0")
        self.folder.rmdir()

    def lines(self, name, pid):
        """Return (seconds, text) of each event of that name by that thread."""
        found = []
        for line in (self.folder / "trace").read_text().splitlines():
            head, _, text = line.partition(f": {name}: ")
            if text and head.split("[")[0].strip().endswith(f"-{pid}"):
                found.append((float(head.split()[-1]), text))
        return found


def test_each_stall_in_cgroup_reclaim_is_the_one_that_the_kernels_own_trace_has(record, programs, small_cgroup, tmp_path):
    _folder, enter = small_cgroup
    file = tmp_path / "file"
    file.write_bytes(bytes(100 << 20))
    with file.open("rb") as content:
        os.fsync(content.fileno())
        os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # else it is in memory, charged to another cgroup
    with Tracefs("vmscan/mm_vmscan_memcg_reclaim_begin", "vmscan/mm_vmscan_memcg_reclaim_end") as other:
        done = record(*TABLES, "--", *enter, programs("memory"), "read", str((100 << 20) // PAGE), file)
        trace = done.trace.check()
        assert done.status == 0
        (end,) = [row for row in trace.rows("processes") if row["kind"] == EXIT]
        begins, ends = (other.lines(f"mm_vmscan_memcg_reclaim_{what}", end["pid"]) for what in ("begin", "end"))
    if not begins:
        pytest.skip("the file was read without reclaim")
    stalls = [row for row in trace.rows("memory") if row["kind"] == CGROUP]
    assert {row["pid"] for row in stalls} == {end["pid"]}
    assert len(stalls) == len(begins) == len(ends)
    assert [row["reclaimed"] // PAGE for row in stalls] == [int(text.split("=")[1]) for _, text in ends]
    found = reclaim(ringtape.open(done.path)).row(0, named=True)
    assert (found["what"], found["process"], found["count"]) == ("cgroup reclaim", end["pid"], len(stalls))
    assert (found["time"], found["max"]) == (sum(row["dur"] for row in stalls), max(row["dur"] for row in stalls))
    assert found["reclaimed"] == PAGE * sum(int(text.split("=")[1]) for _, text in ends)
    assert [row["order"] for row in stalls] == [int(text.split()[0].split("=")[1]) for _, text in begins]
    for row, (began, _), (ended, _) in zip(stalls, begins, ends, strict=True):
        # Two recorders at one tracepoint run one after the other, and microseconds are all that the other prints.
        assert abs(row["ts"] / 1e9 - began) < 0.05
        assert abs((row["ts"] + row["dur"]) / 1e9 - ended) < 0.05
        assert (row["unfinished"], row["result"], row["actor"]) == (0, 0, row["tid"])


def test_a_compaction_that_is_asked_for_is_a_stall_of_the_one_who_asked(record):
    with Tracefs("compaction/mm_compaction_begin", "compaction/mm_compaction_end") as other:
        done = record(*TABLES, "--", "sh", "-c", "echo 1 > /proc/sys/vm/compact_memory")
        trace = done.trace.check()
        (end,) = [row for row in trace.rows("processes") if row["kind"] == EXIT]
        ends = other.lines("mm_compaction_end", end["pid"])
    assert done.status == 0
    stalls = [row for row in trace.rows("memory") if row["kind"] == COMPACTION]
    assert len(stalls) == len(ends) > 0
    assert {(row["pid"], row["order"]) for row in stalls} == {(end["pid"], -1)}
    names = {"complete": 5, "partial_skipped": 6, "contended": 7, "success": 8, "not_suitable_zone": 0, "skipped": 1, "no_suitable_page": 3}
    assert [row["result"] for row in stalls] == [names[text.rpartition("=")[2]] for _, text in ends]
    assert all(row["dur"] > 0 for row in stalls)


def test_the_probes_compile_for_kernels_with_fewer_arguments_and_older_counters():
    names = ("faults", "memory", "processes")
    here = read_kernel_types(program.members(names))
    older = {**here.offsets, ("mm_rss_stat", "count"): 0}
    for absent in [("mm_struct", "owner"), ("compact_control", "order"), ("compact_control", "gfp_mask"), ("percpu_counter", "counters")]:
        older.pop(absent)
    arguments = {"mark_victim": 1, "sched_process_exit": 1, "mm_compaction_begin": 5, "mm_compaction_end": 6}
    tracepoints = {name: (number, arguments.get(name, count)) for name, (number, count) in here.tracepoints.items()}
    source = program.assemble(names, KernelTypes(older, tracepoints, here.iterator), CPUS)
    assert not source.unavailable
    assert set(compile._compile(source.text, source.functions)["functions"]) == set(source.functions)
