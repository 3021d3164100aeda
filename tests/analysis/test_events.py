"""Tracepoints offline: columns cut out of raw records, counts, histograms, lines; values worked out by hand."""

from __future__ import annotations

import csv
import io
import json
import struct
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ringtape
from ringtape.analysis.analyses.event_count import event_count, event_rate
from ringtape.analysis.analyses.event_hist import event_hist
from ringtape.analysis.analyses.loss import loss
from ringtape.analysis.events import decode, polars_type, symbol_text
from ringtape.analysis.plots.events import histogram, rates
from ringtape.schemas.errors import RingtapeError, UsageError
from ringtape.schemas.escape import escape
from ringtape.schemas.events import Event, EventField, Symbols, describe_events
from tests.factory import T0, make
from tests.kernel.recording import ringtape as run
from tests.tracepoints import SOFTIRQ, WAIT, wait

EVERYTHING = Event(
    "test:everything",
    1000,
    (
        EventField("tiny", "s8", 8, 1, 1, True, "scalar"),
        EventField("flag", "bool", 9, 1, 1, False, "scalar"),
        EventField("small", "u16", 10, 2, 2, False, "scalar", show="hex"),
        EventField("name", "__data_loc char[]", 12, 4, 1, False, "loc", text=True),
        EventField("large", "u64", 16, 8, 8, False, "scalar"),
        EventField("comm", "char[8]", 24, 8, 1, False, "array", text=True),
        EventField("addr", "__u8[4]", 32, 4, 1, False, "array", show="ipv4"),
        EventField("list", "__rel_loc u16[]", 36, 4, 2, False, "rel"),
        EventField("pair", "int[2]", 40, 8, 4, True, "array"),
        EventField("why", "const char *", 48, 8, 8, False, "scalar", string=0, show="hex"),
        EventField("how", "const char *", 56, 8, 8, False, "scalar", string=1, show="hex"),
        EventField("dev", "dev_t", 64, 4, 4, False, "scalar", show="dev"),
        EventField("dev_name", "int", 68, 4, 4, True, "scalar"),
        EventField("event_pid", "int", 72, 4, 4, True, "scalar"),
        EventField(
            "mode",
            "unsigned int",
            76,
            4,
            4,
            False,
            "scalar",
            symbols=Symbols(True, 0, 0xFF, "|", ((1, "READ"), (2, "WRITE"), (6, "BOTH"), (-1, "ALL"))),
        ),
    ),
)


def everything(name=b"abc", listed=(1, 2, 65535), **values: Any) -> bytes:
    """Return a record of `EVERYTHING`, whose fixed part ends at 80."""
    tail = name + b"\0"
    words = struct.pack(f"<{len(listed)}H", *listed)
    base: dict[str, Any] = {
        "tiny": -1,
        "flag": 1,
        "small": 65535,
        "large": 2**64 - 1,
        "comm": b"sh\0junk!",
        "addr": bytes([127, 0, 0, 1]),
        "pair": (-1, 7),
    }
    base |= {"why": 0xFFFF_8000_0000_0001, "how": 0, "dev": 253 << 20 | 5, "dev_name": -3, "event_pid": 42, "mode": 0x107} | values
    return (
        struct.pack("<b?HIQ8s4s", base["tiny"], base["flag"], base["small"], len(tail) << 16 | 80, base["large"], base["comm"], base["addr"])
        + struct.pack("<I2i", len(words) << 16 | (80 + len(tail) - 40), *base["pair"])
        + struct.pack("<QQIiiI", base["why"], base["how"], base["dev"], base["dev_name"], base["event_pid"], base["mode"])
        + tail
        + words
    )


STRINGS = b"\x06reason\xff"


def trace_of(folder: Path, rows: list[dict[str, Any]], events: tuple[Event, ...] = (EVERYTHING,), **more: Any) -> ringtape.Trace:
    return ringtape.open(make(folder, header={"events": describe_events(events)}, events=rows, **more))


