"""The verb `print` on small synthetic traces, with every line worked out by hand."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from ringtape.cli import main
from tests import factory

T0, WALL = factory.T0, factory.WALL
MS = 1_000_000


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.make(
        tmp_path_factory.mktemp("print") / "run.trace",
        syscalls=[
            {"ts": T0, "dur": 5 * MS, "nr": 0, "arg0": 4, "arg1": 4096, "arg2": 10, "ret": 10, "pid": 300, "kind": 2},
            {"ts": T0 + 1 * MS, "dur": 2 * MS, "nr": 59, "arg0": 1, "arg1": 2, "arg2": 3, "pid": 100},
            {"ts": T0 + 4 * MS, "dur": 1234, "nr": 257, "arg0": -100, "arg1": 7, "arg2": 0, "ret": -2, "pid": 100},
            {"ts": T0 + 5 * MS, "dur": 20 * MS, "nr": 56, "arg0": 17, "ret": 200, "pid": 100},
            {"ts": T0 + 6 * MS, "nr": 56, "arg0": 17, "pid": 200, "kind": 4},
            {"ts": T0 + 7 * MS, "nr": 34, "pid": 300, "kind": 3, "dur": MS},
            {"ts": T0 + 8 * MS, "nr": 231, "arg0": 3, "pid": 200, "kind": 1},
            {"ts": T0 + 9 * MS, "dur": 500, "nr": 5, "arg0": 3, "arg1": 16, "ret": 0, "pid": 100, "abi": 2},
        ],
        paths=[
            {"ts": T0 + 1 * MS, "nr": 59, "arg": 0, "value": b"/bin/caf\xc3\xa9", "pid": 100},
            {"ts": T0 + 4 * MS, "nr": 257, "arg": 1, "value": b"bad\xff\x1b", "pid": 100},
            {"ts": T0 + 9 * MS, "nr": 5, "abi": 2, "arg": 0, "value": b"o", "pid": 100},
        ],
        processes=[
            {"ts": T0, "kind": 0, "comm": b"daemon", "pid": 300},
            {"ts": T0 + 2 * MS, "kind": 2, "comm": b"tool", "file": b"/bin/caf\xc3\xa9", "argv": b"tool\0-x\0", "pid": 100, "creator": 100},
            {"ts": T0 + 5 * MS + 1, "kind": 1, "comm": b"tool", "pid": 200, "creator": 100, "clone_flags": 17},
            {"ts": T0 + 8 * MS + 1, "kind": 3, "comm": b"tool", "pid": 200, "exit_code": 3},
        ],
    )


def lines(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert main(["print", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


TEXT = [
    "300    0.000000 read(4, 0x1000, 10 <running at attach>) = 10 <0.005000000>",
    '300    0.000000 +++ running already: "daemon" +++',
    '100    0.001000 execve("/bin/café", ["tool", "-x"], 0x3) = 0 <0.002000000>',
    '100    0.002000 +++ executes "/bin/café" ["tool", "-x"] +++',
    '100    0.004000 openat(AT_FDCWD, "bad\\xff\\x1b", O_RDONLY) = -1 ENOENT (No such file or directory) <0.000001234>',
    "100    0.005000 clone(child_stack=NULL, flags=SIGCHLD)  = 200 <0.020000000>",
    '200    0.005000 +++ process created by 100: "tool" +++',
    "200    0.006000 clone(...)                              = 0 <child>",
    "300    0.007000 pause( <unfinished ...>",
    "200    0.008000 exit_group(3)                           = ?",
    "200    0.008000 +++ exited with 3 +++",
    '100    0.009000 open("o", O_RDONLY|0x10)                = 0 <0.000000500>',
]


def test_calls_and_process_events_stand_in_time_order(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, trace) == TEXT


def test_filters(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, trace, "--syscall", "open,openat") == [TEXT[4], TEXT[11]]
    assert lines(capsys, trace, "--failed") == [TEXT[4]]
    assert lines(capsys, trace, "--min-duration", "5ms") == [TEXT[0], TEXT[5]]
    assert lines(capsys, trace, "--process", "200") == [TEXT[6], TEXT[7], TEXT[9], TEXT[10]]
    assert lines(capsys, trace, "--process", "daemon") == [TEXT[0], TEXT[1], TEXT[8]]
    assert lines(capsys, trace, "--process", "daemon,200") == [TEXT[index] for index in (0, 1, 6, 7, 8, 9, 10)]
    assert lines(capsys, trace, "--thread", "300", "--syscall", "pause") == [TEXT[8]]
    assert lines(capsys, trace, "--between", "4ms,6ms") == TEXT[4:7]
    assert lines(capsys, trace, "--between", ",2ms") == TEXT[:3]
    assert lines(capsys, trace, "--between", "0.008,") == TEXT[9:]
    assert lines(capsys, trace, "--limit", "3") == TEXT[:3]
    assert lines(capsys, trace, "--limit", "0") == []


def test_times(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, trace, "--syscall", "openat", "--time", "mono")[0].split()[1] == "1000.004000000"
    # WALL is 2023-11-14T22:13:20Z.
    assert lines(capsys, trace, "--syscall", "openat", "--time", "wall")[0].split()[1] == "2023-11-14T22:13:20.004000Z"


def test_json_lines_hold_every_stored_value(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in lines(capsys, trace, "--format", "jsonl")]
    assert len(rows) == len(TEXT)
    failed = rows[4]
    assert failed == {
        "event": "call", "ts": T0 + 4 * MS, "time": "0.004000", "dur": 1234, "pid": 100, "tid": 100, "cpu": 0, "seq": 2, "abi": "x86_64", "nr": 257,
        "syscall": "openat", "kind": "returned", "args": [-100, 7, 0, 0, 0, 0], "ret": -2, "errno": "ENOENT",
        "strings": [{"arg": 1, "kind": "path", "value": "bad\\xff\\x1b", "hex": "626164ff1b"}],
        "text": 'openat(AT_FDCWD, "bad\\xff\\x1b", O_RDONLY) = -1 ENOENT (No such file or directory)',
    } | {"seq": failed["seq"]}  # fmt: skip
    exec_event = rows[3]
    assert exec_event["event"] == "exec"
    assert exec_event["argv"] == {"value": "tool\0-x\0"}
    assert exec_event["file"] == {"value": "/bin/café"}
    assert exec_event["comm"] == {"value": "tool"}
    assert rows[-1]["abi"] == "i386"


def test_csv_has_a_column_per_value(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(lines(capsys, trace, "--format", "csv"))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(TEXT)
    assert (rows[4]["event"], rows[4]["errno"], rows[4]["arg0"], rows[4]["ret"]) == ("call", "ENOENT", "-100", "-2")
    assert rows[4]["text"].startswith('openat(AT_FDCWD, "bad\\xff\\x1b"')
    assert (rows[10]["event"], rows[10]["text"], rows[10]["pid"]) == ("exit", "+++ exited with 3 +++", "200")


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_parts_are_read_one_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str], parts: int) -> None:
    calls = [{"ts": T0 + index * 1000, "nr": 39, "pid": 1, "ret": index} for index in range(700)]
    trace = factory.make(tmp_path / "x.trace", parts=parts, syscalls=calls)
    numbers = [int(line.split("=")[1].split()[0]) for line in lines(capsys, trace, "--syscall", "getpid")]
    assert numbers == list(range(700))


def test_late_rows_of_later_parts_come_where_they_were_entered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    from ringtape.schemas.table import tables

    table = tables()["syscalls"]
    folder = factory.make(tmp_path / "x.trace")

    def rows(*offsets: int) -> list[dict[str, object]]:
        empty = {column.name: 0 for column in table.columns}
        return [empty | {"ts": T0 + offset, "nr": 39, "abi": 1, "tid": 1, "ret": offset} for offset in offsets]

    pieces = [(10, 20, 30), (5, 40, 50), (1, 25, 60, 70), (65, 80)]
    sealed = [factory.write_part(folder, table, index, factory.to_arrow(table, rows(*piece))) for index, piece in enumerate(pieces)]
    header = replace(factory.HEADER, tables={name: known.version for name, known in tables().items()})
    factory.write_manifest(folder, [header, *sealed])
    order = [int(line.split("=")[1].split()[0]) for line in lines(capsys, folder)]
    assert order == sorted(number for piece in pieces for number in piece)
    assert lines(capsys, folder, "--between", "0.00000002,0.00000006", "--limit", "2")[0].split("= ")[1].startswith("20 ")


def test_bad_usage_is_one_error_with_a_hint(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in [
        (["--syscall", "opne"], "unknown system call 'opne'"),
        (["--thread", "sh"], "--thread 'sh' is not a thread number"),
        (["--between", "5"], "--between '5' is not FROM,TO"),
        (["--between", "5,4"], "--between '5,4' ends before it begins"),
        (["--min-duration", "soon"], "'soon' is not a duration"),
        (["--limit", "-1"], "--limit -1 is negative"),
    ]:
        assert main(["print", str(trace), *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"ringtape: error: {message}")
        assert "\nhint: " in error
    assert main(["print", str(tmp_path / "none")]) == 1
    assert "no such trace folder" in capsys.readouterr().err


def test_a_damaged_part_is_an_error_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = factory.make(tmp_path / "x.trace", syscalls=[{"nr": 39, "pid": 1}])
    part = trace / "syscalls" / "000000.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    assert main(["print", str(trace)]) == 1
    assert f"{part}: SHA-256" in capsys.readouterr().err


def test_the_words_of_a_script_are_not_passed_off_as_those_of_the_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = factory.make(
        tmp_path / "x.trace",
        syscalls=[{"ts": T0, "dur": 10, "nr": 59, "arg1": 2, "pid": 7}],
        processes=[{"ts": T0 + 5, "kind": 2, "file": b"./run", "argv": b"/bin/sh\0./run\0x\0", "pid": 7, "creator": 7}],
    )
    assert lines(capsys, trace) == [
        "7      0.000000 execve(NULL, 0x2, NULL)                 = 0 <0.000000010>",
        '7      0.000000 +++ executes "./run" ["/bin/sh", "./run", "x"] +++',
    ]


def test_a_trace_without_calls_prints_its_process_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = factory.make(tmp_path / "x.trace", processes=[{"kind": 3, "exit_code": 1, "pid": 7}])
    assert lines(capsys, trace) == ["7      0.000000 +++ exited with 1 +++"]


def test_a_selection_without_a_row_is_said(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["print", str(trace), "--process", "999999"]) == 0
    written = capsys.readouterr()
    assert (written.out, written.err) == ("", f"ringtape: note: {trace}: no row is as selected\n")
    assert main(["print", str(trace), "--limit", "0"]) == 0
    assert capsys.readouterr().err == ""
