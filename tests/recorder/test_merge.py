"""Merging: the rows of any parts, sorted, each once; in bounded memory; and never a trace that reads wrong in between."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringtape.recorder import merge
from ringtape.recorder.merge import GATHER, TIERS, close_table, due, merge_parts
from ringtape.recorder.upkeep import Upkeep
from ringtape.schemas.arrow import ROW_GROUP
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import Clock, Part
from ringtape.schemas.table import table
from tests.conftest import ROOT
from tests.recorder.parts import content, files, groups, new_writer, rows, seal

SYSCALLS = table("syscalls")


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "run.trace"


@pytest.fixture
def writer(trace):
    made = new_writer(trace)
    yield made
    made.close()


def part_of(size, low=0, high=0):
    return Part("syscalls", f"syscalls/{low:06d}.parquet", size, 1, "", low, high, Clock(0, 0, 0))


def overlap(folder, name):
    """Return whether any part of a table reaches into the next."""
    parts = sorted(TraceFolder.open(folder).parts(name), key=lambda part: part.min_ts)
    return any(left.max_ts > right.min_ts for left, right in pairwise(parts))


TIMES = st.lists(st.lists(st.integers(0, 30), max_size=12), min_size=1, max_size=6)


@given(TIMES, st.integers(1, 8))
def test_merging_any_parts_gives_their_rows_sorted_each_once(parts, stretch):
    folder = Path(tempfile.mkdtemp()) / "run.trace"
    writer = new_writer(folder)
    expected, sealed, number = [], [], 0
    for times in parts:
        times.sort()
        numbers = list(range(number, number + len(times)))
        number += len(times)
        expected += list(zip(times, numbers, strict=True))
        cut = len(times) // 3  # long calls first, in a row group of their own
        pieces = [rows("syscalls", times[:cut], seq=numbers[:cut]), rows("syscalls", times[cut:], seq=numbers[cut:])]
        sealed.append(writer.seal(SYSCALLS, pieces, {}, 0))
    patch = pytest.MonkeyPatch()
    patch.setattr(merge, "STRETCH", stretch)
    if number:
        merge_parts(writer, SYSCALLS, sealed)
        found = content(folder, "syscalls")
        assert found["ts"].to_pylist() == sorted(ts for ts, _ in expected)
        assert Counter(zip(found["ts"].to_pylist(), found["seq"].to_pylist(), strict=True)) == Counter(expected)
        assert len(files(folder)) == 1
    patch.undo()
    writer.close()
    shutil.rmtree(folder.parent)


@given(TIMES, st.integers(1, 40))
def test_closing_any_parts_leaves_parts_that_follow_each_other(parts, row_group):
    folder = Path(tempfile.mkdtemp()) / "run.trace"
    writer = new_writer(folder)
    for times in parts:
        seal(writer, "syscalls", sorted(times))
    patch = pytest.MonkeyPatch()
    patch.setattr(merge, "ROW_GROUP", row_group)
    close_table(writer, SYSCALLS)
    patch.undo()
    assert sorted(content(folder, "syscalls")["ts"].to_pylist()) == sorted(ts for times in parts for ts in times)
    standing = [part for part in TraceFolder.open(folder).parts("syscalls") if part.rows]
    standing.sort(key=lambda part: (part.min_ts, part.max_ts))
    assert all(left.max_ts <= right.min_ts for left, right in pairwise(standing))
    writer.close()
    shutil.rmtree(folder.parent)


def test_rows_of_equal_time_are_all_kept_even_where_a_stretch_ends(writer, trace, monkeypatch):
    monkeypatch.setattr(merge, "STRETCH", 4)
    sealed = [seal(writer, "syscalls", [5] * 10, seq=list(range(10 * n, 10 * n + 10))) for n in range(4)]
    merge_parts(writer, SYSCALLS, sealed)
    assert sorted(content(trace, "syscalls")["seq"].to_pylist()) == list(range(40))


def test_rows_of_one_time_stay_in_the_order_of_the_parts(writer, trace):
    merge_parts(writer, SYSCALLS, [seal(writer, "syscalls", [1, 7], seq=[0, 1]), seal(writer, "syscalls", [7, 9], seq=[2, 3])])
    assert content(trace, "syscalls")["seq"].to_pylist() == [0, 1, 2, 3]


def test_strings_and_names_come_through_a_merge_unchanged(writer, trace):
    one = seal(writer, "processes", [1, 4], argv=[b"a\0\xff", b""], comm=[b"x", b"\xfe"])
    two = seal(writer, "processes", [2], argv=[b"y" * 200_000], comm=[b""])
    merge_parts(writer, table("processes"), [one, two])
    found = content(trace, "processes")
    assert found["argv"].to_pylist() == [b"a\0\xff", b"y" * 200_000, b""]
    assert found["comm"].to_pylist() == [b"x", b"", b"\xfe"]


def test_parts_without_rows_are_merged_away(writer, trace):
    sealed = [seal(writer, "syscalls", []), seal(writer, "syscalls", [3]), seal(writer, "syscalls", [])]
    merge_parts(writer, SYSCALLS, sealed)
    assert content(trace, "syscalls")["ts"].to_pylist() == [3]
    assert len(files(trace)) == 1


def test_parts_that_are_all_empty_become_one(writer, trace):
    merge_parts(writer, SYSCALLS, [seal(writer, "syscalls", []) for _ in range(3)])
    assert content(trace, "syscalls").num_rows == 0
    assert len(files(trace)) == 1


def test_a_merged_part_covers_no_ring_and_says_what_was_lost_by_its_latest(writer):
    one, two = seal(writer, "syscalls", [1], {0: (0, 1)}, lost=3), seal(writer, "syscalls", [2], {0: (1, 2)}, lost=8)
    merge_parts(writer, SYSCALLS, [one, two])
    (merged,) = writer.standing("syscalls")
    assert (merged.rings, merged.lost, merged.replaces) == ({}, 8, [one.file, two.file])


class TestBoundedReads:
    """1,000 parts' worth of time in a few: each row group is decoded about once, whatever a single long call spans."""

    def decoded(self, monkeypatch):
        counts = Counter()
        genuine = merge._Source.read

        def counting(source, low, high):
            found = genuine(source, low, high)
            for group, (first, last, _) in enumerate(source.spans):
                if first < high and last >= low:
                    counts[source._part.file, group] += 1
            return found

        monkeypatch.setattr(merge._Source, "read", counting)
        return counts

    def test_parts_that_follow_each_other_are_read_once(self, writer, monkeypatch):
        monkeypatch.setattr(merge, "STRETCH", 100)
        sealed = [seal(writer, "syscalls", list(range(100 * n, 100 * n + 100))) for n in range(20)]
        counts = self.decoded(monkeypatch)
        merge_parts(writer, SYSCALLS, sealed)
        assert set(counts.values()) == {1}

    def test_long_calls_do_not_make_whole_parts_be_read_again(self, writer, trace, monkeypatch):
        monkeypatch.setattr(merge, "STRETCH", 100)
        sealed = []
        for n in range(20):
            long = rows("syscalls", [n])  # entered at the very beginning, finished in second n
            sealed.append(writer.seal(SYSCALLS, [long, rows("syscalls", range(1000 + 100 * n, 1100 + 100 * n))], {}, 0))
        counts = self.decoded(monkeypatch)
        merge_parts(writer, SYSCALLS, sealed)
        assert max(count for (_, group), count in counts.items() if group == 1) <= 2
        assert sum(counts.values()) <= 3 * len(counts)
        assert content(trace, "syscalls")["ts"].to_pylist() == [*range(20), *range(1000, 3000)]

    def test_a_stretch_holds_no_more_than_it_should(self, writer, monkeypatch):
        monkeypatch.setattr(merge, "STRETCH", 100)
        sealed = [seal(writer, "syscalls", list(range(40 * n, 40 * n + 40))) for n in range(30)]
        held = []
        genuine = merge._stretch

        def watched(*arguments):
            made = genuine(*arguments)
            held.append(made.num_rows)
            return made

        monkeypatch.setattr(merge, "_stretch", watched)
        merge_parts(writer, SYSCALLS, sealed)
        assert sum(held) == 1200
        assert max(held) <= 100 + 40  # a stretch ends with the part that fills it


AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ringtape.recorder import merge
from tests.recorder.parts import new_writer, seal
writer = new_writer(Path(sys.argv[1]))
source = merge._Source(writer, seal(writer, "syscalls", list(range(5000))))
with ThreadPoolExecutor(2) as pool:
    found = list(pool.map(lambda low: sum(piece.num_rows for piece in source.read(low, low + 10)), range(0, 4000, 10)))
sys.exit(found != [10] * 400)
"""


def test_two_stretches_may_read_the_same_part_at_once(trace):
    # In a process of its own, which may die of it.
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE, str(trace)], capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": "src:."}, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-500:]


class TestWhatIsLeft:
    def test_one_part_and_large_parts_in_order_are_left_alone(self, writer, trace, monkeypatch):
        monkeypatch.setattr(merge, "ROW_GROUP", 2)
        for times in ([1, 2], [2, 3], [9]):
            seal(writer, "syscalls", times)
        seal(writer, "paths", [1])
        before = files(trace)
        close_table(writer, SYSCALLS)
        close_table(writer, table("paths"))
        assert files(trace) == before

    def test_only_parts_that_overlap_or_are_small_are_written_again(self, writer, trace, monkeypatch):
        monkeypatch.setattr(merge, "ROW_GROUP", 2)
        first = seal(writer, "syscalls", [1, 2, 3])
        seal(writer, "syscalls", [10, 20])
        seal(writer, "syscalls", [15, 30])
        close_table(writer, SYSCALLS)
        assert first.file in files(trace)
        assert len(files(trace)) == 2
        assert not overlap(trace, "syscalls")

    def test_a_failure_while_merging_leaves_what_was_there(self, writer, trace, monkeypatch):
        sealed = [seal(writer, "syscalls", [n]) for n in range(3)]
        before = files(trace), content(trace, "syscalls")

        def broken(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(merge, "_stretch", broken)
        with pytest.raises(OSError, match="No space"):
            merge_parts(writer, SYSCALLS, sealed)
        assert (files(trace), content(trace, "syscalls")) == before


class TestDue:
    def test_nothing_is_due_until_enough_of_one_tier_have_come_together(self):
        small, middling = part_of(10), part_of(ROW_GROUP)
        assert due([small] * (GATHER - 1)) == []
        assert due([small] * (GATHER - 1) + [middling] * (GATHER - 1)) == []
        assert len(due([small] * GATHER)) == GATHER

    def test_the_oldest_of_the_smallest_tier_are_due_first(self):
        parts = [part_of(ROW_GROUP, n) for n in range(GATHER)] + [part_of(5, 100 + n) for n in range(GATHER + 3)]
        assert [part.min_ts for part in due(parts)] == list(range(100, 100 + GATHER))

    def test_middling_parts_are_merged_into_large_ones_and_large_ones_are_left(self):
        assert len(due([part_of(TIERS[0])] * GATHER)) == GATHER
        assert len(due([part_of(TIERS[1] - 1)] * GATHER)) == GATHER
        assert due([part_of(TIERS[1])] * 1000) == []

    def test_empty_parts_count_as_small(self):
        assert len(due([part_of(0)] * GATHER)) == GATHER


def day(folder, seals):
    """Seal as a recording does that has a few calls a second, keep house each second, and close."""
    writer = new_writer(folder)
    most = 0
    for second in range(seals):
        seal(writer, "syscalls", [second * 10, second * 10 + 3], {0: (2 * second, 2 * second + 2)})
        if parts := due(writer.standing("syscalls")):
            merge_parts(writer, SYSCALLS, parts)
        most = max(most, len(writer.standing("syscalls")))
    close_table(writer, SYSCALLS)
    writer.close()
    return most


@pytest.mark.parametrize("seals", [2_000, pytest.param(86_400, marks=pytest.mark.soak)])
def test_a_day_of_seals_leaves_few_files_at_any_time(trace, seals, monkeypatch):
    # Tiers as small as the parts are here: two rows a part, 64 after one merge, 2,048 after two.
    monkeypatch.setattr(merge, "TIERS", (64, 2048))
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # how long a disk takes is not asked
    most = day(trace, seals)
    # Fewer than GATHER of each lower tier, and one for each 2,048 rows.
    assert most <= 2 * GATHER + 2 * seals // 2048 + 1
    assert len(files(trace)) == 1
    assert content(trace, "syscalls")["ts"].to_pylist() == [ts for second in range(seals) for ts in (second * 10, second * 10 + 3)]
    assert TraceFolder.open(trace).manifest.sealed_rings == {"syscalls": {0: 2 * seals}}


class Clockwork:
    """Lets the upkeep's thread go round a number of times without waiting."""

    def __init__(self, rounds):
        self.rounds = rounds

    def wait(self, _):
        self.rounds -= 1
        return self.rounds < 0

    def set(self):
        self.rounds = 0


