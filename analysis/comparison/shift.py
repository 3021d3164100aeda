"""The shift function: by how much each quantile of a call's latency lies above the same quantile of the other side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import polars as pl

from ringtape.analysis.comparison.intervals import Method, difference, rounding
from ringtape.analysis.comparison.measures import NANOSECOND
from ringtape.analysis.grouping import Grouping
from ringtape.analysis.ledger import timed_losses, unreturned_at_most
from ringtape.analysis.quantiles import quantiles
from ringtape.analysis.registry import Result, kind_of_result
from ringtape.analysis.runs import Runs
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError

POINTS = (*(Fraction(number, 20) for number in range(1, 20)), Fraction(99, 100), Fraction(999, 1000))
COLUMNS = (
    Result("quantile", pl.Float64, "which quantile of the latency"),
    Result("base", pl.Float64, "geometric mean over the runs of the base side", "ns"),
    Result("other", pl.Float64, "geometric mean over the runs of the other side", "ns"),
    Result("ratio", pl.Float64, "other / base"),
    Result("low", pl.Float64, "lower end of the interval of the ratio, for this quantile alone"),
    Result("high", pl.Float64, "upper end of it"),
    Result("base_runs", pl.Int64, "runs of the base side that have it", "count"),
    Result("other_runs", pl.Int64, "runs of the other side that have it", "count"),
)
KIND = kind_of_result("shift", COLUMNS)


def shift(base: Runs | Sequence[Trace], other: Runs | Sequence[Trace], syscall: str, *, method: Method = "t", level: float = 0.95) -> pl.DataFrame:
    """Compare the latency of one system call quantile by quantile.

    Parameters
    ----------
    base, other : Runs or sequence of Trace
        The runs of each side.
    syscall : str
        Name of the call.
    method, level
        As those of `compare`.

    Returns
    -------
    DataFrame
        One row per quantile (5 % steps, 99 %, 99.9 %): see `COLUMNS`. A run in which losses leave a quantile open is left out of it.

    Raises
    ------
    UsageError
        If a side has no run, or no ABI has such a call.

    Notes
    -----
    The shift function of Doksum (1974), here of ratios, with an interval over runs at every quantile. A horizontal line at 1 is no
    difference; a line that rises to the right is a tail that grew.
    """
    if not base or not other:
        raise UsageError(f"the {'base' if not base else 'other'} side has no run", "name one trace folder or more for each side")
    sides = [[_quantiles(trace, syscall) for trace in side] for side in (base, other)]
    rows = []
    for place, point in enumerate(POINTS):
        times = [[run[place] for run in side if run is not None and run[place]] for side in sides]
        left, right = ([math.log(time) for time in side] for side in times)
        row: dict[str, object] = {"quantile": float(point), "base_runs": len(left), "other_runs": len(right)}
        row |= {name: math.exp(math.fsum(values) / len(values)) for name, values in (("base", left), ("other", right)) if values}
        if left and right:
            found = difference(left, right, method, level, (rounding(times[0], NANOSECOND), rounding(times[1], NANOSECOND)))
            row |= {name: math.exp(value) for name, value in (("ratio", found.value), ("low", found.low), ("high", found.high)) if value is not None}
        rows.append(row)
    return pl.DataFrame(rows, schema={column.name: column.dtype for column in COLUMNS})


def _quantiles(trace: Trace, syscall: str) -> list[int] | None:
    """Return the quantiles of a run, 0 where losses leave one open; None if it has no such call."""
    trace.require("syscalls")
    grouping = Grouping.of(trace, "syscall")
    this = grouping.is_call(syscall)
    calls = trace.scan("syscalls").filter(this, pl.col("kind") == 0).select(pl.lit(0, pl.Int32).alias("one"), "dur")
    lost = timed_losses(trace).filter((pl.col("nr") < 0) | this)
    spare = unreturned_at_most(trace) if len(lost) and not len(lost.filter(pl.col("nr") < 0)) else None if len(lost) else 0
    found = quantiles(trace, calls, ["one"], POINTS, lost.select("low", "high", "lost"), spare)
    if not len(found) or not found["count"][0]:
        return None
    row = found.row(0, named=True)
    return [row[f"low_{at}"] if row[f"low_{at}"] == row[f"high_{at}"] and row[f"low_{at}"] else 0 for at in range(len(POINTS))]
