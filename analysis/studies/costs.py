"""What each tool costs and leaves behind: time per event, events captured and lost, bytes per event, CPU time of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from ringtape.analysis.comparison.intervals import Method, paired
from ringtape.analysis.registry import Result, kind_of_result
from ringtape.analysis.studies.declaration import BASELINE, Treatment, Workload
from ringtape.analysis.studies.results import Results
from ringtape.analysis.studies.slowdown import checked, pairs

COLUMNS = (
    Result("workload", pl.String, "name of the workload"),
    Result("treatment", pl.String, "name of the treatment"),
    Result("blocks", pl.Int64, "blocks that have the tool and the baseline", "count"),
    Result("events", pl.Float64, "events captured in a run, mean; null: the tool does not say", "count"),
    Result("lost", pl.Int64, "events that the tool says it lost, all runs together; null: it does not say", "count"),
    Result("lost_share", pl.Float64, "lost / (captured + lost)", "share"),
    Result("bytes", pl.Float64, "left on disk by a run, mean", "bytes"),
    Result("bytes_per_event", pl.Float64, "bytes / events, mean of the blocks"),
    Result("cost", pl.Float64, "wall time that an event adds, mean of the blocks", "ns"),
    Result("cost_low", pl.Float64, "lower end of its interval", "ns"),
    Result("cost_high", pl.Float64, "upper end", "ns"),
    Result("cpu_cost", pl.Float64, "CPU time of the workload that an event adds, mean of the blocks", "ns"),
    Result("cpu_cost_low", pl.Float64, "lower end of its interval", "ns"),
    Result("cpu_cost_high", pl.Float64, "upper end", "ns"),
    Result("tool_cpu", pl.Float64, "CPU time of the tool itself in a run, start and end included, mean", "ns"),
    Result("tool_cpu_per_event", pl.Float64, "the same by event, mean of the blocks", "ns"),
    Result("memory", pl.Float64, "largest resident set in the workload under the tool, mean", "bytes"),
)
KIND = kind_of_result("costs", COLUMNS)


def per_block(results: Results, workload: Workload) -> pl.DataFrame:
    """Return one row per block and tool, with what each event cost there.

    Returns
    -------
    DataFrame
        ``workload``, ``treatment``, ``block``, ``ratio`` (slowdown), ``events``, ``lost``, ``bytes``, ``tool``, ``memory``, and by
        event, in ns: ``cost``, ``cpu_cost``, ``tool_cpu``; in bytes: ``bytes_per_event``. Null where the tool does not count events.

    Notes
    -----
    The work of a run would have taken wall / slowdown without the tool, so that a workload that runs for a fixed time, and whose
    metric is work per time, is treated as one of fixed work: cost = wall x (1 - 1 / slowdown) / events, which for the wall time as
    measure is (wall under the tool - wall without) / events. The CPU time without the tool is that of the baseline, by work done.
    Events that are handled on several CPUs at once add less to the wall time than to the CPU time.
    """
    compared = pairs(results, workload).filter(pl.col("treatment") != BASELINE).select("workload", "treatment", "block", "ratio")
    runs = results.measured().with_columns((pl.col("user") + pl.col("system")).alias("cpu"))
    base = runs.filter(pl.col("treatment") == BASELINE).group_by("block").agg(pl.col("wall", "cpu").mean().name.suffix("_base"))
    tools = runs.select("treatment", "block", "events", "lost", "bytes", "tool", "memory", "wall", "cpu")
    rows = compared.join(tools, on=["treatment", "block"]).join(base, on="block").sort("treatment", "block")
    events = pl.when(pl.col("events") > 0).then(pl.col("events"))
    work = pl.col("wall") / pl.col("wall_base") / pl.col("ratio")
    return rows.with_columns(
        (pl.col("wall") * (1 - 1 / pl.col("ratio")) / events).alias("cost"),
        ((pl.col("cpu") - pl.col("cpu_base") * work) / events).alias("cpu_cost"),
        (pl.col("bytes") / events).alias("bytes_per_event"),
        (pl.col("tool") / events).alias("tool_cpu"),
    ).drop("wall", "cpu", "wall_base", "cpu_base")


def costs(results: Results, *, method: Method = "t", level: float = 0.95) -> pl.DataFrame:
    """Return what each tool costs each workload by event, and what it captured, lost and left behind.

    Parameters
    ----------
    results : Results
        What a study left behind.
    method : {"t", "rank"}
        Mean with Student's interval, or Hodges-Lehmann with the exact Wilcoxon interval, over blocks.
    level : float
        Confidence level.

    Returns
    -------
    DataFrame
        `COLUMNS`: one row per workload and treatment but the baseline, in the order of the study, also where nothing was run.
    """
    checked(level)
    rows = []
    for workload in results.study.workloads:
        every = per_block(results, workload)
        for treatment in results.study.treatments_of(workload):
            if treatment.name != BASELINE:
                rows.append(_row(every.filter(pl.col("treatment") == treatment.name), workload, treatment, method, level))
    return pl.DataFrame(rows, schema={column.name: column.dtype for column in COLUMNS})


def _row(runs: pl.DataFrame, workload: Workload, treatment: Treatment, method: Method, level: float) -> Mapping[str, Any]:
    row: dict[str, Any] = {"workload": workload.name, "treatment": treatment.name, "blocks": len(runs)}
    for name in ("events", "bytes", "memory", "bytes_per_event"):
        row[name] = runs[name].drop_nulls().mean()
    row["tool_cpu"], row["tool_cpu_per_event"] = runs["tool"].mean(), runs["tool_cpu"].drop_nulls().mean()
    counted = runs.filter(pl.col("lost").is_not_null())
    if len(counted):
        row["lost"] = int(counted["lost"].sum())
        attempted = row["lost"] + int(counted["events"].fill_null(0).sum())
        row["lost_share"] = row["lost"] / attempted if attempted else None
    for name in ("cost", "cpu_cost"):
        if values := runs[name].drop_nulls().to_list():
            found = paired(values, method, level)
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return row
