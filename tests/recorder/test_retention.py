"""Retention: whole parts go, the oldest first; the folder stays within its size at every instant; the books stay true."""

import os
import subprocess
import sys

import numpy as np
import pytest

from ringtape.analysis.verification import verify
from ringtape.recorder import retention as retentions
from ringtape.recorder.retention import Limits, Retention
from ringtape.schemas.errors import TraceError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import Clock, Footer, encode, parse
from ringtape.schemas.retirement import Retired
from ringtape.schemas.table import table
from tests.conftest import ROOT
from tests.recorder.parts import content, files, new_writer, rows, seal

SECOND = 10**9


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "run.trace"


@pytest.fixture
def writer(trace):
    made = new_writer(trace, options={"merge": False}, attached_at=0)
    yield made
    made.close()


def second(writer, number, at=None, size=10):
    """Seal one second of calls, numbered on from the second before, all on CPU 0."""
    numbers = list(range(number * size, number * size + size))
    begin = at if at is not None else number * SECOND
    times = [begin + index for index in range(size)]
    return seal(writer, "syscalls", times, {0: (number * size, number * size + size)}, seq=numbers)


def finish(writer, attempted, **lost):
    gone = writer.retired.rows if writer.retired else {}
    names = set(writer._folders)
    standing = {name: sum(part.rows for part in writer.standing(name)) + gone.get(name, 0) for name in names}
    now = max([part.max_ts for part in writer.parts.values()] + [2 * SECOND])
    writer.finish(Footer("complete", "", None, standing, lost, attempted, 0, {}, Clock(now, now, now), now))


def used(folder):
    """Return what the files of a folder take on the disk, in whole blocks."""
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.rglob("*") if file.is_file())


def test_what_is_older_than_it_is_kept_goes_and_what_is_not_stays(writer, trace):
    keeper = Retention(writer, Limits(keep=60 * SECOND))
    parts = [second(writer, number) for number in range(3)]
    keeper.keep_house(parts[1].clock.mono + 60 * SECOND)
    assert [part.file for part in TraceFolder.open(trace).parts("syscalls")] == ["syscalls/000001.parquet", "syscalls/000002.parquet"]
    assert files(trace) == ["syscalls/000001.parquet", "syscalls/000002.parquet"]


def test_recorded_is_standing_and_dropped(writer, trace):
    keeper = Retention(writer, Limits(keep=60 * SECOND))
    parts = [second(writer, number) for number in range(5)]
    keeper.keep_house(parts[2].clock.mono + 60 * SECOND)
    finish(writer, {"syscalls": {"0": 50}})
    found = TraceFolder.open(trace)
    assert found.retired.rows == {"syscalls": 20}
    assert found.retired.numbered == {"syscalls": {"0": 20}}
    assert (found.retired.until, found.retired.count) == (SECOND + 9, 2)
    assert found.retired.bytes == parts[0].bytes + parts[1].bytes
    assert found.footer.rows["syscalls"] == 50
    assert verify(trace).problems == []


@pytest.mark.parametrize("attempted", [49, 51])
def test_books_that_do_not_add_up_with_what_was_dropped_are_a_problem(writer, trace, attempted):
    keeper = Retention(writer, Limits(keep=60 * SECOND))
    parts = [second(writer, number) for number in range(5)]
    keeper.keep_house(parts[2].clock.mono + 60 * SECOND)
    finish(writer, {"syscalls": {"0": attempted}})
    (problem,) = verify(trace).problems
    assert problem.where == "syscalls, CPU 0"


class TestSize:
    def test_the_folder_is_within_its_size_at_every_write(self, writer, trace, monkeypatch):
        limit = 1 << 20
        keeper = Retention(writer, Limits(size=limit))
        chance = np.random.default_rng(1)
        genuine, most = os.write, []

        def watched(descriptor, data):
            done = genuine(descriptor, data)
            most.append(used(trace))
            return done

        monkeypatch.setattr(os, "write", watched)
        for number in range(120):
            times = [number * SECOND + index for index in range(2000)]
            noise = {f"arg{index}": chance.integers(0, 1 << 62, 2000).tolist() for index in range(4)}
            writer.seal(table("syscalls"), [rows("syscalls", times, seq=list(range(number * 2000, number * 2000 + 2000)), **noise)], {}, 0)
            if number % 3 == 0:
                keeper.keep_house()
            merged = keeper.due(writer.standing("syscalls"))
            assert sum(part.bytes for part in merged) <= limit // 8
        assert limit / 4 < max(most) <= limit
        assert keeper.used == used(trace)
        monkeypatch.undo()
        finish(writer, {"syscalls": {"0": 240_000}})
        assert verify(trace).problems == []

    def test_a_part_for_which_nothing_can_make_room_is_refused_and_leaves_nothing(self, writer, trace):
        keeper = Retention(writer, Limits(size=300 << 10))
        noise = {f"arg{index}": np.random.default_rng(index).integers(0, 1 << 62, 9000).tolist() for index in range(6)}
        with pytest.raises(OSError, match="--max-size"):
            seal(writer, "syscalls", list(range(9000)), **noise)
        assert files(trace) == []
        assert keeper.used == used(trace)

    def test_parts_that_are_being_merged_are_not_dropped_for_room(self, writer, trace):
        keeper = Retention(writer, Limits(size=400 << 10))
        noise = {f"arg{index}": np.random.default_rng(index).integers(0, 1 << 62, 800).tolist() for index in range(6)}
        held = seal(writer, "syscalls", list(range(800)), **noise)
        later = seal(writer, "syscalls", list(range(800, 1600)), **noise)
        with keeper.holding([held]):
            last = seal(writer, "syscalls", list(range(1600, 2400)), **noise)
            seal(writer, "syscalls", list(range(2400, 3200)), **noise)
        assert held.file in files(trace)
        assert later.file not in files(trace)
        assert last.table == "syscalls"


