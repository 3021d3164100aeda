"""What each tool reports of system calls, against what the workload knows of itself: equal, differs by how much, not reported."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from ringtape.analysis.registry import Result, kind_of_result
from ringtape.analysis.studies.declaration import BASELINE, Treatment, Workload
from ringtape.analysis.studies.results import Results
from ringtape.analysis.studies.treatments import tools

QUANTITIES = ("count", "errors", "time", "bytes")
EXACT = ("count", "errors", "bytes")
"""What a tool can report exactly; a time that is measured in the kernel is never just the one that is measured around the call."""
EQUAL, DIFFERS, NOT_REPORTED, NOT_RUN = "equal", "differs", "not reported", "not run"
COLUMNS = (
    Result("workload", pl.String, "name of the workload, which knows the truth"),
    Result("syscall", pl.String, "system call"),
    Result("quantity", pl.String, "count, errors, time (ns) or bytes"),
    Result("treatment", pl.String, "name of the treatment"),
    Result("truth", pl.Float64, "what the workload says, mean of the runs"),
    Result("reported", pl.Float64, "what the tool says, mean of the same runs; null: it does not say"),
    Result("difference", pl.Float64, "reported / truth - 1, mean of the runs; null: not reported, or of a truth of 0", "share"),
    Result("least", pl.Float64, "the same in the run in which it is least", "share"),
    Result("most", pl.Float64, "the same in the run in which it is most", "share"),
    Result("runs", pl.Int64, "runs that have both, or of which the tool tells nothing", "count"),
    Result("equal", pl.Int64, "runs in which both are equal to the last unit", "count"),
    Result("stable", pl.Boolean, "whether the tool is off by the same amount in every run; null: fewer than two runs, or not reported"),
    Result("verdict", pl.String, "equal; differs; not reported; not run"),
    Result("why", pl.String, "what is known of the tool that explains a difference; empty if nothing"),
)
KIND = kind_of_result("accuracy", COLUMNS)


def accuracy(results: Results) -> pl.DataFrame:
    """Compare what tools report with what workloads know of themselves.

    Parameters
    ----------
    results : Results
        What a study left behind.

    Returns
    -------
    DataFrame
        `COLUMNS`: one row per workload that knows the truth, system call, quantity that it knows, and treatment; empty if there is
        no such workload.

    Notes
    -----
    The truth is that of the very run, and where the run told none, that of the baseline in its block. A tool that reports calls,
    but not this one, reports none of it; a tool that reports no calls of a run at all does not report.
    """
    runs, calls = results.measured(), results.calls
    # A run that says of a system call twice is taken at its first word: the row would stand for two calls.
    calls = calls.unique(["run", "truth", "syscall"], keep="first", maintain_order=True)
    rows: list[Mapping[str, Any]] = []
    for workload in results.study.workloads:
        own = runs.filter(pl.col("workload") == workload.name)
        truth = calls.filter(pl.col("truth") == 1).join(own.select("run", "block", "treatment", "replica"), on="run")
        if not len(truth):
            continue
        for treatment in results.study.treatments_of(workload):
            if treatment.name != BASELINE:
                these = own.filter(pl.col("treatment") == treatment.name)
                rows += _of_treatment(workload, treatment, truth, these, calls.filter(pl.col("truth") == 0))
    frame = pl.DataFrame(rows, schema={column.name: column.dtype for column in COLUMNS})
    orders = (
        {one.name: at for at, one in enumerate(results.study.workloads)},
        {name: at for at, name in enumerate(QUANTITIES)},
        {one.name: at for at, one in enumerate(results.study.treatments)},
    )
    keys = [
        pl.col(name).replace_strict(order, return_dtype=pl.Int64, default=None)
        for name, order in zip(("workload", "quantity", "treatment"), orders, strict=True)
    ]
    return frame.sort(keys[0], "syscall", keys[1], keys[2])


def known_truth(truth: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Return the truth by run: its own, or that of the first baseline of its block."""
    own = truth.join(runs.select("run"), on="run", how="semi").select("run", "syscall", *QUANTITIES)
    without = runs.join(own.select("run"), on="run", how="anti").select("run", "block")
    base = truth.filter((pl.col("treatment") == BASELINE) & (pl.col("replica") == 0)).select("block", "syscall", *QUANTITIES)
    return pl.concat([own, without.join(base, on="block").select(own.columns)])


