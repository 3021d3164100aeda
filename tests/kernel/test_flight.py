"""The flight recorder on a real kernel: bounded while it runs, its snapshots are traces of their own, killed at any instant it is true."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ringtape.analysis.verification import verify
from tests.kernel.recording import RINGTAPE, Trace, check_one_error, check_quiet, ringtape, wait_for

FSYNC, OPENAT = 74, 257
NOBODY = 65534
SUDO = {"SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY), "SUDO_USER": "nobody", "SUDO_COMMAND": "ringtape"}
pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="system call numbers are those of x86_64")

LOAD = """
import os, sys, time
file = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o600)
while True:
    for _ in range(300):
        os.getppid()
    os.pwrite(file, b"x", 0)
    os.fsync(file)
    try:
        os.open("/no/such/file", 0)
    except OSError:
        pass
    time.sleep(0.01)
"""


@pytest.fixture
def load(tmp_path):
    with subprocess.Popen([sys.executable, "-c", LOAD, tmp_path / "synced"]) as process:
        yield process
        process.kill()


def snapshots(folder):
    return sorted(folder.glob("*.trace")) if folder.is_dir() else []


def size(folder):
    """Return what the files of a folder take, those that go meanwhile left out."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(place) / file).stat().st_blocks * 512
    return total


def retired(recorder):
    return any(line["type"] == "retired" for line in recorder.manifest())


def test_it_stays_bounded_and_its_books_balance_with_what_was_dropped(start, load, tmp_path):
    recorder = start("--all", "--keep", "2s", "--max-size", "8M", "--duration", "6s").wait_until_recording()
    most = 0
    while recorder.process.poll() is None:
        most = max(most, size(recorder.path))
        time.sleep(0.02)
    done = recorder.wait()
    check_quiet(done)
    assert done.status == 0, done.stderr
    assert most <= 8 << 20
    found = verify(recorder.path)
    assert found.problems == []
    trace = done.trace
    assert trace.folder.retired.rows["syscalls"] > 0
    assert trace.folder.retired.rows["syscalls"] + trace.table("syscalls").num_rows == trace.footer.rows["syscalls"]
    # Python was started before anything that still stands: its name was carried.
    assert load.pid in {row["pid"] for row in trace.rows("processes")}


def test_conditions_and_a_signal_save_the_last_seconds(start, load, tmp_path):
    folder = tmp_path / "saved"
    flags = ("--keep", "5s", "--when", "fsync > 0ns", "--when", "openat fails ENOENT", "--every", "1s", "--snapshots", folder)
    with start("--all", *flags) as recorder:
        recorder.wait_until_recording()
        (first, *_) = wait_for(lambda: snapshots(folder), "a condition comes true")
        recorder.process.send_signal(signal.SIGUSR1)
        (asked,) = wait_for(lambda: [path for path in snapshots(folder) if "sigusr1" in path.name], "the signal is answered")
        recorder.stop(signal.SIGTERM)
    trace = Trace(first)
    origin = trace.folder.header.options["snapshot"]
    assert trace.state == "snapshot"
    wanted = (FSYNC, 0) if origin["trigger"].startswith("fsync") else (OPENAT, -2)
    (call,) = [call for call in trace.calls if (call.ts, call.tid) == (origin["ts"], origin["tid"]) and call.nr == wanted[0]]
    assert origin["value"] == (call.dur if wanted[0] == FSYNC else call.ret)
    assert max(one.ts for one in trace.calls) - call.ts > 10**9  # what came after it is saved as well
    for path in (first, asked):
        assert verify(path).problems == []
    shown = ringtape("info", first).stdout.decode()
    assert re.search(f"taken for +{origin['trigger']}: .* thread {load.pid}, ", " ".join(shown.split()))
    assert ringtape("latency", first).status == 0
    assert Trace(asked).folder.header.options["snapshot"]["trigger"] == "SIGUSR1"
    assert first.stat().st_mode & 0o777 == 0o700


