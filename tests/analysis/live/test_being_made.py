"""A recording that is looked at the moment it is started, and one snapshot of one that has ended."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ringtape
from ringtape import datasets
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.analysis.live import watcher


def test_a_folder_that_is_still_empty_is_waited_for(tmp_path):
    folder = tmp_path / "new.trace"
    folder.mkdir()
    timer = threading.Timer(0.3, shutil.copy, (datasets.path("git") / "manifest.jsonl", folder))
    timer.start()
    assert watcher.being_made(folder).header.command == ["sh", "git.sh"]
    timer.join()


def test_a_folder_that_stays_empty_or_holds_something_else_is_no_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "START", 0.1)
    with pytest.raises(ringtape.RingtapeError, match="no trace folder"):
        watcher.being_made(tmp_path)
    monkeypatch.setattr(watcher, "START", 3600)
    (tmp_path / "letter").write_text("dear reader\n")
    with pytest.raises(ringtape.RingtapeError, match="no trace folder"):
        watcher.being_made(tmp_path)


def test_one_snapshot_of_a_finished_recording_is_of_its_last_window():
    command = [Path(sys.executable).with_name("ringtape"), "replay", datasets.path("git"), "--once", "--json"]
    shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    trace = datasets.load("git")
    children = int(syscall_mix(trace)["children"].sum())
    assert shown["calls"] == trace.rows("syscalls") - children > 15_000, "shorter than the window, so all of it; a child of clone made no call"
    assert shown["until"] == trace.footer.detached_at
