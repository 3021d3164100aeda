"""Records of mappings as the kernel lays them out, and what is kept of them."""

import os
import struct
import time
from pathlib import Path

import pytest

from ringtape.recorder import mappings, run_time_code
from ringtape.recorder.mappings import EXEC, FORK, LOST, MAPPED, Mappings, function_rows, parse
from ringtape.recorder.options import Target
from ringtape.schemas.elf import Elf, build_id_of


def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def record(kind, body, ts, misc=0):
    body += bytes(-len(body) % 8)
    return struct.pack("=IHH", kind, misc, 16 + len(body)) + body + struct.pack("=Q", ts)


def mapped(pid, path, ts, start=0x400000, build_id=b"\1" * 20, inode=(0, 0, 0, 0)):
    if build_id is None:
        identity, misc = struct.pack("=IIQQ", *inode), 0
    else:
        identity, misc = struct.pack("=BBH20s", len(build_id), 0, 0, build_id), 1 << 14
    body = struct.pack("=IIQQQ", pid, pid, start, 0x1000, 0x2000) + identity + struct.pack("=II", 5, 2) + path + b"\0"
    return record(10, body, ts, misc)


def fork(pid, parent, ts):
    return record(7, struct.pack("=IIIIQ", pid, parent, pid, parent, ts), ts)


class Ring:
    """Gives what was put in, and lets things happen while it is read."""

    def __init__(self, cpu):
        self.data = b""
        self.meanwhile = lambda: None
        self.closed = False

    def read(self):
        self.meanwhile()
        data, self.data = self.data, b""
        return data

    def close(self):
        self.closed = True


@pytest.fixture
def source(monkeypatch):
    monkeypatch.setattr(mappings, "_Ring", Ring)
    monkeypatch.setattr(mappings, "online_cpus", lambda: [0, 1])
    return Mappings(Target(command=("x",)), 10)


def rows(source, closing=False):
    return [row for to, made in source.rows(closing) if to.name == "mappings" for row in made.to_pylist()]


def test_records_become_rows():
    data = (
        mapped(7, b"/bin/a (deleted)", 5, start=0xFFFF_8000_0000_0000)
        + record(3, struct.pack("=II", 7, 7) + b"new name", 6, 1 << 13)
        + record(3, struct.pack("=II", 7, 7) + b"renamed", 7)
        + fork(8, 7, 8)
        + fork(7, 7, 9)  # a thread
        + record(2, struct.pack("=QQ", 1, 12), 10)
        + record(99, b"of a later kernel", 11)
        + mapped(0xFFFFFFFF, b"[module]", 12)
    )
    found = list(parse(data))
    assert [(row["kind"], row["ts"]) for row in found] == [(MAPPED, 5), (EXEC, 6), (FORK, 8), (LOST, 10)]
    assert (found[0]["path"], found[0]["build_id"], found[0]["start"], found[0]["offset"]) == (b"/bin/a", b"\1" * 20, -(1 << 47), 0x2000)
    assert (found[2]["pid"], found[2]["parent"]) == (8, 7)
    assert found[3]["length"] == 12


def test_the_page_of_the_kernel_in_small_programs_is_another_one():
    (low,) = parse(mapped(7, b"[vdso]", 5, start=0xF7FC_0000, build_id=None))
    (high,) = parse(mapped(7, b"[vdso]", 5, start=0x7FFF_F7FC_0000, build_id=None))
    assert (low["path"], high["path"]) == (b"[vdso32]", b"[vdso]")


def test_a_fork_that_lies_in_a_ring_read_before_still_makes_its_child_s_mappings_wanted(source):
    first, second = source._rings

    def meanwhile():
        # The first ring has been read; now a wanted process forks there, and the child executes on the other CPU.
        first.data = fork(11, 10, now())
        second.data = mapped(11, b"/bin/child", now())

    second.meanwhile = meanwhile
    assert rows(source) == []
    second.meanwhile = lambda: None
    assert [(row["kind"], row["path"]) for row in rows(source)] == [(FORK, b""), (MAPPED, b"/bin/child")]
    assert rows(source, closing=True) == []