def one(field: EventField, raw: bytes, strings: bytes = b"", *, exact: bool = False) -> Any:
    records = pl.DataFrame({"raw": [raw], "strings": [strings]}, schema={"raw": pl.Binary, "strings": pl.Binary})
    return decode(field, records.to_struct("both") if field.string >= 0 else records["raw"], exact)[0]


def test_every_kind_of_field_has_its_value_and_its_type(folder: Path) -> None:
    rows = [{"event": 1000, "pid": 5, "tid": 6, "cpu": 1, "raw": everything(), "strings": STRINGS}]
    frame = trace_of(folder, rows, processes=[{"ts": T0 - 1, "kind": 1, "pid": 5, "tid": 6, "comm": b"worker"}]).event("everything").collect()
    assert frame.schema == {
        "event_ts": pl.Int64, "event_pid": pl.Int32, "event_tid": pl.Int32, "event_cpu": pl.Int16, "event_context": pl.Int8, "event_seq": pl.Int64,
        "event_context_name": pl.String, "event_comm": pl.String, "tiny": pl.Int8, "flag": pl.Boolean, "small": pl.Int32, "name": pl.String,
        "large": pl.UInt64, "comm": pl.String, "addr": pl.Binary, "list": pl.List(pl.Int32), "pair": pl.List(pl.Int32), "why": pl.String,
        "how": pl.String, "dev": pl.Int64, "dev_name": pl.Int32, "event_pid_": pl.Int32, "mode": pl.Int64, "mode_name": pl.String,
    }  # fmt: skip
    assert frame.drop("event_ts", "event_seq").row(0) == (
        5, 6, 1, 0, "task", "worker", -1, True, 65535, "abc", 2**64 - 1, "sh", b"\x7f\0\0\1", [1, 2, 65535], [-1, 7], "reason", None,
        253 << 20 | 5, -3, 42, 0x107, "READ|WRITE|0x4",
    )  # fmt: skip


def test_records_of_different_length_in_one_part_each_have_their_own(folder: Path) -> None:
    names = [b"", b"a", b"x" * 5000, b"caf\xc3\xa9 \xff\n", b"a\\b"]
    trace = trace_of(folder, [{"event": 1000, "raw": everything(name, range(at)), "strings": STRINGS} for at, name in enumerate(names)])
    frame = trace.event("test:everything").select("name", "list", "tiny").collect()
    assert frame["name"].to_list() == ["", "a", "x" * 5000, "café \\xff\\n", "a\\\\b"]
    assert frame["list"].to_list() == [list(range(at)) for at in range(5)]
    assert frame["tiny"].to_list() == [-1] * 5


def test_a_record_that_does_not_hold_a_field_gives_null_for_it_alone(folder: Path) -> None:
    whole = everything()
    trace = trace_of(folder, [{"event": 1000, "raw": whole[:length]} for length in (0, 1, 8, 20, len(whole) - 1, len(whole))])
    frame = trace.event("test:everything").collect()
    assert frame["tiny"].to_list() == [None, -1, -1, -1, -1, -1]
    assert frame["large"].to_list() == [None, None, None, 2**64 - 1, 2**64 - 1, 2**64 - 1]
    assert frame["name"].to_list() == [None, None, None, None, "abc", "abc"]
    assert frame["list"].to_list() == [None, None, None, None, None, [1, 2, 65535]]
    assert frame["why"].to_list() == [None] * 6  # no strings were stored
    assert frame["mode_name"].to_list() == [None, None, None, None, "READ|WRITE|0x4", "READ|WRITE|0x4"]


