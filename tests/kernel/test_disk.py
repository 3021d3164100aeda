"""A disk that is full and folders that go away: what was written stays good, the rest waits, the command is not harmed."""

import os
import shutil
import subprocess

import pytest

from tests.kernel.load import STATUS, Load, check_numbered
from tests.kernel.recording import Trace, check_one_error, ringtape, wait_for
from tests.kernel.test_command import SUDO, nobodys  # noqa: F401
from tests.kernel.test_killed import check_gapless, recovered

RINGS = ("--ring-size", "syscalls=64M,paths=8M,processes=8M")
LIMIT = 150_000
PAUSE = 60
NEVER = 1 << 62


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a size that the test chooses."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512K", "none", folder], check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def check_command_unharmed(done, load):
    assert load.finished
    assert load.returned == [LIMIT] * load.threads
    assert done.stdout == b"the command's own words\n"
    assert done.status == 1


def words(load):
    return ("--", "sh", "-c", 'echo "the command\'s own words"; exec "$@"', "sh", *load.words)


def readable(path):
    trace = Trace(path)
    assert trace.state == "unfinished"
    return sum(trace.table(name).num_rows for name in trace.folder.tables)


def test_a_full_disk_keeps_what_was_written_and_recover_brings_the_rest_once_there_is_room(start, programs, small_disk, tmp_path):
    with Load(programs("load"), tmp_path / "control", pause=PAUSE, limit=LIMIT) as load:
        done = start(*RINGS, *words(load), path=small_disk / "x.trace").wait()
        what, hint = check_one_error(done)
        check_command_unharmed(done, load)
    assert "no space left on device" in what
    assert "recover" in hint
    assert str(small_disk / "x.trace") in hint
    before = readable(done.path)
    subprocess.run(["mount", "-o", "remount,size=100M", small_disk], check=True)
    trace = recovered(done.path)
    check_gapless(trace, NEVER)
    check_numbered(trace, [0, 0])
    assert sum(trace.footer.rows.values()) > before
    assert trace.footer.reason == "recording stopped before its end: no space left on device"
    last = max(call.ts + call.dur for call in trace.calls)
    assert last <= trace.footer.detached_at <= last + 1_000_000_000


def test_recover_on_a_disk_that_is_still_full_says_so_and_can_be_repeated(start, programs, small_disk, tmp_path):
    with Load(programs("load"), tmp_path / "control", pause=PAUSE, limit=LIMIT) as load:
        done = start(*RINGS, *words(load), path=small_disk / "x.trace").wait()
        check_command_unharmed(done, load)
    (small_disk / "filler").write_bytes(b"")
    with open(small_disk / "filler", "wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                break
    again = ringtape("recover", done.path)
    what, hint = check_one_error(again)
    assert again.status == 1
    assert "no space left on device" in what
    assert "recover" in hint
    readable(done.path)
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=100M", small_disk], check=True)
    check_gapless(recovered(done.path), NEVER)


def test_a_disk_without_room_for_the_first_line_is_one_error_and_the_command_runs_to_its_end(start, programs, small_disk, tmp_path):
    (small_disk / "x").mkdir()
    with open(small_disk / "filler", "wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                break
    with Load(programs("load"), tmp_path / "control", threads=1, limit=LIMIT) as load:
        done = start(*words(load), path=small_disk / "x" / "x.trace").wait()
        check_one_error(done)
        if load.pid:
            check_command_unharmed(done, load)
        else:
            assert done.status != 0


def test_a_trace_folder_that_is_removed_is_one_error_and_leaves_no_pins(start, programs, tmp_path):
    with Load(programs("load"), tmp_path / "control", pause=PAUSE, limit=LIMIT) as load:
        recorder = start(*RINGS, *words(load)).wait_until_recording()
        trace = Trace(recorder.path)
        load.wait_until_running()
        shutil.rmtree(recorder.path)
        done = recorder.wait()
        what, _ = check_one_error(done)
        check_command_unharmed(done, load)
    assert str(recorder.path) in what
    trace.check_no_pins()


def test_a_table_folder_that_becomes_unwritable(start, programs, tmp_path, nobodys):  # noqa: F811
    with Load(programs("load"), nobodys / "control", pause=PAUSE, limit=LIMIT) as load:
        recorder = start(*RINGS, *words(load), path=nobodys / "x.trace", env=SUDO).wait_until_recording()
        load.wait_until_running()
        wait_for((recorder.path / "syscalls").exists, "the folders are there")
        (recorder.path / "syscalls").chmod(0o500)
        done = recorder.wait()
        what, hint = check_one_error(done)
        check_command_unharmed(done, load)
    assert "permission denied" in what
    assert "recover" in hint
    (recorder.path / "syscalls").chmod(0o700)
    readable(done.path)
    trace = recovered(done.path)
    check_gapless(trace, NEVER)
    check_numbered(trace, [0, 0])
    assert {path.stat().st_uid for path in done.path.rglob("*")} == {65534}


def test_a_folder_that_is_moved_while_it_is_recorded_into_is_complete_where_it_went(start, programs, tmp_path):
    with Load(programs("load"), tmp_path / "control", pause=3000) as load:
        recorder = start("--", *load.words).wait_until_recording()
        load.wait_until_running()
        os.rename(recorder.path, tmp_path / "moved.trace")
        load.stop()
        assert recorder.wait().status == STATUS
    Trace(tmp_path / "moved.trace").check()
    assert not recorder.path.exists()
