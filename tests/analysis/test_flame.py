"""Stacks of made-up traces, whose functions and times are worked out by hand."""

import json
import re
import shutil
import struct
import subprocess
from xml.etree import ElementTree as ET

import pytest

import ringtape
from ringtape.analysis import flamegraph
from ringtape.analysis.address_spaces import AddressSpaces
from ringtape.analysis.analyses.hot import hot
from ringtape.analysis.stacks import CUT, stacks
from ringtape.schemas.errors import RingtapeError
from tests.factory import T0, make

KERNEL = 0xFFFFFFFF81000000
SIGNED = KERNEL - (1 << 64)
SYMBOLS = [
    {"address": SIGNED, "name": b"schedule"},
    {"address": SIGNED + 0x100, "name": b"do_syscall_64"},
    {"address": SIGNED + 0x200, "name": b"_etext"},
]
CODE = {"pid": 7, "kind": 1, "start": 0x400000, "length": 0x2000, "offset": 0x1000, "path": b"/nowhere/tool"}
PROFILE = {"options": {"profile": 100, "offcpu_stacks": 1000}}


def stack(*addresses):
    return struct.pack(f"<{len(addresses)}Q", *addresses)


def opened(tmp_path, samples, mappings=(CODE,), header=PROFILE, **rows):
    samples = [{"pid": 7, "ts": T0 + 1000 + place, **row} for place, row in enumerate(samples)]
    return ringtape.open(make(tmp_path / "t", header=header, samples=samples, mappings=mappings, symbols=SYMBOLS, **rows))


def table(frame):
    return {row["function"]: (row["self_count"], row["self"], row["count"], row["total"]) for row in frame.iter_rows(named=True)}


def test_self_and_total_of_functions(tmp_path):
    trace = opened(
        tmp_path,
        [
            {"user": stack(0x400010, 0x400101)},
            {"user": stack(0x400010, 0x400101)},
            # A timer found it in the kernel: its place there is exact, where the program called is a return address.
            {"kernel": stack(KERNEL, KERNEL + 0x105), "user": stack(0x400020, 0x400101)},
            # Recursion is counted once.
            {"user": stack(0x400101, 0x400101)},
        ],
    )
    found = table(hot(trace))
    ten = 10_000_000
    assert found["tool+0x1010"] == (2, 2 * ten, 2, 2 * ten)
    assert found["schedule_[k]"] == (1, ten, 1, ten)
    assert found["do_syscall_64_[k]"] == (0, 0, 1, ten)
    assert found["tool+0x1100"] == (0, 0, 4, 4 * ten)
    assert found["tool+0x1101"] == (1, ten, 1, ten)
    assert hot(trace)["self_share"].sum() == pytest.approx(1)


def test_times_off_the_cpu_are_summed_and_nothing_is_dropped(tmp_path):
    trace = opened(
        tmp_path,
        [
            {"kind": 1, "dur": 5000, "kernel": stack(KERNEL + 5), "user": stack(0x400010)},
            {"kind": 2, "dur": 7000, "seq": -1, "cpu": -1, "kernel": stack(KERNEL + 5), "user": stack(0x400010)},
            {"kind": 1, "dur": 100, "kernel": stack(1 << 63), "user": stack(0x10, 0)},
            {"kind": 1, "dur": 10},
            {"kind": 0, "user": stack(0x400010)},
        ],
    )
    found = table(hot(trace, of="offcpu"))
    assert found["schedule_[k]"] == (2, 12000, 2, 12000)
    assert found["tool+0x1010"] == (0, 0, 2, 12000)
    assert found["[unknown]+0x10"] == (0, 0, 1, 100)
    assert found["[unknown]+0x0"] == (0, 0, 1, 100)
    assert found["[kernel]+0x7fffffffffffffff_[k]"] == (1, 100, 1, 100)
    lines = flamegraph.folded(trace, stacks(trace, "offcpu")).splitlines()
    assert lines == [
        "? 10",
        "?;[unknown]+0x0;[unknown]+0x10;[kernel]+0x7fffffffffffffff_[k] 100",
        "?;tool+0x1010;schedule_[k] 12000",
    ]


def test_a_stack_that_the_kernel_cut_says_so(tmp_path):
    trace = opened(tmp_path, [{"user": stack(*[0x400010] * 127)}])
    found = stacks(trace)
    assert [found.names[frame] for frame in found.frames[0][-2:]] == ["tool+0x100f", CUT]