def _of_treatment(
    workload: Workload, treatment: Treatment, truth: pl.DataFrame, runs: pl.DataFrame, said: pl.DataFrame
) -> Iterator[Mapping[str, Any]]:
    known = known_truth(truth, runs)
    told = said.join(runs.select("run"), on="run", how="semi")
    both = known.join(told.select("run", "syscall", *QUANTITIES), on=["run", "syscall"], how="left", suffix="_said", maintain_order="left")
    # A tool that tells of a quantity of some calls, and not of this call, says 0 of it.
    tells = told.group_by("run").agg([pl.col(name).is_not_null().any().alias(f"{name}_tells") for name in QUANTITIES])
    listed = told.select("run", "syscall").with_columns(pl.lit(True).alias("listed"))
    both = both.join(tells, on="run", how="left").join(listed, on=["run", "syscall"], how="left")
    for name in QUANTITIES:
        silent = pl.col("listed").is_null() & pl.col(f"{name}_tells").fill_null(False)
        both = both.with_columns(pl.when(silent).then(pl.lit(0, pl.Int64)).otherwise(pl.col(f"{name}_said")).alias(f"{name}_said"))
    calls = truth["syscall"].unique().sort().to_list()
    for syscall in calls:
        rows = both.filter(pl.col("syscall") == syscall)
        for quantity in QUANTITIES:
            if truth.filter(pl.col("syscall") == syscall)[quantity].null_count() < len(truth.filter(pl.col("syscall") == syscall)):
                pairs = rows.select(pl.col(quantity).alias("truth"), pl.col(f"{quantity}_said").alias("said")).filter(pl.col("truth").is_not_null())
                row = {"workload": workload.name, "syscall": syscall, "quantity": quantity, "treatment": treatment.name}
                yield row | _compared(pairs, treatment, quantity)


def _compared(pairs: pl.DataFrame, treatment: Treatment, quantity: str) -> dict[str, Any]:
    truth = [int(value) for value in pairs["truth"]]
    found: dict[str, Any] = {"runs": len(pairs), "equal": 0, "why": "", "truth": math.fsum(truth) / len(truth) if truth else None}
    reported = [(true, said) for true, said in zip(truth, pairs["said"], strict=True) if said is not None]
    if not reported:
        return found | {"verdict": NOT_REPORTED if truth else NOT_RUN}
    apart = [said - true for true, said in reported]
    equal = sum(not difference for difference in apart)
    relative = [difference / true for (true, _), difference in zip(reported, apart, strict=True) if true]
    found |= {"runs": len(reported), "equal": equal, "reported": math.fsum(said for _, said in reported) / len(reported)}
    found["truth"] = math.fsum(true for true, _ in reported) / len(reported)
    found["stable"] = len(set(apart)) == 1 if len(apart) > 1 else None
    found["verdict"] = EQUAL if equal == len(apart) else DIFFERS
    if relative:
        found |= {"difference": math.fsum(relative) / len(relative), "least": min(relative), "most": max(relative)}
    if found["verdict"] == DIFFERS:
        found["why"] = why(treatment.tool, quantity, math.fsum(apart) / len(apart))
    return found


def why(tool: str, quantity: str, difference: float) -> str:
    """Return what is known of a tool that explains why it is off, in one sentence; nothing if nothing is known.

    Parameters
    ----------
    tool : str
        Name of the tool; its declaration says what is known.
    quantity : {"count", "errors", "time", "bytes"}
        What it reports.
    difference : float
        By how much it reports more than the truth; below 0: less.
    """
    known = tools().get(tool)
    return (known.known_limits(quantity, difference) or "") if known else ""
