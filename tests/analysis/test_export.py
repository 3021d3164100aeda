"""Exports are opened by what they are for, or read back by an independent reader, and hold what was recorded."""

import csv
import gzip
import json
import re
import shutil
import subprocess
from collections import Counter
from itertools import pairwise

import jsonschema
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

import ringtape
from ringtape.analysis import wire
from ringtape.analysis.perfetto_sched import prev_state
from ringtape.cli import main
from tests.analysis.files_story import Story
from tests.analysis.perfetto_viewer import needed, viewer
from tests.factory import T0, make

FAMILIES = "datasets/families.trace"
READ, OPENAT, FUTEX, CLONE = 0, 257, 202, 56


def export(trace, form, file, *more):
    """Export as a user does."""
    assert main(["export", str(trace), "--format", form, "--output", str(file), *map(str, more)]) == 0
    return file


def call(at, nr=READ, pid=100, **more):
    return {"ts": T0 + at, "nr": nr, "pid": pid, "dur": 10, **more}


@pytest.fixture
def small(folder):
    """Process 100 reads, fails to open, never returns from a futex; 101 is its child; one call of 200 ns was lost."""
    return make(
        folder,
        syscalls=[
            call(100, ret=5, arg0=3),
            call(200, OPENAT, ret=-2),
            call(300, CLONE, pid=101, dur=0, kind=4),
            call(400, FUTEX, kind=3, dur=500, seq=-1),
            call(410, pid=101, dur=200, lost=True),
        ],
        paths=[{"ts": T0 + 200, "nr": OPENAT, "pid": 100, "arg": 1, "value": b'no"such\xff\x1b'}],
        processes=[{"ts": T0, "pid": 100, "comm": b'a"b'}, {"ts": T0 + 250, "pid": 101, "kind": 1, "comm": b"child"}],
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.booleans()), min_size=1, max_size=40))
def test_messages_made_by_the_column_are_read_by_protobuf(rows):
    values = np.array([value for value, _ in rows], np.int64)
    there = np.array([present for _, present in rows])
    event = wire.message(11, [wire.number(11, 7), wire.number(30, values), wire.where(there, wire.fixed(47, np.arange(len(rows))))])
    found = proto.Trace.FromString(wire.joined(len(rows), wire.message(1, [event]))).packet
    assert [packet.track_event.counter_value for packet in found] == values.tolist()
    assert [list(packet.track_event.flow_ids) for packet in found] == [[at] if present else [] for at, (_, present) in enumerate(rows)]


def test_states_are_those_of_the_tracepoint():
    state = np.array([0, 1, 8193, 2, 258, 0x402, 4, 128, 1])
    assert prev_state(state, np.array([0] * 8 + [1])).tolist() == [0, 1, 1, 2, 2, 128, 4, 16, 256]


def packets(file):
    return proto.Trace.FromString(file.read_bytes()).packet


def test_perfetto_has_calls_unfinished_ones_children_and_losses(small, tmp_path, capsys):
    found = packets(export(small, "perfetto", tmp_path / "a.pftrace"))
    assert "1 record of syscalls lost" in capsys.readouterr().err
    names, values = {}, {}
    for packet in found:
        names |= {entry.iid: entry.name for entry in packet.interned_data.event_names}
        names |= {entry.iid: entry.name for entry in packet.interned_data.debug_annotation_names}
        values |= {entry.iid: entry.str for entry in packet.interned_data.debug_annotation_string_values}
    events = [(packet.timestamp - T0, packet.track_event) for packet in found if packet.HasField("track_event")]
    told = [(at, event.type, names.get(event.name_iid)) for at, event in events if event.type in (1, 3)]
    assert [one for one in told if one[2] in ("read", "openat", "clone", "futex")] == [
        (100, 1, "read"), (200, 1, "openat"), (300, 3, "clone"), (400, 1, "futex"),
    ]  # fmt: skip
    assert [at for at, event in events if event.type == 2] == [110, 210]
    assert (610, 3, "lost: syscalls") in told
    opened = next(event for at, event in events if at == 200)
    notes = {names[note.name_iid]: values.get(note.string_value_iid) or note.int_value for note in opened.debug_annotations}
    assert notes["ret"] == -2
    assert notes["errno"] == b"ENOENT"
    assert notes["path"] == rb'no"such\xff\x1b'
    begins = next(event for _, event in events if names.get(event.name_iid) == "recording begins")
    assert b"1 of syscalls" in [values.get(note.string_value_iid) for note in begins.debug_annotations]


