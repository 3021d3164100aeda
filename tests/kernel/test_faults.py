"""Page faults: every one that the kernel counts for a thread is a row, and what it came to follows from the counters in the rows."""

import itertools
from pathlib import Path

import pytest

import ringtape
from ringtape.analysis.analyses.faults import faults
from tests.kernel import recording
from tests.kernel.recording import check_quiet, wait_for

TABLES = ("--tables", "faults")
USER, KERNEL, AT_ATTACH, AT_DETACH = range(4)
MAPPING, PROGRAM, HEAP, STACK = range(4)
PRESENT, WRITE, FROM_USER, FETCH = 1, 2, 4, 16
PAGE = 4096
N = 1000


def marks_of(stdout):
    """Return the marks that the program left, as dictionaries of numbers (and the name)."""
    lines = [dict(word.split("=") for word in line.split()) for line in stdout.decode().splitlines()]
    return [{name: value if name == "name" else int(value) for name, value in line.items()} for line in lines if line["name"] != "warm"]


def between(rows, begin, end):
    """Return the faults of a thread between two of its marks."""
    assert begin["tid"] == end["tid"]
    return [row for row in rows if row["tid"] == begin["tid"] and begin["time"] <= row["ts"] <= end["time"] and row["kind"] <= KERNEL]


def effects(rows, after):
    """Return what became of each fault: the increase of the two counters until the next row, or until ``after``."""
    counts = [(row["min_flt"], row["maj_flt"]) for row in rows] + [after]
    return [(then[0] - now[0], then[1] - now[1]) for now, then in itertools.pairwise(counts)]


@pytest.fixture
def recorded(record, programs):
    """Record one mode of the program; return the rows of faults and the marks."""

    def run(*words):
        done = record(*TABLES, "--", programs("memory"), *map(str, words))
        assert done.status == 0
        trace = done.trace.check()
        return trace.rows("faults"), marks_of(done.stdout)

    return run


def test_each_page_that_is_touched_is_one_row_and_the_counters_equal_getrusage(recorded):
    rows, (begin, end) = recorded("touch", N)
    found = between(rows, begin, end)
    assert end["minor"] - begin["minor"] == len(found) == N
    assert [row["address"] for row in found] == [begin["base"] + i * PAGE for i in range(N)]
    assert {(row["kind"], row["region"], row["error"]) for row in found} == {(USER, MAPPING, WRITE | FROM_USER)}
    assert len({row["ip"] for row in found}) == 1
    assert [row["min_flt"] for row in found] == list(range(begin["minor"], end["minor"]))
    assert {row["maj_flt"] for row in found} == {begin["major"]}


def test_the_last_row_and_the_exit_agree(record, programs):
    trace = record(*TABLES, "--", programs("memory"), "touch", "10").trace.check()
    (end,) = [row for row in trace.rows("processes") if row["kind"] == 3]
    last = [row for row in trace.rows("faults") if row["tid"] == end["tid"]][-1]
    assert (last["min_flt"] + 1, last["maj_flt"]) == (end["min_flt"], end["maj_flt"])


