"""Block I/O: what was recorded of private loop devices is what the programs did and what the kernel itself counted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ringtape.schemas.table import table
from tests.kernel.disks import MIB, Counts, freezable, loop, run
from tests.kernel.recording import SCRIPT, Trace, ringtape, wait_for

COMPLETE, AT_ATTACH, MERGED, UNFINISHED, END_UNSEEN = range(5)
READ, WRITE, FLUSH, DISCARD = range(4)
FUA, PREFLUSH = 1 << 9, 1 << 10
IO_ERROR = 10
RING_FULL, NO_STORAGE = 0, 1
BLOCK = ("--tables", "processes,block")


@pytest.fixture
def disk(tmp_path):
    with loop(tmp_path / "disk.img") as made:
        yield made


@pytest.fixture
def still(tmp_path):
    """A device that can be made to stand still."""
    with freezable(tmp_path) as made:
        yield made


def of(trace, disk):
    return [row for row in trace.rows("block") if row["dev"] == disk.number]


def done(rows, operation=None):
    return [row for row in rows if row["kind"] == COMPLETE and operation in (None, row["operation"])]


def counted(rows):
    """What the kernel counts of these requests: a flush that is asked for is a write of nothing, the one that is issued apart."""
    of_kind = [done(rows, operation) for operation in (READ, WRITE, DISCARD)]
    return Counts(*(number for some in of_kind for number in (len(some), sum(row["bytes"] for row in some))), len(done(rows, FLUSH)))


def when_counted(disk, before, least):
    """Return what the kernel has counted, when that is at least what a program is known to have done."""

    def enough():
        return all(now >= wanted for now, wanted in zip(disk.counts().since(before), least, strict=True))

    wait_for(enough, f"the kernel has counted {least}")
    return disk.counts().since(before)


def truth(output):
    """Return {tid: (requests, bytes)} as programs/block.c tells it."""
    return {int(tid): (int(requests), int(size)) for tid, requests, size in (line.split() for line in output.decode().splitlines())}


def pattern(trace_path, *arguments):
    found = ringtape("block-pattern", "--format", "json", *arguments, trace_path)
    assert found.status == 0, found.stderr
    return json.loads(found.stdout)


def wrapped(tmp_path, text):
    """Return words that run the command line after a change to the recorder's program text, past the cache."""
    script = tmp_path / "changed.py"
    head = "import sys\nfrom ringtape.recorder import compile, program\n"
    head += "compile._from_cache = lambda key: None\ncompile._to_cache = lambda key, entry: None\n"
    script.write_text(head + text + "\nfrom ringtape.cli import main\ndel sys.argv[1]\nsys.exit(main())\n")
    return [sys.executable, str(script)]


OLD_KERNEL = """
read = compile.read_kernel_types
def without(*arguments, **options):
    types = read(*arguments, **options)
    types.tracepoints.pop("block_io_start")
    return types
compile.read_kernel_types = without
"""


DYING = """
import os
from ringtape.recorder import recover
drop = recover.drop
def then_die(owner):
    drop(owner)
    from ringtape.recorder.pump import Pump
    Pump.close_trace = lambda *arguments, **options: os.kill(os.getpid(), 9)
recover.drop = then_die
"""


