"""Power cuts and kills, simulated on the folder that they leave: what is whole is kept, what is gone is said, nothing comes twice."""

import fcntl
import os
import re
import shutil
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringtape.analysis.verification import verify
from ringtape.recorder.merge import merge_parts
from ringtape.recorder.recover import Unfinished, recover
from ringtape.recorder.salvage import salvage
from ringtape.schemas.errors import RecordingError, TraceError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import FILE
from ringtape.schemas.table import table
from tests.factory import T0
from tests.recorder.parts import content, files, new_writer, seal

ROWS = 10
"""Rows of each part; part n of a table holds the sequence numbers 10 n to 10 n + 9, a nanosecond apart from `T0` on."""


def seal_next(writer, name, number):
    numbers = range(ROWS * number, ROWS * (number + 1))
    return seal(writer, name, [T0 + seq for seq in numbers], {0: (numbers.start, numbers.stop)}, seq=list(numbers))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a recording of six parts that was killed, and where each line of its manifest ends."""
    path = tmp_path_factory.mktemp("killed") / "run.trace"
    writer = new_writer(path)
    for number in range(3):
        seal_next(writer, "syscalls", number)
        seal_next(writer, "processes", number)
    writer.close()
    return path


@pytest.fixture
def trace(killed, tmp_path):
    return copied(killed, tmp_path)


def copied(killed, to):
    shutil.copytree(killed, to / "run.trace")
    return to / "run.trace"


def recovered(path):
    """Complete a trace whose rings are gone with the power."""
    found = TraceFolder.open(path)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    manifest = os.open(path / FILE, os.O_RDWR | os.O_APPEND)
    return salvage(Unfinished(found, folder, manifest, None, {}))


def lines(path):
    return (path / FILE).read_bytes().splitlines(keepends=True)


def cut_manifest(path, size):
    (path / FILE).write_bytes((path / FILE).read_bytes()[:size])


@dataclass
class Check:
    """The rows of a table after recovery, everything about the folder verified."""

    path: object

    def __getitem__(self, name):
        return content(self.path, name)["seq"].to_pylist()


def check(path, whole=True):
    """Verify all that can be verified where the counters are gone with the rings; ``whole`` False leaves out what takes a process."""
    folder = TraceFolder.open(path)
    assert folder.state == "recovered"
    assert not folder.manifest.cut
    assert set(files(path)) == {part.file for part in folder.manifest.parts}
    if whole:
        assert [problem for problem in verify(path).problems if "where the footer says that 0 were attempted" not in problem.reason] == []
    return Check(path)


def test_a_killed_recording_whose_rings_are_gone_is_completed_with_every_sealed_row(trace):
    done = recovered(trace)
    assert (done.rows, done.adopted, done.gone, done.journal) == (0, 0, 0, False)
    after = check(trace)
    assert after["syscalls"] == after["processes"] == list(range(30))
    footer = TraceFolder.open(trace).footer
    assert footer.rows["syscalls"] == 30
    assert "its rings are gone" in footer.reason
    assert "rows that had not reached the disk" not in footer.reason


def test_verification_has_nothing_to_say_against_a_trace_whose_counters_are_gone_with_its_rings(trace):
    recovered(trace)
    assert verify(trace).problems == []


def test_it_is_merged_as_a_finished_recording_is(trace):
    recovered(trace)
    assert [len(TraceFolder.open(trace).parts(name)) for name in ("syscalls", "processes", "paths")] == [1, 1, 0]


def test_a_manifest_cut_at_any_byte_of_its_last_two_lines_loses_no_part(killed, tmp_path):
    whole = lines(killed)
    size, before = sum(map(len, whole)), sum(map(len, whole[:-2]))
    # Every byte near the ends of lines, every ninth between them: all cuts of a line are alike to the reader.
    cuts = sorted({*range(before, size, 9), *(edge + step for edge in (before, size - len(whole[-1]), size) for step in range(-3, 4))})
    for cut in cuts:
        if cut > size:
            continue
        (tmp_path / str(cut)).mkdir()
        path = copied(killed, tmp_path / str(cut))
        cut_manifest(path, cut)
        orphans = 3 - sum(cut >= edge for edge in (before, size - len(whole[-1]), size))
        done = recovered(path)
        assert (done.adopted, done.gone) == (ROWS * orphans, 0), cut
        after = check(path, whole=False)
        assert after["syscalls"] == after["processes"] == list(range(30)), cut
        shutil.rmtree(path)


def test_a_manifest_whose_header_did_not_reach_the_disk_is_refused(trace):
    cut_manifest(trace, len(lines(trace)[0]) - 1)
    with pytest.raises(TraceError, match="is empty"):
        TraceFolder.open(trace)


@pytest.mark.parametrize("kept", range(7))
def test_parts_that_the_manifest_does_not_name_are_taken_in_one_after_the_other(killed, tmp_path, kept):
    path = copied(killed, tmp_path)
    cut_manifest(path, sum(map(len, lines(path)[: 1 + kept])))
    done = recovered(path)
    assert done.adopted == ROWS * (6 - kept)
    after = check(path)
    assert after["syscalls"] == after["processes"] == list(range(30))


def test_what_was_taken_in_keeps_the_row_groups_of_long_calls(tmp_path):
    from ringtape.schemas.arrow import ROW_GROUP
    from tests.recorder.parts import groups, rows

    path = tmp_path / "run.trace"
    writer = new_writer(path)
    writer.seal(table("syscalls"), [rows("syscalls", [1, 2], seq=[0, 1]), rows("syscalls", [50, 51], seq=[2, 3])], {0: (0, 4)}, 0)
    writer.close()
    cut_manifest(path, len(lines(path)[0]))
    recovered(path)
    (part,) = TraceFolder.open(path).parts("syscalls")
    assert groups(path, part) == [(1, 2), (50, 51)]
    assert ROW_GROUP > 4


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "flipped", "link"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_part_that_did_not_reach_the_disk_is_given_up_and_said(trace, damage, number):
    part = trace / f"syscalls/00000{number}.parquet"
    data = part.read_bytes()
    if damage == "missing":
        part.unlink()
    elif damage == "link":
        part.rename(trace.parent / "elsewhere.parquet")
        part.symlink_to(trace.parent / "elsewhere.parquet")
    else:
        part.write_bytes({"empty": b"", "short": data[:-100], "flipped": data[:300] + bytes([data[300] ^ 4]) + data[301:]}[damage])
    done = recovered(trace)
    assert done.gone == ROWS
    after = check(trace)
    assert after["syscalls"] == [seq for seq in range(30) if seq // ROWS != number]
    assert after["processes"] == list(range(30))
    footer = TraceFolder.open(trace).footer
    assert f"{ROWS} rows that had not reached the disk are gone" in footer.reason
    assert footer.rows["syscalls"] == 20


def test_a_part_of_zeros_behind_a_whole_manifest_is_gone_as_after_a_power_cut_without_a_sync(trace):
    for part in trace.rglob("*.parquet"):
        part.write_bytes(bytes(part.stat().st_size))
    assert recovered(trace).gone == 6 * ROWS
    after = check(trace)
    assert after["syscalls"] == after["processes"] == []


def test_a_gone_part_costs_no_later_part_that_has_no_line(trace):
    # Part 1 did not reach the disk, its line did; part 2 did, its line did not.
    cut_manifest(trace, sum(map(len, lines(trace)[:5])))
    (trace / "syscalls/000001.parquet").write_bytes(b"")
    done = recovered(trace)
    assert (done.gone, done.adopted) == (ROWS, 2 * ROWS)
    after = check(trace)
    assert after["syscalls"] == [*range(10), *range(20, 30)]
    assert after["processes"] == list(range(30))


def test_a_part_without_a_line_that_does_not_continue_the_manifest_is_deleted(trace):
    cut_manifest(trace, sum(map(len, lines(trace)[:3])))
    (trace / "syscalls/000001.parquet").unlink()  # part 2 begins at 20 where the manifest ends at 10
    done = recovered(trace)
    assert done.adopted == 2 * ROWS
    after = check(trace)
    assert after["syscalls"] == list(range(10))
    assert after["processes"] == list(range(30))


def test_a_part_without_a_line_that_was_cut_off_is_deleted(trace):
    cut_manifest(trace, sum(map(len, lines(trace)[:5])))
    part = trace / "syscalls/000002.parquet"
    part.write_bytes(part.read_bytes()[:-50])
    assert recovered(trace).adopted == ROWS
    assert check(trace)["syscalls"] == list(range(20))


def test_half_written_files_are_deleted(trace):
    (trace / "syscalls/.000003.parquet.partial").write_bytes(b"PAR1")
    (trace / "paths/.000000.parquet.partial").touch()
    recovered(trace)
    assert check(trace)["syscalls"] == list(range(30))


def test_a_foreign_file_is_left_alone(trace):
    (trace / "syscalls/notes.txt").write_text("mine")
    recovered(trace)
    assert (trace / "syscalls/notes.txt").read_text() == "mine"


def test_a_part_is_no_more_taken_in_through_a_link(trace):
    cut_manifest(trace, sum(map(len, lines(trace)[:5])))
    part = trace / "syscalls/000002.parquet"
    part.rename(trace.parent / "elsewhere.parquet")
    part.symlink_to(trace.parent / "elsewhere.parquet")
    recovered(trace)
    assert check(trace)["syscalls"] == list(range(20))
    assert (trace.parent / "elsewhere.parquet").exists()


@pytest.fixture
def merging(killed, tmp_path):
    """A recording that was killed right after a merge of its first two parts; the files that it replaced are still there."""
    path = copied(killed, tmp_path)
    found = TraceFolder.open(path)
    saved = {part.file: (path / part.file).read_bytes() for part in found.parts("syscalls")[:2]}
    from ringtape.recorder.writer import TraceWriter

    writer = TraceWriter.resume(
        path, os.open(path, os.O_RDONLY | os.O_DIRECTORY), os.open(path / FILE, os.O_RDWR | os.O_APPEND), found.manifest, found.manifest.parts
    )
    merge_parts(writer, table("syscalls"), found.parts("syscalls")[:2])
    writer.close()
    for file, data in saved.items():
        (path / file).write_bytes(data)
    return path


def test_a_kill_between_the_line_of_a_merged_part_and_the_deletion_leaves_each_row_once(merging):
    assert sorted(content(merging, "syscalls")["seq"].to_pylist()) == list(range(30))  # as it is
    assert recovered(merging).gone == 0
    assert check(merging)["syscalls"] == list(range(30))


def test_a_kill_between_the_renaming_of_a_merged_part_and_its_line_leaves_each_row_once(merging):
    cut_manifest(merging, sum(map(len, lines(merging)[:-1])))
    assert "syscalls/000003.parquet" in files(merging)
    assert sorted(content(merging, "syscalls")["seq"].to_pylist()) == list(range(30))
    done = recovered(merging)
    assert (done.adopted, done.gone) == (0, 0)
    assert check(merging)["syscalls"] == list(range(30))


def test_numbers_go_on_behind_parts_that_have_no_line(trace):
    cut_manifest(trace, sum(map(len, lines(trace)[:3])))
    recovered(trace)
    names = [part.file for part in TraceFolder.open(trace).manifest.parts]
    assert all(int(re.search(r"\d+", name)[0]) > 2 for name in names)


def test_a_recovery_that_is_itself_killed_is_completed_by_the_next(killed, tmp_path):
    path = copied(killed, tmp_path)
    (path / "syscalls/000001.parquet").unlink()
    recovered(path)
    whole = lines(path)
    for kept in range(7, len(whole)):  # the lines that the recovery wrote, one after the other; files it deleted are gone
        (tmp_path / str(kept)).mkdir()
        again = copied(path, tmp_path / str(kept))
        (again / FILE).write_bytes(b"".join(whole[:kept]))
        if any(not (again / part.file).exists() for part in TraceFolder.open(again).manifest.parts):
            continue  # a power cut cannot delete what a line did not reach the disk to replace
        recovered(again)
        assert check(again)["syscalls"] == [*range(10), *range(20, 30)]


@settings(max_examples=40)
@given(cut=st.integers(0, 6), gone=st.sets(st.tuples(st.sampled_from(["syscalls", "processes"]), st.integers(0, 2))))
def test_whatever_did_not_reach_the_disk_the_rest_is_kept_in_order_and_counted(killed, tmp_path_factory, cut, gone):
    path = copied(killed, tmp_path_factory.mktemp("cut"))
    cut_manifest(path, sum(map(len, lines(path)[: 1 + cut])))
    for name, number in gone:
        (path / f"{name}/00000{number}.parquet").write_bytes(b"")
    done = recovered(path)
    after = check(path, whole=False)
    missing = 0
    for name, lined in (("syscalls", (cut + 1) // 2), ("processes", cut // 2)):
        kept = []
        for number in range(3):
            if (name, number) in gone:
                missing += ROWS * (number < lined)
                if number >= lined:
                    break  # what follows does not continue
            else:
                kept += range(ROWS * number, ROWS * (number + 1))
        assert after[name] == kept
    assert done.gone == missing
    shutil.rmtree(path.parent)


def test_what_the_ledger_says_was_lost_stands_in_the_footer_when_the_counters_are_gone(tmp_path):
    path = tmp_path / "run.trace"
    writer = new_writer(path)
    seal_next(writer, "syscalls", 0)
    ledger = {"count": [700, 5], "cause": [0, 2], "table": ["syscalls", "syscalls"]}
    seal(writer, "losses", [T0, T0 + 1], {}, **ledger)
    writer.close()
    recovered(path)
    assert {name: count for name, count in TraceFolder.open(path).footer.lost.items() if count} == {"syscalls": 700}


def test_the_end_of_a_recovered_recording_is_the_last_that_it_saw_not_the_time_of_the_recovery(tmp_path):
    path = tmp_path / "run.trace"
    writer = new_writer(path)
    seal_next(writer, "syscalls", 0)
    number = seal(writer, "syscalls", [T0 + 100], {0: (ROWS, ROWS + 1)}, seq=[ROWS], dur=[5_000])
    writer.close()
    manifest = (path / FILE).read_bytes()
    cut_manifest(path, len(manifest) - len(lines(path)[-1]))  # the last part is on the disk, its line is not
    sealed = TraceFolder.open(path).manifest.parts[-1].clock.mono
    recovered(path)
    assert number.rows == 1
    assert TraceFolder.open(path).footer.detached_at == max(sealed, T0 + 100 + 5_000)


def test_a_recovery_that_waits_for_its_lock_does_not_undo_another(trace, monkeypatch):
    flock = fcntl.flock

    def first_another(descriptor, operation):
        if operation & fcntl.LOCK_EX:
            monkeypatch.setattr(fcntl, "flock", flock)
            recovered(trace)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", first_another)
    with pytest.raises(RecordingError, match="another recovery has just completed it"):
        recover(trace)
    assert check(trace)["syscalls"] == list(range(30))
