"""Conditions of the flight recorder, read and looked for; snapshots; and weeks of seals in flat memory, descriptors and disk."""

import argparse
import gc
import os
import resource
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ringtape.analysis.verification import verify
from ringtape.recorder.commands import record
from ringtape.recorder.drain import TableDrain
from ringtape.recorder.flight import Limits, check_flight, choose_flight, parse_trigger
from ringtape.recorder.lookout import first_match
from ringtape.recorder.options import choose_tables
from ringtape.recorder.pump import Pump
from ringtape.recorder.retention import Retention
from ringtape.recorder.snapshot import snapshots_in, take
from ringtape.schemas.abi.syscalls import ABI_IDS, native_abi, number
from ringtape.schemas.errors import RecordingError, UsageError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import Clock, Footer
from ringtape.schemas.table import table
from tests.conftest import ROOT
from tests.recorder.parts import content, new_writer, seal
from tests.recorder.ring_memory import Slots

NATIVE = ABI_IDS[native_abi()]
SECOND = 10**9


class TestConditions:
    @pytest.mark.parametrize(
        ("text", "longer", "fails", "errno", "lost"),
        [
            ("fsync > 100ms", 100_000_001, False, 0, None),
            ("fsync>=100ms", 100_000_000, False, 0, None),
            (" fsync,fdatasync > 0ns ", 1, False, 0, None),
            ("openat fails EMFILE", None, True, 24, None),
            ("openat fails emfile", None, True, 24, None),
            ("read fails EWOULDBLOCK", None, True, 11, None),
            ("openat fails", None, True, 0, None),
            ("lost > 0", None, False, 0, 1),
            ("lost >= 5", None, False, 0, 5),
        ],
    )
    def test_each_form_is_read(self, text, longer, fails, errno, lost):
        found = parse_trigger(text)
        assert (found.longer, found.fails, found.errno, found.lost) == (longer, fails, errno, lost)
        assert (native_abi(), number(native_abi(), "fsync")) in found.calls or "fsync" not in text

    @pytest.mark.parametrize(
        ("text", "what", "hint"),
        [
            ("fsnc > 1s", "unknown system call 'fsnc'", "fsync"),
            ("openat fails EMFIL", "unknown error 'EMFIL'", "EMFILE"),
            ("fsync", "is no condition", "SYSCALL > TIME"),
            ("fsync < 1s", "is no condition", "SYSCALL > TIME"),
            ("fsync > 1 parsec", "not a duration", "ns"),
            ("lost > 1s", "no number of records", "lost > 0"),
            (", > 1s", "names no system call", "SYSCALL > TIME"),
            ("", "is no condition", "SYSCALL > TIME"),
        ],
    )
    def test_what_is_none_is_said_with_the_next_step(self, text, what, hint):
        with pytest.raises(UsageError) as caught:
            parse_trigger(text)
        assert what in caught.value.what
        assert hint in caught.value.hint

    def columns(self, **given):
        size = len(given["nr"])
        empty = {name: np.zeros(size, np.int64) for name in ("dur", "ret", "kind")} | {"abi": np.full(size, NATIVE)}
        return empty | {name: np.array(values) for name, values in given.items()}

    def match(self, text, **given):
        trigger = parse_trigger(text)
        return first_match(trigger, [(ABI_IDS[abi], nr) for abi, nr in trigger.calls], self.columns(**given))

    def test_the_first_row_for_which_it_holds_is_found_and_no_other_call(self):
        fsync, read = number(native_abi(), "fsync"), number(native_abi(), "read")
        assert self.match("fsync > 100ns", nr=[read, fsync, fsync, fsync], dur=[500, 100, 101, 900]) == 2
        assert self.match("fsync >= 100ns", nr=[read, fsync, fsync, fsync], dur=[500, 100, 101, 900]) == 1
        assert self.match("fsync > 900ns", nr=[read, fsync], dur=[5000, 900]) is None

    def test_failures_are_those_of_the_error_and_of_calls_that_returned(self):
        fsync, read = number(native_abi(), "fsync"), number(native_abi(), "read")
        assert self.match("fsync fails EIO", nr=[fsync, read, fsync], ret=[-4, -5, -5]) == 2
        assert self.match("fsync fails", nr=[fsync, read, fsync], ret=[0, -5, -4]) == 2
        assert self.match("fsync fails", nr=[fsync], ret=[-5000]) is None
        assert self.match("fsync fails EIO", nr=[fsync], ret=[-5], kind=[3]) is None

    def test_conditions_for_what_is_not_recorded_are_refused(self):
        flight = choose_flight("10m", None, ["fsync > 1s"], None, None, None, None)
        with pytest.raises(UsageError, match="without the table syscalls"):
            check_flight(flight, ["sched"], frozenset(), 0)
        with pytest.raises(UsageError, match="--syscall leaves out"):
            check_flight(flight, ["syscalls"], frozenset({(native_abi(), 0)}), 0)
        with pytest.raises(UsageError, match="--min-duration"):
            check_flight(flight, ["syscalls"], frozenset(), 2 * SECOND)
        check_flight(flight, ["syscalls"], flight.triggers[0].calls, SECOND)

    @pytest.mark.parametrize(
        ("flags", "what"),
        [(("1ms", None, []), "--keep 1ms"), ((None, "1M", []), "--max-size 1M"), ((None, None, []), "--snapshots without")],
    )
    def test_limits_that_cannot_hold_are_refused(self, flags, what):
        with pytest.raises(UsageError, match=what):
            choose_flight(*flags, Path("x"), None, None, None)


