"""The rings as the drain sees them, over memory that is filled here as probe and kernel fill it."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringtape.recorder import ring as rings
from ringtape.recorder.bpf import PAGE, Map, MapType
from ringtape.recorder.ring import COUNTERS, map_counters, open_rings, slot_rings
from ringtape.schemas.errors import RecordingError
from ringtape.schemas.layout import record_dtype
from ringtape.schemas.table import table
from tests.recorder.ring_memory import BUSY, COOKIE, DISCARD, RingBuffer, Slots

PATHS_FIXED = 48
"""cookie 8, ts 8, seq 8, pid 4, tid 4, nr 4, cpu 2, abi 1, arg 1, kind 1, cut 1, reserved 2, value_len 4."""


@pytest.fixture
def buffer():
    made = RingBuffer("paths", PAGE)
    yield made
    made.close()


def times(views):
    return [int(ts) for view in views for ts in view["ts"]]


def values(read):
    records, tails, memory = read
    return [bytes(memory[start : start + record["value_len"]]) for record, start in zip(records, tails, strict=True)]


class TestSlotRing:
    def test_what_was_published_is_read_once(self):
        slots = Slots("syscalls", 8)
        for ts in (1, 2, 3):
            slots.put(ts=ts)
        assert times(slots.ring.read()) == [1, 2, 3]
        assert slots.ring.read() == []

    def test_a_run_that_wraps_is_two_views_in_order_and_nothing_is_copied(self):
        slots = Slots("syscalls", 8, start=6)
        for ts in range(5):
            slots.put(ts=ts)
        views = slots.ring.read()
        assert [len(view) for view in views] == [2, 3]
        assert times(views) == [0, 1, 2, 3, 4]
        assert all(np.shares_memory(view, slots.records) for view in views)

    def test_a_full_ring_is_read_whole_wherever_it_begins(self):
        for start in range(8):
            slots = Slots("syscalls", 8, start=start)
            for ts in range(9):
                assert slots.put(ts=ts) == (ts < 8)
            assert slots.ring.fill == 1.0
            assert times(slots.ring.read()) == list(range(8))
            assert int(slots.counters["lost"][0]) == 1

    def test_reading_ahead_frees_nothing_until_it_is_released(self):
        slots = Slots("syscalls", 4)
        for ts in range(4):
            slots.put(ts=ts)
        slots.ring.read()
        assert not slots.put(ts=4)
        assert (slots.ring.pending, slots.ring.fill) == (0, 1.0)
        slots.ring.release(3)
        assert slots.ring.fill == 0.25
        assert slots.put(ts=5)
        assert times(slots.ring.read()) == [5]

    def test_what_is_read_again_after_a_failure_is_the_same(self):
        slots = Slots("syscalls", 4)
        slots.put(ts=7)
        began = slots.ring.read_to
        slots.ring.read()
        slots.ring.read_to = began
        slots.put(ts=8)
        assert times(slots.ring.read()) == [7, 8]

    def test_pending_is_told_in_bytes_of_records(self):
        slots = Slots("syscalls", 8)
        slots.put(ts=1)
        slots.put(ts=2)
        assert slots.ring.pending == 2 * 96  # 10 columns of 8 bytes, 3 of 4, one of 2, two of 1
        assert slots.ring.size == 8 * 96

    def test_a_reader_begins_where_the_last_one_released(self):
        slots = Slots("syscalls", 8, start=1_000_003)
        assert slots.ring.read_to == 1_000_003
        assert slots.ring.read() == []

    def test_positions_beyond_32_bits_are_no_different(self):
        slots = Slots("syscalls", 8, start=(1 << 40) - 3)
        for ts in range(6):
            slots.put(ts=ts)
        assert times(slots.ring.read()) == [0, 1, 2, 3, 4, 5]

    @given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=30), st.integers(0, 100))
    def test_every_record_that_found_room_comes_out_once_and_in_order(self, rounds, start):
        slots = Slots("syscalls", 8, start=start)
        kept, came, number = [], [], 0
        for count, release in rounds:
            for _ in range(count):
                if slots.put(ts=number):
                    kept.append(number)
                number += 1
            came += times(slots.ring.read())
            if release:
                slots.ring.release(slots.ring.read_to)
        assert came == kept
        assert int(slots.counters["lost"][0]) == number - len(kept)


def test_each_cpu_has_its_own_stretch_of_a_mapped_array():
    dtype = record_dtype(table("syscalls"))
    file = os.memfd_create("slots")
    os.ftruncate(file, -(-6 * dtype.itemsize // PAGE) * PAGE)
    records = np.zeros(8, dtype)
    records["ts"] = range(8)
    os.pwrite(file, records.tobytes(), 0)
    counters = np.zeros(2, COUNTERS)
    counters["head"] = [1, 4]
    found = slot_rings(table("syscalls"), Map("ring", file, MapType.ARRAY, 4, dtype.itemsize, 8), counters)
    assert [times(ring.read()) for ring in found] == [[0], [4, 5, 6, 7]]
    found[1].release(4)
    assert counters["tail"].tolist() == [0, 4]
    os.close(file)


def test_counters_are_an_element_for_each_cpu_in_the_kernel_s_memory():
    file = os.memfd_create("counters")
    os.ftruncate(file, PAGE)
    mapped = map_counters(Map("counters", file, MapType.ARRAY, 4, 64, 3))
    assert COUNTERS.itemsize == 64
    os.pwrite(file, (5).to_bytes(8, "little"), 2 * 64 + 8)
    assert mapped["lost"].tolist() == [0, 0, 5]
    os.close(file)


def test_a_table_gets_the_kind_of_ring_that_its_records_need(buffer):
    (variable,) = open_rings(table("paths"), [Map("ring", buffer.file, MapType.RINGBUF, 0, 0, buffer.size)], np.zeros(1, COUNTERS), COOKIE)
    assert isinstance(variable, rings.RecordRing)


class TestRecordRing:
    def test_records_come_with_their_strings_and_are_read_once(self, buffer):
        buffer.put(ts=1, tails={"value": b"/etc/passwd"})
        buffer.put(ts=2, tails={"value": b""})
        buffer.put(ts=3, tails={"value": b"\xff\n\x1b[31m"})
        read = buffer.ring.read()
        assert read[0]["ts"].tolist() == [1, 2, 3]
        assert values(read) == [b"/etc/passwd", b"", b"\xff\n\x1b[31m"]
        assert len(buffer.ring.read()[0]) == 0

    def test_positions_are_bytes_headers_and_padding_included(self, buffer):
        assert record_dtype(table("paths")).itemsize == PATHS_FIXED
        buffer.put(ts=1, tails={"value": b"12345"})  # 8 + 48 + 5, to a multiple of 8: 64
        assert buffer.ring.pending == 64
        buffer.ring.read()
        assert (buffer.ring.read_to, buffer.ring.pending) == (64, 0)
        assert buffer.ring.fill == 64 / PAGE
        assert buffer.consumed == 0
        buffer.ring.release(64)
        assert (buffer.consumed, buffer.ring.fill) == (64, 0.0)

    def test_a_run_that_wraps_is_read_through_the_second_mapping(self):
        buffer = RingBuffer("paths", PAGE, start=5 * PAGE - 40)
        buffer.put(ts=1, tails={"value": b"across the end of the ring"})
        buffer.put(ts=2, tails={"value": b"and behind it"})
        read = buffer.ring.read()
        assert read[0]["ts"].tolist() == [1, 2]
        assert values(read) == [b"across the end of the ring", b"and behind it"]
        buffer.close()

    def test_a_full_ring_is_read_whole(self):
        buffer = RingBuffer("paths", PAGE, start=PAGE - 64)
        for ts in range(PAGE // 64):  # 8 + 48 + 8: each fits exactly
            buffer.put(ts=ts, tails={"value": b"8 bytes."})
        assert buffer.room() == 0
        assert buffer.ring.fill == 1.0
        assert buffer.ring.read()[0]["ts"].tolist() == list(range(PAGE // 64))
        buffer.close()

    @pytest.mark.parametrize("cookie", [COOKIE, None])
    def test_a_record_that_is_not_submitted_ends_the_run_until_it_is(self, cookie):
        buffer = RingBuffer("paths", PAGE, cookie=cookie)
        buffer.put(ts=1)
        at = buffer.put(ts=2, flags=BUSY)
        buffer.put(ts=3)
        assert buffer.ring.read()[0]["ts"].tolist() == [1]
        assert buffer.ring.read_to == at
        assert buffer.ring.read()[0]["ts"].tolist() == []
        buffer.submit(at)
        assert buffer.ring.read()[0]["ts"].tolist() == [2, 3]
        buffer.close()

    def test_a_record_that_is_reserved_and_still_holds_what_was_there_a_lap_before_is_not_read(self, buffer):
        # Its cookie is not written yet: only the busy bit tells.
        buffer.put(ts=1)
        at = buffer.put(ts=2, flags=BUSY, cookie=0)
        assert buffer.ring.read()[0]["ts"].tolist() == [1]
        assert buffer.ring.read_to == at

    @pytest.mark.parametrize("cookie", [COOKIE, None])
    def test_a_discarded_record_is_passed_over_and_holds_nothing_up(self, cookie):
        buffer = RingBuffer("paths", PAGE, cookie=cookie)
        buffer.put(ts=1, flags=DISCARD)
        buffer.put(ts=2, tails={"value": b"kept"})
        buffer.put(ts=3, flags=DISCARD, cookie=0, tails={"value": b"thirteen more"})
        buffer.put(ts=4)
        read = buffer.ring.read()
        assert read[0]["ts"].tolist() == [2, 4]
        assert values(read) == [b"kept", b""]
        assert buffer.ring.pending == 0
        buffer.close()

    def test_a_cookie_inside_a_string_misleads_no_one(self, buffer):
        # The string begins at a multiple of 8, where a real one could.
        lure = COOKIE.to_bytes(8, "little") + bytes(64)
        buffer.put(ts=1, tails={"value": lure})
        buffer.put(ts=2, tails={"value": b"after"})
        read = buffer.ring.read()
        assert read[0]["ts"].tolist() == [1, 2]
        assert values(read) == [lure, b"after"]

    def test_a_forged_record_inside_a_string_misleads_no_one(self, buffer):
        # A whole record, header and cookie, that ends where its host ends.
        forged = np.zeros(1, record_dtype(table("paths")))
        forged["cookie"], forged["ts"] = COOKIE, 666
        lure = len(forged.tobytes()).to_bytes(8, "little") + forged.tobytes()
        buffer.put(ts=1, tails={"value": lure})
        buffer.put(ts=2)
        assert buffer.ring.read()[0]["ts"].tolist() == [1, 2]

    def test_recovery_follows_records_without_knowing_their_cookie(self):
        buffer = RingBuffer("paths", PAGE, cookie=None)
        for ts in range(5):
            buffer.put(ts=ts, cookie=COOKIE, tails={"value": b"x" * ts})
        assert values(buffer.ring.read()) == [b"x" * length for length in range(5)]
        buffer.close()

    def test_room_behind_the_strings_is_no_part_of_them(self, buffer):
        # The exec probe reserves a class of lengths: the record is longer than what it holds.
        buffer.put(ts=1, length=500, tails={"value": b"short"})
        buffer.put(ts=2, tails={"value": b"next"})
        assert values(buffer.ring.read()) == [b"short", b"next"]

    def test_what_was_read_stays_the_same_after_the_kernel_goes_on(self, buffer):
        buffer.put(ts=1, tails={"value": b"first"})
        records, _, _ = buffer.ring.read()
        buffer.ring.release(buffer.ring.read_to)
        for ts in range(2, 2 + PAGE // 56):
            buffer.put(ts=ts)
        assert records["ts"].tolist() == [1]

    @given(
        st.lists(st.tuples(st.binary(max_size=200), st.sampled_from([0, 0, 0, BUSY, DISCARD]), st.booleans()), max_size=40),
        st.integers(0, 2 * PAGE // 8),
        st.sampled_from([COOKIE, None]),
    )
    def test_every_submitted_record_comes_out_once_and_in_order(self, records, start, cookie):
        buffer = RingBuffer("paths", PAGE, start=8 * start, cookie=cookie)
        expected, came, busy = [], [], []
        for number, (value, flags, drain) in enumerate(records):
            if buffer.room() < 8 + PATHS_FIXED + len(value) + 7:
                for at in busy:
                    buffer.submit(at)
                busy.clear()
                came += values(buffer.ring.read())
                buffer.ring.release(buffer.ring.read_to)
            if buffer.room() < 8 + PATHS_FIXED + len(value) + 7:
                break  # nothing but discarded records, which are passed over with the next one behind them
            at = buffer.put(ts=number, flags=flags, tails={"value": value})
            if flags == BUSY:
                busy.append(at)
            if flags != DISCARD:
                expected.append(value)
            if drain:
                came += values(buffer.ring.read())
                buffer.ring.release(buffer.ring.read_to)
        for at in busy:
            buffer.submit(at)
        came += values(buffer.ring.read())
        assert came == expected
        buffer.close()


class Barrier:
    def __init__(self, result):
        self.result, self.calls = result, []

    def syscall(self, *arguments):
        self.calls.append(arguments)
        return self.result


def test_arm64_waits_for_a_memory_barrier_around_each_reading_and_x86_does_not(monkeypatch):
    barrier = Barrier(0)
    monkeypatch.setattr(rings, "_libc", barrier)
    monkeypatch.setattr(rings.platform, "machine", lambda: "aarch64")
    slots = Slots("syscalls", 4)
    slots.ring.read()
    slots.ring.release(0)
    assert [call[:2] for call in barrier.calls] == [(283, 1), (283, 1)]  # membarrier(MEMBARRIER_CMD_GLOBAL)
    monkeypatch.setattr(rings.platform, "machine", lambda: "x86_64")
    slots.ring.read()
    assert len(barrier.calls) == 2


def test_a_barrier_that_fails_ends_the_recording_instead_of_reading_out_of_order(monkeypatch):
    monkeypatch.setattr(rings, "_libc", Barrier(-1))
    monkeypatch.setattr(rings.platform, "machine", lambda: "aarch64")
    with pytest.raises(RecordingError, match="membarrier"):
        Slots("syscalls", 4).ring.read()
