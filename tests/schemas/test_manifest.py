"""The manifest: what is written comes back, and whatever is not as it was written is one TraceError that names the line."""

import hashlib
import json
import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringtape.schemas.errors import TraceError
from ringtape.schemas.manifest import ENDS, Clock, Footer, Header, Part, Probe, encode, parse
from tests.factory import HEADER

TABLES = {"syscalls": "1.0", "paths": "1.0"}
CLOCK = Clock(5, 6, 7)
FOOTER = Footer(
    "complete", "", 0, {"syscalls": 30}, {"syscalls": 2}, {"syscalls": {"0": 20, "1": 12}}, 3, {"cpu_seconds": 0.25, "maxrss": 60}, CLOCK, 99
)


def part(number, start=0, end=0, table="syscalls", **changes):
    rings = {"0": [start, end]} if end > start else {}
    return replace(Part(table, f"{table}/{number:06d}.parquet", 10, 1000, "ab" * 32, 1, 9, CLOCK, rings), **changes)


def write(*lines):
    previous, data = "", b""
    for line in lines:
        raw, previous = encode(line, previous)
        data += raw
    return data


HEAD = replace(HEADER, tables=TABLES)
LINES = (
    HEAD,
    part(0, 0, 64),
    part(1, 64, 128),
    part(2, replaces=["syscalls/000000.parquet", "syscalls/000001.parquet"]),
    part(0, table="paths"),
    FOOTER,
)
WHOLE = write(*LINES)


def forged(*bodies):
    """Lines with right checksums over whatever is given: what a program with another idea of the format would write."""
    previous, data = "", b""
    for body in bodies:
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        previous = hashlib.sha256((previous + text).encode()).hexdigest()[:16]
        data += json.dumps({**body, "sum": previous}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    return data


def body(line, **changes):
    content = json.loads(encode(line, "")[0])
    del content["sum"]
    return {**content, **changes}


def refused(data):
    with pytest.raises(TraceError) as caught:
        parse(data, "x.trace/manifest.jsonl")
    assert caught.value.what.startswith("x.trace/manifest.jsonl"), "the file is named"
    assert "\n" not in caught.value.what
    assert len(caught.value.what) < 400
    assert caught.value.hint, "what to do is said"
    return caught.value.what


# ---- what is written comes back

names = st.text(st.characters(exclude_characters="\0"), max_size=20) | st.binary(max_size=8).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none() | st.booleans() | int64 | floats | names, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)
times = st.integers(0, 1 << 62)
sizes_of_rings = st.integers(0, 1 << 40)
clocks = st.builds(Clock, times, times, times)
headers = st.builds(
    Header,
    trace_id=names,
    created=names,
    host=st.dictionaries(names, anything, max_size=3),
    clock=clocks,
    command=st.lists(names, max_size=4),
    options=st.dictionaries(names, anything, max_size=3),
    tables=st.dictionaries(names, names, max_size=3),
    probes=st.lists(st.builds(Probe, names, st.booleans(), names), max_size=3),
    tools=st.dictionaries(names, names, max_size=3),
    abi=names,
    attached_at=times,
    journal=names,
    rings=st.dictionaries(names, sizes_of_rings, max_size=3),
)
counts = st.integers(0, 1 << 56)
footers = st.builds(
    Footer,
    end=st.sampled_from(ENDS),
    reason=names,
    exit_status=st.none() | int64,
    rows=st.dictionaries(names, counts, max_size=3),
    lost=st.dictionaries(names, counts, max_size=3),
    attempted=st.dictionaries(names, st.dictionaries(st.integers(0, (1 << 15) - 1).map(str), counts, max_size=3), max_size=3),
    filtered=counts,
    cost=st.dictionaries(names, st.floats(0, 1e9), max_size=3),
    clock=clocks,
    detached_at=times,
)


@given(headers, st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 60)), max_size=5), st.none() | footers)
def test_what_is_written_comes_back(header, sizes, footer):
    named = {*footer.rows, *footer.lost, *footer.attempted} if footer else set()
    header = replace(header, tables={**header.tables, "syscalls": "1.0", **dict.fromkeys(named, "1.0")})
    parts, position = [], 0
    for number, (rows, size, advance) in enumerate(sizes):
        end = min(position + advance, (1 << 63) - 1)
        parts.append(part(number, position, end, rows=rows, bytes=size))
        position = end
    lines = [header, *parts, *([footer] if footer else [])]
    data = write(*lines)
    got = parse(data, "m")
    assert (got.header, list(got.parts), got.footer) == (header, parts, footer)
    assert (got.cut, got.size) == (False, len(data))
    assert got.sealed_rings.get("syscalls", {}) == ({0: position} if position else {})


