"""What `verify` finds: everything that was broken here by hand, and nothing in a sound trace."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringtape.analysis import verification
from ringtape.analysis.verification import Verification, verify
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import Clock, Footer, Line, Part
from ringtape.schemas.table import table
from tests.factory import T0, make, to_arrow, write_manifest, write_part

CALLS = [{"ts": T0 + at * 10, "nr": at % 3, "pid": 7, "cpu": at % 2, "dur": at + 2, "lost": at % 7 == 3} for at in range(100)]


def found(path: Path) -> list[tuple[str, str]]:
    return [(problem.where, problem.reason) for problem in verify(path).problems]


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Write the manifest again, its checksums right, with every line changed by a function."""
    manifest = TraceFolder.open(path).manifest
    lines: list[Line] = [manifest.header, *manifest.parts, *([manifest.footer] if manifest.footer else [])]
    write_manifest(path, [change(line) for line in lines])


def reseal(path: Path, name: str, data: bytes) -> None:
    """Replace a part by other bytes, and its line's size and hash with them."""
    (path / name).write_bytes(data)
    rewrite(
        path,
        lambda line: (
            replace(line, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) if isinstance(line, Part) and line.file == name else line
        ),
    )


@pytest.mark.parametrize("parts", [1, 4])
def test_a_sound_trace_with_losses_has_no_problem(folder: Path, parts: int) -> None:
    result = verify(make(folder, syscalls=CALLS, processes=[{"pid": 7, "kind": 0, "seq": -1}], parts=parts))
    assert result.problems == []
    kept = sum(not call["lost"] for call in CALLS)
    assert result.rows == kept + 1 + len({(call["cpu"], call["nr"], (int(str(call["dur"])).bit_length())) for call in CALLS if call["lost"]})


def test_an_unfinished_trace_is_noted_and_no_problem(folder: Path) -> None:
    path = make(folder, syscalls=CALLS, end=None)
    with (path / "manifest.jsonl").open("ab") as file:
        file.write(b'{"type":"part","cut of')
    result = verify(path)
    assert result.problems == []
    assert any("no footer" in note for note in result.notes)
    assert any("cut off" in note for note in result.notes)


def test_no_trace_at_all_is_one_problem(tmp_path: Path) -> None:
    assert found(tmp_path / "nothing") == [(str(tmp_path / "nothing"), "no such trace folder")]
    assert len(found(tmp_path)) == 1


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_flipped_bit_anywhere_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = make(tmp_path_factory.mktemp("flip") / "t", syscalls=CALLS)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    file = data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    result = verify(path)
    # A flip of the very last new line makes the footer a line that was cut off, which is what a killed recorder leaves.
    assert result.problems or (file.name == "manifest.jsonl" and at == len(content) - 1 and result.notes)


def test_a_damaged_page_is_found_even_where_the_hash_says_nothing(folder: Path) -> None:
    path = make(folder, syscalls=CALLS)
    data = bytearray((path / "syscalls/000000.parquet").read_bytes())
    data[120] ^= 16
    reseal(path, "syscalls/000000.parquet", bytes(data))
    ((where, reason),) = found(path)
    assert where == "syscalls/000000.parquet"
    assert "unreadable as Parquet" in reason


def test_a_reader_that_dies_is_a_line_and_the_other_parts_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(folder, syscalls=CALLS, parts=3)
    source = (
        "import os, sys, json\n"
        "from ringtape.analysis import part_reader\n"
        "real = part_reader._read\n"
        "part_reader._read = lambda folder, part: os.abort() if part.file == 'syscalls/000001.parquet' else real(folder, part)\n"
        "sys.exit(part_reader.main(['', sys.argv[-1]]))\n"
    )
    run = verification.subprocess.run
    monkeypatch.setattr(verification.subprocess, "run", lambda command, **more: run([command[0], "-c", source, command[-1]], **more))
    result = verify(path)
    assert [(problem.where, problem.reason) for problem in result.problems] == [
        ("syscalls/000001.parquet", "the Parquet reader died of it (SIGABRT)"),
    ]
    assert result.rows > 50


def sealed_again(path: Path, rows: pa.Table) -> None:
    """Replace the part of the calls by these rows, everything on its line right but the times."""
    part = write_part(path, table("syscalls"), 0, rows)
    rewrite(path, lambda line: replace(part, min_ts=line.min_ts, max_ts=line.max_ts) if isinstance(line, Part) and line.table == "syscalls" else line)


def calls_of(path: Path) -> pa.Table:
    return pq.read_table(path / "syscalls/000000.parquet").cast(arrow_schema(table("syscalls")))


