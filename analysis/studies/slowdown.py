"""How much slower workloads are under each tool: ratios within blocks, with intervals over blocks, beside a control."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import polars as pl

from ringtape.analysis.comparison.intervals import LEAST_PAIRS, Estimate, Method, paired
from ringtape.analysis.registry import Result, kind_of_result
from ringtape.analysis.studies.declaration import BASELINE, Workload
from ringtape.analysis.studies.results import Results
from ringtape.schemas.errors import UsageError

Measure = Literal["metric", "wall", "cpu", "user", "system"]
MEASURES: tuple[Measure, ...] = ("metric", "wall", "cpu", "user", "system")
COLUMNS = (
    Result("workload", pl.String, "name of the workload"),
    Result("treatment", pl.String, "name of the treatment; none: the control (A/A), the second run of the baseline against the first"),
    Result("measure", pl.String, "metric: what the workload says of itself; wall; cpu: user and system together; user; system"),
    Result("unit", pl.String, "name of the metric with its unit; ns for times"),
    Result("primary", pl.Boolean, "whether claims and pictures are of this measure: the metric where there is one, else wall"),
    Result("base", pl.Float64, "geometric mean without the tool, in the same blocks"),
    Result("other", pl.Float64, "geometric mean under the tool"),
    Result("slowdown", pl.Float64, "other / base; base / other where higher is better; null: no block has both"),
    Result("low", pl.Float64, "lower end of its interval; null: too few blocks"),
    Result("high", pl.Float64, "upper end"),
    Result("p", pl.Float64, "two-sided p of a slowdown of 1"),
    Result("blocks", pl.Int64, "blocks that have both", "count"),
    Result("missing", pl.Int64, "blocks of the plan that do not: not run, failed, stopped at the time limit, or no metric", "count"),
    Result("disturbed", pl.Int64, "of the blocks, those that outside load disturbed to the last attempt", "count"),
)
KIND = kind_of_result("slowdowns", COLUMNS)
PAIRS = pl.Schema(
    {
        "workload": pl.String,
        "treatment": pl.String,
        "block": pl.Int32,
        "repetition": pl.Int32,
        "position": pl.Int16,
        "disturbed": pl.Int8,
        "base": pl.Float64,
        "other": pl.Float64,
        "ratio": pl.Float64,
    }
)


def primary(workload: Workload) -> Measure:
    """Return what a workload is judged by: its own metric where it has one, else the wall time of its command."""
    return "metric" if workload.metric else "wall"


def observed(results: Results, workload: Workload, measure: Measure) -> pl.DataFrame:
    """Return the runs of a workload that count, with ``value``: the measure as it is, and ``cost``: the same so that more is slower.

    A run without a finite value above 0 is not in it: it has no ratio.
    """
    runs = results.measured().filter(pl.col("workload") == workload.name)
    column = {"cpu": pl.col("user") + pl.col("system")}.get(measure, pl.col(measure)).cast(pl.Float64)
    higher = measure == "metric" and workload.metric is not None and workload.metric.better == "higher"
    kept = runs.with_columns(column.alias("value")).filter(pl.col("value").is_finite() & (pl.col("value") > 0))
    return kept.with_columns((1 / pl.col("value") if higher else pl.col("value")).alias("cost"))


def pairs(results: Results, workload: Workload, measure: Measure | None = None) -> pl.DataFrame:
    """Return one row per block and treatment: the runs that are compared.

    Parameters
    ----------
    results : Results
        What a study left behind.
    workload : Workload
        One of its workloads.
    measure : {"metric", "wall", "cpu", "user", "system"}, optional
        What is compared; the primary measure by default.

    Returns
    -------
    DataFrame
        ``base`` and ``other`` as they were measured, and ``ratio``, above 1 where the tool slows down. The base of a tool is the
        geometric mean of the two runs of the baseline in its block, that of the control (``none``) the first of them.
    """
    rows = observed(results, workload, measure or primary(workload))
    base = rows.filter(pl.col("treatment") == BASELINE)
    keys = ["block"]
    first, second = (base.filter(pl.col("replica") == replica) for replica in (0, 1))
    control = second.join(first.select("block", pl.col("value").alias("base"), pl.col("cost").alias("base_cost")), on=keys)
    means = base.group_by("block").agg(pl.col("value").log().mean().exp().alias("base"), pl.col("cost").log().mean().exp().alias("base_cost"))
    tools = rows.filter(pl.col("treatment") != BASELINE).join(means, on=keys)
    both = pl.concat([control, tools.select(control.columns)])
    return (
        both.with_columns(pl.col("value").alias("other"), (pl.col("cost") / pl.col("base_cost")).alias("ratio"))
        .select(pl.col(name).cast(kind) for name, kind in PAIRS.items())
        .sort("treatment", "block")
    )


def slowdowns(results: Results, *, method: Method = "t", level: float = 0.95) -> pl.DataFrame:
    """Estimate the slowdown of every workload under every treatment.

    Parameters
    ----------
    results : Results
        What a study left behind.
    method : {"t", "rank"}
        ``t``: geometric mean of the ratios, with Student's interval of their logarithms; ``rank``: Hodges-Lehmann estimate, with the
        interval of the exact Wilcoxon test (see `ringtape.analysis.comparison.intervals.paired`).
    level : float
        Confidence level.

    Returns
    -------
    DataFrame
        `COLUMNS`, the same when nothing has been run: one row per workload, treatment and measure, in the order of the study; first
        of each workload the control (``none``).

    Raises
    ------
    UsageError
        If the level is not between 0 and 1.

    Notes
    -----
    A block is one observation: it holds every treatment once, in random order, minutes apart at most, so that a machine that
    drifts moves both sides of a ratio alike. Nothing is left out as an outlier. Runs that failed, were stopped, or were not run
    are counted in ``missing``, and never become numbers. ``tests/analysis/studies/test_reading.py`` simulates studies of known
    slowdown on machines that drift, with skewed noise: the intervals cover as often as they claim.
    """
    checked(level)
    rows = [row for workload in results.study.workloads for row in _of_workload(results, workload, method, level)]
    return pl.DataFrame(rows, schema={column.name: column.dtype for column in COLUMNS})


def checked(level: float) -> float:
    """Return a confidence level.

    Raises
    ------
    UsageError
        If it is none.
    """
    if not 0 < level < 1:
        raise UsageError(f"the level is {level}", "give one between 0 and 1, such as 0.95")
    return level


def estimate(ratios: Sequence[float], method: Method, level: float) -> Estimate:
    """Estimate the ratio behind the ratios of blocks, as the exponential of the centre of their logarithms."""
    found = paired([math.log(ratio) for ratio in ratios], method, level)
    return Estimate(math.exp(found.value), _exp(found.low), _exp(found.high), found.p)


def enough(blocks: int, method: Method) -> bool:
    """Tell whether so many blocks give an interval; by ranks, at 95 %."""
    return blocks >= LEAST_PAIRS[method]


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(min(value, 700.0))


def _of_workload(results: Results, workload: Workload, method: Method, level: float) -> Iterator[Mapping[str, Any]]:
    for measure in MEASURES:
        if measure == "metric" and workload.metric is None:
            continue
        every = pairs(results, workload, measure)
        for treatment in results.study.treatments_of(workload):
            rows = every.filter(pl.col("treatment") == treatment.name)
            row: dict[str, Any] = {
                "workload": workload.name,
                "treatment": treatment.name,
                "measure": measure,
                "unit": workload.metric.name if measure == "metric" and workload.metric else "ns",
                "primary": measure == primary(workload),
                "blocks": len(rows),
                "missing": max(0, results.study.repetitions - len(rows)),
                "disturbed": int(rows["disturbed"].sum()),
            }
            if len(rows):
                found = estimate(rows["ratio"].to_list(), method, level)
                row |= {side: math.exp(float(rows[side].log().mean())) for side in ("base", "other")}  # type: ignore[arg-type]
                row |= {"slowdown": found.value, "low": found.low, "high": found.high, "p": found.p}
            yield row