def kept_house(writer, tables, quiet=lambda: True, rounds=1):
    upkeep = Upkeep(writer, tables, quiet)
    upkeep._stop = Clockwork(rounds)
    upkeep.start()
    upkeep._thread.join(30)
    return upkeep


class TestUpkeep:
    def test_parts_become_durable_and_many_become_one(self, writer, trace):
        for second in range(GATHER):
            seal(writer, "syscalls", [second])
        seal(writer, "paths", [1])
        kept_house(writer, [SYSCALLS, table("paths")])
        assert [len(writer.standing(name)) for name in ("syscalls", "paths")] == [1, 1]
        assert writer._undurable == []

    def test_merging_waits_while_the_drain_is_busy_and_durability_does_not(self, writer):
        for second in range(GATHER):
            seal(writer, "syscalls", [second])
        kept_house(writer, [SYSCALLS], quiet=lambda: False)
        assert len(writer.standing("syscalls")) == GATHER
        assert writer._undurable == []

    def test_what_a_full_disk_refused_is_done_once_there_is_room(self, writer, monkeypatch):
        for second in range(GATHER):
            seal(writer, "syscalls", [second])
        genuine, refusals = os.fsync, [28, 28]

        def full(descriptor):
            if refusals:
                raise OSError(refusals.pop(), "No space left on device")
            genuine(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        kept_house(writer, [SYSCALLS], rounds=2)
        assert (len(writer.standing("syscalls")), len(writer._undurable)) == (GATHER, GATHER)
        kept_house(writer, [SYSCALLS])
        assert (len(writer.standing("syscalls")), len(writer._undurable)) == (1, 0)

    def test_stopping_waits_for_what_it_is_at(self, writer):
        upkeep = Upkeep(writer, [SYSCALLS], lambda: True)
        upkeep.start()
        upkeep.stop()
        assert not upkeep._thread.is_alive()


def test_a_merged_table_keeps_the_row_groups_small_enough_to_seek_in(writer, trace):
    sealed = [seal(writer, "syscalls", list(range(1000 * n, 1000 * n + 1000))) for n in range(3)]
    merge_parts(writer, SYSCALLS, sealed)
    (part,) = writer.standing("syscalls")
    spans = groups(trace, part)
    assert spans[0][0] == 0
    assert spans[-1][1] == 2999
    assert pa.types.is_int64(content(trace, "syscalls").schema.field("ts").type)
