"""Tools run for real on a program that knows its system calls: what each reports of them."""

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
EXACT = ("ringtape", "strace", "strace -c", "perf record", "bpftrace")


@pytest.mark.parametrize("name", [*EXACT, "perf trace", "syscount"])
def test_a_tool_reports_what_a_program_knows_of_itself(name, tmp_path):
    if why := tool(name).missing():
        pytest.skip(why)
    study = Study("test", STUDIES / "accuracy.toml", "", [], [])
    work = Workload("known", (sys.executable, "-I", "-S", "-c", KNOWN), truth=True)
    one = run(study, work, Treatment(name, name, OPTIONS.get(name, ())))
    assert one.end == COMPLETED, one.message
    assert one.truth["getppid"].count == 3500
    known = {call: (tally.count, tally.errors) for call, tally in one.outcome.calls.items() if call in one.truth}
    if name in EXACT:
        assert known == {"getppid": (3500, 0), "rmdir": (200, 200)}
        assert one.outcome.lost == 0
    elif name == "perf trace":
        # It shows a call whose entry it has missed as the end of another one.
        assert 3400 <= known["getppid"][0] <= 3500
        assert known["rmdir"][1] <= 200
    assert one.outcome.events >= 3600
    assert one.outcome.bytes > 0
    assert one.tool > 0