def test_what_is_told_while_the_last_round_is_read_is_kept(source):
    second = source._rings[1]

    def meanwhile():
        second.data = mapped(10, b"/bin/late", now())

    second.meanwhile = meanwhile
    assert [row["path"] for row in rows(source, closing=True)] == [b"/bin/late"]


def test_only_the_command_and_its_descendants_are_kept(source):
    source._rings[0].data = mapped(99, b"/bin/other", 1) + fork(98, 99, 2) + fork(11, 10, 3) + fork(12, 11, 4) + mapped(12, b"/bin/mine", 5)
    assert [(row["pid"], row["kind"]) for row in rows(source)] == [(11, FORK), (12, FORK), (12, MAPPED)]
    source._rings[1].data = record(2, struct.pack("=QQ", 1, 3), 6)
    assert [(row["kind"], row["length"]) for row in rows(source)] == [(LOST, 3)]


def test_a_build_id_that_the_kernel_does_not_tell_is_read_from_the_very_file(source):
    path = Path("/proc/self/exe").resolve()
    wanted = build_id_of(path)
    if not wanted:
        pytest.skip(f"{path} has no build id")
    with Elf(path) as elf:
        device, number = elf.inode
    identity = (os.major(device), os.minor(device), number, 0)
    told = os.fsencode(path)
    source._rings[0].data = mapped(10, told, 1, build_id=None, inode=identity)
    source._rings[0].data += mapped(10, told, 2, build_id=None, inode=(*identity[:2], number + 1, 0))
    source._rings[0].data += mapped(10, b"//anon", 3, build_id=None)
    assert [row["build_id"] for row in rows(source)] == [wanted, b"", b""]


def test_the_functions_of_the_kernel_s_page_are_found():
    found = run_time_code.vdso_functions()
    if "[vdso]" not in Path("/proc/self/maps").read_text():
        pytest.skip("this kernel gives no vDSO")
    assert any(b"clock_gettime" in name for _, _, name in found)
    assert all(0 < address < 1 << 20 and length >= 0 for address, length, _ in found)


def write(folder, pid, text):
    path = folder / f"perf-{pid}.map"
    path.write_bytes(text)
    return path


def test_maps_of_compilers_are_read_line_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr(run_time_code, "FOLDER", tmp_path)
    write(
        tmp_path,
        os.getpid(),
        b"7f00 10 a b  c\r\n0x7F10 0x20 d\nnothing\n12 13\nffffffffffffffff 1 kernel\n7f40 ffffffffffffffff long\n7f50 1 \xff\x1b",
    )
    found = list(run_time_code.jit_functions([os.getpid()]))
    assert found == [
        (os.getpid(), (0x7F00, 0x10, b"a b  c")),
        (os.getpid(), (0x7F10, 0x20, b"d")),
        (os.getpid(), (0x7F40, (1 << 63) - 1, b"long")),
        (os.getpid(), (0x7F50, 1, b"\xff\x1b")),
    ]
    assert function_rows([(pid, *function, b"[jit]") for pid, function in found], 5).num_rows == 4


def test_maps_that_may_be_someone_else_s_invention_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(run_time_code, "FOLDER", tmp_path)
    target = write(tmp_path, "real", b"10 10 name\n")
    (tmp_path / "perf-5001001.map").symlink_to(target)
    os.mkfifo(tmp_path / "perf-5001002.map")
    (tmp_path / "perf-5001003.map").mkdir()
    large = write(tmp_path, 5001004, b"10 10 name\n")
    monkeypatch.setattr(run_time_code, "LARGEST", 4)
    assert list(run_time_code.jit_functions([5001001, 5001002, 5001003, 5001004, 5001005])) == []
    monkeypatch.setattr(run_time_code, "LARGEST", 100)
    assert len(list(run_time_code.jit_functions([5001004]))) == 1
    if os.geteuid() == 0:
        os.chown(large, 12345, -1)
        assert list(run_time_code.jit_functions([5001004])) == []


def test_broken_records_end_the_reading():
    whole = mapped(7, b"/bin/a", 5)
    assert list(parse(whole + struct.pack("=IHH", 10, 0, 0) + whole)) == list(parse(whole))
    assert list(parse(b"")) == []
