"""Whether claims hold in a study: holds, does not hold, or undecided, with the interval behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import eq, ge, gt, le, lt
from typing import Any

import polars as pl

from ringtape.analysis.comparison.intervals import LEAST_PAIRS, Method, paired
from ringtape.analysis.registry import Result, kind_of_result
from ringtape.analysis.studies.accuracy import DIFFERS, EQUAL, EXACT, accuracy
from ringtape.analysis.studies.claims import FUNCTIONS, Claim, Operator, Quantity, parse_claim
from ringtape.analysis.studies.costs import per_block
from ringtape.analysis.studies.declaration import Workload
from ringtape.analysis.studies.results import Results
from ringtape.analysis.studies.slowdown import checked

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
COLUMNS = (
    Result("claim", pl.String, "the claim"),
    Result("workload", pl.String, "name of the workload; a claim without one is of each that has its treatments"),
    Result("verdict", pl.String, "holds; does not hold; undecided"),
    Result("scale", pl.String, "value, or ratio or difference of the two sides, left to right; worst run; runs equal"),
    Result("unit", pl.String, "of the value: ns, share or nothing", quiet=False),
    Result("value", pl.Float64, "what the study found; null: nothing"),
    Result("low", pl.Float64, "lower end of its interval; null: it has none"),
    Result("high", pl.Float64, "upper end"),
    Result("limit", pl.Float64, "what it is compared with: the number of the claim; 1 for a ratio, 0 for a difference"),
    Result("blocks", pl.Int64, "blocks, or runs, that it rests on", "count"),
    Result("why", pl.String, "why it is undecided, or in how many runs it does not hold"),
)
KIND = kind_of_result("claims", COLUMNS)
_COMPARE: Mapping[Operator, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge, "==": eq}
_COLUMN = {"slowdown": "ratio", "cost_per_event": "cost", "cpu_per_event": "cpu_cost", "tool_cpu": "tool"}
UNITS = {"cost_per_event": "ns", "cpu_per_event": "ns", "tool_cpu": "ns", "lost_share": "share"}


def claims(results: Results, texts: Sequence[str] | None = None, *, method: Method = "t", level: float = 0.95) -> pl.DataFrame:
    """Judge the claims of a study.

    Parameters
    ----------
    results : Results
        What a study left behind.
    texts : sequence of str, optional
        Claims; those of its study file by default.
    method, level
        Of the intervals; see `ringtape.analysis.studies.slowdown.slowdowns`.

    Returns
    -------
    DataFrame
        `COLUMNS`: one row per claim and workload.

    Raises
    ------
    UsageError
        If a claim cannot be read.

    Notes
    -----
    Two treatments are compared within blocks, where both ran minutes apart: ratios of slowdowns and of bytes as logarithms, costs as
    differences. A claim holds if its whole interval is on its side, does not hold if the whole interval is on the other side, and
    is undecided otherwise: each verdict of a comparison is wrong at most half as often as 1 - level. That a claim holds for every
    workload needs no correction for their number, as each must hold by itself (Berger 1982). Losses and accuracy are exact: every
    run counts.
    """
    checked(level)
    study = results.study
    rows: list[Mapping[str, Any]] = []
    for text in study.claims if texts is None else texts:
        claim = parse_claim(text, study)
        for workload in study.workloads:
            if claim.is_of(workload, study):
                rows.append({"claim": text, "workload": workload.name, **_judged(claim, results, workload, method, level)})
    return pl.DataFrame(rows, schema={column.name: column.dtype for column in COLUMNS})


def overall(verdicts: Sequence[str]) -> str:
    """Return the verdict on a claim from those of its workloads: it holds if it holds in all of them.

    >>> overall(["holds", "undecided"])
    'undecided'
    """
    return FAILS if FAILS in verdicts else UNDECIDED if UNDECIDED in verdicts or not verdicts else HOLDS


def _judged(claim: Claim, results: Results, workload: Workload, method: Method, level: float) -> dict[str, Any]:
    function = claim.left.function
    if function == "accuracy":
        return _accuracy(results, workload, claim.left.treatment)
    scale = FUNCTIONS[function][0]
    every = per_block(results, workload)
    left = _values(every, claim.left)
    if isinstance(claim.right, Quantity):
        both = left.join(_values(every, claim.right), on="block", suffix="_right")
        pairs = [(float(a), float(b)) for a, b in both.select("value", "value_right").iter_rows()]
    else:
        limit = float(claim.right or 0)
        pairs = [(float(a), limit) for a in left["value"]]
    blank: dict[str, Any] = {"unit": UNITS.get(function, ""), "blocks": len(pairs), "why": ""}
    if not pairs:
        return blank | {"verdict": UNDECIDED, "scale": "", "why": _nothing(results, workload, claim)}
    if scale == "every run":
        return blank | _every_run(claim, pairs)
    return blank | _measured(claim, pairs, scale == "ratio", method, level)


def _values(every: pl.DataFrame, quantity: Quantity) -> pl.DataFrame:
    """Return ``block`` and ``value``, where there is one."""
    rows = every.filter(pl.col("treatment") == quantity.treatment)
    if quantity.function == "lost_share":
        attempted = pl.col("lost") + pl.col("events")
        value = pl.when(attempted > 0).then(pl.col("lost") / attempted).otherwise(0.0)
        rows = rows.filter(pl.col("lost").is_not_null() & pl.col("events").is_not_null())
    else:
        value = pl.col(_COLUMN.get(quantity.function, quantity.function)).cast(pl.Float64)
    return rows.select("block", (value * quantity.factor).alias("value")).filter(pl.col("value").is_finite())


def _nothing(results: Results, workload: Workload, claim: Claim) -> str:
    runs = results.measured().filter(pl.col("workload") == workload.name)
    absent = [name for name in claim.treatments if not (runs["treatment"] == name).any()]
    if absent:
        return f"{' and '.join(absent)}: no run that counts"
    return f"{claim.left.function} is not known: the tool does not say, or the runs have no baseline"


def _every_run(claim: Claim, pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    holds = _COMPARE[claim.operator]
    broken = sum(not holds(a, b) for a, b in pairs)
    two = isinstance(claim.right, Quantity)
    values = [a - b if two else a for a, b in pairs]
    worst = (min if claim.operator in (">", ">=") else max)(values, key=lambda value: abs(value) if claim.operator == "==" and two else value)
    return {
        "verdict": FAILS if broken else HOLDS,
        "scale": "worst difference" if two else "worst run",
        "value": worst,
        "limit": 0.0 if two else pairs[0][1],
        "why": f"not in {broken} of {len(pairs)} runs" if broken else "",
    }


def _measured(claim: Claim, pairs: Sequence[tuple[float, float]], ratio: bool, method: Method, level: float) -> dict[str, Any]:
    two = isinstance(claim.right, Quantity)
    limit = (1.0 if ratio else 0.0) if two else pairs[0][1]
    found: dict[str, Any] = {"scale": ("ratio" if ratio else "difference") if two else "value", "limit": limit}
    if ratio and any(a <= 0 or (two and b <= 0) for a, b in pairs):
        return found | {"verdict": UNDECIDED, "why": "a value is not above 0, and has no ratio"}
    values = [math.log(a / b) if ratio and two else math.log(a) if ratio else a - b if two else a for a, b in pairs]
    estimate = paired(values, method, level)
    ends = [None if end is None else math.exp(min(end, 700.0)) if ratio else end for end in (estimate.value, estimate.low, estimate.high)]
    # What is the same in every run is the limit or is not: rounding of logarithms does not decide.
    ends = [limit if end is not None and math.isclose(end, limit, rel_tol=1e-12) else end for end in ends]
    found |= dict(zip(("value", "low", "high"), ends, strict=True))
    low, high = ends[1:]
    if low is None or high is None:
        least = LEAST_PAIRS[method]
        return found | {
            "verdict": UNDECIDED,
            "why": f"{len(pairs)} block{'s give' if len(pairs) != 1 else ' gives'} no interval; it takes {least} or more",
        }
    holds = _COMPARE[claim.operator]
    if holds(low, limit) and holds(high, limit):
        return found | {"verdict": HOLDS}
    if not holds(low, limit) and not holds(high, limit):
        return found | {"verdict": FAILS}
    return found | {"verdict": UNDECIDED, "why": "the interval has both sides in it: more blocks would narrow it"}


def _accuracy(results: Results, workload: Workload, treatment: str) -> dict[str, Any]:
    rows = accuracy(results).filter((pl.col("workload") == workload.name) & (pl.col("treatment") == treatment) & pl.col("quantity").is_in(EXACT))
    judged = rows.filter(pl.col("verdict").is_in([EQUAL, DIFFERS]))
    # Whoever reports no counts is not accurate for it.
    silent = rows.filter((pl.col("quantity") == "count") & ~pl.col("verdict").is_in([EQUAL, DIFFERS]))
    found: dict[str, Any] = {"unit": "", "scale": "of system calls and quantities, equal", "blocks": max(judged["runs"], default=0), "why": ""}
    if not len(judged) or len(silent):
        return found | {"verdict": UNDECIDED, "why": f"{treatment} does not report the calls of this workload, or they are not kept"}
    wrong = judged.filter(pl.col("verdict") == DIFFERS)
    names = ", ".join(f"{row['quantity']} of {row['syscall']}" for row in wrong.head(3).iter_rows(named=True))
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return found | {
        "verdict": FAILS if len(wrong) else HOLDS,
        "value": (len(judged) - len(wrong)) / len(judged),
        "unit": "share",
        "limit": 1.0,
        "why": f"differs: {names}{more}" if len(wrong) else "",
    }
