"""A recorder that is killed loses nothing: sealed parts are readable, and `recover` brings back what was in the rings."""

import random
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.load import Load, check_numbered
from tests.kernel.recording import Trace, check_one_error, check_quiet, ringtape, wait_for

RINGS = ("--ring-size", "syscalls=64M,paths=8M,processes=8M")
PAUSE = 300
"""About 100,000 calls a second: the rings hold what comes in while a recorder waits for the CPU, and while it dies.

A killed process detaches its probes last of all; on two busy CPUs that was seen to take a second.
"""


def recovered(path: Path, prefix: Sequence[str] = ()) -> Trace:
    """Recover a trace and check everything that must hold for it."""
    done = ringtape("recover", path, prefix=prefix)
    check_quiet(done)
    assert done.status == 0, done.stderr
    trace = Trace(path)
    assert trace.state == "recovered"
    trace.check_books()
    trace.check_no_pins()
    return trace


def monotonic():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def kill(recorder):
    """Kill the recorder and return when: what was lost, if the rings overflow while it dies, was lost after that."""
    at = monotonic()
    recorder.process.kill()
    recorder.process.wait()
    return at


def check_gapless(trace: Trace, killed_at: int) -> None:
    """From 0 on no number is missing, but for records that found no room after the kill."""
    assert all(row["ts"] >= killed_at for row in trace.rows("losses") if row["cause"] == 0)
    for name in ("syscalls", "paths", "processes"):
        for cpu, seq in trace.sequences(name).items():
            if not trace.footer.lost[name]:
                assert (seq[0], seq[-1], len(seq)) == (0, len(seq) - 1, len(seq)), f"{name}, CPU {cpu}"


def kill_while_recording(start, program, folder, name, delay, threads=2):
    with Load(program, folder / f"{name}.control", threads, PAUSE) as load:
        recorder = start(*RINGS, "--", *load.words, path=folder / f"{name}.trace")
        recorder.wait_until_recording()
        load.wait_until_running()
        time.sleep(delay)  # any instant is as good as another: that is what is tried
        returned = load.returned
        killed_at = kill(recorder)
        load.check_goes_on()
        load.stop_and_wait()
    trace = Trace(recorder.path)
    assert trace.state == "unfinished"
    for table in ("syscalls", "paths", "processes"):
        sealed = trace.sequences(table)
        assert all(len(np.unique(seq)) == len(seq) for seq in sealed.values())
    trace = recovered(recorder.path)
    check_gapless(trace, killed_at)
    check_numbered(trace, returned)


@pytest.mark.parametrize("batch", range(10))
def test_ten_kills_at_random_instants_under_load_lose_nothing_and_double_nothing(start, programs, tmp_path, batch):
    chance = random.Random(batch)
    for number in range(10):
        # Parts are sealed each second: every fifth run lives long enough to have some.
        delay = chance.uniform(0.7, 1.3) if number % 5 == 4 else chance.uniform(0, 0.15)
        kill_while_recording(start, programs("load"), tmp_path, str(number), delay, 1 + number % 2)


@pytest.mark.soak
def test_thousands_of_kills(start, programs, tmp_path):
    chance = random.Random(time.time_ns())
    for number in range(2000):
        kill_while_recording(start, programs("load"), tmp_path, str(number), chance.uniform(0, 2.5))
        shutil.rmtree(tmp_path / f"{number}.trace")


@pytest.mark.parametrize("seed", range(2))
def test_kills_while_the_trace_is_closed(start, programs, tmp_path, seed):
    """The program has ended; the recorder seals, merges and writes the footer, and is killed at it."""
    chance = random.Random(seed)
    cut_off = 0
    for number in range(5):
        with Load(programs("load"), tmp_path / f"{number}.control", pause=PAUSE) as load:
            recorder = start(*RINGS, "--", *load.words, path=tmp_path / f"{number}.trace")
            recorder.wait_until_recording()
            load.wait_until_running()
            wait_for(lambda recorder=recorder: any(line["type"] == "part" for line in recorder.manifest()), "a part is sealed")
            load.stop_and_wait()
            time.sleep(chance.uniform(0, 0.08))
            returned = load.returned
            killed_at = kill(recorder)
        trace = Trace(recorder.path)
        if trace.state == "unfinished":
            cut_off += 1
            trace = recovered(recorder.path)
        trace.check_books()
        check_gapless(trace, killed_at)
        check_numbered(trace, returned)
    assert cut_off, "no run was cut off: the instants are chosen badly"


