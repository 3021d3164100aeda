"""A recorder that was killed is followed by another version: it recovers what it understands, and refuses the rest."""

import sys
from collections import Counter

import pytest

from tests.kernel.load import Load
from tests.kernel.recording import Trace, check_one_error, check_quiet, ringtape, wait_for

OTHER = """
import sys
from dataclasses import replace
from ringtape.schemas import table as declared
names = dict(declared.tables())
{change}
changed = {{name: names[name] for name in sorted(names)}}
known = declared.tables
known.cache_clear()
declared.tables = lambda: changed
for module in list(sys.modules.values()):
    if getattr(module, "tables", None) is known:
        module.tables = declared.tables
from ringtape.cli import main
del sys.argv[1]
sys.exit(main())
"""
MORE = 'names["a_new_one"] = replace(names["losses"], name="a_new_one")'
NEWER = 'names["paths"] = replace(names["paths"], version="1.99")'
FEWER = 'del names["paths"]'


def version(tmp_path, change):
    """Return words that run the command line of a version that declares other tables."""
    script = tmp_path / "other.py"
    script.write_text(OTHER.format(change=change))
    return [sys.executable, str(script)]


@pytest.fixture
def killed(start, programs, tmp_path):
    """The trace of a recorder that lost records and was killed."""
    with Load(programs("load"), tmp_path / "control") as load:
        recorder = start("--ring-size", "64K", "--", *load.words).wait_until_recording()
        wait_for(lambda: sum(load.returned) > 100_000, "the load has filled its rings")
        recorder.process.kill()
        recorder.process.wait()
        load.stop_and_wait()
    return recorder.path


def test_the_ledger_names_the_tables_as_the_version_that_recorded_did(killed, tmp_path):
    done = ringtape("recover", killed, prefix=version(tmp_path, MORE))
    check_quiet(done)
    assert done.status == 0, done.stderr
    trace = Trace(killed)
    trace.check_books()
    lost = Counter()
    for row in trace.rows("losses"):
        lost[row["table"]] += row["count"]
    assert lost["syscalls"] == trace.footer.lost["syscalls"] > 0
    assert set(lost) <= {"syscalls", "paths", "processes"}
    assert ringtape("verify", killed).status == 0


@pytest.mark.parametrize(("change", "said"), [(NEWER, "this ringtape writes paths@1.99"), (FEWER, "this ringtape has no such table")])
def test_records_of_another_version_are_left_in_their_rings_for_it(killed, tmp_path, change, said):
    manifest = (killed / "manifest.jsonl").read_bytes()
    done = ringtape("recover", killed, prefix=version(tmp_path, change))
    what, hint = check_one_error(done)
    assert done.status == 1
    assert said in what
    assert "recover it with ringtape" in hint
    assert (killed / "manifest.jsonl").read_bytes() == manifest
    assert ringtape("recover", killed).status == 0
    Trace(killed).check_books()