def test_a_loss_saves_what_is_left(start, load, tmp_path):
    folder = tmp_path / "saved"
    with start("--all", "--keep", "5s", "--ring-size", "syscalls=4K", "--when", "lost > 0", "--snapshots", folder) as recorder:
        recorder.wait_until_recording()
        (path,) = wait_for(lambda: snapshots(folder), "a loss is noticed")
        recorder.stop(signal.SIGTERM)
    trace = Trace(path)
    assert trace.folder.header.options["snapshot"]["value"] > 0
    assert trace.footer.lost["syscalls"] > 0
    assert verify(path).problems == []
    assert verify(recorder.path).problems == []


def test_another_terminal_takes_a_snapshot_while_it_goes_on_and_after(start, load, tmp_path):
    with start("--all", "--keep", "3s") as recorder:
        recorder.wait_until_recording()
        wait_for(lambda: retired(recorder), "something was dropped")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        done = ringtape("snapshot", recorder.path, "-o", tmp_path / "live.trace", "--last", "2s")
        assert done.status == 0, done.stderr
        again = ringtape("snapshot", recorder.path, "-o", tmp_path / "live.trace")
        assert "exists already" in check_one_error(again)[0]
        recorder.stop(signal.SIGTERM)
    assert ringtape("snapshot", recorder.path, "-o", tmp_path / "later.trace", "--last", "1s").status == 0
    live = Trace(tmp_path / "live.trace")
    assert max(call.ts for call in live.calls) >= before - 10**9 // 10  # up to the last second
    assert any(path.stat().st_nlink == 2 for path in (tmp_path / "later.trace").rglob("*.parquet"))
    for name in ("live", "later"):
        assert verify(tmp_path / f"{name}.trace").problems == []


def test_killed_at_any_instant_it_is_recovered_to_a_true_trace(start, load, tmp_path):
    chance = random.Random(6)
    folder = tmp_path / "saved"
    for number in range(3):
        path = tmp_path / f"{number}.trace"
        flags = ("--keep", "1s", "--max-size", "8M", "--when", "fsync > 0ns", "--every", "0s", "--snapshots", folder)
        recorder = start("--all", *flags, path=path).wait_until_recording()
        wait_for(lambda recorder=recorder: retired(recorder), "something was dropped")
        time.sleep(chance.uniform(0, 1.2))  # any instant is as good as another: that is what is tried
        recorder.process.kill()
        recorder.process.wait()
        done = ringtape("recover", path)
        assert done.status == 0, done.stderr
        assert verify(path).problems == []
        for saved in snapshots(folder):
            assert verify(saved).problems == []


def test_under_sudo_snapshots_belong_to_who_called_it(start, load, open_folder, tmp_path):
    place = open_folder / "flown"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    with start("--all", "--keep", "5s", path=place / "x.trace", env=SUDO, cwd=place) as recorder:
        recorder.wait_until_recording()
        recorder.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: snapshots(place / "x.snapshots"), "the signal is answered")
        done = ringtape("snapshot", place / "x.trace", "-o", place / "asked.trace", cwd=place)  # root acts as the owner
        assert done.status == 0, done.stderr
        recorder.stop(signal.SIGTERM)
    made = [path for name in ("x.snapshots", "asked.trace") for path in (place / name, *(place / name).rglob("*"))]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(NOBODY, NOBODY)}
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700, 0o600}
    for path in (place / "asked.trace", *snapshots(place / "x.snapshots")):
        assert verify(path).problems == []


@pytest.mark.parametrize(
    ("condition", "what"),
    [("fsnc > 1s", "fsnc"), ("fsync fails EMFLE", "EMFLE"), ("fsync", "no condition"), ("lost > x", "lost"), ("fsync > 1 parsec", "parsec")],
)
def test_a_condition_that_cannot_be_is_one_error_and_nothing_is_recorded(tmp_path, condition, what):
    done = subprocess.run([*RINGTAPE, "record", "--all", "--when", condition, "-o", tmp_path / "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert what in done.stderr
    assert "hint: " in done.stderr
    assert not (tmp_path / "x").exists()
