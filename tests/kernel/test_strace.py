"""strace of the same program agrees, call by call and in its summary."""

import re
import shutil
import subprocess
from collections import Counter

import pytest

from ringtape.schemas.abi.errors import errno_name
from ringtape.schemas.abi.syscalls import names
from tests.kernel.diary import Diary
from tests.kernel.recording import ENVIRONMENT

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
X86_64 = 1
ERRNO = re.compile(r"= -1 (E[A-Z0-9]+)")


def strace(arguments, output, command, diary):
    subprocess.run(["strace", *arguments, "-o", output, *command], env={**ENVIRONMENT, **diary.env}, check=False, timeout=120, capture_output=True)
    return output.read_text()


def recorded_names(trace):
    known = names("x86_64")
    return [(known.get(call.nr, "?"), call) for call in trace.calls if call.kind != 4 and call.abi == X86_64]


@pytest.mark.parametrize(("program", "mode"), [("calls", "plain"), ("families", "forks"), ("families", "threads"), ("families", "vfork")])
def test_its_summary_counts_the_same_calls_and_errors(record, programs, diary, tmp_path, program, mode):
    command = (programs(program), mode)
    trace = record("--", *command, env=diary.env).trace.check()
    text = strace(["-f", "-c", "-U", "name,calls,errors"], tmp_path / "summary", command, Diary(tmp_path / "again"))
    theirs = {}
    for line in text.splitlines()[2:]:
        words = line.split()
        if words and words[0] not in ("total", "------") and not words[0].startswith("-"):
            theirs[words[0]] = (int(words[1]), int(words[2]) if len(words) > 2 else 0)
    ours = Counter(name for name, _ in recorded_names(trace))
    failed = Counter(name for name, call in recorded_names(trace) if call.ret < 0)
    for gone in ("exit", "exit_group"):  # strace counts what returned
        ours.pop(gone, None)
        theirs.pop(gone, None)
    assert {name: (count, failed[name]) for name, count in ours.items()} == theirs


def test_its_lines_are_the_same_calls_with_the_same_results_in_the_same_order(record, programs, diary, tmp_path):
    command = (programs("calls"), "plain")
    trace = record("--", *command, env=diary.env).trace.check()
    text = strace(["-f", "-e", "raw=all"], tmp_path / "lines", command, Diary(tmp_path / "again"))
    theirs = []
    for line in text.splitlines():
        match = re.match(r"\d+ +(\w+)\((.*)\) += (\?|-?\w+)", line)
        if match:
            error = ERRNO.search(line)
            theirs.append((match[1], error[1] if error else "ok"))
    ours = [(name, errno_name(call.ret) if -4096 < call.ret < 0 else "ok") for name, call in recorded_names(trace)]
    assert ours == theirs


def test_a_real_pipeline_has_the_same_counts(record, tmp_path, diary):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(50):
        (folder / f"{number}").write_bytes(bytes(1000 * number))
    command = ("sh", "-c", f"cd {folder} && for i in 1 2 3 4 5; do cat 1 2 3 | wc -c >/dev/null; /bin/true; done; ls -l >/dev/null")
    trace = record("--", *command).trace.check()
    text = strace(["-f", "-c", "-U", "name,calls,errors"], tmp_path / "summary", command, diary)
    theirs = {words[0]: int(words[1]) for line in text.splitlines()[2:] if len(words := line.split()) > 1 and words[0].isidentifier()}
    ours = Counter(name for name, _ in recorded_names(trace))
    # What depends on timing (how a pipe is filled, whether a signal finds its process waiting) or on the environment is left out.
    for name in ("execve", "clone", "vfork", "pipe", "pipe2", "dup2", "openat", "close", "chdir", "arch_prctl", "set_tid_address", "statfs"):
        assert ours[name] == theirs.get(name, 0), name
    assert ours["exit_group"] == sum(1 for row in trace.rows("processes") if row["kind"] == 3)