class TestManifestWrittenAnew:
    def grown(self, writer, monkeypatch, seals=200):
        monkeypatch.setattr(retentions, "REWRITE", 20_000)
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        keeper = Retention(writer, Limits(keep=SECOND))
        keeper._compact = 1000
        sizes = []
        for number in range(seals):
            part = second(writer, number)
            keeper.keep_house(part.clock.mono + SECOND // 2 + number * SECOND // 50)
            sizes.append(writer.manifest_size)
        return sizes

    def test_it_stays_small_and_says_the_same(self, writer, trace, monkeypatch):
        sizes = self.grown(writer, monkeypatch)
        assert max(sizes) < 40_000
        found = TraceFolder.open(trace)
        assert found.manifest.numbers["syscalls"] > 0  # it has been written anew
        assert found.state == "recording"
        assert found.header.trace_id == parse((trace / "manifest.jsonl").read_bytes(), "x").header.trace_id
        assert found.manifest.sealed_rings == {"syscalls": {0: 2000}}
        assert sum(part.rows for part in found.manifest.parts) + found.retired.rows["syscalls"] == 2000
        monkeypatch.undo()
        finish(writer, {"syscalls": {"0": 2000}})
        assert verify(trace).problems == []

    def test_the_next_part_has_a_number_that_no_part_has_had(self, writer, trace, monkeypatch):
        self.grown(writer, monkeypatch)
        assert second(writer, 200).file == "syscalls/000200.parquet"

    def test_a_write_that_fails_leaves_the_old_one(self, writer, trace, monkeypatch):
        second(writer, 0)
        before = (trace / "manifest.jsonl").read_bytes()

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "rename", full)
        with pytest.raises(OSError, match="No space"):
            writer.rewrite()
        assert (trace / "manifest.jsonl").read_bytes() == before
        assert not (trace / ".manifest.jsonl.partial").exists()
        monkeypatch.undo()
        second(writer, 1)
        assert len(TraceFolder.open(trace).parts("syscalls")) == 2


class TestCarried:
    def test_who_was_there_before_is_known_after_its_rows_have_gone(self, writer, trace):
        keeper = Retention(writer, Limits(keep=60 * SECOND))
        old = seal(
            writer, "processes", [1, 2, 3, 4, 5], tid=[10, 10, 11, 12, 11], pid=[10, 10, 11, 12, 11], start=[1, 1, 2, 3, 2], kind=[0, 2, 1, 1, 3],
            comm=[b"sh", b"tar", b"ls", b"cp", b"ls"], argv=[b"", b"tar\0cf\0", b"", b"", b""], file=[b"", b"/bin/tar", b"", b"", b""],
            seq=[-1, 0, 1, 2, 3],
        )  # fmt: skip
        seal(writer, "processes", [9], tid=[12], pid=[12], start=[3], kind=[3], seq=[4])
        keeper.keep_house(old.clock.mono + 68 * SECOND + 10**7)
        found = content(trace, "processes").to_pylist()
        known = {row["tid"]: row for row in found if row["kind"] == 0}
        assert set(known) == {10}  # 11 had ended before, 12 ends in what stays or went too
        assert (known[10]["comm"], known[10]["argv"], known[10]["file"], known[10]["seq"]) == (b"tar", b"tar\0cf\0", b"/bin/tar", -1)
        finish(writer, {"processes": {"0": 5}})
        assert verify(trace).problems == []

    def test_the_loss_ledger_is_summed_up_and_stays_exact(self, writer, trace):
        keeper = Retention(writer, Limits(keep=60 * SECOND))
        for ts, count in ((100, 3), (200, 4), (300, 5)):
            seal(writer, "losses", [ts], until=[ts + 50], count=[count], sum=[10 * count], nr=[1], cpu=[0], table=["syscalls"])
        last = seal(writer, "losses", [400], until=[450], count=[1], sum=[1], nr=[2], cpu=[0], table=["syscalls"])
        keeper.keep_house(last.clock.mono + 70 * SECOND)
        found = content(trace, "losses").to_pylist()
        assert [(row["nr"], row["ts"], row["until"], row["count"], row["sum"]) for row in found] == [(1, 100, 350, 12, 120), (2, 400, 450, 1, 1)]
        finish(writer, {"syscalls": {"0": 13}}, syscalls=13)
        assert verify(trace).problems == []