def test_an_exec_gives_addresses_another_meaning_and_a_fork_keeps_it(tmp_path):
    mappings = [
        {**CODE, "ts": T0 + 10, "kind": 0},
        {"ts": T0 + 1500, "pid": 8, "parent": 7, "kind": 3},
        {"ts": T0 + 2000, "pid": 7, "kind": 2},
        {**CODE, "ts": T0 + 2001, "path": b"/nowhere/other", "offset": 0},
        {**CODE, "ts": T0 + 3001, "pid": 8, "path": b"/nowhere/plugin", "start": 0x500000},
    ]
    samples = [
        {"ts": T0 + 5, "user": stack(0x400010)},
        {"ts": T0 + 1600, "pid": 8, "user": stack(0x400010)},
        {"ts": T0 + 2500, "user": stack(0x400010)},
        {"ts": T0 + 2500, "pid": 8, "user": stack(0x400010, 0x500011)},
        {"ts": T0 + 3500, "pid": 8, "user": stack(0x500010, 0x400011)},
        {"ts": T0 + 3500, "pid": 9, "user": stack(0x400010)},
    ]
    trace = opened(tmp_path, samples, mappings)
    assert flamegraph.folded(trace, stacks(trace)).splitlines() == [
        "?;[unknown]+0x400010 10000000",
        "?;[unknown]+0x500010;tool+0x1010 10000000",
        "?;other+0x10 10000000",
        "?;tool+0x1010 20000000",
        "?;tool+0x1010;plugin+0x1010 10000000",
    ]


def test_a_mapping_over_another_replaces_what_it_covers():
    base = {"ts": 1, "pid": 1, "parent": 0, "kind": 1, "build_id": b"", "path": b"/a", "start": 0x1000, "length": 0x3000, "offset": 0}
    spaces = AddressSpaces([base, {**base, "ts": 5, "path": b"/b", "start": 0x2000, "length": 0x1000}])
    import numpy as np

    before, after = spaces.at(np.array([1, 1]), np.array([3, 7]))
    wanted = np.array([0x1000, 0x2000, 0x3000, 0x4000], np.uint64)
    assert spaces.find(before, wanted)[0].tolist() == [0, 0, 0, -1]
    files, places = spaces.find(after, wanted)
    assert files.tolist() == [0, 1, 0, -1]
    assert places.tolist() == [0, 0, 0x2000, 0x4000]


@pytest.fixture
def hostile(tmp_path):
    name = b'</title><script>alert(1)</script>"; onload="x\x1b[31m;\xff\xef\xbf\xbe]]>'
    mappings = [{**CODE, "path": b"/nowhere/" + name.replace(b"/", b"")}]
    processes = [{"ts": T0, "kind": 0, "pid": 7, "tid": 7, "comm": b'<a b="c">&;\n'}]
    return opened(tmp_path, [{"user": stack(0x400010)}], mappings, {**PROFILE, "command": ["<b>&\x1b]]>"]}, processes=processes)


def test_hostile_names_stay_text(hostile):
    found = stacks(hostile)
    text = flamegraph.svg(hostile, found, "cpu", "<b>&")
    root = ET.fromstring(text)
    assert [one.tag for one in root.iter() if one.tag.endswith("script")] == ["{http://www.w3.org/2000/svg}script"]
    assert not [key for one in root.iter() for key in one.attrib if key.startswith("on") or "href" in key]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    (line,) = flamegraph.folded(hostile, found).splitlines()
    assert line.count(";") == 1
    assert "\x1b" not in line
    content = json.loads(flamegraph.speedscope(hostile, found, "x"))
    assert content["profiles"][0]["weights"] == [10_000_000]


def test_widths_of_boxes_are_shares_of_the_time(tmp_path):
    trace = opened(
        tmp_path,
        [
            {"kind": 1, "dur": 3000, "user": stack(0x400010, 0x400101)},
            {"kind": 1, "dur": 1000, "user": stack(0x400020, 0x400101)},
        ],
    )
    boxes = [
        (depth, name, begin, width, time) for depth, begin, width, name, time in flamegraph.boxes(flamegraph.tree(trace, stacks(trace, "offcpu")))
    ]
    assert boxes == [
        (0, "?", 0.0, 1.0, 4000),
        (1, "tool+0x1100", 0.0, 1.0, 4000),
        (2, "tool+0x1010", 0.0, 0.75, 3000),
        (2, "tool+0x1020", 0.75, 0.25, 1000),
    ]


def test_nothing_recorded_gives_empty_results(tmp_path):
    trace = opened(tmp_path, [], ())
    assert hot(trace).height == 0
    assert flamegraph.folded(trace, stacks(trace)) == ""
    assert json.loads(flamegraph.speedscope(trace, stacks(trace), "x"))["profiles"] == []
    ET.fromstring(flamegraph.svg(trace, stacks(trace), "cpu", "x"))


def test_what_was_not_recorded_is_said(tmp_path):
    trace = opened(tmp_path, [], (), {"options": {"profile": 0, "offcpu_stacks": None}})
    with pytest.raises(RingtapeError, match="no stacks of running threads"):
        stacks(trace)
    with pytest.raises(RingtapeError, match="off their CPU"):
        stacks(trace, "offcpu")


def test_the_script_is_javascript(tmp_path):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    subprocess.run(["node", "--check", flamegraph._SCRIPT], check=True)
