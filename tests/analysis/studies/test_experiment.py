"""A study as a whole: order, noise gate, failures, going on after a stop, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from ringtape.analysis.studies import experiment
from ringtape.analysis.studies.experiment import missing, run_study
from ringtape.analysis.studies.noise import Disturbance
from ringtape.analysis.studies.plan import plan
from ringtape.analysis.studies.results import COMPLETED, FAILED, Results
from ringtape.analysis.studies.running import Run
from ringtape.analysis.studies.study_file import parse
from ringtape.analysis.studies.treatments import Outcome, Tally
from ringtape.cli import main
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.studies import CALLS, RUNS

TEXT = """
repetitions = 4
warmups = 1
[workloads.a]
command = "true"
[workloads.b]
command = "true"
[treatments.one]
tool = "command"
options = ["nice", "{command}"]
[treatments.two]
tool = "command"
options = ["nice", "-n", "2", "{command}"]
"""
QUIET = Disturbance(0.01, 0.0, 1.0)
LOUD = Disturbance(0.5, 0.0, 1.0)


def study(tmp_path, text=TEXT):
    return parse(text, tmp_path / "test.toml")


class Machine:
    """Stands for the machine: every run takes 1 s, but for what a test says otherwise by the number of the run."""

    def __init__(self, disturbed=(), failed=(), stop=None, outcome=None):
        self.disturbed, self.failed, self.stop, self.outcome = set(disturbed), failed, stop, outcome or Outcome()
        self.ran = []

    def __call__(self, study, workload, treatment, keep, place):
        assert place.is_dir()
        number = len(self.ran)
        if number == self.stop:
            raise KeyboardInterrupt
        self.ran.append((workload.name, treatment.name))
        end = FAILED if (workload.name, treatment.name) in self.failed else COMPLETED
        if keep:
            keep.write_text("kept")
        one = Run(1_000 + number, end, wall=1_000_000_000, disturbance=LOUD if number in self.disturbed else QUIET, message="no luck" if end else "")
        one.outcome = self.outcome if treatment.name != "none" else Outcome()
        return one


def test_every_block_has_every_treatment_and_the_baseline_twice_in_an_order_that_the_seed_says(tmp_path):
    blocks = plan(study(tmp_path))
    assert [block.number for block in blocks] == list(range(10))
    assert Counter((block.workload, block.repetition) for block in blocks) == {(name, number): 1 for name in "ab" for number in range(-1, 4)}
    for block in blocks:
        if block.repetition < 0:
            assert [(step.treatment, step.replica) for step in block.steps] == [("none", 0)]
        else:
            assert sorted((step.treatment, step.replica) for step in block.steps) == [("none", 0), ("none", 1), ("one", 0), ("two", 0)]
    assert plan(study(tmp_path)) == blocks
    assert plan(study(tmp_path, "seed = 2\n" + TEXT)) != blocks


def test_no_place_in_a_block_belongs_to_a_treatment(tmp_path):
    """Over 400 blocks each of 4 runs is in each of 4 places 100 times, but for chance: chi-squared with 9 degrees of freedom below 40."""
    blocks = [block for block in plan(study(tmp_path, TEXT.replace("repetitions = 4", "repetitions = 200"))) if block.repetition >= 0]
    places = Counter((step, place) for block in blocks for place, step in enumerate(block.steps))
    assert sum((count - 100) ** 2 / 100 for count in places.values()) < 40
    first = Counter(block.workload for block in blocks if block.number % 2 == 0)
    assert abs(first["a"] - first["b"]) < 60


def test_a_study_leaves_its_file_its_runs_its_counts_and_its_machine(tmp_path):
    machine = Machine(outcome=Outcome(10, 1, 100, {"read": Tally(3, 1, 5, 7), "close": Tally(2)}))
    results = run_study(study(tmp_path), tmp_path / "out", runner=machine)
    assert (tmp_path / "out" / "study.toml").read_text() == TEXT
    for table in (RUNS, CALLS):
        assert pq.read_schema(tmp_path / "out" / f"{table.name}.parquet").equals(arrow_schema(table), check_metadata=True)
    runs = results.runs
    assert len(runs) == len(machine.ran) == 2 + 8 * 4
    assert runs["run"].to_list() == list(range(34))
    assert [*zip(runs["workload"], runs["treatment"], strict=True)] == machine.ran
    assert runs.filter(pl.col("treatment") != "none").select("events", "lost", "bytes").unique().rows() == [(10, 1, 100)]
    assert runs.filter(pl.col("treatment") == "none").select("events", "lost", "bytes").unique().rows() == [(None, None, None)]
    calls = results.calls.filter(pl.col("run") == runs.filter(pl.col("treatment") == "one")["run"][0])
    assert calls.select("syscall", "count", "errors", "time", "bytes", "truth").rows() == [("close", 2, None, None, None, 0), ("read", 3, 1, 5, 7, 0)]
    assert len(results.measured()) == 32
    (session,) = results.environment
    assert session["before"]["kernel"] == session["after"]["kernel"] == os.uname().release
    assert set(session["before"]["programs"]) == {"true"}
    again = Machine()
    run_study(study(tmp_path), tmp_path / "out", runner=again)
    assert again.ran == []


@pytest.mark.parametrize("stop", [0, 1, 5, 20, 33])
def test_a_study_that_was_stopped_goes_on_at_its_block_as_it_would_have(tmp_path, stop):
    whole = Machine()
    run_study(study(tmp_path), tmp_path / "whole", runner=whole)
    with pytest.raises(KeyboardInterrupt):
        run_study(study(tmp_path), tmp_path / "out", runner=Machine(stop=stop))
    results = run_study(study(tmp_path), tmp_path / "out", runner=Machine())
    key = ["block", "position", "workload", "treatment", "replica", "attempt"]
    assert results.runs.select(key).equals(Results(tmp_path / "whole").runs.select(key))
    assert len(results.environment) == 2
    assert all(session["after"] for session in results.environment)


def test_a_disturbed_block_is_run_again_and_marked(tmp_path):
    # Runs 0 and 1 are warm-ups; the first block has the runs 2 to 5, its second attempt 6 to 9, its third 10 to 13.
    results = run_study(study(tmp_path), tmp_path / "out", runner=Machine(disturbed={3}))
    runs = results.runs
    assert len(runs) == 38
    assert runs.filter(pl.col("disturbed") == 1)["run"].to_list() == [2, 3, 4, 5]
    assert runs.filter(pl.col("run").is_between(2, 9))["attempt"].to_list() == [0] * 4 + [1] * 4
    assert set(results.measured()["run"]) == set(range(6, 38))
    results = run_study(study(tmp_path), tmp_path / "noisy", runner=Machine(disturbed={3, 7, 11}))
    assert len(results.runs) == 42
    kept = results.measured().filter(pl.col("disturbed") == 1)
    assert kept["run"].to_list() == [10, 11, 12, 13]  # the last attempt counts, and says what it is
    results = run_study(study(tmp_path, TEXT + "[noise]\nretries = 0\n"), tmp_path / "once", runner=Machine(disturbed={3}))
    assert len(results.runs) == 34
    assert results.measured().filter(pl.col("disturbed") == 1)["run"].to_list() == [2, 3, 4, 5]


def test_ticks_alone_disturb_nothing(tmp_path):
    quiet = Disturbance(0.3, 0.0, 0.02)  # two ticks of a run of 30 ms
    assert not quiet.above(study(tmp_path).noise)
    assert Disturbance(0.3, 0.0, 0.2).above(study(tmp_path).noise)
    assert Disturbance(0.0, 0.2, 0.0).above(study(tmp_path).noise)


def test_a_treatment_that_fails_twice_in_a_row_is_given_up(tmp_path):
    results = run_study(study(tmp_path), tmp_path / "out", runner=Machine(failed={("a", "two")}))
    failed = results.runs.filter(pl.col("end") == FAILED)
    assert failed.select("workload", "treatment", "message").rows() == [("a", "two", "no luck")] * 2
    assert len(results.runs.filter(pl.col("workload") == "b", pl.col("treatment") == "two")) == 4
    measured = results.measured()
    assert not len(measured.filter(pl.col("workload") == "a", pl.col("treatment") == "two"))
    assert len(measured.filter(pl.col("workload") == "a", pl.col("treatment") == "one")) == 4


def test_a_workload_that_does_not_work_alone_stops_the_study_and_nothing_is_lost(tmp_path):
    with pytest.raises(RingtapeError, match="the workload b does not work without any tool: no luck"):
        run_study(study(tmp_path), tmp_path / "out", runner=Machine(failed={("b", "none")}))
    assert len(Results(tmp_path / "out").runs)


def test_traces_are_kept_if_asked(tmp_path):
    run_study(study(tmp_path, 'keep = "traces"\n' + TEXT), tmp_path / "out", runner=Machine())
    kept = sorted(path.name for path in (tmp_path / "out" / "traces").iterdir())
    assert len(kept) == 16
    assert kept[0].split("-", 1)[1] in {"a-one", "a-two", "b-one", "b-two"}
    results = run_study(study(tmp_path, 'keep = "nothing"\n' + TEXT), tmp_path / "no", runner=Machine(outcome=Outcome(1, 0, 1, {"read": Tally(1)})))
    assert len(results.calls) == 0
    assert results.runs["bytes"].max() == 1


def test_folders_that_hold_something_else_are_left_alone(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(RingtapeError, match="not empty"):
        run_study(study(tmp_path), tmp_path / "full", runner=Machine())
    run_study(study(tmp_path), tmp_path / "out", runner=Machine())
    with pytest.raises(RingtapeError, match="another study"):
        run_study(study(tmp_path, TEXT + "# changed\n"), tmp_path / "out", runner=Machine())

    def inside(*_):
        with pytest.raises(RingtapeError, match="another process"):
            run_study(study(tmp_path), tmp_path / "locked", runner=Machine())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study(tmp_path), tmp_path / "locked", runner=inside)


def test_what_the_machine_lacks_is_named_and_left_out(tmp_path, capsys):
    text = TEXT + '[workloads.c]\ncommand = "no-such-program"\nsetup = "true"\npackages = "such-package"\n'
    found = missing(study(tmp_path, text))
    assert [(one.kind, one.name, one.why) for one in found] == [("workload", "c", "no-such-program not found; packages: such-package")]
    (tmp_path / "s.toml").write_text(text)
    assert main(["study", "check", str(tmp_path / "s.toml")]) == 1
    out = capsys.readouterr().out
    assert "skip  workload  c                        no-such-program not found; packages: such-package" in out
    assert "15 blocks, 51 runs" in out
    results = run_study(study(tmp_path, text), tmp_path / "out", runner=Machine())
    assert set(results.runs["workload"]) == {"a", "b"}
    assert results.environment[0]["missing"] == [{"kind": "workload", "name": "c", "why": "no-such-program not found; packages: such-package"}]
    (found,) = missing(study(tmp_path, TEXT.replace("[workloads.b]", '[workloads.b]\nuser = "no-such-user"')))
    assert found.why == "the user no-such-user not found"
    with pytest.raises(RingtapeError, match="cpus has 4000"):
        run_study(study(tmp_path, "cpus = [4000]\n" + TEXT), tmp_path / "pinned", runner=Machine())
    with pytest.raises(RingtapeError, match="no workload of the study can be run"):
        run_study(study(tmp_path, '[workloads.c]\ncommand = "no-such-program"\n'), tmp_path / "none", runner=Machine())


def test_damaged_results_are_refused(tmp_path):
    run_study(study(tmp_path), tmp_path / "out", runner=Machine())
    path = tmp_path / "out" / "runs.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RingtapeError, match="damaged"):
        run_study(study(tmp_path), tmp_path / "out", runner=Machine())
    (tmp_path / "out" / "calls.parquet").replace(path)
    with pytest.raises(RingtapeError, match=r"does not have the columns of runs@1\.0"):
        _ = Results(tmp_path / "out").runs
    with pytest.raises(RingtapeError, match="not the result of a study"):
        Results(tmp_path)


REAL = """
repetitions = 3
warmups = 1
[noise]
retries = 0
[workloads.short]
command = ["sleep", "0.05"]
[treatments.nice]
tool = "command"
options = ["nice"]
"""


def test_a_real_study_that_is_killed_again_and_again_is_complete_at_last(tmp_path):
    (tmp_path / "s.toml").write_text(REAL)
    line = [sys.executable, "-c", "import sys; from ringtape.cli import main; sys.exit(main())"]
    line += ["study", "run", "-q", "-o", str(tmp_path / "out"), str(tmp_path / "s.toml")]
    environment = {**os.environ, "PYTHONPATH": str(Path(experiment.__file__).parents[3])}
    places = []
    for seconds in (0.3, 0.6, 0.9, 1.2, None):
        process = subprocess.Popen(line, env=environment, start_new_session=True)
        if seconds is not None:
            time.sleep(seconds)  # whenever that is, it must go on from there
            process.send_signal(signal.SIGKILL)
            process.wait()
            if (tmp_path / "out" / "temporary").exists():
                places.append((tmp_path / "out" / "temporary").read_text())
        assert process.wait() in (0, -signal.SIGKILL)
    runs = Results(tmp_path / "out").runs
    assert runs.select("block", "position").rows() == [(0, 0)] + [(block, place) for block in (1, 2, 3) for place in (0, 1, 2)]
    assert set(runs["end"]) == {COMPLETED}
    assert runs["wall"].min() >= 50_000_000
    assert json.loads((tmp_path / "out" / "environment.json").read_text())[-1]["after"]
    assert not [path for path in places if Path(path).exists()]


def test_no_folder_is_removed_because_a_file_names_it(tmp_path):
    (tmp_path / "ringtape-mine").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_study(study(tmp_path), tmp_path / "out", runner=Machine(stop=3))
    for name in (tmp_path / "ringtape-mine", "/", "", "/tmp"):
        (tmp_path / "out" / "temporary").write_text(str(name))
        with pytest.raises(KeyboardInterrupt):
            run_study(study(tmp_path), tmp_path / "out", runner=Machine(stop=0))
    assert (tmp_path / "ringtape-mine").is_dir()


def test_what_a_study_names_beside_it_goes_with_its_results(tmp_path):
    home = tmp_path / "home"
    (home / "programs").mkdir(parents=True)
    (home / "programs" / "one.sh").write_text("#!/bin/sh\nexit 0\n")
    (home / "programs" / "one.sh").chmod(0o755)
    (home / "secret").write_text("not named")
    text = TEXT.replace('command = "true"', 'command = ["{study}/programs/one.sh", "{study}/missing"]')
    results = run_study(parse(text, home / "s.toml"), tmp_path / "out", runner=Machine())
    copied = results.path / "programs" / "one.sh"
    assert copied.read_text() == "#!/bin/sh\nexit 0\n"
    assert os.access(copied, os.X_OK)
    assert not (results.path / "secret").exists()
    assert results.study.path.parent == results.path  # so that {study} is there as well
    (tmp_path / "other").write_text("x")
    (home / "large").write_bytes(b"\0" * ((16 << 20) + 1))
    for name, said in (("programs/../../other", "outside"), ("large", "16 MiB")):
        text = TEXT.replace('command = "true"', f'command = ["{{study}}/{name}"]')
        with pytest.raises(RingtapeError, match=said):
            run_study(parse(text, home / "s.toml"), tmp_path / f"out-{said}", runner=Machine())
