"""Traces that lie: every number, and every string, of a trace is a result or one error, never a traceback."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringtape import cli
from ringtape.analysis import part_reader, pictures, registry, verification
from ringtape.analysis.runs import open_trace
from ringtape.schemas.errors import TraceError
from ringtape.schemas.manifest import FILE, Probe
from ringtape.schemas.table import table, tables
from tests.factory import T0, make

NUMBERS = (-1, 0, 1 << 31, 1 << 62, (1 << 63) - 1, -(1 << 63), 1e308, -1e308, 0.5)
HEADER = {
    "options": {"min_duration": 3, "ring_size": {"syscalls": 1 << 20}, "target": {"pids": [7]}},
    "rings": {"syscalls": 1 << 20, "paths": 1 << 20},
}


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    calls = [{"ts": T0 + at * 1000, "nr": at % 3, "pid": 7, "cpu": at % 2, "dur": at + 2, "ret": -(at % 3), "lost": at % 7 == 3} for at in range(40)]
    return make(
        tmp_path_factory.mktemp("hostile") / "run.trace",
        header=HEADER,
        syscalls=calls,
        paths=[{"ts": T0, "pid": 7, "nr": 2, "value": b"/etc/passwd"}],
        processes=[{"ts": T0, "pid": 7, "kind": 2, "comm": b"x"}, {"ts": T0 + 10**6, "pid": 7, "kind": 3, "comm": b"x", "group_dead": 1}],
        recorder=[{"ts": T0 + 10**9, "interval": 10**9, "utime": 5, "stime": 6, "rss": 7, "rows": 40}],
    )


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `verify` decode here: a process for each of some hundred traces would take minutes."""
    monkeypatch.setattr(verification, "_decode", lambda folder, parts: [{"file": part.file, **part_reader._read(folder, part)} for part in parts])


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every number inside a JSON value."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*way, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield way


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / FILE).read_text().splitlines()]


