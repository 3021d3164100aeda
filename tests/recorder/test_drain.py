"""From views of the rings to sorted columns and sealed parts, compared with plain Python."""

import errno
import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringtape.recorder import drain as drains
from ringtape.recorder.drain import TableDrain, columns_of, existing_records, is_sorted, iterated_rows, pieces, sort_columns
from ringtape.recorder.options import Target
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.layout import record_dtype
from ringtape.schemas.manifest import FILE
from ringtape.schemas.table import table
from tests.recorder.parts import content, files, groups, new_writer
from tests.recorder.ring_memory import RingBuffer, Slots

SYSCALLS, PROCESSES = table("syscalls"), table("processes")
NAMES = [column.name for column in SYSCALLS.columns]


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "run.trace"


@pytest.fixture
def writer(trace):
    made = new_writer(trace)
    yield made
    made.close()


def records(times):
    made = np.zeros(len(times), record_dtype(SYSCALLS))
    made["ts"] = times
    made["seq"] = range(len(times))
    return made


class TestColumns:
    @given(st.lists(st.lists(st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 15), (1 << 15) - 1)), max_size=9), min_size=1))
    def test_columns_hold_every_record_in_order_whatever_the_blocks(self, parts):
        monkey = pytest.MonkeyPatch()
        monkey.setattr(drains, "_BLOCK", 4)
        arrays = []
        for part in parts:
            made = np.zeros(len(part), record_dtype(SYSCALLS))
            for index, (ts, cpu) in enumerate(part):
                made[index]["ts"], made[index]["cpu"] = ts, cpu
            arrays.append(made)
        columns = columns_of(arrays, ["ts", "cpu"])
        monkey.undo()
        assert columns["ts"].tolist() == [ts for part in parts for ts, _ in part]
        assert columns["cpu"].tolist() == [cpu for part in parts for _, cpu in part]
        assert columns["cpu"].dtype == np.int16
        assert all(column.flags.c_contiguous for column in columns.values())

    def test_columns_are_copies_that_outlive_the_ring(self):
        made = records([1, 2])
        columns = columns_of([made], ["ts"])
        made["ts"] = 0
        assert columns["ts"].tolist() == [1, 2]

    @given(st.lists(st.integers(-5, 5)))
    def test_sorted_is_what_python_calls_sorted(self, times):
        assert is_sorted(np.array(times, np.int64)) == (times == sorted(times))

    @given(st.lists(st.integers(0, 4)))
    def test_rows_of_equal_time_stay_in_the_order_in_which_they_came(self, times):
        columns = sort_columns(
            {"ts": np.array(times, np.int64), "n": np.arange(len(times)), "s": pa.array([str(n) for n in range(len(times))], pa.string())}
        )
        expected = sorted(range(len(times)), key=lambda index: times[index])
        assert columns["n"].tolist() == expected
        assert columns["s"].to_pylist() == [str(n) for n in expected]

    @given(st.lists(st.integers(0, 20)), st.integers(-1, 22))
    def test_calls_that_began_before_the_last_seal_are_a_piece_of_their_own(self, times, since):
        times.sort()
        columns = columns_of([records(times)], NAMES)
        made = [piece["ts"].to_pylist() for piece in pieces(SYSCALLS, columns, since)]
        expected = [[ts for ts in times if ts < since], [ts for ts in times if ts >= since]]
        assert made == [piece for piece in expected if piece]

    def test_pieces_have_exactly_the_declared_schema(self):
        (made,) = pieces(SYSCALLS, columns_of([records([1])], NAMES), 0)
        assert made.schema.equals(drains.arrow_schema(SYSCALLS), check_metadata=True)

    def test_command_names_end_at_their_first_nul_and_may_be_any_bytes(self):
        made = np.zeros(4, record_dtype(PROCESSES))
        made["comm"] = [b"", b"sh", b"fifteen_letters", b"\xff\x1b[2J\n"]
        comms = iterated_rows(PROCESSES, made)["comm"].to_pylist()
        assert comms == [b"", b"sh", b"fifteen_letters", b"\xff\x1b[2J\n"]


