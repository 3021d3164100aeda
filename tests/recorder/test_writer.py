"""The trace folder while it is written: private files, whole lines, numbers that are used once, and what a full disk leaves."""

import contextlib
import fcntl
import os
import resource
import stat
import threading
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from ringtape.recorder.writer import POSITIONS, TraceWriter
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import FILE, Footer
from ringtape.schemas.table import table
from tests import factory
from tests.recorder.parts import content, files, new_writer, rows, seal

FOOTER = Footer("complete", "", 0, {}, {}, {}, 0, {}, factory.HEADER.clock, factory.T0)


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "run.trace"


@pytest.fixture
def writer(trace):
    made = new_writer(trace)
    yield made
    made.close()


@contextlib.contextmanager
def disk_full_at(size):
    """Let no file grow beyond this size: a write that begins below it is cut short, as on a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def reopened(trace):
    """Carry on a trace whose writer is gone."""
    found = TraceFolder.open(trace)
    folder = os.open(trace, os.O_RDONLY | os.O_DIRECTORY)
    manifest = os.open(trace / FILE, os.O_RDWR | os.O_APPEND)
    return TraceWriter.resume(trace, folder, manifest, found.manifest, found.manifest.parts)


def test_everything_in_the_folder_is_the_owner_s_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        path = tmp_path / "open.trace"
        writer = new_writer(path)
        seal(writer, "syscalls", [1])
        writer.close()
    finally:
        os.umask(before)
    for place in [path, *path.rglob("*")]:
        assert stat.S_IMODE(place.stat().st_mode) == (0o700 if place.is_dir() else 0o600), place


def test_a_part_is_readable_as_soon_as_it_is_sealed(writer, trace):
    part = seal(writer, "syscalls", [3, 5, 9], {0: (0, 3)}, lost=2)
    folder = TraceFolder.open(trace)
    assert folder.state == "recording"
    assert folder.manifest.parts == (part,)
    assert (part.file, part.rows, part.min_ts, part.max_ts, part.lost, part.rings) == ("syscalls/000000.parquet", 3, 3, 9, 2, {"0": [0, 3]})
    assert folder.read(part)["ts"].to_pylist() == [3, 5, 9]
    assert part.bytes == (trace / part.file).stat().st_size


def test_a_part_repeats_the_positions_that_its_line_states(writer, trace):
    part = seal(writer, "syscalls", [1], {0: (0, 5), 12: (0, 1 << 40)})
    metadata = pq.read_schema(trace / part.file).metadata
    assert metadata[POSITIONS] == f"0:0-5,12:0-{1 << 40}".encode()
    other = seal(writer, "syscalls", [1])
    assert POSITIONS not in pq.read_schema(trace / other.file).metadata


def test_a_part_without_rows_is_a_part(writer, trace):
    part = writer.seal(table("paths"), [], {}, 0)
    assert (part.rows, part.min_ts, part.max_ts) == (0, 0, 0)
    assert content(trace, "paths").num_rows == 0


def test_a_second_recorder_on_the_same_folder_is_refused(writer, trace):
    with pytest.raises(FileExistsError):
        TraceWriter.create(trace, os.open(trace, os.O_RDONLY | os.O_DIRECTORY))
    with open(trace / FILE) as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_writes_follow_the_folder_and_not_its_name(writer, trace, tmp_path):
    elsewhere = tmp_path / "victim"
    elsewhere.mkdir()
    trace.rename(tmp_path / "moved")
    trace.symlink_to(elsewhere)
    seal(writer, "syscalls", [1])
    assert list(elsewhere.iterdir()) == []
    assert files(tmp_path / "moved") == ["syscalls/000000.parquet"]


def test_a_link_in_the_place_of_a_half_written_part_is_not_followed(writer, trace, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (trace / "syscalls" / ".000000.parquet.partial").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        seal(writer, "syscalls", [1])
    assert victim.read_text() == "untouched"


def test_a_table_s_folder_that_is_a_link_is_refused(trace, tmp_path):
    writer = new_writer(trace)
    writer.close()
    (trace / "syscalls").rmdir()
    (trace / "syscalls").symlink_to(tmp_path)
    with pytest.raises(OSError):
        reopened(trace)


class TestFullDisk:
    @pytest.fixture
    def writer(self, trace):
        # The header is longer than any part, so that the limit meets a line of the manifest and not a part.
        made = new_writer(trace, options={"padding": "x" * 50_000})
        yield made
        made.close()

    @pytest.mark.parametrize("room", [0, 1, 40, 300])
    def test_the_half_line_that_a_full_disk_took_is_taken_back(self, writer, trace, room):
        seal(writer, "syscalls", [1], {0: (0, 1)})
        before = (trace / FILE).read_bytes()
        with disk_full_at(len(before) + room), pytest.raises(OSError, match="too large"):
            seal(writer, "syscalls", [2], {0: (1, 2)})
        assert (trace / FILE).read_bytes() == before
        assert files(trace) == ["syscalls/000000.parquet"]
        seal(writer, "syscalls", [2, 3], {0: (1, 3)})
        assert content(trace, "syscalls")["ts"].to_pylist() == [1, 2, 3]

    def test_the_half_part_that_a_full_disk_took_is_removed(self, writer, trace):
        seal(writer, "syscalls", [1])
        with disk_full_at(500), pytest.raises(OSError, match="too large"):
            seal(writer, "syscalls", [2])
        assert files(trace) == ["syscalls/000000.parquet"]
        assert [part.file for part in TraceFolder.open(trace).manifest.parts] == files(trace)

    def test_totals_count_what_was_sealed_alone(self, writer):
        seal(writer, "syscalls", [1])
        size = writer.size
        with disk_full_at(500), pytest.raises(OSError, match="too large"):
            seal(writer, "syscalls", [2, 3])
        assert (writer.rows, writer.sealed, writer.size) == ({"syscalls": 1}, 1, size)


class TestReplacing:
    def test_the_parts_that_a_part_replaces_no_longer_stand_and_their_rows_are_not_counted_twice(self, writer, trace):
        old = [seal(writer, "syscalls", [1]), seal(writer, "syscalls", [2])]
        new = writer.seal(table("syscalls"), [rows("syscalls", [1, 2])], {}, 0, old)
        assert writer.standing("syscalls") == [new]
        assert writer.rows == {"syscalls": 2}
        assert new.replaces == [part.file for part in old]
        assert TraceFolder.open(trace).manifest.parts == (new,)
        writer.remove(old)
        assert files(trace) == [new.file]

    def test_files_that_are_gone_already_are_no_failure(self, writer, trace):
        old = seal(writer, "syscalls", [1])
        (trace / old.file).unlink()
        writer.remove([old])

    def test_what_replaces_is_on_the_disk_before_its_line_and_the_line_before_anything_goes(self, writer, trace, monkeypatch):
        old = seal(writer, "syscalls", [1])
        happened = []

        def note(module_function, name):
            def noted(*args, **options):
                first = args[0]
                place = os.readlink(f"/proc/self/fd/{first}").removeprefix(f"{trace}/") if isinstance(first, int) else first
                happened.append((name, place))
                return module_function(*args, **options)

            return noted

        for name in ("fsync", "unlink", "rename"):
            monkeypatch.setattr(os, name, note(getattr(os, name), name))
        genuine = writer._append
        monkeypatch.setattr(writer, "_append", lambda line: (happened.append(("line", "")), genuine(line)))
        new = writer.seal(table("syscalls"), [rows("syscalls", [1])], {}, 0, [old])
        writer.remove([old])
        assert happened[:4] == [
            ("fsync", "syscalls/.000001.parquet.partial"),
            ("rename", ".000001.parquet.partial"),
            ("fsync", "syscalls"),
            ("line", ""),
        ]
        assert happened.index(("fsync", FILE)) < happened.index(("unlink", "000000.parquet"))
        assert new.file == "syscalls/000001.parquet"


class TestDurability:
    def test_parts_come_to_the_disk_before_their_folders_and_these_before_the_manifest(self, writer, trace, monkeypatch):
        seal(writer, "syscalls", [1])
        seal(writer, "paths", [1])
        seen = []
        genuine = os.fsync
        monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(os.readlink(f"/proc/self/fd/{fd}")), genuine(fd)))
        writer.make_durable()
        places = [place.removeprefix(str(trace)) for place in seen]
        assert places[:2] == ["/syscalls/000000.parquet", "/paths/000000.parquet"]
        assert sorted(places[2:4]) == ["/paths", "/syscalls"]
        assert places[4:] == ["", f"/{FILE}"]
        seen.clear()
        writer.make_durable()
        assert seen == []  # once is enough

    def test_parts_that_were_merged_away_meanwhile_are_no_failure(self, writer, trace):
        part = seal(writer, "syscalls", [1])
        (trace / part.file).unlink()
        writer.make_durable()

    def test_a_footer_ends_the_trace(self, writer, trace):
        seal(writer, "syscalls", [1])
        writer.finish(replace(FOOTER, rows={"syscalls": 1}))
        assert TraceFolder.open(trace).state == "complete"


class TestResuming:
    def test_no_number_is_used_again_after_merges_and_a_crash(self, trace):
        writer = new_writer(trace)
        old = [seal(writer, "syscalls", [1]), seal(writer, "syscalls", [2])]
        writer.remove(writer.seal(table("syscalls"), [rows("syscalls", [1, 2])], {}, 0, old) and old)
        seal(writer, "paths", [1])
        writer.close()
        again = reopened(trace)
        assert seal(again, "syscalls", [3]).file == "syscalls/000003.parquet"
        assert seal(again, "paths", [3]).file == "paths/000001.parquet"
        assert again.rows == {"syscalls": 3, "paths": 2}
        again.close()
        assert len(TraceFolder.open(trace).manifest.parts) == 4

    def test_the_chain_of_checksums_goes_on(self, trace):
        writer = new_writer(trace)
        seal(writer, "syscalls", [1])
        writer.close()
        again = reopened(trace)
        seal(again, "syscalls", [2])
        again.finish(replace(FOOTER, end="recovered", rows={"syscalls": 2}))
        again.close()
        assert TraceFolder.open(trace).state == "recovered"  # parsing checks the chain

    def test_parts_given_up_leave_an_empty_one_in_their_place_and_no_file(self, trace):
        writer = new_writer(trace)
        gone, kept, other = seal(writer, "syscalls", [1], {0: (0, 1)}, lost=4), seal(writer, "syscalls", [2], {0: (1, 2)}), seal(writer, "paths", [3])
        writer.close()
        (trace / gone.file).write_bytes(b"cut off")
        (trace / other.file).unlink()
        found = TraceFolder.open(trace)
        again = TraceWriter.resume(
            trace, os.open(trace, os.O_RDONLY | os.O_DIRECTORY), os.open(trace / FILE, os.O_RDWR | os.O_APPEND), found.manifest, [kept]
        )
        again.give_up([gone, other])
        again.close()
        after = TraceFolder.open(trace)
        assert {(part.table, part.rows, part.lost) for part in after.manifest.parts} == {("syscalls", 1, 0), ("syscalls", 0, 4), ("paths", 0, 0)}
        assert content(trace, "syscalls")["ts"].to_pylist() == [2]
        assert set(files(trace)) == {part.file for part in after.manifest.parts}
        assert after.manifest.sealed_rings == {"syscalls": {0: 2}}


def test_parts_of_two_threads_get_lines_and_numbers_of_their_own(writer, trace):
    def work(name):
        for ts in range(20):
            seal(writer, name, [ts])

    threads = [threading.Thread(target=work, args=(name,)) for name in ("syscalls", "syscalls", "paths")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folder = TraceFolder.open(trace)
    assert len(folder.parts("syscalls")) == 40
    assert len({part.file for part in folder.manifest.parts}) == 60
    assert sorted(content(trace, "syscalls")["ts"].to_pylist()) == sorted([*range(20)] * 2)
