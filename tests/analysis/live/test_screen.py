"""The screen in a real pseudo-terminal, read back as a person would see it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.analysis.live.pseudo_terminal import RINGTAPE, PseudoTerminal
from tests.factory import T0, make

DATASETS = Path(__file__).parents[3] / "datasets"
FAMILIES = DATASETS / "families.trace"
SECOND = 10**9


@pytest.fixture
def replay() -> Iterator[PseudoTerminal]:
    with PseudoTerminal([*RINGTAPE, "replay", "--speed", "1000", FAMILIES]) as terminal:
        terminal.until("at the end")
        yield terminal


def leave(terminal: PseudoTerminal) -> None:
    terminal.send("q")
    assert terminal.end() == 0
    assert terminal.restored()


def test_eighty_columns_show_header_calls_processes_and_keys(replay: PseudoTerminal) -> None:
    lines = replay.until("python3").splitlines()
    assert len(lines) == 24
    assert "families.trace" in lines[0]
    assert re.match(r"calls 5\.\d+k/s  errors \d+/s  processes 6", lines[1])
    assert lines[2].startswith("lost nothing  recorder ")
    assert lines[3].startswith(" system calls")
    assert lines[4].split() == ["CALL", "CALLS/S▼", "P50", "P99", "ERRORS", "OF", "ALL", "TIME", "CALLS"]
    assert lines[5].split()[0] == "read"
    assert "COMMAND           PID CALLS/S▼   CPU  RUNQ    DISK/S     NET/S    MEMORY  ERRORS" in lines
    assert lines[-1].startswith("q quit  ? help")
    leave(replay)


def test_sizes_change_under_it_from_forty_by_ten_to_two_hundred_by_sixty(replay: PseudoTerminal) -> None:
    replay.resize(40, 10)
    small = replay.until(lambda text: "processes" in text and "\n\n\n\n" not in text.strip())
    assert len(small.splitlines()) == 10
    replay.resize(200, 60)
    large = replay.until(lambda text: "slowest calls" in text and "python3" in text and "q quit" in text)
    assert all(title in large for title in ("system calls", "processes", "connections", "slowest calls"))
    replay.resize(9, 2)
    replay.read(1)
    replay.resize(80, 24)
    replay.until(lambda text: "processes" in text and "q quit" in text)
    leave(replay)


def test_enter_opens_a_process_and_escape_comes_back(replay: PseudoTerminal) -> None:
    replay.send("enter")
    opened = replay.until("only python3 14409")
    assert "files" in opened
    assert "/usr/lib/python3.11" in opened
    replay.send("tab", "tab")
    assert "127.0.0.1:36105" in replay.until("connections")
    replay.send("escape")
    replay.until(lambda text: "only" not in text and "processes 6" in text)
    leave(replay)


def test_a_filter_takes_a_process_or_a_system_call(replay: PseudoTerminal) -> None:
    replay.send("/", "gzip", "enter")
    text = replay.until("only process gzip")
    assert "processes 1 " in text
    replay.send("f", "fsync", "enter")
    replay.until("only process gzip, call fsync")
    replay.send("f", "enter")
    replay.until(lambda text: "only" not in text and "processes 6" in text)
    leave(replay)


def test_keys_sort_and_turn_the_order_round(replay: PseudoTerminal) -> None:
    replay.send("1", "s")
    assert "P50▼" in replay.until("P50▼")
    replay.send("s")
    rows = replay.until("P99▼").splitlines()[5:9]
    assert rows[0].split()[0] in ("poll", "wait4", "futex", "select")
    replay.send("left", "r")
    replay.until("P50▲")
    leave(replay)


def test_help_covers_the_screen_and_goes_away(replay: PseudoTerminal) -> None:
    replay.send("?")
    replay.until("half of the calls, and 99 of 100, took no longer")
    replay.send("escape")
    replay.until("COMMAND")
    leave(replay)


def test_the_clock_is_paused_stepped_set_and_made_faster_by_keys() -> None:
    with PseudoTerminal([*RINGTAPE, "replay", "--from", "5", "--speed", "2", DATASETS / "demo.trace"]) as terminal:
        terminal.until("2x")
        terminal.send(" ")
        terminal.until("paused (2x)")
        terminal.send("g", "9s", "enter")
        before = terminal.until("to 9 s")
        assert re.search(r"over 10.* s: 0 s to 9 s|over 9\.\d* s: 0 s to 9 s", before)
        terminal.send(".")
        terminal.until("to 11 s")
        terminal.send("+")
        terminal.until("paused (5x)")
        terminal.send("n")
        terminal.until(lambda text: "to 11 s" not in text)
        assert "over 10" in terminal.text
        terminal.send("g", "soon", "enter")
        terminal.until("'soon' is not a duration")
        terminal.send(" ")
        terminal.until(lambda text: " 5x" in text)
        leave(terminal)


def test_without_colour_nothing_is_coloured_and_the_cursor_is_still_seen() -> None:
    with PseudoTerminal([*RINGTAPE, "replay", "--speed", "1000", FAMILIES], environment={"NO_COLOR": "1"}) as terminal:
        terminal.until("at the end")
        terminal.until("q quit")
        cells = [cell for row in range(24) for cell in terminal.styles(row)]
        assert {colour for _, colour, _, _ in cells} == {"default"}
        assert any(reverse for _, _, _, reverse in cells)
        leave(terminal)


def test_a_name_that_would_steer_the_terminal_is_shown_as_what_it_is(tmp_path: Path) -> None:
    comm, path = b"\x1b[2J\x1b]0;pwn", b"/tmp/\x1b[31mred\xff"
    trace = make(
        tmp_path / "\x1b[5mname.trace",
        processes=[{"ts": T0, "kind": 2, "pid": 100, "comm": comm}],
        paths=[{"ts": T0 + 1000, "nr": 257, "pid": 100, "arg": 1, "value": path}],
        syscalls=[{"ts": T0 + 1000, "nr": 257, "pid": 100, "dur": 1000, "ret": 3}],
    )
    with PseudoTerminal([*RINGTAPE, "replay", "--speed", "1000", trace]) as terminal:
        terminal.until(lambda text: r"\x1b[2J" in text)
        terminal.send("enter")
        terminal.until(r"/tmp/\x1b[31mred\xff")
        for hostile in (b"\x1b]0;", b"\x1b[31mred", b"\x1b[5m"):
            assert hostile not in terminal.raw
        leave(terminal)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_with_the_terminal_as_it_was(number: int, status: int) -> None:
    with PseudoTerminal([*RINGTAPE, "replay", "--speed", "0.1", FAMILIES]) as terminal:
        terminal.until("q quit")
        os.kill(terminal.process.pid, number)
        assert terminal.end() == status
        assert terminal.restored()


def test_ctrl_c_is_an_end(replay: PseudoTerminal) -> None:
    replay.send("ctrl-c")
    assert replay.end() == 130
    assert replay.restored()


def test_a_terminal_that_is_closed_ends_it(replay: PseudoTerminal) -> None:
    replay.close()
    assert replay.process.wait(60) == 129


def test_stopped_by_ctrl_z_it_gives_the_terminal_back_and_takes_it_again() -> None:
    command = " ".join(f"'{word}'" for word in (*RINGTAPE, "replay", "--speed", "1000", str(FAMILIES)))
    with PseudoTerminal(["bash", "--norc", "-i"], environment={"PS1": "PROMPT "}) as terminal:
        terminal.until("PROMPT")
        terminal.send(f"{command}\r")
        terminal.until("at the end")
        terminal.send("ctrl-z")
        terminal.until("Stopped")
        assert terminal.raw.rfind(b"\x1b[?1049l") > terminal.raw.rfind(b"\x1b[?1049h")
        terminal.send("fg\r")
        terminal.until(lambda text: "q quit" in text and "Stopped" not in text)
        terminal.send("q")
        terminal.until(lambda _: terminal.raw.count(b"\x1b[?1049l") == 2)
        terminal.send("exit\r")
        assert terminal.end() == 0


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """Return a trace whose recorder (this process) holds it, and the lines that it has yet to write."""
    calls = [{"ts": T0 + at * SECOND // 10, "nr": at % 2, "pid": 7, "dur": 5} for at in range(100)]
    names = [{"ts": T0, "kind": 2, "pid": 7, "comm": b"busy"}]
    path = make(tmp_path / "growing.trace", parts=4, syscalls=calls, processes=names)
    manifest = path / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:2]))
    with open(manifest, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield path, lines[2:]


def test_what_is_sealed_appears_and_the_end_is_said(growing: tuple[Path, list[bytes]]) -> None:
    path, rest = growing
    with PseudoTerminal([*RINGTAPE, "top", path]) as terminal:
        terminal.until(lambda text: "live" in text and "read" in text)
        with open(path / "manifest.jsonl", "ab") as file:
            file.write(b"".join(rest))
        terminal.until("the recording has ended")
        terminal.until(lambda text: re.search(r"write .*\b50\b", text) is not None)
        leave(terminal)


def test_a_trace_that_is_deleted_under_the_viewer_is_said(growing: tuple[Path, list[bytes]]) -> None:
    path, _ = growing
    with PseudoTerminal([*RINGTAPE, "top", path]) as terminal:
        terminal.until("live")
        shutil.rmtree(path)
        terminal.until("THE TRACE WAS DELETED")
        leave(terminal)


def test_without_a_terminal_snapshots_are_printed() -> None:
    done = subprocess.run([*RINGTAPE, "top", "--json", FAMILIES], capture_output=True, text=True, timeout=120, check=True)
    (body,) = map(json.loads, done.stdout.splitlines())
    assert body["lost"] == {}
    assert {"syscalls", "processes", "connections", "slowest", "files"} <= body.keys()
    text = subprocess.run([*RINGTAPE, "top", "--once", FAMILIES], capture_output=True, text=True, timeout=120, check=True).stdout
    assert "\x1b" not in text
    assert "slowest calls" in text


def test_replayed_lines_are_those_of_print_and_a_closed_pipe_ends_it() -> None:
    trace = str(DATASETS / "families.trace")
    printed = subprocess.run([*RINGTAPE, "print", trace], capture_output=True, timeout=120, check=True).stdout
    replayed = subprocess.run([*RINGTAPE, "replay", "--print", "--speed", "1000", trace], capture_output=True, timeout=120, check=True)
    assert replayed.stdout == printed
    with subprocess.Popen([*RINGTAPE, "replay", "--print", "--speed", "1000", trace], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as piped:
        assert piped.stdout is not None
        assert piped.stderr is not None
        piped.stdout.readline()
        piped.stdout.close()
        assert piped.stderr.read() == b""
        assert piped.wait(60) == 141


@pytest.mark.parametrize("speed", ["0", "0.01", "1001", "nan", "fast"])
def test_a_speed_out_of_bounds_is_refused(speed: str) -> None:
    done = subprocess.run([*RINGTAPE, "replay", "--speed", speed, FAMILIES], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == f"ringtape: error: --speed '{speed}' is not a speed\nhint: write a number from 0.1 to 1000\n"