def test_merged_parts_stand_in_the_place_of_those_they_replace():
    got = parse(WHOLE, "m")
    assert [one.file for one in got.parts] == ["syscalls/000002.parquet", "paths/000000.parquet"]
    assert got.replaced == {"syscalls/000000.parquet", "syscalls/000001.parquet"}
    assert got.sealed_rings == {"syscalls": {0: 128}}


def test_the_checksum_is_what_the_format_page_says():
    first, second = WHOLE.splitlines()[:2]
    text = first.decode()
    total = json.loads(text)["sum"]
    assert hashlib.sha256(text.replace(f'"sum":"{total}",', "").encode()).hexdigest()[:16] == total
    following = json.loads(second)["sum"]
    rest = second.decode().replace(f'"sum":"{following}",', "")
    assert hashlib.sha256((total + rest).encode()).hexdigest()[:16] == following


def test_columns_of_a_newer_minor_version_are_passed_over():
    data = forged(body(HEAD, version="1.7", colour="blue"), body(part(0), weight=3))
    got = parse(data, "m")
    assert got.header == replace(HEAD, version="1.7")
    assert got.parts == (part(0),)


# ---- damage


def test_cut_off_at_any_byte_the_whole_lines_before_are_read():
    ends = [index + 1 for index, byte in enumerate(WHOLE) if byte == 0x0A]
    for length in range(len(WHOLE)):
        data = WHOLE[:length]
        whole = sum(end <= length for end in ends)
        if whole == 0:
            assert "is empty" in refused(data)
            continue
        got = parse(data, "m")
        assert got.size == ends[whole - 1]
        assert got.cut == (length > got.size)
        assert got.footer is None


def test_every_flipped_bit_is_refused_or_cuts_the_last_line():
    for position in range(len(WHOLE)):
        for bit in range(8):
            data = bytearray(WHOLE)
            data[position] ^= 1 << bit
            if position == len(WHOLE) - 1:
                got = parse(bytes(data), "m")
                assert got.cut
                assert got.footer is None
            else:
                refused(bytes(data))


def test_any_two_bytes_exchanged_for_others_are_refused():
    chance = random.Random(7)
    for _ in range(3000):
        data = bytearray(WHOLE)
        for position in chance.sample(range(len(WHOLE) - 1), 2):
            data[position] = chance.choice([value for value in range(256) if value != data[position]])
        refused(bytes(data))


def test_lines_removed_doubled_or_moved_are_refused():
    lines = WHOLE.splitlines(keepends=True)
    for index in range(len(lines)):
        if index < len(lines) - 1:
            refused(b"".join(lines[:index] + lines[index + 1 :]))
        refused(b"".join(lines[: index + 1] + lines[index:]))
        for other in range(index):
            moved = list(lines)
            moved[index], moved[other] = moved[other], moved[index]
            refused(b"".join(moved))


def test_lines_of_another_trace_are_refused():
    other = write(replace(HEAD, trace_id="other"), *LINES[1:]).splitlines(keepends=True)
    mine = WHOLE.splitlines(keepends=True)
    assert "line 3: checksum" in refused(b"".join(mine[:2] + other[2:]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\n", "line 1: not JSON"),
        (b"PAR1\n", "line 1: not JSON"),
        (b"\xff\xfe\x00\n", "line 1: not JSON"),
        (b"[]\n", "line 1: no checksum"),
        (b"null\n", "line 1: no checksum"),
        (b'{"sum":3}\n', "line 1: no checksum"),
        (b"{}\n", "line 1: no checksum"),
        (b"[" * 100_000 + b"\n", "line 1: not JSON"),
        (b'{"a":' * 100_000 + b"\n", "line 1: not JSON"),
        (b"9" * 5000 + b"\n", "line 1: "),
        (b'{"sum":"0","type":"part","rows":NaN}\n', "line 1: holds a number that JSON does not have"),
        (b'{"sum":"0","type":"part","rows":1e999}\n', "line 1: holds a number that JSON does not have"),
        (b'{"sum":"\\ud800","type":"part"}\n', "line 1: checksum"),
        (b"\xef\xbb\xbf" + WHOLE, "line 1: not"),
        (WHOLE.replace(b"\n", b"\r\n"), "line 1: not the canonical JSON"),
        (WHOLE.replace(b'":', b'": '), "line 1: not the canonical JSON"),
        (WHOLE + WHOLE, "line 7: checksum"),
    ],
)
def test_what_is_no_manifest_is_refused(data, reason):
    assert reason in refused(data)