@pytest.mark.parametrize("action", ["read", "write"])
def test_requests_and_bytes_are_those_of_the_program_and_of_diskstats(record, programs, disk, action):
    before = disk.counts()
    finished = record(*BLOCK, "--", programs("block"), "io", disk.path, action, "16384", "100", "sequential", "2")
    trace = finished.trace.check()
    rows = of(trace, disk)
    said = truth(finished.stdout)
    assert len(said) == 2
    data = [row for row in done(rows) if row["bytes"]]
    assert {row["operation"] for row in data} == {READ if action == "read" else WRITE}
    by_thread = Counter(row["tid"] for row in data)
    assert {tid: (by_thread[tid], sum(row["bytes"] for row in data if row["tid"] == tid)) for tid in by_thread} == said
    assert set(said.values()) == {(100, 100 * 16384)}
    # What fdatasync asks for is there with the thread that waits for it; the flush that the kernel issues is the kernel's own.
    asked = [row for row in done(rows) if not row["bytes"]]
    assert [(row["operation"], row["flags"] & PREFLUSH, row["issue"], row["service"]) for row in asked] == [(WRITE, PREFLUSH, -1, -1)] * (
        action == "write"
    )
    assert len({row["pid"] for row in rows}) == 1
    # The kernel counts a request after it has told of its end.
    expected = counted(rows)._replace(flushes=len(asked))
    wait_for(lambda: disk.counts().since(before) == expected, f"the kernel counts the same: {expected}")
    for row in data:
        assert 0 <= row["insert"] <= row["issue"] or row["insert"] == -1
        assert row["issue"] >= 0
        assert row["service"] > 0
        assert row["issue"] + row["service"] == row["dur"]
        assert row["status"] == row["requeues"] == 0
        assert row["disk"].rstrip(b"\0") == disk.name.encode()


def test_of_the_whole_machine_every_request_of_the_disk_is_there(start, programs, disk):
    before = disk.counts()
    recorder = start(*BLOCK, "--all").wait_until_recording()
    for action, order in (("write", "random"), ("read", "sequential")):
        subprocess.run([programs("block"), "io", disk.path, action, "8192", "50", order, "3"], check=True, stdout=subprocess.DEVNULL, timeout=60)
    run("blkdiscard", "--offset", str(16 * MIB), "--length", str(4 * MIB), disk.path)
    expected = when_counted(disk, before, Counts(150, 0, 151, 0, 1, 0, 1))
    trace = recorder.stop().trace.check()
    rows = of(trace, disk)
    assert {row["kind"] for row in rows} == {COMPLETE}
    assert counted(rows) == expected
    assert (expected.bytes_discarded, expected.flushes) == (4 * MIB, 1)
    assert all(row["tid"] for row in rows)
    (flush,) = done(rows, FLUSH)
    (asked,) = [row for row in done(rows, WRITE) if not row["bytes"]]
    assert asked["ts"] <= flush["ts"]
    assert flush["ts"] + flush["dur"] <= asked["ts"] + asked["dur"]


def test_sequential_and_random_are_told_apart(record, programs, disk):
    for order in ("sequential", "random"):
        finished = record(*BLOCK, "--", programs("block"), "io", disk.path, "read", "4096", "100", order, "2")
        rows = pattern(finished.path, "--by", "thread", "--device", disk.name)
        assert [row["requests"] for row in rows] == [100, 100]
        assert [row["sequential"] for row in rows] == [99 if order == "sequential" else 0] * 2
        assert [(row["size"], row["smallest"], row["largest"]) for row in rows] == [(4096, 4096, 4096)] * 2


def order(process, number):
    process.stdin.write(b"go\n" * number)
    process.stdin.flush()