def test_a_kill_with_overfull_rings_keeps_the_books_balanced(start, programs, tmp_path):
    for number in range(4):
        with Load(programs("load"), tmp_path / f"{number}.control") as load:
            recorder = start("--ring-size", "256K", "--", *load.words, path=tmp_path / f"{number}.trace").wait_until_recording()
            wait_for(lambda load=load, wanted=300_000 + 50_000 * number: sum(load.returned) > wanted, "the load has filled its rings")
            kill(recorder)
            load.check_goes_on()
            load.stop_and_wait()
        trace = recovered(recorder.path)
        assert trace.footer.lost["syscalls"] > 0


@pytest.fixture
def own_bpffs():
    """A mount namespace with a bpffs of its own: where it is seen from here, and the words that run a program in it."""
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", "mount -t bpf none /sys/fs/bpf && echo && exec cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        if not holder.stdout.read(1):
            pytest.skip("only root can have mounts of its own")
        yield Path("/proc", str(holder.pid), "root", "sys/fs/bpf/ringtape"), ("nsenter", "-m", "-t", str(holder.pid))
        holder.stdin.close()


def test_kills_during_the_start_leave_nothing_running_and_nothing_that_cannot_be_recovered(start, programs, tmp_path, own_bpffs):
    journals, prefix = own_bpffs
    chance = random.Random(3)
    for number in range(12):
        with Load(programs("load"), tmp_path / f"{number}.control", pause=PAUSE) as load:
            recorder = start(*RINGS, "--", *load.words, path=tmp_path / f"{number}.trace", prefix=prefix)
            time.sleep(chance.uniform(0.05, 0.45))
            killed_at = kill(recorder)
            load.stop()
            if load.pid:
                wait_for(lambda load=load: load.finished, "the load ends")
        if recorder.manifest():
            check_gapless(recovered(recorder.path, prefix), killed_at)
            continue
        assert not load.pid, "the command ran before there was a trace that could be recovered"
        for path in journals.glob("*"):
            # Killed between pinning and the header: nothing was recorded yet, but the rings hold memory.
            if any(path.iterdir()):
                assert path.name in ringtape("doctor", prefix=prefix).stdout.decode(), "doctor names the rings that no trace names"
                shutil.rmtree(path)


def test_recovering_twice_says_that_there_is_nothing_to_recover(start, programs, tmp_path):
    kill_while_recording(start, programs("load"), tmp_path, "once", 0.05)
    path = tmp_path / "once.trace"
    manifest = (path / "manifest.jsonl").read_bytes()
    done = ringtape("recover", path)
    what, hint = check_one_error(done)
    assert done.status == 1
    assert "complete" in what
    assert "recover" in hint
    assert (path / "manifest.jsonl").read_bytes() == manifest


def test_a_trace_that_is_being_recorded_is_not_recovered(start, programs, tmp_path):
    with Load(programs("load"), tmp_path / "control", pause=PAUSE) as load:
        recorder = start("--", *load.words).wait_until_recording()
        done = ringtape("recover", recorder.path)
        what, _ = check_one_error(done)
        assert done.status == 1
        assert "still being recorded" in what
        load.check_goes_on()
        load.stop()
        ended = recorder.wait()
    assert ended.status == 42
    ended.trace.check()


def test_recovering_a_complete_trace_and_none_at_all_is_one_error(record, tmp_path):
    for path in (record("--", "true").path, tmp_path / "absent.trace", tmp_path):
        done = ringtape("recover", path)
        assert done.status == 1
        check_one_error(done)