def test_a_merged_part_is_small_enough_to_go_in_time(writer):
    keeper = Retention(writer, Limits(keep=16 * SECOND))
    for number in range(64):
        part = second(writer, number)
        moved = type(part)(**{**{name: getattr(part, name) for name in part.__slots__}, "clock": Clock(number * SECOND // 4, 0, 0)})
        writer.parts[part.file] = moved
        keeper._began[part.file] = moved.clock.mono
    found = keeper.due(writer.standing("syscalls"))
    assert [part.file for part in found] == [f"syscalls/{number:06d}.parquet" for number in range(9)]  # 2 s of 16


class TestLinesThatAreUntrue:
    """Each is refused, whatever its checksum says."""

    def refused(self, trace, writer, change):
        keeper = Retention(writer, Limits(keep=60 * SECOND))
        parts = [second(writer, number) for number in range(3)]
        keeper.keep_house(parts[2].clock.mono + 60 * SECOND)
        data = (trace / "manifest.jsonl").read_bytes()
        whole = parse(data, "x")
        line = whole.retired
        lines = [whole.header, *parts, Retired(**{**{name: getattr(line, name) for name in Retired.__slots__}, **change})]
        made, previous = b"", ""
        for one in lines:
            encoded, previous = encode(one, previous)
            made += encoded
        return made

    def test_the_line_itself_is_accepted(self, trace, writer):
        assert parse(self.refused(trace, writer, {}), "x").retired.rows == {"syscalls": 20}

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"rows": {"syscalls": 21}}, "21 rows of syscalls dropped so far"),
            ({"rows": {"syscalls": 20, "nothing": 1}}, "which the header does not name"),
            ({"bytes": 1}, "'bytes' is 1"),
            ({"count": 3}, "'count' is 3"),
            ({"until": 5}, "'until' is 5"),
            ({"numbered": {"syscalls": {"0": 21}}}, "21 numbered rows"),
            ({"lost": {"syscalls": {"0": 1}}}, "'lost' differs"),
            ({"parts": ["syscalls/000009.parquet"]}, "no standing part"),
            ({"parts": []}, "directly behind the header"),
            ({"rings": {"syscalls": {"0": 5}}}, "directly behind the header"),
            ({"rows": {"syscalls": -20}}, "not 0 to"),
        ],
    )
    def test_a_changed_one_is_refused(self, trace, writer, change, reason):
        with pytest.raises(TraceError, match=reason):
            parse(self.refused(trace, writer, change), "x")


KILLED = """
import os, sys
from pathlib import Path
from ringtape.recorder.retention import Limits, Retention
from tests.recorder.parts import new_writer, seal
from tests.recorder.test_retention import SECOND, second
def die_before(instant):
    global left
    left = instant
    writer = new_writer(Path(sys.argv[1], f"{instant}.trace"), options={"merge": False}, attached_at=0)
    keeper = Retention(writer, Limits(keep=60 * SECOND))
    for number in range(4):
        part = second(writer, number)
    seal(writer, "processes", [5], tid=[7], pid=[7], start=[1], comm=[b"sh"], seq=[0])
    def dying(genuine):
        def instead(*arguments, **options):
            global left
            if left == 0:
                os._exit(3)
            left -= 1
            return genuine(*arguments, **options)
        return instead
    for name in ("write", "fsync", "unlink", "rename"):
        setattr(os, name, dying(getattr(os, name)))
    keeper.keep_house(part.clock.mono + 70 * SECOND)
    writer.rewrite()
    os._exit(0)
for instant in range(40):
    pid = os.fork()  # nothing has started a thread here
    if not pid:
        die_before(instant)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 3:
        sys.exit(status)
"""


def test_a_recorder_killed_at_any_instant_of_it_leaves_a_true_trace(tmp_path):
    """The process ends before its n-th call that changes something, until there is none left."""
    words = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": "src:."}, check=False)
    assert done.returncode == 0, done.stderr.decode()[-500:]
    traces = sorted(tmp_path.iterdir(), key=lambda path: int(path.stem))
    assert len(traces) > 12
    for trace in traces:
        found = TraceFolder.open(trace)
        standing = sum(part.rows for part in found.parts("syscalls"))
        assert standing + found.retired.rows.get("syscalls", 0) == 40
        assert {row["comm"] for row in content(trace, "processes").to_pylist()} == {b"sh"}
        for part in found.manifest.parts:
            found.check(part)
    for trace in traces[::5]:
        assert [one for one in verify(trace).problems if not one.reason.startswith(("left over", "not named"))] == []