@pytest.fixture
def writer(programs, still):
    disk, _ = still
    with subprocess.Popen([programs("block"), "orders", disk.path, "4096"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        still[1].thaw()
        process.stdin.close()


def test_requests_at_the_device_at_once_and_unfinished_ones(start, writer, still):
    disk, freezer = still
    freezer.freeze()
    recorder = start(*BLOCK, "--pid", str(writer.pid)).wait_until_recording()
    order(writer, 5)
    wait_for(lambda: disk.in_flight == 5, "five writes are at the device")
    first = recorder.stop()
    trace = first.trace.check()
    rows = of(trace, disk)
    assert [(row["kind"], row["operation"], row["bytes"], row["seq"], row["service"]) for row in rows] == [(UNFINISHED, WRITE, 4096, -1, -1)] * 5
    assert all(row["issue"] >= 0 and row["ts"] + row["dur"] == trace.footer.detached_at for row in rows)
    assert {row["pid"] for row in rows} == {writer.pid}
    assert len({row["tid"] for row in rows} - {writer.pid}) == 5
    (found,) = pattern(first.path, "--device", disk.name)
    assert (found["requests"], found["highest"]) == (0, 5)

    # Of a process, nothing can be known of requests that were made before; of the whole machine, that they were there.
    everything = start(*BLOCK, "--all").wait_until_recording()
    again = start(*BLOCK, "--pid", str(writer.pid)).wait_until_recording()
    order(writer, 3)
    wait_for(lambda: disk.in_flight == 8, "three more are")
    freezer.thaw()
    wait_for(lambda: disk.in_flight == 0, "all are written")
    second = again.stop()
    rows = done(of(second.trace.check(), disk))
    assert [row["bytes"] for row in rows] == [4096] * 3
    (found,) = pattern(second.path, "--device", disk.name, "--by", "process")
    assert (found["process"], found["requests"], found["highest"]) == (writer.pid, 3, 3)
    trace = everything.stop().trace.check()
    early = [row for row in of(trace, disk) if row["kind"] == AT_ATTACH]
    assert [(row["bytes"], row["operation"], row["tid"]) for row in early] == [(4096, WRITE, 0)] * 5
    assert all(row["ts"] < trace.folder.header.attached_at < row["ts"] + row["dur"] for row in early)
    assert len([row for row in done(of(trace, disk), WRITE) if row["pid"] == writer.pid]) == 3


def test_a_part_that_could_be_read_is_requeued_and_the_rest_fails(record, programs, tmp_path, disk):
    os.truncate(tmp_path / "disk.img", 16384)
    finished = record(*BLOCK, "--", programs("block"), "io", disk.path, "read", "65536", "1", "sequential", "1")
    (row,) = of(finished.trace.check(), disk)
    assert (row["kind"], row["bytes"], row["sector"], row["requeues"], row["status"]) == (COMPLETE, 65536, 0, 1, IO_ERROR)
    (latency, *_) = json.loads(ringtape("block-latency", "--format", "json", "--device", disk.name, finished.path).stdout)
    assert (latency["requests"], latency["failed"]) == (1, 1)


@pytest.mark.parametrize("kernel", ["this", "before 6.5"])
def test_requests_that_need_a_flush_before_and_after_are_one_row_each(start, tmp_path, disk, kernel):
    run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", disk.path)
    mount = tmp_path / "mount"
    mount.mkdir()
    before = disk.counts()
    recorder = start(*BLOCK, "--all", prefix=wrapped(tmp_path, OLD_KERNEL) if kernel != "this" else ()).wait_until_recording()
    run("mount", disk.path, mount)
    try:
        for number in range(5):
            with (mount / str(number)).open("wb") as file:
                file.write(b"x" * 10_000)
                file.flush()
                os.fsync(file.fileno())
    finally:
        subprocess.run(["umount", mount], check=True, timeout=60)
    wait_for(lambda: disk.in_flight == 0, "all has ended")
    rows = of(recorder.stop().trace.check(), disk)
    assert {row["kind"] for row in rows} <= {COMPLETE, MERGED}
    wait_for(lambda: disk.counts().since(before) == counted(rows), f"the kernel counts the same: {counted(rows)}")
    if kernel != "this":
        return  # there, a request has lost the flags by the time at which it is seen first
    commits = [row for row in done(rows, WRITE) if row["bytes"] and row["flags"] & (PREFLUSH | FUA)]
    assert len(commits) >= 5
    flushes = done(rows, FLUSH)
    for row in commits:
        assert row["issue"] >= 0
        assert row["service"] > 0
        begin, issue, end = row["ts"], row["ts"] + row["issue"], row["ts"] + row["dur"]
        # The flush before is in the queue time, the one after behind the device time.
        if row["flags"] & PREFLUSH:
            assert any(begin < flush["ts"] + flush["dur"] <= issue for flush in flushes)
        if row["flags"] & FUA:
            assert any(issue + row["service"] <= flush["ts"] + flush["dur"] <= end for flush in flushes)


def test_neighbours_that_are_submitted_together_are_one_request(record, programs, disk):
    finished = record(*BLOCK, "--", programs("block"), "batch", disk.path, "4096", "8", "9", "10", "11")
    (row,) = of(finished.trace.check(), disk)
    assert (row["kind"], row["bytes"], row["sector"]) == (COMPLETE, 4 * 4096, 8 * 8)


def test_a_request_that_closes_a_gap_is_merged_by_the_scheduler(record, programs, disk):
    scheduler = disk.queue / "scheduler"
    if "mq-deadline" not in scheduler.read_text():
        pytest.skip("this kernel has no scheduler mq-deadline")
    scheduler.write_text("mq-deadline")
    finished = record(*BLOCK, "--", programs("block"), "batch", disk.path, "4096", "8", "10", "9")
    kept, given_up = sorted(of(finished.trace.check(), disk), key=lambda row: row["kind"])
    assert (kept["kind"], kept["bytes"], kept["sector"]) == (COMPLETE, 3 * 4096, 8 * 8)
    assert (given_up["kind"], given_up["bytes"], given_up["sector"], given_up["issue"]) == (MERGED, 4096, 10 * 8, -1)
    assert kept["insert"] >= 0
    (found,) = pattern(finished.path, "--device", disk.name)
    assert (found["requests"], found["merged"], found["bytes"]) == (1, 1, 3 * 4096)


def test_what_the_page_cache_keeps_is_written_by_whoever_writes_it_back(start, record, disk):
    with open(disk.path, "wb") as holder:  # the last to close a disk writes it back: that is not to be dd
        finished = record(*BLOCK, "--", "dd", "if=/dev/zero", f"of={disk.path}", "bs=64k", "count=16", "conv=notrunc")
        assert not [row for row in of(finished.trace.check(), disk) if row["operation"] == WRITE]
        recorder = start(*BLOCK, "--all").wait_until_recording()
        os.fsync(holder.fileno())
        trace = recorder.stop().trace.check()
    written = [row for row in done(of(trace, disk), WRITE) if row["bytes"]]
    assert sum(row["bytes"] for row in written) == MIB
    assert {row["pid"] for row in written} == {os.getpid()}


def test_the_file_below_a_loop_device_is_written_by_a_kworker(start, programs, tmp_path):
    below = tmp_path.stat().st_dev
    device = Path("/sys/dev/block", f"{os.major(below)}:{os.minor(below)}").resolve()
    whole = device.parent if (device / "partition").exists() else device
    if not (whole / "queue").is_dir():
        pytest.skip("the temporary folder is on no disk")
    with loop(tmp_path / "direct.img", 8 * MIB, "--direct-io=on") as disk:
        subprocess.run(
            [programs("block"), "io", disk.path, "write", "65536", "32", "sequential", "1"], check=True, stdout=subprocess.DEVNULL, timeout=60
        )
        if (Path("/sys/block") / disk.name / "loop/dio").read_text().strip() != "1":
            pytest.skip("the file system below takes no direct I/O")
        recorder = start(*BLOCK, "--all").wait_until_recording()
        with subprocess.Popen([programs("block"), "io", disk.path, "write", "65536", "32", "sequential", "1"], stdout=subprocess.DEVNULL) as writing:
            pass
        trace = recorder.stop().trace.check()
    above = [row for row in done(of(trace, disk), WRITE) if row["bytes"]]
    assert {row["pid"] for row in above} == {writing.pid}
    kthreads = {row["tid"] for row in trace.rows("processes") if row["comm"].startswith(b"kworker") or row["comm"].startswith(b"loop")}
    major, minor = (int(number) for number in (whole / "dev").read_text().split(":"))
    lower = [row for row in done(trace.rows("block"), WRITE) if row["dev"] == major << 20 | minor and row["tid"] in kthreads]
    assert sum(row["bytes"] for row in lower) >= sum(row["bytes"] for row in above) == 2 * MIB
    assert writing.pid not in {row["pid"] for row in lower}


def test_with_a_ring_far_too_small_recorded_and_lost_add_up(record, programs, disk):
    finished = record(*BLOCK, "--ring-size", "block=4K,processes=1M", "--", programs("block"), "io", disk.path, "read", "4096", "2000", "random", "2")
    trace = finished.trace.check()
    lost = trace.footer.lost["block"]
    assert lost > 0
    ledger = [row for row in trace.rows("losses") if row["table"] == "block"]
    others = [row for row in trace.rows("block") if row["dev"] != disk.number]
    assert not others  # a static program reads nothing else
    rows = of(trace, disk)
    assert len(rows) + sum(row["count"] for row in ledger) == 4000
    for row in ledger:
        assert row["count"] << row["bucket"] <= row["sum"] < row["count"] << row["bucket"] + 1
    assert ringtape("verify", finished.path).status == 0
    latencies = json.loads(ringtape("block-latency", "--format", "json", finished.path).stdout)
    assert {row["stage"]: (row["requests"], row["lost"]) for row in latencies} == dict.fromkeys(("queue", "device", "total"), (len(rows), lost))
    assert all(row["p50_low"] <= row["p50_high"] for row in latencies)


def test_requests_that_do_not_fit_into_the_map_of_those_in_flight_are_counted(start, writer, still, tmp_path):
    assert SCRIPT.exists()
    disk, freezer = still
    text = "read = program._read\nprogram._read = lambda name: read(name).replace('REQUESTS_IN_FLIGHT 16384', 'REQUESTS_IN_FLIGHT 2')"
    freezer.freeze()
    recorder = start(*BLOCK, "--pid", str(writer.pid), prefix=wrapped(tmp_path, text)).wait_until_recording()
    order(writer, 5)
    wait_for(lambda: disk.in_flight == 5, "five writes are at the device")
    freezer.thaw()
    wait_for(lambda: disk.in_flight == 0, "all are written")
    finished = recorder.stop()
    trace = finished.trace.check()
    assert len(of(trace, disk)) == 2
    entries = [row for row in trace.rows("losses") if row["table"] == "block"]
    assert {(entry["cause"], entry["sum"]) for entry in entries} == {(NO_STORAGE, 0)}
    assert sum(entry["count"] for entry in entries) == 3
    latencies = json.loads(ringtape("block-latency", "--format", "json", finished.path).stdout)
    assert {(row["requests"], row["lost"]) for row in latencies} == {(2, 3)}


def test_a_request_whose_end_was_not_seen_is_told_when_its_memory_is_used_again(start, record, programs, disk, tmp_path):
    unseen = "u8 status = ctx[1]; if (READ(u64, request, request, __sector) == 8) return 0;"
    text = f"read = program._read\nprogram._read = lambda name: read(name).replace('u8 status = ctx[1];', {unseen!r})"
    requests = 4 * int((disk.queue / "nr_requests").read_text())
    words = ["io", disk.path, "read", "4096", str(requests), "sequential", "1"]
    trace = record(*BLOCK, "--", programs("block"), *words, prefix=wrapped(tmp_path, text)).trace.check()
    rows = of(trace, disk)
    assert len(done(rows)) == requests - 1
    (row,) = [row for row in rows if row["kind"] != COMPLETE]
    assert (row["kind"], row["sector"], row["bytes"], row["service"]) == (END_UNSEEN, 8, 4096, -1)
    assert any(row["ts"] + row["dur"] == other["ts"] for other in rows)


def test_on_a_kernel_before_6_5_requests_begin_when_they_are_inserted_or_issued(start, record, programs, disk, tmp_path):
    words = [programs("block"), "io", disk.path, "write", "16384", "100", "random", "2"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL):  # another process, whose requests are not to be taken for those of the recorded one
        finished = record(*BLOCK, "--", *words, prefix=wrapped(tmp_path, OLD_KERNEL))
    trace = finished.trace.check()
    missing = [probe for probe in trace.folder.header.probes if probe.name == "block__block_io_start"]
    assert [(probe.attached, probe.reason) for probe in missing] == [(False, "this kernel has no tracepoint block_io_start")]
    rows = [row for row in done(of(trace, disk)) if row["operation"] == WRITE]
    assert {
        tid: (sum(row["tid"] == tid for row in rows), sum(row["bytes"] for row in rows if row["tid"] == tid)) for tid in truth(finished.stdout)
    } == (truth(finished.stdout))
    assert len(rows) == 200
    assert all(row["issue"] >= 0 and row["service"] > 0 for row in rows)


def test_a_recorder_that_is_killed_loses_no_request_that_had_ended(start, programs, disk):
    before = disk.counts()
    recorder = start(*BLOCK, "--all").wait_until_recording()
    subprocess.run([programs("block"), "io", disk.path, "write", "4096", "300", "sequential", "2"], check=True, stdout=subprocess.DEVNULL, timeout=60)
    expected = when_counted(disk, before, Counts(0, 0, 601, 0, 0, 0, 1))
    recorder.process.send_signal(signal.SIGKILL)
    recorder.process.wait()
    assert ringtape("recover", recorder.path).status == 0
    trace = Trace(recorder.path)
    assert trace.state == "recovered"
    trace.check_books()
    trace.check_no_pins()
    assert counted(of(trace, disk)) == expected


def test_requests_in_flight_when_the_recorder_is_killed_have_a_row_each_however_often_recovery_is_cut_short(start, writer, still, tmp_path):
    disk, freezer = still
    recorder = start(*BLOCK, "--pid", str(writer.pid)).wait_until_recording()
    before = disk.counts()  # a device that was in use before goes on counting
    order(writer, 4)
    wait_for(lambda: disk.counts().since(before).writes >= 4 and disk.in_flight == 0, "four are written")
    freezer.freeze()
    order(writer, 5)
    wait_for(lambda: disk.in_flight == 5, "five writes are at the device")
    recorder.process.kill()
    recorder.process.wait()
    # Killed when everything is sealed and the footer is not written.
    for _ in range(2):
        assert ringtape("recover", recorder.path, prefix=wrapped(tmp_path, DYING)).status == -signal.SIGKILL
    assert ringtape("recover", recorder.path).status == 0
    trace = Trace(recorder.path)
    assert trace.state == "recovered"
    trace.check_books()
    trace.check_no_pins()
    rows = of(trace, disk)
    assert len(done(rows, WRITE)) == 4
    rows = [row for row in rows if row["kind"] != COMPLETE]
    assert [(row["kind"], row["operation"], row["bytes"], row["seq"], row["service"]) for row in rows] == [(UNFINISHED, WRITE, 4096, -1, -1)] * 5
    assert {row["pid"] for row in rows} == {writer.pid}
    assert all(row["dur"] >= 0 and row["ts"] + row["dur"] <= trace.footer.detached_at for row in rows)
    assert ringtape("verify", recorder.path).status == 0


def test_the_clock_of_the_table_is_that_of_the_program(record, programs, disk):
    begin = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    finished = record(*BLOCK, "--", programs("block"), "io", disk.path, "read", "4096", "10", "sequential", "1")
    end = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    rows = of(finished.trace.check(), disk)
    assert all(begin < row["ts"] < row["ts"] + row["dur"] < end for row in rows)
    assert set(rows[0]) == {column.name for column in table("block").columns}
