"""A study as it is read: its frames, all of one method and level."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from ringtape.analysis.comparison.intervals import Method
from ringtape.analysis.registry import Analysis, Result, kind_of_result
from ringtape.analysis.studies import accuracy, costs, precision, slowdown, verdicts
from ringtape.analysis.studies.declaration import BASELINE, Treatment, Workload
from ringtape.analysis.studies.results import COMPLETED, FAILED, TIME_LIMIT, TOOL_FAILED, Results
from ringtape.analysis.studies.warnings import WARNINGS, warnings

FAILURES = (
    Result("workload", pl.String, "name of the workload"),
    Result("treatment", pl.String, "name of the treatment"),
    Result("runs", pl.Int64, "runs, of last attempts", "count"),
    Result("failed", pl.Int64, "of these, those in which the command failed", "count"),
    Result("time_limit", pl.Int64, "those stopped at the time limit", "count"),
    Result("tool_failed", pl.Int64, "those in which the tool failed", "count"),
    Result("not_run", pl.Int64, "runs of the plan that were not begun", "count"),
    Result("message", pl.String, "what the first of them said, or why nothing was run"),
)
KINDS: dict[str, Analysis] = {
    "slowdowns": slowdown.KIND,
    "costs": costs.KIND,
    "claims": verdicts.KIND,
    "accuracy": accuracy.KIND,
    "precision": precision.KIND,
    "failures": kind_of_result("failures", FAILURES),
    "warnings": kind_of_result("warnings", WARNINGS),
}
"""The frames of a study by name, and how each is written."""


@dataclass(frozen=True)
class Reading:
    """What a study shows, by one method.

    Parameters
    ----------
    results : Results
        What it left behind.
    method : {"t", "rank"}
        Of the intervals; see `ringtape.analysis.studies.slowdown.slowdowns`.
    level : float
        Their confidence level.
    wanted : float
        Half the width of an interval, as a share of the slowdown, for which `precision` tells the number of blocks.
    """

    results: Results
    method: Method = "t"
    level: float = 0.95
    wanted: float = 0.02

    def frame(self, name: str) -> pl.DataFrame:
        """Return one of the frames that `KINDS` names."""
        found: pl.DataFrame = getattr(self, name)
        return found

    @cached_property
    def slowdowns(self) -> pl.DataFrame:
        """Slowdowns of every workload under every treatment, and the controls."""
        return slowdown.slowdowns(self.results, method=self.method, level=self.level)

    @cached_property
    def costs(self) -> pl.DataFrame:
        """What each tool costs by event, captures, loses and leaves behind."""
        return costs.costs(self.results, method=self.method, level=self.level)

    @cached_property
    def claims(self) -> pl.DataFrame:
        """The claims of the study, with verdicts."""
        return verdicts.claims(self.results, method=self.method, level=self.level)

    @cached_property
    def accuracy(self) -> pl.DataFrame:
        """What tools report, against the truth."""
        return accuracy.accuracy(self.results)

    @cached_property
    def precision(self) -> pl.DataFrame:
        """How many more blocks the intervals need."""
        return precision.precision(self.results, self.wanted, method=self.method, level=self.level)

    @cached_property
    def warnings(self) -> pl.DataFrame:
        """What is to be known before the numbers are believed."""
        return warnings(self.results, self.slowdowns, self.failures, self.method, self.level)

    @cached_property
    def failures(self) -> pl.DataFrame:
        """Workloads and treatments of which runs are missing, and why."""
        runs = self.results.runs.filter(pl.col("repetition") >= 0)
        last = runs.filter(pl.col("attempt") == pl.col("attempt").max().over("block"))
        rows = [self._failures(last, work, one) for work in self.results.study.workloads for one in self.results.study.treatments_of(work)]
        frame = pl.DataFrame(rows, schema={column.name: column.dtype for column in FAILURES})
        return frame.filter(pl.sum_horizontal("failed", "time_limit", "tool_failed", "not_run") > 0)

    def _failures(self, runs: pl.DataFrame, workload: Workload, treatment: Treatment) -> dict[str, Any]:
        own = runs.filter((pl.col("workload") == workload.name) & (pl.col("treatment") == treatment.name))
        planned = self.results.study.repetitions * (2 if treatment.name == BASELINE else 1)
        bad = own.filter(pl.col("end") != COMPLETED)
        ends = {
            name: int((own["end"] == code).sum()) for name, code in (("failed", FAILED), ("time_limit", TIME_LIMIT), ("tool_failed", TOOL_FAILED))
        }
        message = bad["message"][0] if len(bad) else ""
        for session in self.results.environment if len(own) < planned else ():
            for one in session.get("missing") or ():
                if isinstance(one, dict) and one.get("name") in (workload.name, treatment.name):
                    message = message or str(one.get("why") or "")
        not_run = max(0, planned - len(own))
        return {"workload": workload.name, "treatment": treatment.name, "runs": len(own), **ends, "not_run": not_run, "message": message}