@pytest.mark.parametrize("depth", [10, 200, 500, 900, 980, 1000, 5000])
def test_nesting_of_any_depth_is_read_or_refused(depth):
    text = b'{"type":"part","sum":"0","x":' + b"[" * depth + b"]" * depth + b"}\n"
    assert "line 1: " in refused(text)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([part(0)], "line 1: the first line is not a header"),
        ([HEAD, HEAD], "line 2: a second header"),
        ([HEAD, FOOTER, part(0)], "line 3: a line after the footer"),
        ([HEAD, part(0, table="sched")], "line 2: part of table 'sched', which the header does not name"),
        ([HEAD, part(0), part(0)], "line 3: part 'syscalls/000000.parquet' stands twice"),
        ([HEAD, part(0), part(1, replaces=["syscalls/000000.parquet"]), part(0)], "line 4: part 'syscalls/000000.parquet' stands twice"),
        ([HEAD, part(1, replaces=["syscalls/000000.parquet"])], "line 2: replaces 'syscalls/000000.parquet', which is no standing part"),
        ([HEAD, part(0), part(1, table="paths", replaces=["syscalls/000000.parquet"])], "line 3: replaces"),
        ([HEAD, part(0, 8, 64)], "line 2: ring 0 goes from 8 to 64, but 0 is where the part before ended"),
        ([HEAD, part(0, 0, 64), part(1, 128, 256)], "line 3: ring 0 goes from 128 to 256, but 64"),
        ([HEAD, part(0, rings={"0": [0, -8]})], "line 2: ring 0 goes from 0 to -8"),
        ([HEAD, part(0, rows=-1)], "line 2: 'rows' of the part holds -1, not 0 to"),
        ([HEAD, part(0, min_ts=2, max_ts=1)], "line 2: the part ends at 1, before it begins at 2"),
        ([HEAD, replace(FOOTER, end="fine")], "line 2: end 'fine' is not one of complete"),
        ([HEAD, replace(FOOTER, rows={"syscalls": -1})], "line 2: 'rows' of the footer holds -1, not 0 to"),
        ([HEAD, replace(FOOTER, lost={"sched\x1b": 1})], "line 2: a total of table 'sched\\x1b', which the header does not name"),
        ([HEAD, replace(FOOTER, attempted={"syscalls": {"0": -1}})], "line 2: 'attempted' of the footer holds -1, not 0 to"),
        ([HEAD, replace(FOOTER, attempted={"syscalls": {"-1": 1}})], "line 2: '-1' in 'attempted' of the footer is no CPU"),
        ([HEAD, replace(FOOTER, attempted={"syscalls": {"99999": 1}})], "line 2: '99999' in 'attempted' of the footer is no CPU"),
    ],
)
def test_lines_that_contradict_each_other_are_refused(lines, reason):
    assert reason in refused(write(*lines))


@pytest.mark.parametrize("value", [1e308, -1e308, -1, 1 << 62, 1.1e9])
def test_a_cost_that_no_recording_has_is_refused(value):
    assert "line 2: 'cost' of the footer holds" in refused(forged(body(HEAD), body(FOOTER, cost={"user_seconds": value})))


