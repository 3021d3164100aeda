"""How many more blocks would narrow the intervals of a study to a width that is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ringtape.analysis.comparison.intervals import LEAST_PAIRS, Method
from ringtape.analysis.registry import Result, kind_of_result
from ringtape.analysis.studies.results import Results
from ringtape.analysis.studies.slowdown import checked, estimate, pairs
from ringtape.schemas.errors import UsageError

MOST = 1_000_000
EFFICIENCY = 3 / math.pi
"""Asymptotic efficiency of the Wilcoxon interval against Student's, for normal noise (Hodges and Lehmann 1956); for skewed noise it is higher."""
COLUMNS = (
    Result("workload", pl.String, "name of the workload"),
    Result("treatment", pl.String, "name of the treatment; none: the control"),
    Result("blocks", pl.Int64, "blocks that there are", "count"),
    Result("half", pl.Float64, "half the width of the interval, as a share of the slowdown; null: no interval", "share"),
    Result("wanted", pl.Float64, "what was asked for", "share"),
    Result("needed", pl.Int64, "blocks after which it is expected to be reached; null: fewer than two blocks tell nothing", "count"),
    Result("more", pl.Int64, "blocks that are still to be run", "count"),
    Result("time", pl.Int64, "how long they take, all treatments of the workload included", "ns"),
)
KIND = kind_of_result("precision", COLUMNS)


def needed(ratios: Sequence[float], wanted: float, method: Method = "t", level: float = 0.95) -> int | None:
    """Return the number of blocks after which an interval is expected to be no wider than asked for.

    Parameters
    ----------
    ratios : sequence of float
        One per block, as measured.
    wanted : float
        Half the width of the interval, as a share: 0.02 for a slowdown known to 2 % up and down.
    method, level
        Of the interval; see `ringtape.analysis.studies.slowdown.slowdowns`.

    Returns
    -------
    int or None
        None for fewer than two ratios, whose spread is not known.

    Notes
    -----
    The least n with t(n - 1) x s / sqrt(n) <= log(1 + wanted), s being the standard deviation of the log ratios so far (Jain 1991,
    The Art of Computer Systems Performance Analysis, 13.9; with the quantile of n blocks instead of the normal one). For ranks n is
    divided by the efficiency of the Wilcoxon interval, 3 / pi. s is an estimate: after 10 blocks it may be wrong by a third, and n by more.

    Examples
    --------
    >>> needed([1.10, 1.12, 1.08, 1.11, 1.09], wanted=0.005)
    35
    """
    if not 0 < wanted < 10:
        raise UsageError(f"the precision is {wanted}", "give a share above 0, such as 2% or 0.02")
    if len(ratios) < 2:
        return None
    from scipy import stats

    spread, target, least = float(np.std(np.log(ratios), ddof=1)), math.log1p(wanted), LEAST_PAIRS[method]

    def enough(count: int) -> bool:
        return float(stats.t.ppf((1 + level) / 2, count - 1)) * spread / math.sqrt(count) <= target

    low, high = 1, least
    while not enough(high):
        low, high = high, high * 2
        if low >= MOST:
            return MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle > 1 and enough(middle) else (middle, high)
    return max(least, math.ceil(high / EFFICIENCY) if method == "rank" else high)


def precision(results: Results, wanted: float, *, method: Method = "t", level: float = 0.95) -> pl.DataFrame:
    """Return by how much each interval is to be narrowed, and what that takes.

    Parameters
    ----------
    results : Results
        What a study left behind.
    wanted : float
        Half the width of an interval, as a share of the slowdown.
    method, level
        Of the intervals.

    Returns
    -------
    DataFrame
        `COLUMNS`: one row per workload and treatment. See `needed` for the formula and its source.
    """
    checked(level)
    rows: list[Mapping[str, Any]] = []
    took = results.measured().group_by("workload", "block").agg(pl.col("total").sum()).group_by("workload").agg(pl.col("total").mean())
    block = dict(zip(took["workload"], took["total"], strict=True))
    for workload in results.study.workloads:
        every = pairs(results, workload)
        for treatment in results.study.treatments_of(workload):
            ratios = every.filter(pl.col("treatment") == treatment.name)["ratio"].to_list()
            goal = needed(ratios, wanted, method, level)
            more = None if goal is None else max(0, goal - len(ratios))
            row: dict[str, Any] = {"workload": workload.name, "treatment": treatment.name, "blocks": len(ratios), "wanted": wanted}
            found = estimate(ratios, method, level) if ratios else None
            if found and found.low and found.high:
                row["half"] = math.sqrt(found.high / found.low) - 1
                more = 0 if row["half"] <= wanted else max(1, more or 0)
            row |= {"more": more, "needed": None if more is None else len(ratios) + more}
            row["time"] = None if more is None or workload.name not in block else round(more * block[workload.name])
            rows.append(row)
    return pl.DataFrame(rows, schema={column.name: column.dtype for column in COLUMNS})
