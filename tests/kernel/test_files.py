"""Files as a program used them: compared with the account that it kept itself, and with strace's own knowledge of descriptors."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter

import numpy as np
import pytest

import ringtape
from ringtape.analysis.analyses.files import files
from tests.analysis.test_files_add_up import check_totals
from tests.kernel.recording import in_call, wait_for

COUNTS = ("calls", "opens", "reads", "writes", "bytes_read", "bytes_written", "errors", "placed", "sequential")
ROW = np.dtype([("name", "S256"), *((name, "<i8") for name in COUNTS)])
ROWS = 64


class Account:
    """The file in which the program counts."""

    def __init__(self, folder):
        self.path = folder / "account"
        self.path.write_bytes(bytes(ROWS * ROW.itemsize))
        self.folder = folder / "tree"
        self.folder.mkdir()

    @property
    def rows(self):
        found = np.frombuffer(self.path.read_bytes(), ROW)
        return {row["name"].decode(): {name: int(row[name]) for name in COUNTS} for row in found if row["name"]}


@pytest.fixture
def account(tmp_path):
    return Account(tmp_path)


def check_same(trace, account):
    found = {row["file"]: row for row in files(trace, top=0).iter_rows(named=True)}
    assert account.rows
    for name, counts in account.rows.items():
        assert name in found, sorted(found)
        row = found[name]
        assert {column: row[column] for column in COUNTS[:7]} == {column: counts[column] for column in COUNTS[:7]}, name
        share = counts["sequential"] / counts["placed"] if counts["placed"] else None
        assert row["sequential"] == share, name
    return found


def test_everything_stands_under_the_file_that_the_program_meant(record, programs, account):
    done = record("--", programs("files"), account.folder, account.path, "all")
    assert done.status == 0
    done.trace.check()
    trace = ringtape.open(done.path)
    found = check_same(trace, account)
    check_totals(trace)
    tree = str(account.folder)
    assert found[f"{tree}/none"]["errnos"] == "ENOENT 3"
    assert found[tree]["errnos"] == "EISDIR 1"
    assert found[f"{tree}/data"]["mapped"] == 1
    assert not any(row["doubtful"] or row["lost"] for row in found.values())
    assert {name for name, row in found.items() if row["kind"] == "unknown"} == {
        name for name in account.rows if name.startswith(("fd ", "(descriptor"))
    }


def test_a_process_that_runs_already_brings_its_descriptors_and_its_folder_along(start, programs, account):
    program = subprocess.Popen([programs("files"), account.folder, account.path, "wait"], stdin=subprocess.PIPE)
    try:
        wait_for(lambda: in_call(program.pid, program.pid, 0), "it waits for an order")
        recorder = start("--pid", str(program.pid)).wait_until_recording()
        program.stdin.write(b"gg")
        program.stdin.flush()
        wait_for(lambda: account.rows.get(f"{account.folder}/before", {}).get("reads") == 4, "it has read")
        wait_for(lambda: in_call(program.pid, program.pid, 0), "it waits again")
        done = recorder.stop(signal.SIGINT)
        assert done.status == 0, done.stderr
        trace = ringtape.open(done.path)
        found = check_same(trace, account)
        check_totals(trace)
        assert found[f"{account.folder}/before"]["still_open"] == 1
        assert found[f"{account.folder}/before"]["opens"] == 0
        assert found[f"{account.folder}/late"]["still_open"] == 2
        rows = done.trace.rows("descriptors")
        assert {row["pid"] for row in rows} == {program.pid}
        by_fd = {row["fd"]: row for row in rows}
        assert by_fd[-100]["target"] == os.fsencode(account.folder)
        (before,) = [row for row in rows if row["target"] == os.fsencode(account.folder / "before")]
        assert before["pos"] == 30
        assert before["flags"] & 3 == os.O_RDWR
    finally:
        program.kill()
        program.wait()


def test_what_a_command_inherits_is_known_by_name(record, open_folder):
    with open(open_folder / "input", "w+b") as source:
        source.write(b"x" * 1000)
        source.seek(100)
        done = record("--", "/bin/cat", stdin=source)
    (row,) = [row for row in files(ringtape.open(done.path), top=0).iter_rows(named=True) if row["file"] == f"{open_folder}/input"]
    assert (row["bytes_read"], row["opens"], row["sequential"]) == (900, 0, 1)


@pytest.mark.parametrize("way", ["comm", "uid", "all"])
def test_processes_chosen_by_name_or_user_or_all_bring_their_descriptors(start, way):
    sleeper = subprocess.Popen(["/bin/sleep", "60"], cwd="/usr")
    try:
        wait_for(lambda: in_call(sleeper.pid, sleeper.pid, 230), "it sleeps")
        chosen = {"comm": ("--comm", "sleep"), "uid": ("--uid", str(os.getuid())), "all": ("--all",)}[way]
        recorder = start(*chosen).wait_until_recording()
        done = recorder.stop(signal.SIGINT)
        rows = [row for row in done.trace.rows("descriptors") if row["pid"] == sleeper.pid]
        assert [row["target"] for row in rows if row["fd"] == -100] == [b"/usr"]
        assert {row["fd"] for row in rows} >= {0, 1, 2}
        assert recorder.pid not in {row["pid"] for row in done.trace.rows("descriptors")}
    finally:
        sleeper.kill()
        sleeper.wait()


SCRIPT = """cd {folder}; seq 5000 > numbers; sort -r numbers | tee copy > sorted; head -c 1000 sorted > head; cat numbers copy | wc -l > count
( exec 5<numbers; read a <&5; read b <&5; echo $a $b ) >> log; gzip -c numbers > numbers.gz; cp numbers again; grep -c 7 again nothere; true"""


def test_bytes_of_each_file_are_those_that_strace_sees(record, open_folder, tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    seen = Counter()
    for who in ("strace", "ringtape"):
        folder = open_folder / "same-name"
        folder.mkdir()
        script = SCRIPT.format(folder=folder)
        if who == "ringtape":
            done = record("--", "/bin/dash", "-c", script)
            assert done.status == 0
            continue_with = files(ringtape.open(done.path), top=0)
        else:
            names = "read,write,openat,copy_file_range,sendfile,pread64"
            subprocess.run(["strace", "-ff", "-y", "-e", f"trace={names}", "-o", tmp_path / "out", "/bin/dash", "-c", script], check=True)
            # A file for each process: no call is cut in two by those of others.
            for line in (line for file in tmp_path.glob("out.*") for line in file.read_text(errors="replace").splitlines()):
                if match := re.search(r"\b(read|write|pread64)\(\d+<([^>]*)>.* = (\d+)$", line):
                    seen[match[2], "bytes_written" if match[1] == "write" else "bytes_read"] += int(match[3])
                elif match := re.search(r"\bcopy_file_range\(\d+<([^>]*)>.*, \d+<([^>]*)>.* = (\d+)$", line):
                    seen[match[1], "bytes_read"] += int(match[3])
                    seen[match[2], "bytes_written"] += int(match[3])
        shutil.rmtree(folder)
    ours = Counter()
    for row in continue_with.iter_rows(named=True):
        for column in ("bytes_read", "bytes_written"):
            ours[row["file"], column] += row[column]
    theirs = {key: count for key, count in seen.items() if key[0].startswith(str(open_folder)) and count}
    assert len(theirs) >= 8
    assert {key: ours[key] for key in theirs} == theirs


def test_three_hundred_processes_are_looked_at_in_little_time(tmp_path):
    """No limit on the time itself: only that all of them are there, and that it does not take seconds."""
    sleepers = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(300)]
    try:
        from ringtape.recorder.descriptors import descriptors
        from ringtape.recorder.options import Target

        began = time.perf_counter()
        found = descriptors(Target(everything=True))
        print(f"{len(found)} descriptors of {len({row.pid for row in found})} processes in {time.perf_counter() - began:.3f} s")
        assert {sleeper.pid for sleeper in sleepers} <= {row.pid for row in found}
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
