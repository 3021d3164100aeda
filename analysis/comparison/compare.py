"""Two sides of several runs each: estimates, intervals and a verdict for every measure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ringtape.analysis.comparison.intervals import Estimate, Method, difference, holm, paired, rounding, superiority
from ringtape.analysis.comparison.measures import MEASURES, USUAL, Measure, measured
from ringtape.analysis.registry import Result, kind_of_result
from ringtape.analysis.runs import Runs
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError

NO_DIFFERENCE, TOO_FEW, NEGLIGIBLE = "no difference shown", "too few runs", "within the margin"
ONLY_BASE, ONLY_OTHER = "only in base", "only in other"
COLUMNS = (
    Result("measure", pl.String, "what was measured"),
    Result("what", pl.String, "system call, place in the time ledger, or (all)"),
    Result("base", pl.Float64, "mean over the runs of the base side that have it; null where none has"),
    Result("other", pl.Float64, "mean over the runs of the other side that have it"),
    Result("ratio", pl.Float64, "other / base: of geometric means (t), or as the Hodges-Lehmann estimate of logarithms (rank)"),
    Result("difference", pl.Float64, "other - base, for shares"),
    Result("low", pl.Float64, "lower end of the interval of the ratio or difference, for this row alone"),
    Result("high", pl.Float64, "upper end of it"),
    Result("p", pl.Float64, "two-sided p of no difference, corrected for the number of rows (Holm)"),
    Result("superiority", pl.Float64, "how likely a run of other lies above one of base (Vargha and Delaney's A)"),
    Result("base_runs", pl.Int64, "runs of the base side that have it", "count"),
    Result("other_runs", pl.Int64, "runs of the other side that have it", "count"),
    Result("verdict", pl.String, "faster, slower, more, fewer, less; no difference shown; within the margin; too few runs; only in base or other"),
)
KIND = kind_of_result("compare", COLUMNS)
"""How results are written, as those of analyses are."""


SHOWN = kind_of_result(
    "compare",
    (
        Result("measure", pl.String, "what was measured"),
        Result("what", pl.String, "system call, place in the time ledger, or (all)"),
        Result("base", pl.String, "mean of the base side"),
        Result("other", pl.String, "mean of the other side"),
        Result("change", pl.String, "ratio, or difference of shares, with its interval"),
        Result("p", pl.String, "corrected for the number of rows (Holm)"),
        Result("runs", pl.String, "runs that have it"),
        Result("verdict", pl.String, "what the runs show"),
    ),
)


def shown(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a comparison as people read them; `SHOWN` tells how they are written."""
    from ringtape.analysis.render import cell

    texts = []
    for row in rows.iter_rows(named=True):
        measure = MEASURES[row["measure"]]
        ratio = measure.scale == "ratio"
        values = [row["ratio" if ratio else "difference"], row["low"], row["high"]]
        words = ["" if value is None else f"{value:.4g}" if ratio else f"{100 * value:+.3g}" for value in values]
        change = (f"\u00d7{words[0]}" if ratio else f"{words[0]} % pts") if words[0] else ""
        change += f" [{words[1]}, {words[2]}]" if words[1] else ""
        sides = ["" if row[side] is None else cell(row[side], measure.unit) for side in ("base", "other")]
        p = "" if row["p"] is None else "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
        texts.append(
            (row["measure"].replace("p99_9", "p99.9"), row["what"], *sides, change, p, f"{row['base_runs']}+{row['other_runs']}", row["verdict"])
        )
    return pl.DataFrame(texts, schema={column.name: column.dtype for column in SHOWN.columns}, orient="row")


@dataclass(frozen=True)
class Sides:
    """The numbers of all runs: ``side`` (base, other), ``run``, ``measure``, ``what``, ``value``."""

    rows: pl.DataFrame
    runs: tuple[int, int]

    @classmethod
    def of(cls, base: Sequence[Trace], other: Sequence[Trace], measures: Sequence[str] = USUAL) -> Sides:
        """Measure every run.

        Raises
        ------
        UsageError
            If a side has no run, a run stands on both sides, or there is no such measure.
        """
        if not base or not other:
            raise UsageError(f"the {'base' if not base else 'other'} side has no run", "name one trace folder or more for each side")
        both = {trace.path.resolve() for trace in base} & {trace.path.resolve() for trace in other}
        if both:
            raise UsageError(f"{min(both)} stands on both sides", "name every run once")
        pieces = [
            measured(trace, measures).select(pl.lit(side).alias("side"), pl.lit(number, pl.Int64).alias("run"), pl.all())
            for side, traces in (("base", base), ("other", other))
            for number, trace in enumerate(traces)
        ]
        return cls(pl.concat(pieces), (len(base), len(other)))


