"""Every count is that of a simulator that looks at each event, and the rows add up to the calls of the trace."""

import random
import struct
from collections import Counter, defaultdict
from pathlib import Path

import polars as pl
import pytest

import ringtape
from ringtape.analysis.analyses.files import files
from ringtape.analysis.file_calls import Bytes, shape_of
from ringtape.schemas.abi import syscalls as abi
from tests.analysis.files_story import APPEND, CLOEXEC, CWD, EBADF, EXEC, FORK, Story, random_story

ROOT = Path(__file__).parent.parent.parent


def test_windows_give_what_one_pass_gives(tmp_path, monkeypatch):
    story = random_story(random.Random(5), 800)
    trace = story.trace(tmp_path, parts=3)
    whole = files(trace, top=0, by=["file", "process"])
    monkeypatch.setattr("ringtape.analysis.file_events.windows.__defaults__", (64,))
    assert files(trace, top=0, by=["file", "process"]).equals(whole)


class Simulator:
    def __init__(self, rows):
        self.tables, self.folders, self.result = {}, {}, defaultdict(Counter)
        strings = {(row["tid"], row["ts"]): row["value"] for row in rows["paths"]}
        for row in rows["descriptors"]:
            if row["fd"] == CWD:
                self.folders[row["pid"]] = [row["target"]]
            else:
                file = {"name": row["target"].decode(), "pos": row["pos"], "end": row["pos"], "append": False, "file": True}
                self.tables.setdefault(row["pid"], {})[row["fd"]] = [file, False]
        events = [(row["ts"], "call", row) for row in rows["syscalls"]] + [(row["ts"], "life", row) for row in rows["processes"]]
        for _, what, row in sorted(events, key=lambda event: event[0]):
            if what == "life":
                self.life(row)
            else:
                self.call(row, strings.get((row["tid"], row["ts"])))

    def life(self, row):
        if row["kind"] == FORK:
            table, folder = self.tables[row["ppid"]], self.folders[row["ppid"]]
            self.tables[row["pid"]] = table if row["clone_flags"] & 0x400 else {fd: list(slot) for fd, slot in table.items()}
            self.folders[row["pid"]] = folder if row["clone_flags"] & 0x200 else list(folder)
        elif row["kind"] == EXEC:
            self.tables[row["pid"]] = {fd: list(slot) for fd, slot in self.tables[row["pid"]].items() if not slot[1]}

    def where(self, pid, path):
        if path.startswith(b"/"):
            return path
        return self.folders[pid][0] + b"/" + path.removeprefix(b"./")

    def call(self, row, string):
        name, ret, pid, fd = abi.names("x86_64")[row["nr"]], row["ret"], row["pid"], row.get("arg0", 0)
        table = self.tables[pid]
        if name in ("openat", "stat", "chdir"):
            path = self.where(pid, string)
            self.count(path.decode(), row)
            if name == "openat" and ret >= 0:
                self.result[path.decode()]["opens"] += 1
                file = {"name": path.decode(), "pos": 0, "end": 0, "append": bool(row["arg2"] & APPEND), "file": True}
                table[ret] = [file, bool(row["arg2"] & CLOEXEC)]
            elif name == "chdir":
                self.folders[pid][0] = path
            return
        if name == "pipe2":
            self.count(f"pipe made by {pid}", row)
            self.result[f"pipe made by {pid}"]["opens"] += 2
            for end in struct.unpack("<ii", string):
                table[end] = [{"name": f"pipe made by {pid}", "pos": 0, "end": 0, "append": False, "file": False}, bool(row["arg1"] & CLOEXEC)]
            return
        slot = table.get(fd)
        if slot is None:
            self.count("(descriptor that is not open)" if ret == EBADF else f"fd {fd} (unknown)", row)
        else:
            self.count(slot[0]["name"], row)
        if name == "close" and ret != EBADF:
            table.pop(fd, None)
        elif name == "dup2" and row["arg0"] != row["arg1"]:
            if slot is None:
                slot = table[fd] = [{"name": f"fd {fd} (unknown)", "pos": 0, "end": 0, "append": False, "file": False}, False]
            table[row["arg1"]] = [slot[0], False]
        elif name == "fcntl" and slot is not None:
            slot[1] = bool(row["arg2"])
        elif slot is not None and slot[0]["file"]:
            self.move(slot[0], name, ret, row)

    def move(self, file, name, ret, row):
        if name == "lseek":
            file["pos"] = ret
        elif ret > 0 and name in ("read", "write", "pread64"):
            start = row["arg3"] if name == "pread64" else file["pos"]
            self.result[file["name"]]["placed"] += ret
            if start == file["end"] or (name == "write" and file["append"]):
                self.result[file["name"]]["sequential"] += ret
            file["end"] = start + ret
            if name != "pread64":
                file["pos"] += ret

    def count(self, name, row):
        call, ret, totals = abi.names("x86_64")[row["nr"]], row["ret"], self.result[name]
        totals["calls"] += 1
        totals["time"] += row["dur"]
        totals["errors"] += ret < 0
        totals["reads"] += call in ("read", "pread64")
        totals["writes"] += call == "write"
        totals["bytes_read"] += max(ret, 0) if call in ("read", "pread64") else 0
        totals["bytes_written"] += max(ret, 0) if call == "write" else 0