@pytest.fixture
def trace(tmp_path):
    writer = new_writer(tmp_path / "run.trace", attached_at=0, options={"merge": False})
    yield writer
    writer.close()


def minutes(writer, count, lost=()):
    """Seal calls a minute apart, as a recording does that the writer's clock has seen."""
    seq = 0
    for minute in range(count):
        part = seal(writer, "syscalls", [minute * 60 * SECOND + index for index in range(4)], seq=list(range(seq, seq + 4)))
        at = Clock(minute * 60 * SECOND + SECOND, 0, 0)
        writer.parts[part.file] = type(part)(**{**{name: getattr(part, name) for name in part.__slots__}, "clock": at})
        seq += 4 + (3 if minute in lost else 0)
    writer.rewrite()
    return seq


class TestSnapshots:
    def test_of_a_growing_trace_it_holds_the_last_minutes_and_its_books_balance(self, trace, tmp_path):
        minutes(trace, 10)
        seal(trace, "processes", [1], tid=[7], pid=[7], comm=[b"sh"], seq=[-1])
        # The seal of the process row is now, by this machine's clock; the window is counted back from the calls' own.
        process = next(part for part in trace.parts.values() if part.table == "processes")
        trace.parts[process.file] = type(process)(**{**{n: getattr(process, n) for n in process.__slots__}, "clock": Clock(1, 0, 0)})
        trace.rewrite()
        taken = take(trace.path, tmp_path / "out.trace", 150 * SECOND, {"trigger": "test"})
        found = TraceFolder.open(taken.path)
        assert found.state == "snapshot"
        assert min(content(taken.path, "syscalls")["ts"].to_pylist()) == 7 * 60 * SECOND
        assert found.retired.rows == {"syscalls": 28}
        assert content(taken.path, "processes")["comm"].to_pylist() == [b"sh"]
        assert verify(taken.path).problems == []
        assert all(file.stat().st_nlink == 2 for file in (taken.path / "syscalls").iterdir())
        assert not taken.copied

    def test_it_stays_when_the_recording_is_gone(self, trace, tmp_path):
        minutes(trace, 3)
        taken = take(trace.path, tmp_path / "out.trace", 3600 * SECOND, {"trigger": "test"})
        trace.remove(list(trace.parts.values()))
        assert content(taken.path, "syscalls").num_rows == 12
        assert verify(taken.path).problems == []

    def test_what_was_lost_and_is_not_in_the_ledger_yet_stands_in_its_own(self, trace, tmp_path):
        minutes(trace, 4, lost=(2,))
        taken = take(trace.path, tmp_path / "out.trace", 3600 * SECOND, {"trigger": "test"})
        assert content(taken.path, "losses")["count"].to_pylist() == [3]
        assert TraceFolder.open(taken.path).footer.lost == {"syscalls": 3}
        assert verify(taken.path).problems == []

    def test_of_a_finished_trace_and_of_a_snapshot_it_holds_the_end(self, trace, tmp_path):
        attempted = minutes(trace, 10)
        rows = {"syscalls": attempted}
        trace.finish(Footer("complete", "", None, rows, {}, {"syscalls": {"0": attempted}}, 0, {}, Clock(1, 1, 1), 10 * 60 * SECOND))
        first = take(trace.path, tmp_path / "a.trace", 300 * SECOND, {"trigger": "test"})
        second = take(first.path, tmp_path / "b.trace", 120 * SECOND, {"trigger": "test"})
        assert [content(path, "syscalls").num_rows for path in (first.path, second.path)] == [20, 8]
        assert [verify(path).problems for path in (first.path, second.path)] == [[], []]
        assert TraceFolder.open(second.path).retired.rows == {"syscalls": 32}
        assert snapshots_in(tmp_path) == [first.path, second.path]

    def test_across_file_systems_parts_are_copied(self, trace, tmp_path, monkeypatch):
        minutes(trace, 3)

        def refused(*_, **__):
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refused)
        taken = take(trace.path, tmp_path / "out.trace", 3600 * SECOND, {"trigger": "test"})
        assert taken.copied
        assert verify(taken.path).problems == []
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in taken.path.rglob("*.parquet"))

    def test_nothing_is_overwritten_and_a_failure_leaves_nothing(self, trace, tmp_path, monkeypatch):
        minutes(trace, 3)
        (tmp_path / "there.trace").mkdir()
        with pytest.raises(RecordingError, match="exists already"):
            take(trace.path, tmp_path / "there.trace", SECOND, {"trigger": "test"})

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("ringtape.recorder.snapshot.TraceWriter.finish", full)
        with pytest.raises(OSError, match="No space"):
            take(trace.path, tmp_path / "out.trace", SECOND, {"trigger": "test"})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run.trace", "there.trace"]


