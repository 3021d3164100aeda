"""Runs a study block by block into its folder, and goes on where it was stopped."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ringtape.analysis.studies.companions import copy
from ringtape.analysis.studies.declaration import BASELINE, Study, Treatment, Workload
from ringtape.analysis.studies.environment import fingerprint
from ringtape.analysis.studies.plan import Block, Step, plan
from ringtape.analysis.studies.results import COMPLETED, ENVIRONMENT, FILE, TRACES, Results, write
from ringtape.analysis.studies.running import Run
from ringtape.analysis.studies.running import run as run_once
from ringtape.analysis.studies.treatments import tool
from ringtape.schemas.errors import RingtapeError, UsageError
from ringtape.schemas.studies import CALLS, RUNS

GIVE_UP = 2
"""After so many failed runs in a row a treatment is not run any more with that workload."""
_PREFIX = "ringtape-"
Runner = Callable[[Study, Workload, Treatment, Path | None, Path], Run]
PLACE = "temporary"
"""File that names the folder in which runs are made, so that what a killed session left there is removed by the next one."""


class Watcher(Protocol):
    """Is told how far a study has got."""

    def planned(self, blocks: list[Block], done: int) -> None:
        """Begin: these blocks are left, and so many were done before."""

    def step(self, block: Block, step: Step, attempt: int) -> None:
        """Begin a run."""

    def ran(self, block: Block, step: Step, run: Run) -> None:
        """End a run."""

    def block(self, block: Block, repeated: bool) -> None:
        """End a block; ``repeated``: it was disturbed, and is run again."""

    def done(self) -> None:
        """End, also where something went wrong."""


@dataclass(frozen=True)
class Missing:
    """A workload or treatment that cannot be run on this machine."""

    kind: str
    name: str
    why: str


def missing(study: Study) -> list[Missing]:
    """Return what of a study this machine lacks: programs of workloads, and tools of treatments."""
    found: list[Missing] = []
    for workload in study.workloads:
        programs = {line[0] for line in (workload.command, *workload.setup, *workload.teardown, *(server.command for server in workload.servers))}
        absent = sorted(name for name in {*programs, *workload.needs} if "{" not in name and not shutil.which(name))
        if workload.user and not _is_user(workload.user):
            absent.append(f"the user {workload.user}")
        if absent:
            from_where = f"; packages: {workload.packages}" if workload.packages else ""
            found.append(Missing("workload", workload.name, f"{', '.join(absent)} not found{from_where}"))
        elif workload.user and os.geteuid() and pwd.getpwnam(workload.user).pw_uid != os.geteuid():
            found.append(Missing("workload", workload.name, f"only root may run it as {workload.user}"))
    why = {name: tool(name).missing() for name in {one.tool for one in study.treatments}}
    found += [Missing("treatment", one.name, sentence) for one in study.treatments if (sentence := why[one.tool])]
    return found


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def check_cpus(study: Study) -> None:
    """Refuse a study that is pinned to CPUs that this process may not use.

    Raises
    ------
    UsageError
        If there is one.
    """
    if absent := set(study.cpus) - os.sched_getaffinity(0):
        usable = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise UsageError(f"{study.path}: cpus has {', '.join(map(str, sorted(absent)))}", f"the CPUs that can be used here are {usable}")


def run_study(study: Study, folder: Path, watcher: Watcher | None = None, runner: Runner = run_once) -> Results:
    """Run a study, or the rest of it, into a folder.

    Parameters
    ----------
    study : Study
        Workloads and treatments that this machine lacks (`missing`) are left out.
    folder : Path
        Made if it is not there. If it holds this study already, it is gone on with, at the first block that is not complete.
    watcher : Watcher, optional
        Is told of the progress.
    runner : callable
        Runs a workload once under a treatment; `ringtape.analysis.studies.running.run`.

    Raises
    ------
    RingtapeError
        If the folder holds something else, another process runs the study, or a workload does not work without a tool.
    """
    check_cpus(study)
    with _locked(study, folder):
        return _Experiment(study, folder, watcher, runner).run()


@contextmanager
def _locked(study: Study, folder: Path) -> Iterator[None]:
    file = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RingtapeError(f"{folder}: {(error.strerror or str(error)).lower()}", "name a folder that can be made") from None
    if not file.exists():
        if any(folder.iterdir()):
            raise RingtapeError(f"{folder} is not empty, and not the result of a study", "name another folder")
        copy(study, folder)
        new = file.with_suffix(".new")
        new.write_text(study.text, encoding="utf-8")
        new.replace(file)
    elif file.read_text(encoding="utf-8") != study.text:
        raise RingtapeError(
            f"{folder} holds the results of another study, or of this one before {study.path} was changed", "name another folder with -o"
        )
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise RingtapeError(f"another process runs the study in {folder}", "wait until it ends") from None
    try:
        yield
    finally:
        _give(folder)
        os.close(lock)


def _give(folder: Path) -> None:
    """Give the results to whoever called sudo: they are the user's, not root's."""
    if os.geteuid() == 0 and (uid := os.environ.get("SUDO_UID", "")).isdecimal():
        gid = os.environ.get("SUDO_GID", "")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, int(uid), int(gid) if gid.isdecimal() else -1, follow_symlinks=False)


class _Experiment:
    """A session of a study: what it has so far, and what comes to it."""

    def __init__(self, study: Study, folder: Path, watcher: Watcher | None, runner: Runner) -> None:
        self._study, self._folder, self._watcher, self._runner = study, folder, watcher, runner
        self._runs: list[Mapping[str, Any]] = []
        self._calls: list[Mapping[str, Any]] = []
        self._failures: dict[tuple[str, str], int] = {}
        self._place = folder
        self._workloads = {workload.name: workload for workload in study.workloads}
        self._treatments = {treatment.name: treatment for treatment in study.treatments}

    def run(self) -> Results:
        results = Results(self._folder)
        if (self._folder / f"{RUNS.name}.parquet").exists():
            self._runs.extend(results.runs.to_dicts())
            # The calls are written first: what they have of a block whose runs are not there is run again.
            self._calls.extend(row for row in results.calls.to_dicts() if row["run"] < len(self._runs))
        for row in self._runs:
            self._count_failure(row["workload"], row["treatment"], row["end"])
        absent = missing(self._study)
        blocks = [block for block in plan(self._study) if not any(one.kind == "workload" and one.name == block.workload for one in absent)]
        without = {one.name for one in absent if one.kind == "treatment"}
        left = [block for block in blocks if not self._complete(block)]
        if not blocks:
            raise RingtapeError("no workload of the study can be run on this machine", "`ringtape study check` names what is missing")
        if left:
            if self._watcher:
                self._watcher.planned(left, len(blocks) - len(left))
            try:
                self._session(left, without, absent)
            finally:
                if self._watcher:
                    self._watcher.done()
        return Results(self._folder)

    def _session(self, left: Sequence[Block], without: set[str], absent: Sequence[Missing]) -> None:
        path = self._folder / ENVIRONMENT
        sessions = json.loads(path.read_bytes()) if path.exists() else []
        programs = {line[0] for work in self._study.workloads for line in (work.command, *(server.command for server in work.servers))}
        session: dict[str, Any] = {"before": fingerprint(programs), "after": None, "missing": [vars(one) for one in absent]}

        def note() -> None:
            new = path.with_suffix(".new")
            new.write_text(json.dumps([*sessions, session], indent=1), encoding="utf-8")
            new.replace(path)

        note()
        self._place = _place(self._folder)
        try:
            for block in left:
                self._block(block, without)
        finally:
            remove(self._place)
            (self._folder / PLACE).unlink()
            session["after"] = fingerprint(programs)
            note()

    def _complete(self, block: Block) -> bool:
        """Tell whether a block needs no more runs: its last attempt was quiet, or there have been enough."""
        attempts = [row for row in self._runs if row["block"] == block.number]
        last = max((row["attempt"] for row in attempts), default=-1)
        return last >= self._study.noise.retries or (last >= 0 and not any(row["disturbed"] for row in attempts if row["attempt"] == last))

    def _block(self, block: Block, without: set[str]) -> None:
        attempt = 1 + max((row["attempt"] for row in self._runs if row["block"] == block.number), default=-1)
        while True:
            steps = [step for step in block.steps if step.treatment not in without and not self._given_up(block.workload, step.treatment)]
            ran = [(step, self._step(block, step, attempt, len(self._runs) + place)) for place, step in enumerate(steps)]
            disturbed = any(one.disturbance.above(self._study.noise) for _, one in ran)
            self._keep(block, attempt, ran, disturbed)
            again = disturbed and block.repetition >= 0 and attempt < self._study.noise.retries
            if self._watcher:
                self._watcher.block(block, again)
            self._refuse(block, ran)
            if not again:
                return
            attempt += 1

    def _step(self, block: Block, step: Step, attempt: int, number: int) -> Run:
        if self._watcher:
            self._watcher.step(block, step, attempt)
        keep = None
        if self._study.keep == "traces" and step.treatment != BASELINE:
            (self._folder / TRACES).mkdir(exist_ok=True)
            suffix = ".trace" if self._treatments[step.treatment].tool == "ringtape" else ""
            keep = self._folder / TRACES / f"{number:05}-{block.workload}-{step.treatment}{suffix}".replace(" ", "_")
            remove(keep)
        one = self._runner(self._study, self._workloads[block.workload], self._treatments[step.treatment], keep, self._place)
        self._count_failure(block.workload, step.treatment, one.end)
        if self._watcher:
            self._watcher.ran(block, step, one)
        return one

    def _count_failure(self, workload: str, treatment: str, end: int) -> None:
        key = workload, treatment
        self._failures[key] = 0 if end == COMPLETED else self._failures.get(key, 0) + 1

    def _given_up(self, workload: str, treatment: str) -> bool:
        return treatment != BASELINE and self._failures.get((workload, treatment), 0) >= GIVE_UP

    def _refuse(self, block: Block, ran: Sequence[tuple[Step, Run]]) -> None:
        """Stop where the workload itself does not work: everything after it would be in vain."""
        if self._failures.get((block.workload, BASELINE), 0) >= GIVE_UP or (block.repetition < 0 and ran[0][1].end != COMPLETED):
            last = next(one for step, one in reversed(ran) if step.treatment == BASELINE)
            raise RingtapeError(
                f"the workload {block.workload} does not work without any tool: {last.message}",
                "mend it and run the study into another folder; what was run before is kept",
            )

    def _keep(self, block: Block, attempt: int, ran: Sequence[tuple[Step, Run]], disturbed: bool) -> None:
        for position, (step, one) in enumerate(ran):
            number = len(self._runs)
            self._runs.append(_row(block, step, attempt, position, number, one, disturbed))
            if self._study.keep != "nothing":
                for truth, calls in ((0, one.outcome.calls), (1, one.truth)):
                    rows = ({"ts": one.started, "run": number, "truth": truth, "syscall": name, **vars(tally)} for name, tally in calls.items())
                    self._calls.extend(rows)
        write(self._folder / f"{CALLS.name}.parquet", CALLS, self._calls)
        write(self._folder / f"{RUNS.name}.parquet", RUNS, self._runs)


def _place(folder: Path) -> Path:
    """Make the folder for the runs of a session, and remove that of the session before, if it was killed."""
    file = folder / PLACE
    if file.exists():
        last = Path(file.read_text(encoding="utf-8"))
        # The file may come from anyone: only what this would have made, and is ours, is removed.
        if last.parent == Path(tempfile.gettempdir()) and last.name.startswith(_PREFIX) and last.is_dir() and last.lstat().st_uid == os.geteuid():
            remove(last)
    place = Path(tempfile.mkdtemp(prefix=_PREFIX))
    place.chmod(0o711)
    file.write_text(str(place), encoding="utf-8")
    return place


def remove(path: Path) -> None:
    """Remove what a run left that was interrupted, if anything."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _row(block: Block, step: Step, attempt: int, position: int, number: int, one: Run, disturbed: bool) -> dict[str, Any]:
    return {
        "ts": one.started,
        **{name: getattr(one, name) for name in ("wall", "total", "user", "system", "tool", "memory", "metric", "load", "status", "end", "message")},
        **{name: getattr(one.outcome, name) for name in ("events", "lost", "bytes")},
        "outside": one.disturbance.outside,
        "steal": one.disturbance.steal,
        "run": number,
        "block": block.number,
        "repetition": block.repetition,
        "attempt": attempt,
        "position": position,
        "replica": step.replica,
        "disturbed": int(disturbed),
        "workload": block.workload,
        "treatment": step.treatment,
    }