def test_strict_refuses_what_lost_anything(small, tmp_path):
    assert main(["export", str(small), "--format", "perfetto", "--output", str(tmp_path / "a"), "--strict"]) == 1
    assert not (tmp_path / "a").exists()


def test_a_file_is_replaced_only_when_forced(small, tmp_path):
    file = export(small, "csv", tmp_path / "a.csv")
    assert main(["export", str(small), "--format", "jsonl", "--output", str(file)]) == 2
    assert file.read_text().startswith("ts,")
    export(small, "jsonl", file, "--force")
    assert file.read_text().startswith("{")


def test_what_fails_leaves_no_file(small, tmp_path):
    assert main(["export", str(small), "--format", "csv", "--table", "nothing", "--output", str(tmp_path / "a")]) == 2
    assert not (tmp_path / "a").exists()


def test_csv_and_json_lines_hold_every_value_of_the_decoded_table(small, tmp_path):
    expected = ringtape.open(small).paths.collect()
    packed = export(small, "csv", tmp_path / "a.csv.gz", "--table", "paths")
    rows = list(csv.DictReader(gzip.decompress(packed.read_bytes()).decode().splitlines()))
    assert [row["value"] for row in rows] == [r'no"such\xff\x1b']
    assert list(rows[0]) == expected.columns
    lines = [json.loads(line) for line in export(small, "jsonl", tmp_path / "a.jsonl", "--table", "paths").read_text().splitlines()]
    assert [bytes.fromhex(line.pop("value")["hex"]) for line in lines] == [b'no"such\xff\x1b']
    assert lines == expected.drop("value").to_dicts()


@pytest.mark.parametrize("table", ["syscalls", "processes", "events", "block", "signal:signal_generate"])
def test_json_lines_of_a_real_recording_are_its_rows(table, tmp_path):
    trace = ringtape.open(FAMILIES)
    expected = (trace.event(table) if ":" in table else trace.frame(table)).collect()
    lines = [json.loads(line) for line in export(FAMILIES, "jsonl", tmp_path / "a", "--table", table).read_text().splitlines()]
    for name, kind in expected.schema.items():
        told = [line[name] for line in lines]
        if kind == pl.Binary:
            told = [bytes.fromhex(one["hex"]) if "hex" in one else one["value"].encode() for one in told]
        assert told == expected[name].to_list()


def test_an_empty_trace_is_exported_in_every_form_that_needs_no_stacks(folder, tmp_path):
    empty = make(folder, syscalls=[])
    for form in ("chrome", "csv", "fio", "jsonl", "perfetto"):
        assert export(empty, form, tmp_path / form).exists()
    assert json.loads((tmp_path / "chrome").read_text())["traceEvents"] == []
    assert (tmp_path / "csv").read_text().startswith("ts,")
    assert (tmp_path / "fio").read_text() == "fio version 3 iolog\n"


def test_chrome_has_exact_times(small, tmp_path):
    file = export(small, "chrome", tmp_path / "a.json")
    content = json.loads(file.read_text())
    told = [(event["name"], event["ph"], event["ts"], event.get("dur")) for event in content["traceEvents"] if event["ph"] != "M"]
    assert told == [
        ("lost: syscalls", "i", 0.61, None),
        ("read", "X", 0.1, 0.01), ("openat", "X", 0.2, 0.01), ("clone", "i", 0.3, None), ("futex", "B", 0.4, None),
    ]  # fmt: skip
    assert content["otherData"]["lost"] == "1 record of syscalls lost"
    assert {event["args"]["name"] for event in content["traceEvents"] if event["ph"] == "M"} == {'a"b', "child"}


