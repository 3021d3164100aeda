"""Run a study, or the rest of it, and print its report.

The results are a folder: the study file, runs.parquet, calls.parquet, environment.json. A study that was stopped, by Ctrl-C, a kill
or a reboot, goes on at the block where it stopped when it is run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringtape.analysis.studies.plan import Block, Step
    from ringtape.analysis.studies.running import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="study file")
    parser.add_argument("-o", "--output", metavar="FOLDER", type=Path, help="folder of the results (default: the study's name with .study)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no report")


def run(args: argparse.Namespace) -> int:
    """Run it; 0 if every run of it ended well, 1 if not."""
    from ringtape.analysis.studies.experiment import missing, run_study
    from ringtape.analysis.studies.results import COMPLETED
    from ringtape.analysis.studies.study_file import read
    from ringtape.schemas.escape import escape

    study = read(args.file)
    folder = args.output or Path(f"{study.name.replace(' ', '_')}.study")
    if not args.quiet:
        for one in missing(study):
            print(f"ringtape: note: without the {one.kind} {escape(one.name)}: {escape(one.why)}", file=sys.stderr)
    results = run_study(study, folder, None if args.quiet else Progress())
    failed = results.runs.filter(results.runs["end"] != COMPLETED)
    if not args.quiet:
        from ringtape.analysis.studies import forms, report
        from ringtape.analysis.studies.reading import Reading

        forms.show(report.make(Reading(results)))
        print(f"\n{escape(str(folder))}: `ringtape study report {escape(str(folder))} --help` says in what other forms.")
    return 1 if len(failed) else 0


class Progress:
    """Shows on standard error how far a study has got: a bar where that is a terminal, a line per block elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True, highlight=False)
        self._bar = Bar(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._durations: dict[str, list[float]] = {}
        self._waiting: dict[str, int] = {}
        self._began = 0.0

    def planned(self, blocks: list[Block], done: int) -> None:
        """Begin."""
        if done:
            self._console.print(f"{done} of {len(blocks) + done} blocks were run before", markup=False)
        for block in blocks:
            self._waiting[block.workload] = self._waiting.get(block.workload, 0) + len(block.steps)
        self._bar.start()
        self._task = self._bar.add_task("", total=len(blocks) + done, completed=done, left="")

    def step(self, block: Block, step: Step, attempt: int) -> None:
        """Say what runs."""
        again = f", attempt {attempt + 1}" if attempt else ""
        self._began = self._began or time.monotonic()
        self._bar.update(self._task, description=f"{block.workload} under {step.treatment}{again}")

    def ran(self, block: Block, step: Step, run: Run) -> None:
        """Say what failed."""
        from ringtape.schemas.escape import escape

        if run.end:
            self._console.print(f"{block.workload} under {step.treatment}: {escape(run.message)}", markup=False)

    def block(self, block: Block, repeated: bool) -> None:
        """Count, and tell how long the rest takes: as long for each run as those of its workload so far."""
        self._durations.setdefault(block.workload, []).append((time.monotonic() - self._began) / len(block.steps))
        self._began = 0.0
        if repeated:
            self._console.print(f"{block.workload}: disturbed by other load, is run again", markup=False)
            return
        self._waiting[block.workload] -= len(block.steps)
        self._bar.update(self._task, advance=1, left=self._left())
        if not self._console.is_terminal:
            said = f"{block.workload}, block {block.repetition + 1 if block.repetition >= 0 else 'of warm-up'}; {self._left()}"
            self._console.print(said, markup=False)

    def done(self) -> None:
        """End."""
        self._bar.stop()

    def _left(self) -> str:
        means = {name: sum(times) / len(times) for name, times in self._durations.items()}
        usual = sum(means.values()) / len(means)
        seconds = round(sum(count * means.get(name, usual) for name, count in self._waiting.items()))
        return f"{seconds // 60}:{seconds % 60:02} left"