NAME, LIST, WHY, HOW = (EVERYTHING.field(name) for name in ("name", "list", "why", "how"))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (4 << 16 | 80, "abc"),
        (3 << 16 | 80, "abc"),
        (1 << 16 | 82, "c"),
        (0 << 16 | 80, ""),
        (0xFFFF << 16 | 80, None),  # beyond the end
        (4 << 16 | 0xFFFF, None),
        (4 << 16 | 7, None),  # in the common fields, which are not recorded
        (0xFFFFFFFF, None),
        (2 << 16 | 8, escape(b"\xff\x01")),  # inside of the fixed part: odd, but inside of the record
    ],
)
def test_a_word_that_points_anywhere_is_followed_only_inside_of_the_record(word, expected):
    raw = bytearray(everything(listed=()))
    struct.pack_into("<I", raw, 12 - 8, word)
    assert one(NAME, bytes(raw)) == expected


def test_an_array_whose_bytes_are_not_whole_numbers_is_null():
    raw = bytearray(everything(listed=(1,)))
    struct.pack_into("<I", raw, 36 - 8, 1 << 16 | (84 - 40))
    assert one(LIST, bytes(raw)) is None


@pytest.mark.parametrize(
    ("strings", "why", "how"),
    [
        (b"\x01a\x02bc", "a", "bc"),
        (b"\xff\x02bc", None, "bc"),
        (b"\x00\x00", "", ""),
        (b"\x05abc", None, None),  # cut off
        (b"\x01a\x05b", "a", None),
        (b"", None, None),
        (b"\x01a", "a", None),
        (b"\xfe", None, None),
    ],
)
def test_strings_behind_pointers_are_taken_by_their_lengths(strings, why, how):
    assert (one(WHY, b"", strings), one(HOW, b"", strings)) == (why, how)


def slowly(field: EventField, raw: bytes) -> Any:
    """Decode one field as one would by hand."""
    at = field.offset - 8
    if field.shape in ("loc", "rel"):
        if len(raw) < at + 4:
            return None
        word = int.from_bytes(raw[at : at + 4], "little")
        begin = (word & 0xFFFF) + (at + 4 if field.shape == "rel" else -8)
        size = word >> 16
    else:
        begin, size = at, field.size
    if begin < 0 or begin + size > len(raw) or size % field.item:
        return None
    data = raw[begin : begin + size]
    if field.text:
        return data.split(b"\0", 1)[0]
    numbers = [int.from_bytes(data[i : i + field.item], "little", signed=field.signed) for i in range(0, size, field.item)]
    return numbers[0] if field.shape == "scalar" else data if field.item == 1 else numbers


shapes = st.sampled_from(["scalar", "array", "loc", "rel"])


@st.composite
def fields(draw):
    shape, item = draw(shapes), draw(st.sampled_from([1, 2, 4, 8]))
    size = {"scalar": item, "array": item * draw(st.integers(0, 4))}.get(shape, 4)
    text = shape != "scalar" and item == 1 and draw(st.booleans())
    return EventField("f", "t", draw(st.integers(8, 24)), size, item, draw(st.booleans()), shape, text)


@st.composite
def records(draw):
    """Bytes whose words often point into them."""
    raw = bytearray(draw(st.binary(max_size=60)))
    for at in range(0, len(raw) - 3, 4):
        if draw(st.booleans()):
            struct.pack_into("<HH", raw, at, draw(st.integers(0, 70)), draw(st.integers(0, 20)))
    return bytes(raw)


@given(fields(), st.lists(records(), max_size=6))
def test_bulk_decoding_gives_what_decoding_by_hand_gives_for_any_bytes(field, raws):
    series = pl.Series(raws, dtype=pl.Binary)
    got = decode(field, series, exact=True)
    assert got.dtype == polars_type(field, exact=True)
    assert [value.to_list() if isinstance(value, pl.Series) else value for value in got] == [slowly(field, raw) for raw in raws]
    if field.text:
        assert decode(field, series).to_list() == [None if (value := slowly(field, raw)) is None else escape(value) for raw in raws]