def resident():
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def folder_bytes(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("seals", [600, pytest.param(14_400, marks=pytest.mark.soak)])
def test_a_day_of_seals_keeps_memory_descriptors_manifest_and_folder_flat(tmp_path, monkeypatch, seals):
    """The real drain, writer, merges and retention on ring memory of our own; time goes as fast as it is sealed."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # how long a disk takes is not asked
    now = [SECOND]
    monkeypatch.setattr("ringtape.recorder.writer.Clock.now", lambda: Clock(now[0], now[0], now[0]))
    monkeypatch.setattr("ringtape.recorder.retention.REWRITE", 64 << 10)
    path = tmp_path / "day.trace"
    writer = new_writer(path, attached_at=0, options={"merge": False})
    rings = Slots("syscalls", 64)
    drain = TableDrain(table("syscalls"), [rings.ring], writer)
    pump = Pump(writer, [drain], {}, None, [table(name) for name in ("syscalls", "processes")])
    keeper = pump.keep(Limits(keep=60 * SECOND, size=8 << 20))
    assert isinstance(keeper, Retention)
    measured = []
    for second in range(seals):
        now[0] += SECOND
        for index in range(20):
            assert rings.put(ts=now[0] + index, dur=5, nr=1, abi=NATIVE, cpu=0)
        drain.seal(now[0], 0)
        seal(writer, "processes", [now[0]], tid=[second + 2], pid=[second + 2], start=[now[0]], kind=[1 if second % 10 else 3], seq=[-1])
        if second % 3 == 0:  # most processes end soon
            ended = {"tid": [second + 2, second + 1, second], "start": [now[0], now[0] - SECOND, now[0] - 2 * SECOND]}
            seal(writer, "processes", [now[0] + index for index in (1, 2, 3)], pid=[1] * 3, kind=[3] * 3, seq=[-1] * 3, **ended)
        keeper.keep_house(now[0])
        for one in pump._tables:
            pump._upkeep._merge(one)
        if second % (seals // 6) == seals // 6 - 1:
            gc.collect()
            measured.append((resident(), len(os.listdir("/proc/self/fd")), writer.manifest_size, folder_bytes(path), len(writer.parts)))
    print(seals, measured)
    resident_bytes, descriptors, manifests, folders, parts = zip(*measured, strict=True)
    assert len(set(descriptors)) == 1
    assert max(manifests) <= 5 * (64 << 10)
    assert max(folders) <= 8 << 20
    assert max(folders[1:]) <= 2 * min(folders[1:])
    assert max(parts) <= 200
    assert resident_bytes[-1] - resident_bytes[1] < 16 << 20
    assert len(keeper._began) == len(writer.parts)
    assert set(keeper._counts) <= set(writer.parts)
    monkeypatch.undo()
    gone = writer.retired.rows
    rows = {name: sum(part.rows for part in writer.standing(name)) + gone.get(name, 0) for name in writer._folders}
    writer.finish(Footer("complete", "", None, rows, {}, {"syscalls": {"0": 20 * seals}}, 0, {}, Clock(now[0], 1, 1), now[0] + SECOND))
    assert verify(path).problems == []
    writer.close()


class TestUnit:
    UNIT = ROOT / "recorder" / "ringtape.service"

    def test_systemd_finds_nothing_wrong_with_it(self):
        if shutil.which("systemd-analyze") is None:
            pytest.skip("systemd-analyze is not installed")
        done = subprocess.run(["systemd-analyze", "verify", self.UNIT], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_what_it_starts_is_a_flight_recording_as_the_command_line_reads_it(self):
        text = self.UNIT.read_text().replace("\\\n", " ")
        (line,) = [line.partition("=")[2] for line in text.splitlines() if line.startswith("ExecStart=")]
        words = shlex.split(line)
        assert words[:3] == ["/usr/bin/env", "ringtape", "record"]
        parser = argparse.ArgumentParser()
        record.add_arguments(parser)
        args = parser.parse_args(words[3:])
        flight = choose_flight(args.keep, args.max_size, args.when, args.snapshots, args.snapshot_last, args.every, args.max_snapshots)
        assert args.all
        assert flight.limits == Limits(600 * SECOND, 2 << 30)
        assert [trigger.text for trigger in flight.triggers] == ["fsync,fdatasync > 1s", "lost > 0"]
        check_flight(flight, choose_tables(args.tables), frozenset(), 0)