def test_what_lies_beside_a_trace_is_no_program(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(folder, syscalls=[{"seq": 0}])
    planted = tmp_path / "of somebody else"
    (planted / "ringtape").mkdir(parents=True)
    for name in ("json.py", "numpy.py", "ringtape/__init__.py"):
        (planted / name).write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(planted)
    assert verify(folder).problems == []
    assert not (planted / "ran").exists()


def test_rows_out_of_order_are_found(folder: Path) -> None:
    path = make(folder, syscalls=CALLS)
    rows = calls_of(path)
    sealed_again(path, rows.take([1, 0, *range(2, rows.num_rows)]))
    assert found(path) == [("syscalls/000000.parquet", "not sorted by ts")]


def test_a_row_that_stands_twice_is_found(folder: Path) -> None:
    path = make(folder, syscalls=CALLS)
    rows = calls_of(path)
    sealed_again(path, rows.take([0, *range(rows.num_rows)]))
    assert ("syscalls/000000.parquet", "a sequence number stands twice") in found(path)


def test_a_row_that_stands_in_two_parts_is_found(folder: Path) -> None:
    calls = [{**call, "lost": False} for call in CALLS]
    path = make(folder, syscalls=calls, parts=2)
    row = {column.name: 0 for column in table("syscalls").columns} | {"ts": T0 + 10**6, "abi": 1, "seq": 3}
    extra = write_part(path, table("syscalls"), 2, to_arrow(table("syscalls"), [row]))
    manifest = TraceFolder.open(path).manifest
    assert manifest.footer is not None
    footer = replace(manifest.footer, rows={**manifest.footer.rows, "syscalls": 101})
    write_manifest(path, [manifest.header, *manifest.parts, extra, footer])
    assert found(path) == [("syscalls, CPU 0", "a sequence number stands in two parts")]


def test_a_gap_that_the_ledger_does_not_explain_is_found(folder: Path) -> None:
    path = make(folder, syscalls=CALLS)
    rows = calls_of(path)
    sealed_again(path, rows.take([at for at in range(rows.num_rows) if at != 5]))
    rewrite(path, lambda line: replace(line, rows={**line.rows, "syscalls": rows.num_rows - 1}) if isinstance(line, Footer) else line)
    ((where, reason),) = found(path)
    assert where in ("syscalls, CPU 0", "syscalls, CPU 1")
    assert reason.endswith("but 50 were attempted")


def test_totals_that_do_not_agree_are_found(folder: Path) -> None:
    path = make(folder, syscalls=CALLS, footer={"lost": {"syscalls": 1}, "rows": {"syscalls": 1}})
    reasons = [reason for _, reason in found(path)]
    assert "86 rows in parts where the footer says 1" in reasons
    assert "14 records in the loss ledger where the footer says 1 were lost" in reasons


def test_times_and_rows_of_the_manifest_are_compared(folder: Path) -> None:
    path = make(folder, syscalls=CALLS)
    rewrite(path, lambda line: replace(line, max_ts=line.max_ts + 1) if isinstance(line, Part) and line.table == "syscalls" else line)
    ((where, reason),) = found(path)
    assert where == "syscalls/000000.parquet"
    assert reason.startswith(f"ts goes from {T0} to {T0 + 990} where")


SECOND = 10**9


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"kind": 99}, f"kind holds 99, which {table('syscalls').schema_id} does not have"),
        ({"kind": -1}, f"kind holds -1, which {table('syscalls').schema_id} does not have"),
        ({"abi": 0}, f"abi holds 0, which {table('syscalls').schema_id} does not have"),
        ({"pid": -1, "tid": 1}, "a negative process"),
        ({"tid": -1}, "a negative thread"),
        ({"dur": -1}, "a negative duration"),
        ({"cpu": -1}, "a negative CPU"),
        ({"cpu": -2, "seq": -1}, "a negative CPU"),
        ({"ts": T0 + 10 * SECOND}, f"ts {T0 + 10 * SECOND} is after the recording, which ended at {T0 + SECOND}"),
        ({"ts": T0 + 10 * SECOND, "seq": -1, "cpu": -1}, f"ts {T0 + 10 * SECOND} is after the recording, which ended at {T0 + 4 * SECOND}"),
        ({"ts": 5}, f"ts 5 is long before the recording, which began at {200 * T0}"),
    ],
)
def test_a_row_that_no_recording_has_is_found(folder: Path, row: dict[str, int], reason: str) -> None:
    # The header's time is late enough for a time long before it to be a time at all.
    late = {"header": {"attached_at": 200 * T0}, "footer": {"detached_at": 200 * T0}} if "long before" in reason else {}
    rest = {"footer": {"clock": Clock(T0 + 4 * SECOND, 0, 0)}} if "seq" in row else {"footer": {"attempted": {}}} if "cpu" in row else {}
    path = make(folder, syscalls=[{"pid": 1, **row}], **late, **rest)
    assert ("syscalls/000000.parquet", reason) in found(path)


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("losses", {"table": "syscalls", "cause": 1, "count": -1}, "a negative count"),
        ("losses", {"table": "syscalls", "cause": 1, "sum": -1}, "a negative sum"),
        ("losses", {"table": "syscalls", "cause": 99}, "cause holds 99, which losses@"),
        ("recorder", {"interval": -1}, "a negative interval"),
        ("processes", {"pid": 7, "kind": 3, "stime": -1}, "a negative CPU time"),
    ],
)
def test_a_row_of_another_table_that_no_recording_has_is_found(folder: Path, name: str, row: dict[str, Any], reason: str) -> None:
    assert [where for where, said in found(make(folder, **{name: [row]})) if said.startswith(reason)] == [f"{name}/000000.parquet"]


