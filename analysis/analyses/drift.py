"""Whether latency drifts over the recording, and whether it stalls at regular intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl

from ringtape.analysis.grouping import GROUPS, By, Grouping
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.series import period, trend
from ringtape.analysis.trace import Trace
from ringtape.analysis.windowed import quantiles_by_window, window_edges, window_of

STEPS = 1 << 14
"""Steps of the grid on which periods are sought."""
LEVEL = 0.01
_SLOW = {"p50": Fraction(1, 2), "p90": Fraction(9, 10)}


COLUMNS = (
    Result("calls", pl.Int64, "calls that returned and were recorded", "count"),
    Result("windows", pl.Int64, "of 60 windows, those in which a call returned and the median is known", "count"),
    Result("p50_first", pl.Int64, "median of the medians of the first third of these windows", "ns"),
    Result("p50_last", pl.Int64, "median of the medians of the last third", "ns"),
    Result("change", pl.Float64, "change of the median of a window over the recording, relative to the middle one; null with too few windows"),
    Result("p_drift", pl.Float64, "probability of a trend as clear by chance (Mann-Kendall); null with too few windows"),
    Result("drift", pl.String, "rises or falls (p below 0.01), none shown, or too few windows (fewer than 10)"),
    Result("slow", pl.Int64, "calls that took at least as long as p90, and as four times p50", "count"),
    Result("stalls", pl.Int64, "times at which such calls returned one soon after the other, taken as one", "count"),
    Result("period", pl.Float64, "time after which stalls come back; null if no period is shown", "ns"),
    Result("strength", pl.Float64, "how well they keep to it: 0 not at all, 1 exactly"),
    Result("p_period", pl.Float64, "probability of a period as clear by chance"),
    Result("stalling", pl.String, "periodic (p below 0.01), none shown, or too few stalls (fewer than 6)"),
)


@analysis(
    section="page",
    tables=("syscalls",),
    groups=GROUPS,
    columns=COLUMNS,
)
def drift(trace: Trace, *, by: By | Sequence[By] = "syscall", syscall: str | None = None) -> pl.DataFrame:
    """Tell whether latency drifts, and whether it stalls at regular intervals.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"syscall", "process", "thread", "command"} or several of them
        What to tell apart.
    syscall : str, optional
        Only calls of this name.

    Returns
    -------
    DataFrame
        One row per group, most calls first: the trend of the medians of 60 windows, and the period of stalls.

    Raises
    ------
    UsageError
        If ``by`` is not one of these, or no ABI has a call of that name.

    Notes
    -----
    The trend is that of Theil and Sen, its test that of Mann and Kendall, corrected for neighbours that resemble one another (Hamed and Rao
    1998). It looks at the medians of windows, so that a call more or less in a window does not matter; a drift of the tail alone
    shows in the analysis ``windows``.

    A stall is a time at which slow calls returned, on a grid of 16,384 steps; those in steps side by side are one. Periods
    from 16 steps to a third of the recording are sought by the power of the point process (Bartlett 1963) against chance in two ways: as if
    stalls came at any time, and as if any of the calls had stalled; the larger probability counts. Tests are many where groups are: of a
    hundred groups without any drift one is below 0.01.

    Lost calls are not in it; a window whose median they leave open does not count.

    Examples
    --------
    >>> from ringtape.analysis.analyses.drift import drift
    >>> drift(getfixture("example_trace")).select("syscall", "calls", "drift", "stalling").rows()
    [('read', 3, 'too few windows', 'too few stalls'), ('openat', 2, 'too few windows', 'too few stalls')]
    """
    grouping = Grouping.of(trace, by)
    keys = grouping.keys
    edges = window_edges(trace)
    medians = quantiles_by_window(trace, grouping, edges, {"p50": Fraction(1, 2)}, syscall).sort(*keys, "window")
    groups = medians.group_by(keys, maintain_order=True).agg(
        pl.col("calls").sum(),
        pl.col("window").filter(pl.col("p50").is_not_null()).alias("places"),
        pl.col("p50").drop_nulls().alias("values"),
    )
    stalls = _stalls(trace, grouping, edges, syscall)
    rows = []
    for group in groups.iter_rows(named=True):
        found = stalls.get(tuple(group[key] for key in keys))
        rows.append({**{key: group[key] for key in keys}, "calls": group["calls"], **_trend(group), **_period(found, edges)})
    schema = {**groups.select(keys).schema, **{column.name: column.dtype for column in COLUMNS}}
    order = list(grouping.by)
    return grouping.named(pl.DataFrame(rows, schema=schema)).sort("calls", *order, descending=[True, *(False for _ in order)], nulls_last=True)


def _trend(group: dict[str, Any]) -> dict[str, Any]:
    places, values = np.asarray(group["places"], np.float64), np.asarray(group["values"], np.float64)
    third = max(1, len(values) // 3)
    first, last = (int(np.median(part)) if len(part) else None for part in (values[:third], values[-third:]))
    row: dict[str, Any] = {"windows": len(values), "p50_first": first, "p50_last": last, "change": None, "p_drift": None, "drift": "too few windows"}
    found = trend(places, values)
    if found is not None:
        middle = float(np.median(values))
        change = found.slope * (places[-1] - places[0]) / middle if middle else 0.0
        shown = "none shown" if found.p >= LEVEL or not found.slope else "rises" if found.slope > 0 else "falls"
        row |= {"change": change, "p_drift": found.p, "drift": shown}
    return row


def _period(found: pl.DataFrame | None, edges: list[int]) -> dict[str, Any]:
    row: dict[str, Any] = {"slow": 0, "stalls": 0, "period": None, "strength": None, "p_period": None, "stalling": "too few stalls"}
    if found is None or not int(found["slow"].sum()):
        return row
    steps = found.filter(pl.col("slow") > 0)["step"].to_numpy()
    begins = steps[np.diff(steps, prepend=-2) > 1]
    calls = np.zeros(STEPS, np.int64)
    calls[found["step"].to_numpy()] = found["calls"].to_numpy()
    row |= {"slow": int(found["slow"].sum()), "stalls": len(begins)}
    best = period(begins, calls)
    if len(begins) >= 6:
        row["stalling"] = "none shown" if best is None or best.p >= LEVEL else "periodic"
    if best is not None and best.p < LEVEL:
        row |= {"period": best.length * (edges[-1] - edges[0]) / STEPS, "strength": best.strength, "p_period": best.p}
    return row


def _stalls(trace: Trace, grouping: Grouping, edges: list[int], syscall: str | None) -> dict[tuple[Any, ...], pl.DataFrame]:
    """Return, by group, the steps of the grid in which calls returned: how many, and how many slow ones."""
    keys = grouping.keys
    whole = quantiles_by_window(trace, grouping, [edges[0], edges[-1]], _SLOW, syscall)
    # Where the quantiles are intervals, the least that a slow call can have taken.
    threshold = whole.select(*keys, pl.max_horizontal("p90_low", 4 * pl.col("p50_low").fill_null(0)).clip(1).alias("threshold"))
    everything = trace.scan("syscalls").filter(pl.col("kind") == 0)
    if syscall is not None:
        everything = everything.filter(grouping.is_call(syscall))
    span = edges[-1] - edges[0]
    grid = [edges[0] + span * at // STEPS for at in range(STEPS + 1)]
    step = window_of(grid, pl.col("ts") + pl.col("dur")).alias("step")
    calls = grouping.rows(everything).select(*keys, step, "dur").join(threshold.lazy(), on=keys, nulls_equal=True)
    slow = (pl.col("dur") >= pl.col("threshold")).sum().cast(pl.Int64)
    counted = trace.collect(calls.group_by(*keys, "step").agg(pl.len().cast(pl.Int64).alias("calls"), slow.alias("slow"))).sort(*keys, "step")
    busy = counted.filter(pl.col("slow").sum().over(keys) > 0)
    return busy.partition_by(keys, as_dict=True)


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the stalls of the group whose period is shown best, over its phase, if there is one."""
    found = drift(trace).filter(pl.col("period").is_not_null()).sort("strength", descending=True)
    if not len(found):
        return
    from ringtape.analysis.plots.drift import slow_calls

    row = found.row(0, named=True)
    calls = trace.scan("syscalls").filter(pl.col("kind") == 0, Grouping.of(trace, "syscall").is_call(row["syscall"].partition("@")[0]))
    shown = trace.collect(calls.select((pl.col("ts") + pl.col("dur") - trace.span[0]).alias("at"), "dur").top_k(5000, by="dur"))
    yield Picture("latency-stalls", f"Stalls of {row['syscall']} and the period that they keep to.", slow_calls(shown, row))
