"""The loss ledger: growing totals of the kernel become rows, each loss in exactly one, nothing unaccounted for."""

import struct
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringtape.recorder.ledger import LOSS, Ledger
from ringtape.recorder.ring import COUNTERS
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.errors import RecordingError
from ringtape.schemas.table import table, tables

SYSCALLS, PATHS = list(tables()).index("syscalls"), list(tables()).index("paths")
FULL, NO_STORAGE, UNREADABLE = 0, 1, 2


class Kernel:
    """The counters and the per-CPU hash that the probes write; ``room`` keys fit in the hash."""

    def __init__(self, cpus=2, room=4096):
        self.cpus, self.room = cpus, room
        self.cells = {name: np.zeros(cpus, COUNTERS) for name in ("syscalls", "paths")}
        self.hash = {}
        self.looks = 0

    def lose(self, time, nr=0, cpu=0, duration=0, number=SYSCALLS, cause=FULL, abi=1):
        """Do what lose() of common.bpf.h does behind the probe's own count."""
        name = list(tables())[number]
        self.cells[name]["lost" if cause == FULL else "noted"][cpu] += 1
        key = struct.pack("=iBBBB", nr, number, cause, abi, max(duration.bit_length() - 1, 0))
        if key not in self.hash and len(self.hash) >= self.room:
            return
        cell = self.hash.setdefault(key, np.zeros(self.cpus, LOSS))[cpu : cpu + 1]
        if not cell["count"][0]:
            cell["first"] = time
        cell["count"] += 1
        cell["sum"] += duration
        cell["last"] = time

    def keys(self):
        self.looks += 1
        return list(self.hash)

    def lookup(self, key, size):
        assert size == LOSS.itemsize * self.cpus
        return self.hash[key].tobytes()

    def ledger(self, began=0, numbers=None):
        class Cells:
            def __init__(self, cells):
                self.cells = cells

        from ringtape.recorder.ledger import Counters

        counters = {}
        for name, cells in self.cells.items():
            counters[name] = Counters.__new__(Counters)
            counters[name].cells = cells
        return Ledger(self, counters, self.cpus, began, list(tables()) if numbers is None else numbers)


def test_a_key_that_names_no_table_is_an_error_that_names_it():
    kernel = Kernel()
    kernel.lose(100)
    with pytest.raises(RecordingError, match=f"table {SYSCALLS} of 2"):
        kernel.ledger(numbers=["block", "events"]).rows(200)


def told(rows, *names):
    return [] if rows is None else [tuple(row[name] for name in names) for row in rows.to_pylist()]


def test_a_loss_is_told_once_with_its_place_and_time():
    kernel = Kernel()
    ledger = kernel.ledger(began=50)
    kernel.lose(100, nr=17, cpu=1, duration=1500)  # 2**10 <= 1500 < 2**11
    kernel.lose(130, nr=17, cpu=1, duration=1600)
    (row,) = ledger.rows(200).to_pylist()
    assert row == {
        "ts": 100,
        "until": 130,
        "count": 2,
        "sum": 3100,
        "nr": 17,
        "cpu": 1,
        "abi": 1,
        "bucket": 10,
        "cause": FULL,
        "table": "syscalls",
    }
    assert ledger.rows(300) is None


def test_what_grew_since_is_told_as_the_difference_and_from_the_last_look_on():
    kernel = Kernel()
    ledger = kernel.ledger()
    kernel.lose(100, duration=10)
    ledger.rows(200)
    kernel.lose(250, duration=12)
    kernel.lose(260, duration=13)
    assert told(ledger.rows(300), "ts", "until", "count", "sum") == [(200, 260, 2, 25)]


def test_the_ledger_is_not_read_while_no_counter_moves():
    kernel = Kernel()
    ledger = kernel.ledger()
    ledger.rows(1)
    for now in range(2, 100):
        assert ledger.rows(now) is None
    assert kernel.looks == 1
    kernel.lose(100)
    assert ledger.rows(101).num_rows == 1
    assert kernel.looks == 2


def test_rows_have_the_declared_schema_and_are_sorted_by_time():
    kernel = Kernel()
    ledger = kernel.ledger()
    for time, nr in ((30, 1), (10, 2), (20, 3)):
        kernel.lose(time, nr=nr)
    rows = ledger.rows(40)
    assert rows.schema.equals(arrow_schema(table("losses")), check_metadata=True)
    assert rows["ts"].to_pylist() == [10, 20, 30]


def test_losses_for_which_the_ledger_had_no_room_are_told_with_number_minus_1():
    kernel = Kernel(room=1)
    ledger = kernel.ledger(began=5)
    kernel.lose(10, nr=1, duration=100)
    for time in (11, 12, 13):
        kernel.lose(time, nr=2, cpu=1, duration=100)
    assert told(ledger.rows(20, closing=True), "nr", "cpu", "count", "sum", "ts", "until") == [(-1, 1, 3, 0, 5, 20), (1, 0, 1, 100, 10, 10)]
    kernel.lose(25, nr=2, cpu=1, duration=100)
    assert told(ledger.rows(30, closing=True), "nr", "cpu", "count") == [(-1, 1, 1)]