@pytest.mark.parametrize("seed", range(30))
def test_every_count_is_that_of_a_simulator_that_looks_at_each_event(tmp_path, seed):
    story = random_story(random.Random(seed), 400)
    expected = Simulator(story.rows).result
    found = story.result(tmp_path)
    assert set(found) == set(expected)
    for name, totals in expected.items():
        row = found[name]
        for column in ("calls", "time", "errors", "reads", "writes", "bytes_read", "bytes_written", "opens"):
            assert row[column] == totals[column], (name, column)
        share = totals["sequential"] / totals["placed"] if totals["placed"] else None
        assert row["sequential"] == share, name


# Nothing is dropped: the rows add up to the calls of the trace.


def totals_of_calls(trace):
    """Count calls with descriptors or paths from their signatures alone."""
    sums = Counter()
    frame = trace.collect(trace.scan("syscalls").filter(pl.col("kind") != 4))
    for row in frame.iter_rows(named=True):
        name = {1: "x86_64", 2: "i386"}[row["abi"]]
        shape = shape_of(name, row["nr"])
        if shape is None or (shape.maps and row["arg3"] & 0x20):
            continue
        count = max(row["ret"], 0) if row["kind"] in (0, 2) else 0
        sums["calls"] += 1
        sums["time"] += row["dur"]
        sums["errors"] += -4095 <= row["ret"] < 0
        sums["bytes_read"] += count * (shape.bytes in (Bytes.READ, Bytes.TO_SECOND, Bytes.FROM_SECOND))
        sums["bytes_written"] += count * (shape.bytes in (Bytes.WRITTEN, Bytes.TO_SECOND, Bytes.FROM_SECOND))
    return sums


def check_totals(trace):
    expected = totals_of_calls(trace)
    for options in ({"top": 0}, {"top": 3}, {"top": 0, "by": ["file", "process"]}, {"by": "process"}):
        result = files(trace, **options).filter(pl.col("lost") == 0)
        for column in ("calls", "time", "errors", "bytes_read", "bytes_written"):
            assert result[column].sum() == expected[column], (options, column)


@pytest.mark.parametrize("path", sorted((ROOT / "datasets").glob("*.trace")), ids=lambda path: path.name)
def test_rows_add_up_to_the_calls_of_every_recording_there_is(path):
    check_totals(ringtape.open(path))


@pytest.mark.parametrize("seed", range(100, 104))
def test_rows_add_up_to_the_calls_of_made_up_traces(tmp_path, seed):
    check_totals(random_story(random.Random(seed), 300).call("sendfile", 1, 0, 0, ret=5).call("close", 0, lost=True).trace(tmp_path))


def test_rows_add_up_for_every_call_that_there_is(tmp_path):
    story = Story()
    for name in abi.names("x86_64").values():
        for ret in (5, -9, 0):
            story.call(name, 5, 6, 7, 8, ret=ret)
    check_totals(story.trace(tmp_path))