def test_names_of_values_are_those_that_the_kernel_would_print():
    flags = EVERYTHING.field("mode").symbols
    assert [symbol_text(flags, value) for value in (0, 1, 3, 6, 8, 0x108)] == ["", "READ", "READ|WRITE", "WRITE|0x4", "0x8", "0x8"]
    action = SOFTIRQ.fields[0].symbols
    assert [symbol_text(action, value) for value in (1, 7, 9)] == ["TIMER", "SCHED", "0x9"]
    assert symbol_text(Symbols(False, 13, 7, "|", ((2, "be"),)), 0x4005) == "be"
    assert symbol_text(Symbols(False, 0, -1, "|", ((-1, "\x1b[2J"),)), 2**64 - 1) == "\\x1b[2J"


def test_a_query_that_needs_no_field_reads_none(folder: Path) -> None:
    rows = [{"event": 1000, "raw": everything()}] * 3
    assert trace_of(folder, rows).event("test:everything").select(pl.len()).collect().item() == 3


def test_events_outside_of_a_time_window_are_left_out(event_trace: ringtape.Trace) -> None:
    frame = event_trace.event("sched:sched_process_wait", since=T0 + 1500).collect()
    assert frame["event_ts"].to_list() == [T0 + 2000]


def test_idle_tasks_are_called_as_the_kernel_calls_them(event_trace: ringtape.Trace) -> None:
    frame = event_trace.event("irq:softirq_entry").select("event_tid", "event_comm", "event_context_name", "vec_name").collect()
    assert frame.rows() == [(100, "sh", "softirq", "TIMER"), (0, "swapper", "softirq", "SCHED")]


def test_an_event_that_was_not_recorded_is_named_with_those_that_were(event_trace: ringtape.Trace, folder: Path) -> None:
    with pytest.raises(RingtapeError) as caught:
        event_trace.event("sched:sched_proces_wait")
    assert "was not recorded" in caught.value.what
    assert "sched:sched_process_wait" in (caught.value.hint or "")
    with pytest.raises(RingtapeError) as caught:
        event_trace.event("zz:zz")
    assert "--event zz:zz" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="several events"):
        event_hist(event_trace)
    with pytest.raises(RingtapeError, match="'events' was not recorded"):
        ringtape.open(make(folder, header={"tables": {"losses": "1.0"}})).event("a:b")


LOST = [
    {"table": "events", "cause": 0, "abi": 0, "count": 3, "nr": WAIT.id, "cpu": 0, "ts": T0 + 5000, "until": T0 + 6000},
    {"table": "events", "cause": 3, "abi": 0, "count": 2, "nr": SOFTIRQ.id, "cpu": -1, "ts": T0, "until": T0 + 9000},
]


def waits(folder: Path, losses: list[dict[str, Any]]) -> ringtape.Trace:
    rows = [{"event": WAIT.id, "pid": 100, "raw": wait(comm, pid, 120)} for comm, pid in ((b"sh", 1), (b"sh", 1), (b"make", 1), (b"sh", -5))]
    rows.append({"event": SOFTIRQ.id, "pid": 100, "context": 1, "raw": b"\x01\0\0\0"})
    return trace_of(folder, rows, (WAIT, SOFTIRQ, EVERYTHING), losses=losses, processes=[{"pid": 100, "kind": 1, "comm": b"sh", "ts": T0 - 1}])


def test_events_are_counted_with_what_was_lost_and_skipped_of_each(folder: Path) -> None:
    trace = waits(folder, LOST)
    assert event_count(trace).rows() == [
        ("sched:sched_process_wait", 4, 0.8, 3, 0),
        ("irq:softirq_entry", 1, 0.2, 0, 2),
        ("test:everything", 0, 0.0, 0, 0),
    ]
    assert event_count(trace, event="softirq_entry").rows() == [("irq:softirq_entry", 1, 1.0, 0, 2)]
    by = loss(trace, by="syscall").filter(pl.col("table") == "events")
    assert by.select("syscall", "recorded", "lost", "skipped").rows() == [("irq:softirq_entry", 1, 0, 2), ("sched:sched_process_wait", 4, 3, 0)]


