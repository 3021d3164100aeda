"""Tools run for real on a program that knows its system calls: what each reports of them."""

import subprocess
import sys

import pytest

from ringtape.analysis.studies.declaration import Study, Treatment, Workload
from ringtape.analysis.studies.results import COMPLETED
from ringtape.analysis.studies.running import run
from ringtape.analysis.studies.treatments import tool
from tests.kernel.recording import ROOT

STUDIES = ROOT / "datasets" / "studies"
KNOWN = "import json, os\nfor _ in range(3000): os.getppid()\nfor _ in range(200):\n try: os.rmdir('/nonexistent/x')\n except OSError: pass\n"
KNOWN += "if os.fork() == 0:\n for _ in range(500): os.getppid()\n os._exit(0)\nos.wait()\n"
KNOWN += "print(json.dumps({'calls': {'getppid': {'count': 3500}, 'rmdir': {'count': 200, 'errors': 200}}}))"
OPTIONS = {"bpftrace": (str(STUDIES / "programs" / "accuracy.bt"),)}
EXACT = ("ringtape", "strace", "strace -c", "bpftrace")


HERE = [name for name in (*EXACT, "perf record", "perf trace", "syscount") if tool(name).missing() is None]
"""Peers that are not installed, or that this kernel does not run (syscount needs its headers), are no part of these tests."""


@pytest.mark.parametrize("name", HERE)
def test_a_tool_reports_what_a_program_knows_of_itself(name, tmp_path):
    study = Study("test", STUDIES / "accuracy.toml", "", [], [])
    work = Workload("known", (sys.executable, "-I", "-S", "-c", KNOWN), truth=True)
    one = run(study, work, Treatment(name, name, OPTIONS.get(name, ())))
    assert one.end == COMPLETED, one.message
    assert one.truth["getppid"].count == 3500
    known = {call: (tally.count, tally.errors) for call, tally in one.outcome.calls.items() if call in one.truth}
    if name in EXACT:
        assert known == {"getppid": (3500, 0), "rmdir": (200, 200)}
        assert one.outcome.lost == 0
    elif name == "perf record":
        # Its ring may run over, and it does not say of every loss; and its file may hold a record twice.
        assert 0 < known["getppid"][0] <= 3600
        assert known["rmdir"][0] <= 210
    elif name == "perf trace":
        # It may show neither half of a call, or halves out of order as two calls.
        assert 0 < known["getppid"][0] <= 3600
    assert one.outcome.events > 0
    assert one.outcome.bytes > 0
    assert one.tool > 0


if "perf record" in HERE:

    def test_a_ring_that_runs_over_is_in_what_perf_record_says_it_lost(tmp_path):
        """The kernel counts each lost sample in two kinds of record: added together they would say twice as much."""
        record = tool("perf record")
        path = tmp_path / "perf.data"
        code = "import os\nfor _ in range(100_000): os.getpgid(0)"
        line = record.wrap(["-m", "1", "--no-buildid"], path, [sys.executable, "-I", "-S", "-c", code])
        subprocess.run(line, check=True, timeout=120, stdin=subprocess.DEVNULL)
        found = record.outcome(path, True)
        assert found.lost > 0
        # Each call is an entry and an exit; the interpreter makes a few thousand calls besides.
        assert 100_000 <= found.events + found.lost <= 220_000
        assert found.calls["getpgid"].count <= 100_000