class TestSealing:
    def test_what_two_cpus_recorded_is_one_part_in_order_of_time(self, writer, trace):
        one, two = Slots("syscalls", 8), Slots("syscalls", 8)
        for ts in (1, 4, 6):
            one.put(ts=ts, cpu=0)
        for ts in (2, 4, 5):
            two.put(ts=ts, cpu=1)
        drain = TableDrain(SYSCALLS, [one.ring, two.ring], writer)
        part = drain.seal(100, 0)
        found = content(trace, "syscalls")
        assert list(zip(found["ts"].to_pylist(), found["cpu"].to_pylist(), strict=True)) == [(1, 0), (2, 1), (4, 0), (4, 1), (5, 1), (6, 0)]
        assert (part.rows, part.min_ts, part.max_ts) == (6, 1, 6)
        assert part.rings == {"0": [0, 3], "1": [0, 3]}

    def test_the_ring_is_free_once_the_part_is_sealed_and_not_before(self, writer, monkeypatch):
        slots = Slots("syscalls", 4)
        slots.put(ts=1)
        drain = TableDrain(SYSCALLS, [slots.ring], writer)
        seen = []
        genuine = writer._append
        monkeypatch.setattr(writer, "_append", lambda line: (seen.append(int(slots.counters["tail"][0])), genuine(line)))
        drain.seal(2, 0)
        assert seen == [0]
        assert int(slots.counters["tail"][0]) == 1

    def test_nothing_is_written_where_nothing_came(self, writer, trace):
        assert TableDrain(SYSCALLS, [Slots("syscalls", 4).ring], writer).seal(1, 0) is None
        buffer = RingBuffer("paths", 4096)
        assert TableDrain(table("paths"), [buffer.ring], writer).seal(1, 0) is None
        assert files(trace) == []

    def test_long_calls_lie_in_a_row_group_of_their_own(self, writer, trace):
        slots = Slots("syscalls", 16)
        drain = TableDrain(SYSCALLS, [slots.ring], writer)
        slots.put(ts=10)
        drain.seal(50, 0)
        for ts in (20, 60, 61, 49, 50):  # 20 and 49 were entered before the seal at 50
            slots.put(ts=ts)
        assert groups(trace, drain.seal(100, 0)) == [(20, 49), (50, 61)]

    def test_rings_that_gave_nothing_are_not_named_by_the_part(self, writer):
        one, two = Slots("syscalls", 4), Slots("syscalls", 4, start=7)
        one.put(ts=1)
        assert TableDrain(SYSCALLS, [one.ring, two.ring], writer).seal(2, 3).rings == {"0": [0, 1]}

    def test_parts_say_how_many_were_lost_by_then(self, writer):
        slots = Slots("syscalls", 1)
        slots.put(ts=1)
        assert TableDrain(SYSCALLS, [slots.ring], writer).seal(2, 17).lost == 17

    def test_the_peak_is_the_fullest_that_any_ring_was_found(self, writer):
        one, two = Slots("syscalls", 4), Slots("syscalls", 4)
        drain = TableDrain(SYSCALLS, [one.ring, two.ring], writer)
        for ts in range(3):
            two.put(ts=ts)
        assert drain.fullest() == 0.75
        drain.seal(9, 0)
        assert drain.fullest() == 0.0
        assert drain.peak == 0.75


class TestStrings:
    def drain(self, writer, trace, name, size, given):
        buffer = RingBuffer(name, size)
        for index, (ts, tails) in enumerate(given):
            buffer.put(ts=ts, seq=index, tails=tails)
        TableDrain(table(name), [buffer.ring], writer).seal(1, 0)
        assert buffer.ring.pending == 0
        buffer.close()
        return content(trace, name)

    def test_strings_follow_their_rows_when_these_are_sorted(self, writer, trace):
        found = self.drain(writer, trace, "paths", 4096, [(3, {"value": b"c"}), (1, {"value": b""}), (2, {"value": b"bb"})])
        assert found["value"].to_pylist() == [b"", b"bb", b"c"]

    def test_both_strings_of_a_row_are_told_apart(self, writer, trace):
        given = [
            (1, {"file": b"/bin/true", "argv": b"true\0"}),
            (2, {"file": b"", "argv": b"a\0\0"}),
            (3, {"file": b"/bin/false", "argv": b""}),
        ]
        found = self.drain(writer, trace, "processes", 8192, given)
        assert found["file"].to_pylist() == [b"/bin/true", b"", b"/bin/false"]
        assert found["argv"].to_pylist() == [b"true\0", b"a\0\0", b""]

    def test_128_kib_of_arguments_come_through_whole(self, writer, trace):
        argv = bytes(range(256)) * 512
        given = [(1, {"file": b"/bin/echo", "argv": argv}), (2, {"file": b"x" * 4095, "argv": b""}), (3, {"argv": argv[:-1]})]
        found = self.drain(writer, trace, "processes", 1 << 19, given)
        assert found["argv"].to_pylist() == [argv, b"", argv[:-1]]
        assert found["file"].to_pylist() == [b"/bin/echo", b"x" * 4095, b""]

    def test_strings_of_several_rings_follow_their_rows(self, writer, trace):
        buffers = [RingBuffer("paths", 4096), RingBuffer("paths", 4096)]
        buffers[0].put(ts=1, tails={"value": b"one"})
        buffers[0].put(ts=4, tails={"value": b"four"})
        buffers[1].put(ts=2, tails={"value": b"two"})
        buffers[1].put(ts=3, tails={"value": b"three"})
        TableDrain(table("paths"), [buffer.ring for buffer in buffers], writer).seal(1, 0)
        assert content(trace, "paths")["value"].to_pylist() == [b"one", b"two", b"three", b"four"]

    @given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=60), st.binary(max_size=60)), min_size=1, max_size=20))
    def test_strings_are_those_that_plain_python_sorts(self, given):
        class Kept:
            def seal(self, to, rows, spans, lost):
                self.rows = pa.concat_tables(rows)

        kept, buffer = Kept(), RingBuffer("processes", 1 << 14)
        for index, (ts, file, argv) in enumerate(given):
            buffer.put(ts=ts, seq=index, tails={"file": file, "argv": argv})
        TableDrain(PROCESSES, [buffer.ring], kept).seal(5, 0)
        buffer.close()
        expected = sorted([(ts, index, file, argv) for index, (ts, file, argv) in enumerate(given)], key=lambda row: row[0])
        assert [tuple(row.values()) for row in kept.rows.select(["ts", "seq", "file", "argv"]).to_pylist()] == expected