def test_a_system_call_that_fills_untouched_memory_takes_the_faults_in_the_kernel(recorded):
    rows, (begin, end) = recorded("kernel", N)
    found = between(rows, begin, end)
    assert end["minor"] - begin["minor"] == len(found) == N
    assert {row["kind"] for row in found} == {KERNEL}
    assert all(row["ip"] < 0 for row in found), "an address of the kernel"
    assert {row["address"] // PAGE for row in found} == {begin["base"] // PAGE + i for i in range(N)}


def test_pages_that_a_call_maps_at_once_are_counted_by_the_kernel_and_are_no_rows(recorded):
    rows, (begin, end, touched) = recorded("populate", N)
    assert between(rows, begin, end) == between(rows, end, touched) == []
    assert end["minor"] - begin["minor"] == N
    assert touched["minor"] == end["minor"]
    after = next(row for row in rows if row["tid"] == end["tid"] and row["ts"] > end["time"])
    assert after["min_flt"] == end["minor"], "the next row has them all the same"


def test_a_child_that_writes_to_what_it_inherited_takes_a_fault_for_each_page_that_is_copied(recorded):
    rows, (begin, end) = recorded("cow", N)
    found = between(rows, begin, end)
    assert end["minor"] - begin["minor"] == len(found) == N
    assert {row["error"] for row in found} == {PRESENT | WRITE | FROM_USER}
    first = min((row for row in rows if row["tid"] == begin["tid"]), key=lambda row: row["ts"])
    assert first["min_flt"] == 0, "a new process begins at 0"


def test_each_thread_has_its_own_faults(recorded):
    rows, marks = recorded("threads", N)
    begins = {mark["tid"]: mark for mark in marks if mark["name"] == "begin"}
    ends = {mark["tid"]: mark for mark in marks if mark["name"] == "end"}
    assert len(begins) == 4
    for tid, begin in begins.items():
        found = between(rows, begin, ends[tid])
        assert ends[tid]["minor"] - begin["minor"] == len(found) == N
        assert [row["address"] for row in found] == [begin["base"] + i * PAGE for i in range(N)]


def test_faults_that_read_a_file_are_major_and_those_that_find_it_in_memory_minor(recorded, tmp_path):
    rows, (begin, end, again, cached) = recorded("file", 300, tmp_path / "file")
    if end["major"] == begin["major"]:
        pytest.skip(f"{tmp_path} is on a file system that has no disk")
    found = between(rows, begin, end)
    minor, major = end["minor"] - begin["minor"], end["major"] - begin["major"]
    became = effects(found, (end["minor"], end["major"]))
    assert set(became) <= {(1, 0), (0, 1)}
    assert (became.count((1, 0)), became.count((0, 1))) == (minor, major)
    assert {row["error"] for row in found} == {FROM_USER}
    around = between(rows, again, cached)
    assert len(around) == cached["minor"] - again["minor"] < 300, "the kernel maps several pages at one fault"
    assert cached["major"] == again["major"]


def test_faults_on_nothing_change_no_counter(recorded):
    rows, (begin, end) = recorded("wild", 20)
    found = between(rows, begin, end)
    assert [row["address"] for row in found] == [begin["base"] + i * PAGE for i in range(20)]
    assert set(effects(found, (end["minor"], end["major"]))) == {(0, 0)}


def test_heap_mapping_program_and_stack_are_told_apart(recorded):
    rows, marks = recorded("regions", 50)
    of = {"heap": HEAP, "mapping": MAPPING, "program": PROGRAM, "stack": STACK}
    for mark, after in itertools.pairwise(marks):
        found = between(rows, mark, after)
        inside = [row for row in found if mark["base"] <= row["address"] < mark["base"] + 64 * PAGE]
        assert len(inside) >= 48
        assert {row["region"] for row in inside} == {of[mark["name"]]}


def test_an_instruction_fetch_says_so(recorded):
    rows, _ = recorded("touch", 1)
    fetched = [row for row in rows if row["kind"] == USER and row["error"] & FETCH]
    assert fetched
    assert all(row["ip"] == row["address"] and row["region"] == PROGRAM for row in fetched)


def test_attached_in_the_middle_counters_of_the_start_and_the_end_enclose_what_was_recorded(start, programs, tmp_path):
    go = tmp_path / "go"
    with start("--tables", "syscalls", "--", programs("memory"), "wait", str(N), go) as outer:
        outer.wait_until_recording()
        pid = wait_for(lambda: child_of(outer), "the program runs")
        with start(*TABLES, "--pid", str(pid)).wait_until_recording() as inner:
            go.touch()
            done = inner.wait()
        stdout = outer.wait().stdout
    trace = done.trace.check()
    _, begin, end = marks_of(stdout)
    rows = [row for row in trace.rows("faults") if row["tid"] == pid]
    assert [row["kind"] for row in rows].count(AT_ATTACH) == 1
    found = between(rows, begin, end)
    assert len(found) == end["minor"] - begin["minor"] == N // 2
    (exit_row,) = [row for row in trace.rows("processes") if row["kind"] == 3]
    faults = [row for row in rows if row["kind"] <= KERNEL]
    counted = exit_row["min_flt"] + exit_row["maj_flt"] - rows[0]["min_flt"] - rows[0]["maj_flt"]
    assert counted == len(faults), "nothing was populated, nothing failed"


def child_of(recorder):
    """Return the program that a recorder runs, once it is the program."""
    listed = Path(f"/proc/{recorder.pid}/task/{recorder.pid}/children")
    pid = int(wait_for(lambda: listed.read_text().split(), "the child is there")[0])
    return pid if Path(f"/proc/{pid}/comm").read_text() == "memory\n" else 0


def test_a_thread_that_goes_on_has_its_counters_at_the_end(start, programs, tmp_path):
    go = tmp_path / "go"
    with start("--tables", "syscalls", "--", programs("memory"), "wait", "10", go) as outer:
        outer.wait_until_recording()
        pid = wait_for(lambda: child_of(outer), "the program runs")
        with start(*TABLES, "--pid", str(pid)).wait_until_recording() as inner:
            trace = inner.stop().trace.check()
        go.touch()
        outer.wait()
    rows = [row for row in trace.rows("faults") if row["tid"] == pid]
    assert (rows[0]["kind"], rows[-1]["kind"]) == (AT_ATTACH, AT_DETACH)
    assert rows[-1]["min_flt"] - rows[0]["min_flt"] == len(rows) - 2


@pytest.mark.parametrize("size", ["4K", "64K"])
def test_what_a_tiny_ring_loses_is_in_the_ledger_and_the_counters_bridge_the_gap(record, programs, size):
    done = record(*TABLES, "--ring-size", f"faults={size},processes=8M", "--", programs("memory"), "touch", "40000")
    trace = done.trace.check()
    begin, end = marks_of(done.stdout)
    lost = sum(row["count"] for row in trace.rows("losses") if row["table"] == "faults" and row["cause"] == 0)
    assert trace.footer.lost["faults"] == lost > 0
    ringed = [row for row in trace.rows("faults") if row["kind"] <= KERNEL]
    assert len(ringed) + lost == sum(trace.footer.attempted["faults"].values())
    (exit_row,) = [row for row in trace.rows("processes") if row["kind"] == 3]
    assert exit_row["min_flt"] - ringed[0]["min_flt"] >= end["minor"] - begin["minor"] == 40_000
    (found,) = faults(ringtape.open(done.path)).to_dicts()
    assert (found["minor"], found["major"]) == counted_since_exec(trace)
    assert found["traps"] == len([row for row in ringed if row["ts"] >= exec_of(trace)["ts"]])
    assert found["untrapped"] >= lost


def exec_of(trace):
    return next(row for row in trace.rows("processes") if row["kind"] == 2)


def counted_since_exec(trace):
    """Return what the kernel counted for the command's first thread from its first row after the exec to its exit."""
    began = exec_of(trace)
    (end,) = [row for row in trace.rows("processes") if row["kind"] == 3 and row["tid"] == began["tid"]]
    first = next(row for row in trace.rows("faults") if row["tid"] == began["tid"] and row["ts"] >= began["ts"])
    return end["min_flt"] - first["min_flt"], end["maj_flt"] - first["maj_flt"]


@pytest.mark.parametrize("words", [("touch", N), ("populate", N), ("threads", N), ("file", 100), ("wild", 20), ("kernel", N)])
def test_the_analysis_counts_what_the_kernel_counts_and_every_row_once(record, programs, tmp_path, words):
    mode, number = words
    done = record(*TABLES, "--", programs("memory"), mode, str(number), tmp_path / "file")
    trace = done.trace.check()
    marks = marks_of(done.stdout)
    opened = ringtape.open(done.path)
    by_thread = {row["thread"]: row for row in faults(opened, by="thread").to_dicts()}
    main = by_thread[marks[0]["pid"]]
    assert (main["minor"], main["major"]) == counted_since_exec(trace)
    for tid in {mark["tid"] for mark in marks} - {marks[0]["pid"]}:
        (end,) = [row for row in trace.rows("processes") if row["kind"] == 3 and row["tid"] == tid]
        assert (by_thread[tid]["minor"], by_thread[tid]["major"]) == (end["min_flt"], end["maj_flt"])
    for by in ("process", "thread", "command", "region", "access", "instruction"):
        found = faults(opened, by=by)
        since = exec_of(trace)["ts"]
        assert found["traps"].sum() == len([row for row in trace.rows("faults") if row["kind"] <= KERNEL and row["ts"] >= since])
        totals = [found[name].sum() for name in ("minor", "major")]
        if "region" not in found.columns or not found["unclear"].sum():
            assert totals == [sum(row[name] for row in by_thread.values()) for name in ("minor", "major")]
        assert found["minor"].sum() + found["major"].sum() == found["traps"].sum() - found["failed"].sum() + found["untrapped"].sum()
    if mode == "populate":
        assert main["untrapped"] >= number
    if mode == "wild":
        assert main["failed"] >= number


def test_the_whole_machine_without_the_recorder(start, programs):
    with start(*TABLES, "--all").wait_until_recording() as recorder:
        with start("--tables", "syscalls", "--", programs("memory"), "touch", str(N)) as other:
            marks = marks_of(other.wait().stdout)
        trace = recorder.stop().trace.check()
    rows = trace.rows("faults")
    assert len(between(rows, *marks)) == N
    assert recorder.pid not in {row["pid"] for row in rows}
    assert len({row["pid"] for row in rows}) > 2


def test_a_recorder_that_is_killed_loses_no_fault(start, programs, tmp_path):
    go = tmp_path / "go"
    recorder = start("--tables", "faults,memory", "--", programs("memory"), "wait", str(N), go).wait_until_recording()
    pid = wait_for(lambda: child_of(recorder), "the program runs")
    wait_for(lambda: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) > N // 2, "half of it is touched")
    recorder.process.kill()
    recorder.process.wait()
    go.touch()
    done = recording.ringtape("recover", recorder.path)
    check_quiet(done)
    assert done.status == 0
    trace = recovered(recorder.path)
    rows = [row for row in trace.rows("faults") if row["tid"] == pid and row["region"] == MAPPING and row["kind"] == USER]
    addresses = [row["address"] for row in rows]
    runs = [address for address in addresses if address + PAGE in set(addresses)]
    assert len(runs) >= N // 2 - 1
    assert trace.table("memory").num_rows


def recovered(path):
    """Return a recovered trace whose books balance."""
    trace = recording.Trace(path)
    assert trace.state == "recovered"
    trace.check_books()
    trace.check_no_pins()
    return trace
