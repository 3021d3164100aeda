"""The screen beside a real recording: followed, killed, closed, and with the terminal shared."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import ringtape
from tests.analysis.live.pseudo_terminal import RINGTAPE, PseudoTerminal
from tests.kernel.recording import wait_for

BUSY = "i=0; while [ $i -lt {turns} ]; do i=$((i+1)); read line < /etc/hostname; sleep 0.05; done; "


def viewer_of(recorder: int) -> int:
    """Return the process of the viewer that a recorder has started."""

    def found() -> int:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
                parent = int((entry.parent / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, ValueError):
                continue
            if parent == recorder and b"--until-end" in words:
                return int(entry.parent.name)
        return 0

    return int(wait_for(found, "the viewer to start"))


def test_a_recording_shows_itself_and_ends_with_the_command_s_status_and_output(tmp_path: Path) -> None:
    trace = tmp_path / "a.trace"
    script = "echo held back; " + BUSY.format(turns=60) + "exit 7"
    with PseudoTerminal([*RINGTAPE, "record", "--live", "-o", trace, "--", "sh", "-c", script]) as terminal:
        shown = terminal.until(lambda text: "live" in text and re.search(r"^sh .*\d", text, re.MULTILINE) is not None)
        assert "held back" not in shown
        assert "lost nothing" in shown
        assert terminal.end() == 7
        assert terminal.restored()
        closed = terminal.raw.rfind(b"\x1b[?1049l")
        assert terminal.raw.find(b"held back") > closed
        assert terminal.raw.count(b"held back") == 1
    assert ringtape.open(trace).state == "complete"


def test_a_screen_that_is_closed_or_killed_lets_the_recording_go_on(tmp_path: Path) -> None:
    for how in ("q", "kill"):
        trace = tmp_path / f"{how}.trace"
        with PseudoTerminal([*RINGTAPE, "record", "--live", "-o", trace, "--", "sh", "-c", BUSY.format(turns=120) + "exit 3"]) as terminal:
            terminal.until("q quit")
            if how == "q":
                terminal.send("q")
            else:
                os.kill(viewer_of(terminal.process.pid), signal.SIGKILL)
            terminal.until("the recording goes on")
            assert terminal.end() == 3
            assert terminal.restored()
        assert ringtape.open(trace).state == "complete"


def test_ctrl_c_reaches_the_command_once_and_ends_screen_and_recording(tmp_path: Path) -> None:
    trace, told = tmp_path / "c.trace", tmp_path / "told"
    script = f"trap 'echo once >> {told}; exit 5' INT; " + BUSY.format(turns=10_000)
    with PseudoTerminal([*RINGTAPE, "record", "--live", "-o", trace, "--", "sh", "-c", script]) as terminal:
        terminal.until("q quit")
        terminal.send("ctrl-c")
        assert terminal.end() == 5
        assert terminal.restored()
    assert told.read_text() == "once\n"
    assert ringtape.open(trace).state == "complete"


def test_with_all_the_viewer_is_never_recorded(tmp_path: Path) -> None:
    trace = tmp_path / "all.trace"
    with PseudoTerminal([*RINGTAPE, "record", "--live", "--all", "--duration", "4s", "-o", trace]) as terminal:
        viewer = viewer_of(terminal.process.pid)
        terminal.until("q quit")
        assert terminal.end() == 0
    rows = ringtape.open(trace).syscalls.select("pid").unique().collect()["pid"].to_list()
    assert rows
    assert viewer not in rows
    assert terminal.process.pid not in rows


def test_without_a_terminal_a_live_recording_is_refused(tmp_path: Path) -> None:
    import subprocess

    command = [*RINGTAPE, "record", "--live", "-o", str(tmp_path / "x.trace"), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert done.stderr.startswith("ringtape: error: --live needs a terminal as standard input and standard error\nhint: ")
    assert not (tmp_path / "x.trace").exists()


def test_several_viewers_see_a_recorder_that_is_killed(tmp_path: Path) -> None:
    trace = tmp_path / "k.trace"
    with PseudoTerminal([*RINGTAPE, "record", "-o", trace, "--", "sh", "-c", BUSY.format(turns=10_000)]) as recorder:
        wait_for((trace / "manifest.jsonl").exists, "the trace")
        with PseudoTerminal([*RINGTAPE, "top", trace]) as one, PseudoTerminal([*RINGTAPE, "top", trace], 120, 30) as other:
            for viewer in (one, other):
                viewer.until(lambda text: "live" in text and re.search(r"^sh .*\d", text, re.MULTILINE) is not None)
            os.kill(recorder.process.pid, signal.SIGKILL)
            for viewer in (one, other):
                viewer.until("THE RECORDER IS GONE")
                viewer.send("q")
                assert viewer.end() == 0