def test_events_are_counted_by_any_columns_and_the_lost_have_none(folder: Path) -> None:
    trace = waits(folder, LOST)
    result = event_count(trace, event="sched_process_wait", by=("comm", "pid"))
    assert result.columns == ["event", "comm", "pid", "count", "share", "lost", "skipped"]
    assert result.select("comm", "pid", "count", "share", "lost").rows() == [
        ("sh", 1, 2, 0.5, 0),
        ("make", 1, 1, 0.25, 0),
        ("sh", -5, 1, 0.25, 0),
        (None, None, 0, 0.0, 3),
    ]
    both = event_count(trace, by="event_comm,event_context_name")
    assert both.select("event", "event_comm", "event_context_name", "count", "lost", "skipped").rows() == [
        ("sched:sched_process_wait", "sh", "task", 4, 0, 0),
        ("irq:softirq_entry", "sh", "softirq", 1, 0, 0),
        ("irq:softirq_entry", None, None, 0, 0, 2),
        ("sched:sched_process_wait", None, None, 0, 3, 0),
    ]


def test_arrays_and_their_elements_can_be_counted(folder: Path) -> None:
    trace = trace_of(folder, [{"event": 1000, "raw": everything(listed=range(at))} for at in (1, 3, 3)])
    assert event_count(trace, by="addr").select("addr", "count").rows() == [("127.0.0.1", 3)]
    assert event_count(trace, by="list").select("list", "count").rows() == [("0 1 2", 2), ("0", 1)]
    assert event_count(trace, by="list[2],addr[0]").select("list[2]", "addr[0]", "count").rows() == [(2, 127, 2), (None, 127, 1)]