@pytest.mark.parametrize("name", ["attached_at", "clock", "rings"])
@pytest.mark.parametrize("value", [-1, -(1 << 63), (1 << 62) + 1, (1 << 63) - 1])
def test_numbers_that_no_header_has_are_refused(name, value):
    wrong = {"attached_at": value, "clock": {"mono": 1, "wall": value, "boot": 1}, "rings": {"syscalls": value}}[name]
    assert "line 1: " in refused(forged(body(HEAD, **{name: wrong})))


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, 10**400])
def test_an_integer_of_more_than_64_bits_is_refused_wherever_it_stands(value):
    assert "line 1: holds an integer of more than 64 bits" in refused(forged(body(HEAD, options={"ring_size": {"syscalls": value}})))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "perf"}, "format 'perf' is not 'ringtape-trace'"),
        ({"format": ["x" * 1000]}, "is not 'ringtape-trace'"),
        ({"version": "2.0"}, "format version '2.0' is not one that this ringtape reads (1.2)"),
        ({"version": "10.0"}, "format version '10.0'"),
        ({"version": "1"}, "format version '1'"),
        ({"version": "1.x"}, "format version '1.x'"),
        ({"version": 1.0}, "format version 1.0"),
        ({"version": None}, "format version None"),
    ],
)
def test_foreign_and_future_traces_are_refused_by_name(changes, reason):
    assert reason in refused(forged(body(HEAD, **changes)))


def test_an_unknown_line_type_points_to_a_newer_program():
    assert "line 2: unknown line type 'note'" in refused(forged(body(HEAD), {"type": "note"}))
    assert "line 2: unknown line type" in refused(forged(body(HEAD), {"type": ["part"]}))


HUGE = 10**400
WRONG = [
    None,
    True,
    1,
    -1,
    1.5,
    HUGE,
    1 << 63,
    "x",
    "",
    [],
    {},
    [1],
    ["x"],
    [None],
    {"x": None},
    {"x": HUGE},
    {"x": [0]},
    {"x": {"y": "z"}},
    [[]],
    [{}],
]


@pytest.mark.parametrize("line", [HEAD, part(0, 0, 64), FOOTER], ids=["header", "part", "footer"])
def test_every_field_is_checked_for_its_type_and_its_absence(line):
    good = body(line)
    before = [] if isinstance(line, Header) else [body(HEAD)]
    where = f"line {len(before) + 1}: "
    for name in good:
        if name == "type":
            continue
        without = {key: value for key, value in good.items() if key != name}
        assert where in refused(forged(*before, without))
        for value in WRONG:
            data = forged(*before, {**good, name: value})
            try:
                parse(data, "x.trace/manifest.jsonl")
            except TraceError:
                refused(data)


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        (part(0), {"rows": True}),
        (part(0), {"rows": 1.0}),
        (part(0), {"rows": 1 << 63}),
        (part(0), {"rings": {"\u00b2": [0, 8]}}),
        (part(0), {"rings": {"\u0663": [0, 8]}}),
        (part(0), {"rings": {"00": [0, 8]}}),
        (part(0), {"rings": {"-1": [0, 8]}}),
        (part(0), {"rings": {"9" * 5000: [0, 8]}}),
        (part(0), {"rings": {"0": [0, 8, 9]}}),
        (part(0), {"rings": {"0": [False, 8]}}),
        (part(0), {"clock": {"mono": 1, "wall": 2}}),
        (part(0), {"clock": {"mono": 1, "wall": 2, "boot": "3"}}),
        (FOOTER, {"exit_status": True}),
        (FOOTER, {"exit_status": HUGE}),
        (FOOTER, {"cost": {"cpu": "much"}}),
        (FOOTER, {"cost": {"cpu": True}}),
        (FOOTER, {"attempted": {"syscalls": {"0": 1.5}}}),
        (HEAD, {"probes": [{"name": "sys_enter", "attached": "yes", "reason": ""}]}),
        (HEAD, {"probes": [{"name": "sys_enter"}]}),
        (HEAD, {"command": [b"x".hex(), 3]}),
        (HEAD, {"tables": {"syscalls": 1}}),
    ],
)
def test_wrong_types_deep_inside_are_refused(line, changes):
    before = [] if isinstance(line, Header) else [body(HEAD)]
    assert f"line {len(before) + 1}: " in refused(forged(*before, body(line, **changes)))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(data):
    refused(data)


@given(st.lists(st.dictionaries(st.sampled_from([*body(HEAD), *body(FOOTER), *body(part(0)), "sum"]), anything, max_size=6), max_size=3))
def test_arbitrary_json_is_refused_and_nothing_else_happens(bodies):
    refused(b"".join(json.dumps(one).encode() + b"\n" for one in bodies))


def test_the_clocks_are_read_at_one_instant():
    clock = Clock.now()
    assert abs(time.clock_gettime_ns(time.CLOCK_MONOTONIC) - clock.mono) < 60e9
    assert abs(time.time_ns() - clock.wall) < 60e9
    assert clock.boot >= clock.mono - 1e9