SPEEDSCOPE = {
    # From https://github.com/jlfwong/speedscope/blob/main/src/lib/file-format-spec.ts.
    "type": "object",
    "required": ["$schema", "shared", "profiles"],
    "properties": {
        "$schema": {"const": "https://www.speedscope.app/file-format-schema.json"},
        "name": {"type": "string"},
        "exporter": {"type": "string"},
        "activeProfileIndex": {"type": "integer", "minimum": 0},
        "shared": {
            "type": "object",
            "required": ["frames"],
            "properties": {
                "frames": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "additionalProperties": False,
                        "properties": {"name": {"type": "string"}, "file": {"type": "string"}, "line": {"type": "number"}, "col": {"type": "number"}},
                    },
                }
            },
        },
        "profiles": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "name", "unit", "startValue", "endValue", "samples", "weights"],
                "properties": {
                    "type": {"const": "sampled"},
                    "unit": {"enum": ["none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"]},
                    "samples": {"type": "array", "items": {"type": "array", "items": {"type": "integer", "minimum": 0}}},
                    "weights": {"type": "array", "items": {"type": "number", "minimum": 0}},
                },
            },
        },
    },
}


@pytest.mark.parametrize("more", [(), ("--offcpu",)])
def test_speedscope_keeps_to_its_schema_and_weighs_as_much_as_the_folded_stacks(tmp_path, more):
    content = json.loads(export(FAMILIES, "speedscope", tmp_path / "a.json", *more).read_text())
    jsonschema.validate(content, SPEEDSCOPE)
    count = len(content["shared"]["frames"])
    assert all(frame < count for profile in content["profiles"] for sample in profile["samples"] for frame in sample)
    folded = export(FAMILIES, "folded", tmp_path / "a.folded", *more).read_text().splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in folded) == sum(sum(profile["weights"]) for profile in content["profiles"]) > 0


def moved(text):
    """Sum an iolog of version 3 as fio's documentation has it."""
    sums = Counter()
    for line in text.splitlines()[1:]:
        words = line.split(" ")
        if len(words) == 5:
            sums[words[2], "ios"] += 1
            sums[words[2], "bytes"] += int(words[4])
    return sums


def test_an_iolog_has_the_place_of_every_access(tmp_path):
    story = Story()
    story.had(5, b"/data/in put", pos=100)
    story.call("read", 5, 0, 50, ret=50).call("read", 5, 0, 50, ret=0).call("read", 5, 0, 9, ret=-5).call("pwrite64", 5, 0, 7, 4096, ret=7)
    story.call("lseek", 5, 1000, 0, ret=1000).call("read", 5, 0, 3, ret=3)
    story.trace(tmp_path)
    source = next(tmp_path.glob("*/manifest.jsonl")).parent
    lines = [line.split(" ") for line in export(source, "fio", tmp_path / "log").read_text().splitlines()[1:]]
    assert [line[2:] for line in lines] == [
        ["add"], ["open"], ["read", "100", "50"], ["write", "4096", "7"], ["read", "1000", "3"], ["close"],
    ]  # fmt: skip
    assert all(re.fullmatch(r"f\d+-in_put", line[1]) for line in lines)
    stamps = [int(line[0]) for line in lines]
    assert all(first <= second for first, second in pairwise(stamps))
    assert (tmp_path / "log.files").read_text().split("\t")[0] == "4103"


