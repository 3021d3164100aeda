"""Loading, attaching and giving back again leaves nothing: no descriptor, no memory, no program, no pin."""

import json
import subprocess
import sys
from pathlib import Path

ROUNDS = 100
WITH_EVENTS = 20
"""A classic tracepoint takes the kernel 60 ms to detach: every twentieth round has one."""
PROGRAM = Path(__file__).parent / "programs" / "reload.py"


def test_a_hundred_recordings_of_all_families_in_one_process_leave_nothing():
    # In a process of its own: the heap of the one that ran two thousand tests before grows by what those left scattered in it.
    given = subprocess.run([sys.executable, PROGRAM, str(ROUNDS), str(WITH_EVENTS)], capture_output=True, text=True, timeout=600, check=False)
    assert given.returncode == 0, given.stderr
    rounds = [json.loads(line) for line in given.stdout.splitlines()]
    assert len(rounds) == ROUNDS
    assert {tuple(each["missing"]) for each in rounds} == {()}
    assert {each["descriptors"] for each in rounds[1:]} == {rounds[1]["descriptors"]}
    # What Python itself keeps settles in the first rounds; a map or a program that was left would be 64 KiB each time at least.
    assert rounds[-1]["resident"] - rounds[ROUNDS // 2]["resident"] < (ROUNDS // 2) * (32 << 10)
