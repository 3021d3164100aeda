"""What a process has open, as the recorder reads it from /proc."""

import os
import subprocess

from ringtape.recorder.descriptors import AT_FDCWD, descriptor_rows, descriptors
from ringtape.recorder.options import Target
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.table import table


def test_every_descriptor_stands_with_position_flags_and_target(tmp_path):
    file = tmp_path / "a\nb"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"seven!!")
        found = descriptors(Target(command=("true",)), os.getpid())
    finally:
        os.close(descriptor)
    (row,) = [row for row in found if row.fd == descriptor]
    assert (row.pid, row.pos, row.target) == (os.getpid(), 7, os.fsencode(file))
    assert row.flags & (os.O_APPEND | os.O_CLOEXEC | os.O_RDWR) == os.O_APPEND | os.O_CLOEXEC | os.O_RDWR
    (folder,) = [row for row in found if row.fd == AT_FDCWD]
    assert folder.target == os.fsencode(os.getcwd())


def test_rows_are_sorted_and_have_the_declared_schema():
    rows = descriptor_rows(descriptors(Target(command=("true",)), os.getpid()))
    assert rows.schema.equals(arrow_schema(table("descriptors")))
    assert rows["ts"].to_pylist() == sorted(rows["ts"].to_pylist())
    assert descriptor_rows([]) is None


def test_a_process_that_is_gone_is_left_out():
    process = subprocess.Popen(["true"])
    process.wait()
    assert descriptors(Target(pids=(process.pid,))) == []


def test_processes_are_chosen_as_the_target_says():
    sleeper = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
    try:
        while not os.readlink(f"/proc/{sleeper.pid}/exe").endswith(("sleep", "coreutils")):
            pass

        def pids(**target):
            return {row.pid for row in descriptors(Target(**target))}

        assert pids(pids=(sleeper.pid,)) == {sleeper.pid}
        assert sleeper.pid in pids(comms=("sleep",))
        assert sleeper.pid in pids(uids=(os.getuid(),))
        assert sleeper.pid in pids(everything=True)
        assert sleeper.pid not in pids(comms=("slee",))
        assert sleeper.pid not in pids(uids=(54321,))
        assert os.getpid() not in pids(everything=True)
    finally:
        sleeper.kill()
        sleeper.wait()