def test_beside_a_device_no_files_are_made(tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")
    export(FAMILIES, "fio", tmp_path / "null", "--force")
    assert [path.name for path in tmp_path.iterdir()] == ["null"]


@pytest.mark.parametrize("version", [2, 3])
def test_fio_replays_as_many_reads_writes_and_bytes_as_were_recorded(tmp_path, version):
    fio = shutil.which("fio")
    needed(fio, "fio")
    expected = moved(export(FAMILIES, "fio", tmp_path / "three", "--iolog", 3).read_text())
    log = export(FAMILIES, "fio", tmp_path / "log", "--iolog", version)
    for line in (tmp_path / "log.files").read_text().splitlines():
        size, name, _ = line.split("\t")
        with (tmp_path / name).open("wb") as file:
            file.truncate(int(size))
    asked = [fio, "--name=replay", f"--read_iolog={log}", "--ioengine=psync", "--replay_no_stall=1", "--output-format=json"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    assert job["error"] == 0
    for way in ("read", "write"):
        assert (job[way]["total_ios"], job[way]["io_bytes"]) == (expected[way, "ios"], expected[way, "bytes"])
        assert expected[way, "ios"] > 100


def test_the_log_has_the_bytes_that_the_analysis_of_files_finds(tmp_path):
    from ringtape.analysis.analyses.files import files

    found = files(ringtape.open(FAMILIES), top=1_000_000).filter(pl.col("kind") == "file")
    expected = moved(export(FAMILIES, "fio", tmp_path / "log").read_text())
    assert (expected["read", "bytes"], expected["write", "bytes"]) == (found["bytes_read"].sum(), found["bytes_written"].sum())


def test_perfettos_trace_processor_finds_what_was_recorded(tmp_path):
    trace = ringtape.open(FAMILIES)
    file = export(FAMILIES, "perfetto", tmp_path / "families.pftrace")
    calls = trace.syscalls.filter(pl.col("kind") != 4).group_by("syscall").agg(pl.len(), pl.col("dur").sum()).collect()
    stays = trace.scan("sched").filter(~pl.col("kind").is_in([3, 4])).group_by("tid").agg(pl.len(), pl.col("dur").sum()).collect()
    woken = trace.scan("sched").filter(pl.col("wait") >= 0, pl.col("waker") > 0, pl.col("context") == 0).collect()
    memory = trace.scan("memory").filter(pl.col("kind") == 0).group_by("pid").agg(pl.col("anon").max()).collect()
    with viewer(file) as open_:
        found = open_.ask("select name, count(*), sum(dur) from slice where category like 'syscall%' and category not like '%child%' group by name")
        assert sorted(found) == sorted(calls.iter_rows())
        told = open_.ask("select tid, count(*), sum(s.dur) from sched s join thread using (utid) where tid > 0 group by tid")
        assert sorted(told) == sorted(stays.iter_rows())
        assert open_.ask("select count(*) from flow") == [(len(woken),)]
        assert open_.ask("select count(*), sum(extract_arg(arg_set_id, 'debug.wait')) from slice where name = 'woken'") == [
            (len(woken), woken["wait"].sum())
        ]
        peaks = open_.ask(
            "select pid, max(value) from counter c join process_counter_track t on c.track_id = t.id join process using (upid) "
            "where t.name = 'RSS anonymous' group by pid"
        )
        assert sorted((pid, int(value)) for pid, value in peaks) == sorted(memory.iter_rows())
        assert open_.ask("select name, value from stats where value > 0 and severity != 'info'") == []
        names = dict(open_.ask("select tid, name from thread where name is not null"))
        last = trace.scan("processes").sort("ts").group_by("tid").agg(pl.col("comm").last()).collect()
        assert all(names[tid] == comm.rstrip(b"\0").decode() for tid, comm in last.iter_rows() if tid in names)
        assert {"python3", "gzip"} <= set(names.values())


def test_the_viewer_shows_a_call_that_did_not_end_and_opens_chromes_form(small, tmp_path):
    with viewer(export(small, "perfetto", tmp_path / "a.pftrace")) as open_:
        assert open_.ask("select name from slice where dur = -1") == [("futex",)]
        assert open_.ask("select count(*) from slice where name = 'lost: syscalls'") == [(1,)]
    with viewer(export(FAMILIES, "chrome", tmp_path / "a.json")) as open_:
        expected = ringtape.open(FAMILIES).syscalls.filter(pl.col("kind") == 0).select(pl.len(), pl.col("dur").sum()).collect().row(0)
        assert open_.ask("select count(*), sum(dur) from slice where category = 'returned'") == [expected]
        assert open_.ask("select name, value from stats where value > 0 and severity in ('error', 'data_loss')") == []


def test_a_narrowed_export_holds_the_window_and_the_process(tmp_path):
    expected = ringtape.open(FAMILIES).between("0.4s", "1s").process("python3").syscalls.collect()
    file = export(FAMILIES, "csv", tmp_path / "a", "--between", "0.4s,1s", "--process", "python3")
    assert len(file.read_text().splitlines()) == len(expected) + 1 > 100
    found = packets(export(FAMILIES, "perfetto", tmp_path / "b", "--between", "0.4s,1s", "--process", "python3"))
    returns = sum(1 for packet in found if packet.track_event.type == 1)
    assert returns == expected.filter(pl.col("kind") != 4).height