@pytest.mark.parametrize(
    ("by", "message", "hint"),
    [
        ("pidd", "no column 'pidd'", "pid"),
        ("zzz", "no column 'zzz'", "prio"),
        ("pid,pid", "by is", "different"),
        ("prio[0]", "prio is no array", "without"),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(folder: Path, by: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        event_count(waits(folder, []), event="sched_process_wait", by=by)
    assert hint in (caught.value.hint or "")


def histogram_of(folder: Path, values: list[int], **options: Any) -> list[tuple[Any, ...]]:
    field = EventField("value", "s64", 8, 8, 8, True, "scalar")
    event = Event("test:value", 1, (field,))
    trace = trace_of(folder, [{"event": 1, "raw": struct.pack("<q", value)} for value in values], (event,))
    return event_hist(trace, **options).select("low", "high", "count").rows()


def test_buckets_of_powers_of_two_hold_what_they_say(folder: Path) -> None:
    found = histogram_of(folder, [0, 1, 2, 3, 4, 7, 8, -1, -2, -3, -4])
    assert found == [(-7, -3, 1), (-3, -1, 2), (-1, 0, 1), (0, 1, 1), (1, 2, 1), (2, 4, 2), (4, 8, 2), (8, 16, 1)]


def test_the_ends_of_64_bits_have_buckets(folder: Path, tmp_path: Path) -> None:
    found = histogram_of(folder, [-(1 << 63), (1 << 63) - 1])
    assert found[0] == (1.0 - 2.0**64, 1.0 - 2.0**63, 1)
    assert found[-1] == (2.0**62, 2.0**63, 1)
    event = Event("test:large", 1, (EventField("value", "u64", 8, 8, 8, False, "scalar"),))
    trace = trace_of(tmp_path / "u", [{"event": 1, "raw": struct.pack("<Q", value)} for value in (0, 2**63, 2**64 - 1)], (event,))
    rows = event_hist(trace).select("low", "high", "count").rows()
    assert (rows[0], rows[-1], len(rows)) == ((0, 1, 1), (2.0**63, 2.0**64, 2), 65)


def test_linear_buckets_are_of_one_width(folder: Path, tmp_path: Path) -> None:
    assert histogram_of(folder, [0, 9, 10, 39, -1], width=10) == [(-10, 0, 1), (0, 10, 2), (10, 20, 1), (20, 30, 0), (30, 40, 1)]
    found = histogram_of(tmp_path / "b", list(range(0, 1000, 10)), scale="linear", buckets=20)
    assert (found[0], found[-1], len(found)) == ((0, 50, 5), (950, 1000, 5), 20)


def test_far_apart_values_do_not_make_millions_of_empty_buckets(folder: Path) -> None:
    assert histogram_of(folder, [0, 10**9], width=1) == [(0, 1, 1), (10**9, 10**9 + 1, 1)]


def test_a_histogram_tells_what_was_lost_and_what_has_no_value(folder: Path) -> None:
    trace = waits(folder, LOST)
    result = event_hist(trace, event="sched_process_wait", field="pid")
    assert result.select("low", "count", "share", "lost", "bar").rows()[-2:] == [(1.0, 3, 0.75, 0, 1.0), (None, 0, 0.0, 3, 0.0)]
    assert result["count"].sum() == 4
    by = event_hist(trace, event="sched_process_wait", field="pid", by="comm").filter(pl.col("count") > 0)
    assert by.select("comm", "low", "count").rows() == [("make", 1.0, 1), ("sh", -7.0, 1), ("sh", 1.0, 2)]


def test_a_histogram_of_what_is_no_number_is_refused(folder: Path) -> None:
    trace = waits(folder, [])
    with pytest.raises(UsageError, match="comm of sched:sched_process_wait holds no numbers") as caught:
        event_hist(trace, event="sched_process_wait", field="comm")
    assert caught.value.hint == "those that do are pid, prio"
    with pytest.raises(UsageError, match="which field"):
        event_hist(trace, event="sched_process_wait")
    with pytest.raises(UsageError, match="--width is 0"):
        event_hist(trace, event="softirq_entry", width=0)
    assert event_hist(trace, event="softirq_entry").select("field", "low", "count").rows() == [("vec", 1.0, 1)]
    assert event_hist(trace, event="test:everything", field="tiny").is_empty()


def test_pictures_of_events_can_be_drawn_also_of_nothing(folder: Path, tmp_path: Path) -> None:
    trace = waits(folder, LOST)
    assert len(rates(event_rate(trace)).axes[0].patches) == 2
    assert len(histogram(event_hist(trace, event="sched_process_wait", field="pid", by="comm")).axes[0].patches) >= 2
    empty = trace_of(tmp_path / "empty", [])
    rates(event_rate(empty))
    histogram(event_hist(empty, field="tiny"))


def printed(trace: ringtape.Trace, *options: str) -> list[str]:
    done = run("print", *options, str(trace.path))
    assert done.status == 0, done.stderr
    return done.stdout.decode().splitlines()


def test_lines_of_events_stand_among_calls_and_process_events_in_time_order(folder: Path) -> None:
    trace = trace_of(
        folder,
        [
            {"ts": T0 + 1500, "event": WAIT.id, "pid": 100, "raw": wait(b'a"b', 7, 120)},
            {"ts": T0 + 2500, "event": SOFTIRQ.id, "pid": 100, "context": 1, "raw": b"\x07\0\0\0"},
            {"ts": T0 + 9000, "event": 99, "pid": 100, "raw": b"?"},
            {"ts": T0 + 9500, "event": WAIT.id, "pid": 101, "raw": b"short"},
        ],
        (WAIT, SOFTIRQ),
        syscalls=[{"ts": T0 + 1000, "nr": 39, "pid": 100, "dur": 10, "ret": 100}, {"ts": T0 + 2000, "nr": 39, "pid": 100, "dur": 10, "ret": 100}],
        processes=[{"ts": T0 + 8000, "kind": 3, "pid": 100, "exit_code": 2, "comm": b"sh"}],
    )
    assert [line.split(" ", 1)[1].strip().split(" ", 1)[1] for line in printed(trace)] == [
        "getpid()                                = 100 <0.000000010>",
        '+++ sched:sched_process_wait comm="a\\"b" pid=7 prio=120 +++',
        "getpid()                                = 100 <0.000000010>",
        "+++ irq:softirq_entry [softirq] vec=SCHED +++",
        "+++ exited with 2 +++",
        "+++ unknown:99 +++",
        "+++ sched:sched_process_wait comm=? pid=? prio=? +++",
    ]
    assert [line.split("+++")[1].split()[0] for line in printed(trace, "--event", "sched:*", "--process", "100")] == ["sched:sched_process_wait"]
    assert len(printed(trace, "--event", "*:*")) == 3
    assert len(printed(trace, "--syscall", "getpid")) == 2
    assert len(printed(trace, "--syscall", "getpid", "--event", "irq:*")) == 3
    done = run("print", "--event", "zz:*", str(trace.path))
    assert (done.status, "was not recorded" in done.stderr) == (2, True)


def test_text_of_every_kind_of_field(folder: Path) -> None:
    trace = trace_of(folder, [{"event": 1000, "pid": 5, "raw": everything(), "strings": STRINGS}])
    (line,) = printed(trace)
    assert line.partition("+++")[2] == (
        ' test:everything tiny=-1 flag=1 small=0xffff name="abc" large=18446744073709551615 comm="sh" addr=127.0.0.1 list=[1, 2, 65535] '
        'pair=[-1, 7] why="reason" how=? dev=253:5 dev_name=-3 event_pid=42 mode=READ|WRITE|0x4 +++'
    )


def test_json_lines_hold_everything_that_is_stored_and_csv_the_text(folder: Path) -> None:
    raw = everything(name=b"\xff")
    trace = trace_of(folder, [{"event": 1000, "pid": 5, "cpu": 3, "context": 2, "raw": raw, "strings": STRINGS}])
    (line,) = printed(trace, "--format", "jsonl")
    body = json.loads(line)
    assert {name: body[name] for name in ("event", "name", "ts", "pid", "tid", "cpu", "seq", "context", "cut")} == {
        "event": "tracepoint", "name": "test:everything", "ts": T0, "pid": 5, "tid": 5, "cpu": 3, "seq": 0, "context": "hardirq", "cut": 0,
    }  # fmt: skip
    assert body["fields"] == {
        "tiny": -1, "flag": True, "small": 65535, "name": {"value": "\\xff", "hex": "ff"}, "large": 2**64 - 1, "comm": {"value": "sh"},
        "addr": {"hex": "7f000001"}, "list": [1, 2, 65535], "pair": [-1, 7], "why": {"value": "reason"}, "how": None, "dev": 253 << 20 | 5,
        "dev_name": -3, "event_pid": 42, "mode": 0x107, "mode_name": "READ|WRITE|0x4",
    }  # fmt: skip
    assert (bytes.fromhex(body["raw"]), bytes.fromhex(body["strings"])) == (raw, STRINGS)
    head, row = csv.reader(io.StringIO("\n".join(printed(trace, "--format", "csv"))))
    values = dict(zip(head, row, strict=True))
    assert (values["event"], values["pid"], values["cpu"], values["text"]) == ("test:everything", "5", "3", body["text"])


def test_the_verbs_take_columns_and_draw(folder: Path, tmp_path: Path) -> None:
    path = str(waits(folder, LOST).path)
    done = run("event-count", "--event", "sched_process_wait", "--by", "comm,pid", "--format", "csv", path)
    assert done.stdout.decode().splitlines()[:2] == ["event,comm,pid,count,share,lost,skipped", "sched:sched_process_wait,sh,1,2,0.5,0,0"]
    picture = tmp_path / "h.png"
    done = run("event-hist", "--event", "sched_process_wait", "--field", "pid", "--picture", str(picture), path)
    assert done.status == 0, done.stderr
    assert "########################################" in done.stdout.decode()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "3 records of events lost" in done.stderr
    assert "irq:softirq_entry" in run("info", path).stdout.decode()