class TestFailure:
    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @pytest.mark.parametrize("when", ["_write_file", "_append"])
    def test_a_seal_that_fails_leaves_the_ring_as_it_was_and_the_next_one_has_all_of_it(self, writer, trace, monkeypatch, when):
        slots = Slots("syscalls", 8)
        drain = TableDrain(SYSCALLS, [slots.ring], writer)
        for ts in (1, 2, 3):
            slots.put(ts=ts)
        before = (trace / FILE).read_bytes()
        with monkeypatch.context() as broken:
            broken.setattr(writer, when, self.full)
            with pytest.raises(OSError, match="No space"):
                drain.seal(10, 0)
        assert slots.ring.read_to == 0
        assert int(slots.counters["tail"][0]) == 0
        assert slots.ring.pending == 3 * 96
        assert files(trace) == []
        assert (trace / FILE).read_bytes() == before
        slots.put(ts=4)
        assert drain.seal(11, 0).rows == 4
        assert content(trace, "syscalls")["ts"].to_pylist() == [1, 2, 3, 4]

    def test_strings_that_could_not_be_written_are_still_in_their_ring(self, writer, trace, monkeypatch):
        buffer = RingBuffer("paths", 4096)
        buffer.put(ts=1, tails={"value": b"kept"})
        drain = TableDrain(table("paths"), [buffer.ring], writer)
        with monkeypatch.context() as broken:
            broken.setattr(writer, "_write_file", self.full)
            with pytest.raises(OSError, match="No space"):
                drain.seal(10, 0)
        assert (buffer.ring.read_to, buffer.consumed) == (0, 0)
        drain.seal(11, 0)
        assert content(trace, "paths")["value"].to_pylist() == [b"kept"]
        buffer.close()

    def test_a_failed_seal_does_not_move_what_counts_as_a_long_call(self, writer, trace, monkeypatch):
        slots = Slots("syscalls", 8)
        drain = TableDrain(SYSCALLS, [slots.ring], writer)
        slots.put(ts=5)
        with monkeypatch.context() as broken:
            broken.setattr(writer, "_append", self.full)
            with pytest.raises(OSError, match="No space"):
                drain.seal(10, 0)
        part = drain.seal(20, 0)
        assert groups(trace, part) == [(5, 5)]
        assert TraceFolder.open(trace).parts("syscalls") == (part,)


class TestExisting:
    def data(self):
        made = np.zeros(3, record_dtype(PROCESSES))
        made["comm"], made["uid"], made["cgroup"], made["pid"] = [b"redis", b"sh", b"redis"], [0, 1000, 1000], [1, 2, 3], [10, 11, 12]
        return made.tobytes()

    @pytest.mark.parametrize(
        ("target", "pids"),
        [
            ({"pids": (10,)}, [10, 11, 12]),  # the probe has chosen
            ({"everything": True}, [10, 11, 12]),
            ({"comms": ("redis",)}, [10, 12]),
            ({"uids": (1000, 7)}, [11, 12]),
        ],
    )
    def test_threads_that_exist_at_the_start_are_listed_if_they_are_meant(self, target, pids):
        assert existing_records(self.data(), Target(**target))["pid"].tolist() == pids

    def test_threads_of_a_cgroup_are_those_of_the_folder_and_all_below_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(drains, "cgroup_ids", lambda folder: {2, 3})
        assert existing_records(self.data(), Target(cgroup=tmp_path))["pid"].tolist() == [11, 12]

    def test_nothing_that_exists_is_no_rows(self):
        assert iterated_rows(PROCESSES, existing_records(b"", Target(command=("true",)))) is None

    def test_rows_of_an_iterator_are_sorted_and_have_empty_strings(self):
        made = np.zeros(3, record_dtype(PROCESSES))
        made["ts"], made["pid"] = [3, 1, 2], [30, 10, 20]
        found = iterated_rows(PROCESSES, made)
        assert found["pid"].to_pylist() == [10, 20, 30]
        assert found["argv"].to_pylist() == [b"", b"", b""]
