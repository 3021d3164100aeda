"""The verbs as a user runs them."""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ringtape import cli
from ringtape.analysis import registry, render, verb
from tests.factory import T0, make

EVIL = b"\x1b[31m<script>alert(1)</script>\n\xff"
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture
def path(folder: Path) -> Path:
    events = [
        {"ts": T0, "pid": 7, "kind": 2, "comm": EVIL[:16], "argv": EVIL + b"\0" + b"x" * 5000 + b"\0", "file": EVIL},
        {"ts": T0 + 9000, "pid": 7, "kind": 3, "comm": EVIL[:16], "group_dead": 1, "exit_signal": 11},
    ]
    calls = [
        {"ts": T0 + at * 10, "nr": at % 3, "pid": 7, "dur": at * at + 2, "ret": -2 if at % 5 == 0 else 0, "lost": at % 11 == 3} for at in range(200)
    ]
    paths = [{"ts": T0, "pid": 7, "nr": 0, "value": EVIL}]
    header = {"command": ["sh", "-c", EVIL.decode("utf-8", "surrogateescape")], "host": {"name": "<b>\x1b[2J", "kernel": "6.18"}}
    return make(folder, processes=events, syscalls=calls, paths=paths, header=header)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", "import sys; from ringtape.cli import main; sys.exit(main())", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_report_holds_every_section_and_no_control_character(path: Path) -> None:
    done = run("report", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not CONTROLS.search(done.stdout)
    for analysis in registry.every().values():
        assert analysis.section not in (True, "small") or analysis.summary in " ".join(done.stdout.split())
    assert "SIGSEGV" in done.stdout
    assert "18 of syscalls" in done.stdout


@pytest.mark.parametrize("width", ["40", "80", "200"])
def test_no_number_is_cut_at_any_width(path: Path, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    done = run("latency", path)
    assert done.returncode == 0
    assert "…" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= int(width)
    monkeypatch.setenv("COLUMNS", "500")
    whole = set(run("latency", path).stdout.split())
    assert whole <= set(done.stdout.split()) | {"─" * length for length in range(600)} | {word for word in whole if set(word) == {"─"}}


def test_the_page_is_one_file_without_network_whose_only_script_is_its_own_and_escapes_the_trace(path: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = run("report", path, "--html", page, "--pictures", tmp_path / "pictures")
    assert done.returncode == 0, done.stderr
    text = page.read_text("utf-8")
    assert not CONTROLS.search(text)
    assert text.count("<script") == 1
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert "&lt;script&gt;" in text
    assert "<b>" not in text
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert 'name="viewport"' in text
    pictures = sorted(file.name for file in (tmp_path / "pictures").iterdir())
    assert {"latency-ccdf.png", "latency-ecdf.png", "latency-heat-map.png", "latency-percentiles.png", "mix.png"} <= set(pictures)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (tmp_path / "pictures").iterdir())


def test_formats_agree(path: Path, tmp_path: Path) -> None:
    rows = json.loads(run("syscall-mix", path, "--format", "json").stdout)
    table = list(csv.DictReader(io.StringIO(run("syscall-mix", path, "--format", "csv").stdout)))
    file = tmp_path / "mix.parquet"
    assert run("syscall-mix", path, "--format", "parquet", "--output", file).returncode == 0
    assert [row["calls"] for row in rows] == [int(row["calls"]) for row in table] == pl.read_parquet(file)["calls"].to_list()
    assert sum(row["calls"] for row in rows) == 200
    markdown = run("syscall-mix", path, "--format", "markdown").stdout.splitlines()
    assert markdown[0].startswith("| syscall | calls |")
    assert len(markdown) == len(rows) + 2


def test_options_may_stand_anywhere_around_the_traces(path: Path, tmp_path: Path) -> None:
    other = path.rename(tmp_path / "a.trace")
    make(tmp_path / "b.trace", syscalls=[{"pid": 9, "dur": 5}])
    expected = run("latency", other, tmp_path / "b.trace", "--by", "process", "--format", "csv").stdout
    assert expected.count("\n") == 3
    for words in (
        ("--by", "process", "--format", "csv", other, tmp_path / "b.trace"),
        (other, "--by", "process", tmp_path / "b.trace", "--format", "csv"),
        ("--by", "process", "--format", "csv", tmp_path),
        ("--by", "process", "--format", "csv", tmp_path / "*.trace"),
    ):
        assert run("latency", *words).stdout == expected
    compared = run("compare", other, "--with", tmp_path / "b.trace", "--format", "csv").stdout
    assert compared
    assert run("compare", "--with", tmp_path / "b.trace", "--format", "csv", other).stdout == compared
    queried = run("sql", tmp_path, "select run, count(*) from syscalls group by run order by run", "--format", "csv").stdout
    assert queried == "run,len\na.trace,182\nb.trace,1\n"


def test_every_analysis_writes_as_many_rows_as_are_asked_for_and_says_so(path: Path, tmp_path: Path) -> None:
    whole = run("latency", path, "--format", "csv").stdout.splitlines()
    done = run("latency", "--top", "2", path, "--format", "csv")
    assert done.stdout.splitlines() == whole[:3]
    assert f"{len(whole) - 3} more rows are left out (--top)" in done.stderr
    assert "left out" not in run("latency", "--top", "50", path).stderr
    make(tmp_path / "b.trace", syscalls=[{"pid": 9, "dur": 5}])
    both = run("latency", path, tmp_path / "b.trace", "--top", "1", "--format", "csv").stdout.splitlines()
    assert [line.split(",")[0] for line in both] == ["run", path.name, "b.trace"]
    refused = run("latency", path, "--top", "-1")
    assert (refused.returncode, refused.stdout) == (cli.USAGE, "")
    assert "--top -1 is negative" in refused.stderr
    for name in registry.names():
        parser = argparse.ArgumentParser()
        verb.add_arguments(parser, name)
        assert "--top " in parser.format_help(), name


def test_parquet_is_refused_on_a_terminal(path: Path) -> None:
    import os
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-c", "import sys; from ringtape.cli import main; sys.exit(main())", "latency", str(path), "--format", "parquet"]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == cli.USAGE
    assert "Parquet is not for terminals" in done.stderr


def test_strict_refuses_a_trace_with_losses_and_the_note_says_so_otherwise(path: Path) -> None:
    strict = run("latency", path, "--strict")
    assert (strict.returncode, strict.stdout) == (1, "")
    assert "18 records of syscalls lost" in strict.stderr
    assert "18 records of syscalls lost" in run("latency", path).stderr


def test_info_tells_command_state_and_sizes_and_its_json_all_of_the_header(path: Path) -> None:
    done = run("info", path)
    assert done.returncode == 0
    assert not CONTROLS.search(done.stdout)
    assert re.search(r"^syscalls +182 +1 ", done.stdout, re.MULTILINE)
    body = json.loads(run("info", path, "--json").stdout)
    assert body["header"]["trace_id"] == "0123456789abcdef"
    assert {row["table"]: row["rows"] for row in body["tables"]}["syscalls"] == 182


def test_verify_exits_with_1_and_one_line_per_problem(path: Path) -> None:
    assert run("verify", path).returncode == 0
    (path / "extra\x1b[2J").write_bytes(b"")
    done = run("verify", path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "extra\\x1b[2J: not named by the manifest"
    assert done.stdout.splitlines()[-1].endswith(": 1 problem")


@pytest.mark.parametrize("verb", ["info", "report", "verify", "latency", "syscall-mix"])
def test_what_is_no_trace_is_one_error_and_no_traceback(verb: str, tmp_path: Path) -> None:
    done = run(verb, tmp_path / "nothing")
    assert done.returncode == 1
    assert "no such trace folder" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_is_one_error(path: Path) -> None:
    for arguments in (
        ("latency", path, "--output", "/nowhere/x"),
        ("report", path, "--html", "/nowhere/x"),
        ("report", path, "--pictures", "/proc/x"),
    ):
        done = run(*arguments)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("hint: name a")
        assert "Traceback" not in done.stderr


def test_a_report_without_system_calls_says_what_it_cannot_tell(folder: Path) -> None:
    path = make(folder, header={"tables": {"processes": "1.0"}}, processes=[{"pid": 3, "kind": 1, "comm": b"x"}])
    done = run("report", path)
    assert done.returncode == 0, done.stderr
    assert "the table syscalls was not recorded (--tables syscalls)" in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", registry.names())
def test_help_of_every_analysis_describes_its_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name.replace("_", "-"), "--help"]) == 0
    text = capsys.readouterr().out
    for column in registry.get(name).columns:
        assert column.name in text


VERBS = ["info", "report", "verify", "print", *(name.replace("_", "-") for name in registry.names())]


@pytest.mark.parametrize("verb", VERBS)
def test_a_closed_output_is_the_callers_wish_and_no_traceback(path: Path, verb: str) -> None:
    program = shlex.join([sys.executable, "-P", "-c", "import sys; from ringtape.cli import main; sys.exit(main())", verb, str(path)])
    done = subprocess.run(["sh", "-c", f"{program} >&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr
    assert subprocess.run(["sh", "-c", f"{program} >&- 2>&-"], check=False).returncode == 0


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    source = "import os, sys\nfrom ringtape.cli import main\nmain(['--version'])\nsys.exit(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT) < 3)"
    command = shlex.join([sys.executable, "-P", "-c", source, str(tmp_path / "part")])
    assert subprocess.run(["sh", "-c", f"{command} <&- >&- 2>&-"], check=False).returncode == 0


@pytest.mark.parametrize("verb", VERBS)
def test_a_reader_that_has_gone_ends_every_verb_as_any_filter(path: Path, verb: str) -> None:
    command = [sys.executable, "-P", "-c", "import sys; from ringtape.cli import main; sys.exit(main())", verb, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        said = running.stderr.read()
    assert running.returncode == 128 + signal.SIGPIPE
    assert "Traceback" not in said
    assert "error" not in said


def test_the_console_leaves_a_broken_pipe_to_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(BrokenPipeError):
        render.console().print("a line")


def test_a_page_says_where_it_is(path: Path, tmp_path: Path) -> None:
    done = run("report", path, "--html", tmp_path / "report.html")
    assert (done.stdout, done.stderr) == ("", f"{tmp_path}/report.html\n")


def test_a_column_twice_is_one_usage_error(path: Path) -> None:
    done = run("syscall-mix", path, "--by", "syscall,syscall")
    assert (done.returncode, done.stderr) == (2, "ringtape: error: by names 'syscall' twice\nhint: name each of them once\n")


def test_verify_of_a_trace_without_parts_says_what_was_checked(folder: Path) -> None:
    done = run("verify", make(folder, end=None))
    assert done.returncode == 0
    assert "note: there is no part: nothing but the manifest was checked" in done.stdout
    assert done.stdout.endswith("0 parts, 0 rows checked: nothing is wrong with the manifest\n")


def test_the_report_of_very_many_calls_leaves_out_what_takes_long_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert cli.main(["report", str(path)]) == 0
    assert "more than" not in capsys.readouterr().out
    monkeypatch.setattr("ringtape.analysis.report.SMALL", 1)
    assert cli.main(["report", str(path)]) == 0
    assert "not told of more than 1 calls, as it takes long: files" in capsys.readouterr().out