def test_what_the_recorder_does_write_is_no_problem(folder: Path) -> None:
    path = make(
        folder,
        footer={"clock": Clock(T0 + 4 * SECOND, 0, 0)},
        syscalls=[
            {"ts": T0 - SECOND, "pid": 7, "kind": 2},
            {"ts": T0 + 5, "pid": 7, "seq": -1, "cpu": -1, "kind": 3, "dur": 2 * SECOND},
            {"ts": T0 + SECOND + 1000, "pid": 7, "kind": 1},
        ],
        processes=[{"ts": T0 - 3 * SECOND, "pid": 7, "kind": 0, "seq": -1}],
        recorder=[{"ts": T0 + 3 * SECOND, "interval": SECOND}],
        losses=[{"ts": T0 + SECOND, "until": T0 + 3 * SECOND, "abi": 0, "nr": -1, "count": 1, "table": "processes"}],
    )
    assert found(path) == []


@pytest.mark.parametrize("end", ["recovered", None])
def test_of_a_recorder_that_was_killed_nobody_knows_when_it_ended(folder: Path, end: str | None) -> None:
    assert found(make(folder, syscalls=[{"ts": T0 + 60 * SECOND, "pid": 7}], end=end)) == []


def test_codes_of_a_newer_version_are_noted(folder: Path) -> None:
    path = make(folder, syscalls=[{"pid": 7, "kind": 99}])
    header = TraceFolder.open(path).header
    rows = calls_of(path)
    rows = rows.replace_schema_metadata({**rows.schema.metadata, b"table": b"syscalls@1.9"})
    part = write_part(path, table("syscalls"), 0, rows)
    rewrite(path, lambda line: replace(header, tables={**header.tables, "syscalls": "1.9"}) if line is header or hasattr(line, "tables") else line)
    rewrite(path, lambda line: part if isinstance(line, Part) and line.table == "syscalls" else line)
    result = verify(path)
    assert result.problems == []
    assert result.notes == ["syscalls/000000.parquet: kind holds 99: codes of a newer version of the table"]


def test_a_recording_that_ends_before_it_begins_is_found(folder: Path) -> None:
    assert found(make(folder, footer={"detached_at": T0 - 1})) == [
        ("manifest.jsonl", f"the recording ends at {T0 - 1}, before it begins at {T0}"),
    ]


def test_files_that_do_not_belong_are_found(folder: Path) -> None:
    path = make(folder, syscalls=CALLS)
    (path / "syscalls/999999.parquet").write_bytes(b"x")
    (path / "notes\n\x1b[31m.txt").write_bytes(b"x")
    os.symlink("/etc/passwd", path / "link")
    assert found(path) == [
        ("link", "a symbolic link"),
        ("notes\n\x1b[31m.txt", "not named by the manifest"),
        ("syscalls/999999.parquet", "not named by the manifest"),
    ]


def test_verify_never_prints(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert isinstance(verify(make(folder, syscalls=CALLS)), Verification)
    assert capfd.readouterr() == ("", "")


def test_parts_that_a_running_recording_merges_meanwhile_are_no_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    path = make(folder, syscalls=CALLS, end=None, parts=2)
    before = TraceFolder.open(path).manifest
    with (path / "manifest.jsonl").open("rb") as recorder:
        fcntl.flock(recorder, fcntl.LOCK_EX)
        check = TraceFolder.check

        def merge_first(self: TraceFolder, part: Part) -> None:
            old = [one for one in before.parts if one.table == "syscalls"]
            if (path / old[0].file).exists():
                whole = pa.concat_tables([pq.read_table(path / one.file) for one in old]).cast(arrow_schema(table("syscalls")))
                merged = replace(write_part(path, table("syscalls"), 7, whole), replaces=[one.file for one in old])
                write_manifest(path, [before.header, *before.parts, merged])
                for one in old:
                    (path / one.file).unlink()
            check(self, part)

        monkeypatch.setattr(TraceFolder, "check", merge_first)
        result = verify(path)
    assert result.problems == []
    assert sum("merged into another part" in note for note in result.notes) == 2