def test_threads_without_storage_are_told_apart_from_full_rings():
    kernel = Kernel()
    ledger = kernel.ledger()
    kernel.lose(1, cause=NO_STORAGE)
    kernel.lose(2, cause=FULL)
    assert sorted(told(ledger.rows(3), "cause", "count", "nr")) == [(FULL, 1, 0), (NO_STORAGE, 1, 0)]


def test_tables_are_told_apart_by_their_numbers():
    kernel = Kernel()
    ledger = kernel.ledger()
    kernel.lose(1, number=PATHS)
    kernel.lose(2, number=SYSCALLS)
    assert told(ledger.rows(3), "table") == [("paths",), ("syscalls",)]


def test_a_table_number_that_is_not_declared_is_an_error():
    kernel = Kernel()
    ledger = kernel.ledger()
    kernel.lose(1)
    kernel.hash[struct.pack("=iBBBB", 0, 99, 0, 0, 0)] = np.ones(2, LOSS)
    with pytest.raises(RecordingError, match="table 99"):
        ledger.rows(2)


def test_strings_that_could_not_be_read_are_told_even_where_nothing_else_was_lost():
    kernel = Kernel()
    ledger = kernel.ledger()
    ledger.rows(1)
    kernel.lose(2, number=PATHS, cause=UNREADABLE)
    assert told(ledger.rows(3), "table", "cause", "count") == [("paths", UNREADABLE, 1)]


def test_a_later_recorder_tells_only_what_the_earlier_one_had_not_written():
    kernel = Kernel(room=1)
    first = kernel.ledger()
    kernel.lose(10, nr=1, duration=3)
    kernel.lose(12, nr=9)  # no room
    written = [first.rows(20, closing=True)]
    kernel.lose(25, nr=1, duration=3)
    written.append(first.rows(30, closing=True))
    kernel.lose(35, nr=1, duration=2)
    kernel.lose(36, nr=9)
    again = kernel.ledger()
    for rows in written:
        again.already_written(rows)
    assert told(again.rows(40, closing=True), "nr", "count", "sum", "ts") == [(-1, 1, 0, 25), (1, 1, 2, 25)]
    assert again.rows(50) is None


def test_a_loss_that_is_counted_and_on_its_way_into_the_ledger_is_told_once():
    kernel = Kernel()
    ledger = kernel.ledger()
    kernel.cells["syscalls"]["lost"][0] += 1
    assert ledger.rows(5) is None
    kernel.lose(4, nr=7)
    kernel.cells["syscalls"]["lost"][0] -= 1
    assert told(ledger.rows(6, closing=True), "nr", "count") == [(7, 1)]


LOST = st.tuples(
    st.integers(0, 3),
    st.integers(0, 1),
    st.integers(0, 5000),
    st.sampled_from([SYSCALLS, PATHS]),
    st.sampled_from([FULL, FULL, NO_STORAGE]),
    st.booleans(),
)


@given(st.lists(LOST, max_size=60), st.integers(0, 6), st.integers(0, 60))
def test_counts_are_exact_whenever_the_ledger_is_looked_at_and_whoever_looks(losses, room, killed):
    kernel = Kernel(room=room)
    ledger = kernel.ledger()
    written = [arrow_schema(table("losses")).empty_table()]
    counts, sums = defaultdict(int), defaultdict(int)
    for time, (nr, cpu, duration, number, cause, look) in enumerate(losses):
        kernel.lose(time, nr, cpu, duration, number, cause)
        if cause == FULL:
            counts[list(tables())[number], cpu] += 1
        if look and (rows := ledger.rows(time)) is not None:
            written.append(rows)
        if time == killed:
            ledger = kernel.ledger()
            for rows in written:
                ledger.already_written(rows)
    if (rows := ledger.rows(len(losses), closing=True)) is not None:
        written.append(rows)
    told_counts, told_sums = defaultdict(int), defaultdict(int)
    for row in pa.concat_tables(written).to_pylist():
        assert row["count"] > 0
        assert row["ts"] <= row["until"]
        if row["cause"] == FULL:
            told_counts[row["table"], row["cpu"]] += row["count"]
        told_sums[row["table"], row["cpu"], row["nr"]] += row["sum"]
    assert told_counts == counts
    for key, cells in kernel.hash.items():
        nr, number, *_ = struct.unpack("=iBBBB", key)
        for cpu, cell in enumerate(cells):
            sums[list(tables())[number], cpu, nr] += int(cell["sum"])
    assert {key: total for key, total in told_sums.items() if total} == {key: total for key, total in sums.items() if total}