def forge(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write the lines with right checksums."""
    previous, text = "", ""
    for line in lines:
        body = {key: value for key, value in line.items() if key != "sum"}
        plain = json.dumps(body, sort_keys=True, separators=(",", ":"))
        previous = hashlib.sha256((previous + plain).encode()).hexdigest()[:16]
        text += json.dumps({**body, "sum": previous}, sort_keys=True, separators=(",", ":")) + "\n"
    (path / FILE).write_text(text)


def study(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Use every verb, and return what was written."""
    for arguments in (("info",), ("info", "--json"), ("verify",), ("report",), ("print", "--time", "wall"), ("print", "--format", "jsonl")):
        assert cli.main([arguments[0], str(path), *arguments[1:]]) in (0, 1)
    written = capsys.readouterr()
    assert "Traceback" not in written.err
    return written.out + written.err


EVIL = "\x1b]0;x\x07\x9b31m\u202e|<b>\n"
STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.fixture
def lying(folder: Path) -> Path:
    """Return a trace with every text column, and every text of the manifest, out to steer the terminal."""
    raw = EVIL.encode()
    calls = [{"ts": T0 + at, "nr": 2, "pid": 7, "ret": -2} for at in range(4)]
    return make(
        folder,
        header={
            "command": [EVIL], "host": {"name": EVIL, "cpus": EVIL}, "options": {EVIL: EVIL}, "tools": {EVIL: EVIL}, "created": EVIL,
            "probes": [Probe(EVIL, False, EVIL)], "journal": EVIL,
        },
        footer={"reason": EVIL},
        syscalls=calls,
        paths=[{"ts": T0, "pid": 7, "nr": 2, "value": raw}, {"ts": T0 + 1, "pid": 7, "nr": 2, "kind": 1, "value": b"\1\0" + raw}],
        processes=[
            {"ts": T0, "pid": 7, "kind": 2, "comm": raw[:15], "file": raw, "argv": raw + b"\0" + raw},
            {"ts": T0 + 9, "pid": 7, "kind": 3, "comm": raw[:15], "group_dead": 1},
        ],
        losses=[{"ts": T0, "count": 1, "cause": 1, "table": EVIL}, {"ts": T0, "count": 1, "cause": 2, "table": "\u202e\\n"}],
    )  # fmt: skip


@pytest.mark.parametrize("form", ["table", "csv", "json", "markdown"])
@pytest.mark.parametrize("name", registry.names())
def test_no_text_of_a_trace_steers_the_terminal_in_any_form(lying: Path, capsys: pytest.CaptureFixture[str], name: str, form: str) -> None:
    assert cli.main([name.replace("_", "-"), str(lying), "--format", form]) == 0
    written = capsys.readouterr()
    assert written.out.strip()
    assert not STEERING.search(written.out + written.err)


def test_no_text_of_a_trace_steers_the_terminal_in_other_verbs(lying: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert cli.main(["report", str(lying), "--html", str(page)]) == 0
    assert not STEERING.search(page.read_text() + study(lying, capsys))
    assert cli.main(["loss", str(lying), "--by", "syscall"]) == 0
    assert cli.main(["print", str(lying), "--format", "csv"]) == 0
    assert not STEERING.search("".join(capsys.readouterr()))


def test_losses_of_a_table_that_the_header_does_not_name_are_a_problem(lying: Path) -> None:
    reasons = {problem.reason for problem in verification.verify(lying).problems}
    assert reasons == {f"losses of {name!r:.60}, a table that the header does not name" for name in (EVIL, "\u202e\\n")}


@pytest.mark.parametrize("name", [EVIL, "", "a/b", "..", "A", "x" * 40])
def test_a_header_with_an_impossible_name_for_a_table_is_refused(lying: Path, name: str) -> None:
    lines = lines_of(lying)
    lines[0]["tables"][name] = "1.0"
    forge(lying, lines)
    with pytest.raises(TraceError, match="is no name for a table"):
        open_trace(lying)


FACTS = {"header": ("host", "options", "rings"), "footer": ("cost", "exit_status", "filtered")}
"""What is shown and not calculated with: these are tried alone by ``info``, and studied all at once."""


def changed(lines: list[dict[str, Any]], ways: Iterable[tuple[Any, ...]], value: Any) -> list[dict[str, Any]]:
    """Return the lines with other numbers in these places."""
    lines = copy.deepcopy(lines)
    for way in ways:
        inside: Any = lines
        for key in way[:-1]:
            inside = inside[key]
        inside[way[-1]] = value
    return lines


def test_every_number_of_a_manifest_may_be_anything(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = lines_of(trace)
    ways = [(at, *way) for at, line in enumerate(good) for way in places(line) if line.get("table", "syscalls") == "syscalls"]
    read = drawn = 0
    for value in NUMBERS:
        facts = []
        for way in ways:
            bad = changed(good, [way], value)
            forge(trace, bad)
            if cli.main(["info", str(trace)]) != 0:
                continue
            read += 1
            if way[1] in FACTS.get(good[way[0]]["type"], ()):
                facts.append(way)
            elif bad != good:
                study(trace, capsys)
            if way[-1] in ("attached_at", "detached_at") and value in (0, 1 << 62):
                drawn += bool(pictures.draw(open_trace(trace)))
        forge(trace, changed(good, facts, value))
        study(trace, capsys)
    forge(trace, good)
    assert read > 50, "most numbers were refused: nothing was tried"
    assert drawn == 4


BITS = {"i8": 7, "i16": 15, "i32": 31, "i64": 63}


@pytest.mark.parametrize("name", tables())
def test_every_number_of_a_row_may_be_the_least_that_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "syscalls": [{"pid": 7, "nr": 2}],
        "processes": [{"pid": 7, "kind": 2}],
        "recorder": [{"interval": 10**9}],
        "losses": [{"table": "syscalls", "cause": 0, "nr": 1, "abi": 1, "count": 2}],
    }
    for column in table(name).columns:
        if column.name == "ts" or column.type not in BITS:  # a manifest with such a time is refused
            continue
        least = {column.name: -(1 << BITS[column.type])}
        seq = {"seq": 0} if table(name).origin == "ring" and column.name != "seq" else {}
        content = {**rows, name: [{**rows.get(name, [{}])[0], **seq, **least}]}
        footer = {"attempted": {}, "lost": {}}
        assert cli.main(["report", str(make(tmp_path / column.name, footer=footer, **content))]) in (0, 1)
        assert cli.main(["print", str(tmp_path / column.name)]) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err