def compare(
    base: Runs | Sequence[Trace],
    other: Runs | Sequence[Trace],
    *,
    measures: Sequence[str] = USUAL,
    pair: bool = False,
    method: Method = "t",
    level: float = 0.95,
    margin: float | None = None,
) -> pl.DataFrame:
    """Compare two sides of several runs each.

    Parameters
    ----------
    base, other : Runs or sequence of Trace
        The runs of each side.
    measures : sequence of str
        What to compare by: elapsed, calls, rate, time, p50, p90, p99, p99_9, max, errors, ledger.
    pair : bool
        Whether the runs were made in blocks: the first of base with the first of other, and so on.
    method : {"t", "rank"}
        Means of logarithms with Welch's (paired: Student's) interval, or Hodges-Lehmann with the exact rank interval, which needs
        no distribution and more runs (see `intervals`).
    level : float
        Confidence level of the intervals, and of the verdicts over all rows together.
    margin : float, optional
        Smallest relative change that matters, such as 0.02: a row whose interval lies within it is ``within the margin``.

    Returns
    -------
    DataFrame
        One row per measure and call: see `COLUMNS`. Sorted by measure, those with a difference first, and these by its size.

    Raises
    ------
    UsageError
        If a side has no run, pairs do not fit, or a value is out of its range.

    Notes
    -----
    A run is one observation, whatever the number of its events. Ratios are compared as logarithms. A verdict other than ``no
    difference shown`` has a corrected p below 1 - level: among all rows, the chance that any verdict is wrong is at most that.
    ``no difference shown`` is not ``no difference``: the interval tells what is compatible with the runs. What a run does not
    have is missing, never zero: the row then counts the runs that have it.
    """
    if not 0 < level < 1:
        raise UsageError(f"the level is {level}", "give one between 0 and 1, such as 0.95")
    if margin is not None and not 0 < margin < 1:
        raise UsageError(f"the margin is {margin}", "give one between 0 and 1, such as 0.02 for 2 %")
    if pair and len(base) != len(other):
        raise UsageError(f"{len(base)} and {len(other)} runs are no pairs", "name as many runs on both sides, in the order of their blocks")
    sides = Sides.of(base, other, measures)
    rows = list(_rows(sides, pair, method, level))
    corrected = holm([row["p"] for row in rows])
    for row, p in zip(rows, corrected, strict=True):
        row["p"] = p
        row["verdict"] = row["verdict"] or _verdict(row, MEASURES[row["measure"]], 1 - level, margin)
    frame = pl.DataFrame(rows, schema={column.name: column.dtype for column in COLUMNS})
    order = {name: place for place, name in enumerate(measures)}
    size = pl.coalesce(pl.col("ratio").log().abs(), pl.col("difference").abs()).fill_null(0)
    plain = pl.col("verdict").is_in([NO_DIFFERENCE, TOO_FEW, NEGLIGIBLE])
    keys = [pl.col("measure").replace_strict(order, return_dtype=pl.Int64, default=None), plain, size, "what"]
    return frame.sort(keys, descending=[False, False, True, False])


def _rows(sides: Sides, pair: bool, method: Method, level: float) -> Iterator[dict[str, Any]]:
    grouped = sides.rows.sort("side", "run").group_by("measure", "what", maintain_order=True)
    for (name, what), rows in grouped:
        measure = MEASURES[str(name)]
        left, right = (rows.filter(side=side) for side in ("base", "other"))
        base, other = left["value"].to_list(), right["value"].to_list()
        row: dict[str, Any] = {
            "measure": name, "what": what, "base": _mean(base), "other": _mean(other), "ratio": None, "difference": None, "low": None,
            "high": None, "p": None, "superiority": None, "base_runs": len(base), "other_runs": len(other), "verdict": None,
        }  # fmt: skip
        if not base or not other:
            row["verdict"] = ONLY_BASE if base else ONLY_OTHER
        else:
            row["superiority"] = superiority(base, other)
            estimate = _estimate(measure, left, right, pair, method, level)
            if estimate is not None:
                row["p"] = estimate.p
                ends = (estimate.value, estimate.low, estimate.high)
                value, row["low"], row["high"] = (_back(end) if measure.scale == "ratio" else end for end in ends)
                row[measure.scale] = value
        yield row


def _estimate(measure: Measure, left: pl.DataFrame, right: pl.DataFrame, pair: bool, method: Method, level: float) -> Estimate | None:
    """Return the estimate of logarithms for ratios; None where a value is not above 0 and has none."""
    if pair:
        both = left.join(right, on="run")
        values = [both["value"].to_list(), both["value_right"].to_list()]
    else:
        values = [left["value"].to_list(), right["value"].to_list()]
    least = 0.0, 0.0
    if measure.scale == "ratio":
        if any(value <= 0 for side in values for value in side):
            return None
        if all(values):
            least = rounding(values[0], measure.step), rounding(values[1], measure.step)
        values = [[math.log(value) for value in side] for side in values]
    if pair:
        differences = [after - before for before, after in zip(*values, strict=True)]
        return paired(differences, method, level, sum(least)) if differences else None
    return difference(values[0], values[1], method, level, least)


def _back(value: float | None) -> float | None:
    return None if value is None else math.exp(min(value, 700.0))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _verdict(row: dict[str, Any], measure: Measure, alpha: float, margin: float | None) -> str:
    p, low, high = row["p"], row["low"], row["high"]
    if not isinstance(p, float) or not isinstance(low, float) or not isinstance(high, float):
        return TOO_FEW
    if margin is not None:
        inside = (1 / (1 + margin) <= low and high <= 1 + margin) if measure.scale == "ratio" else (-margin <= low and high <= margin)
        if inside:
            return NEGLIGIBLE
    if p > alpha:
        return NO_DIFFERENCE
    value = row[measure.scale]
    return measure.more if isinstance(value, float) and value > (1 if measure.scale == "ratio" else 0) else measure.less
