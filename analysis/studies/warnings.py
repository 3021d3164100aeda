"""What is to be known before the numbers of a study are believed: warnings that know its design, each with its figure and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from ringtape.analysis.comparison.intervals import LEAST_PAIRS, Floats, Method, holm
from ringtape.analysis.registry import Result
from ringtape.analysis.studies.changes import changes
from ringtape.analysis.studies.declaration import BASELINE
from ringtape.analysis.studies.results import Results
from ringtape.analysis.studies.slowdown import observed, pairs, primary

WARNINGS = (
    Result("kind", pl.String, "few, order, drift, trend, modes, outlier, disturbed, control, failed, lost, environment"),
    Result("workload", pl.String, "name of the workload; empty: the whole study"),
    Result("treatment", pl.String, "name of the treatment; empty: all of them"),
    Result("figure", pl.Float64, "what was found: a share, a count, or a ratio, as the sentence says"),
    Result("p", pl.Float64, "how likely as much is by chance, corrected for the number of looks; null: nothing was tested"),
    Result("what", pl.String, "what was found"),
    Result("hint", pl.String, "what to do"),
)
ALARM = 0.01
"""How likely one false alarm of each kind (order, drift, trend, modes) is in a whole study, all workloads and treatments together."""
SMALLEST = {"order": 0.005, "drift": 0.01, "trend": 0.01, "modes": 0.02}
"""What is smaller is no matter, however sure it is: shares of the time of a run."""
FAR = 10.0
"""Standard deviations, as the median of the absolute deviations tells them, from which a block is an outlier (as hyperfine has it: 14.8 of those)."""
LEAST = {"order": 6, "drift": 6, "modes": 8, "outlier": 6}
"""Values, or blocks, below which nothing is looked for."""
_SIMULATED = 4000
Row = dict[str, Any]


def warnings(results: Results, slowdowns: pl.DataFrame, failures: pl.DataFrame, method: Method, level: float) -> pl.DataFrame:
    """Return what makes the numbers of a study doubtful.

    Parameters
    ----------
    results : Results
        What a study left behind.
    slowdowns, failures : DataFrame
        Of the same study: `Reading.slowdowns`, `Reading.failures`.
    method, level
        Of the intervals.

    Returns
    -------
    DataFrame
        `WARNINGS`; empty if there is nothing to be said.

    Notes
    -----
    order : slope of the log time over the place in the block, beside one constant for each block and treatment (least squares, Student's test).
    drift, trend : Kendall's tau of the baseline, and of the ratios of each treatment, against the repetition (Mann 1945; exact for few
    blocks); the size is Sen's slope times the repetitions (Sen 1968).
    modes : the largest gap that parts the log times in two groups of a fifth or more each, over the spread within the groups, against
    what it is in samples as large of normal and of exponential noise (simulated once, with a fixed seed; the larger of the two).
    All corrected for the number of workloads and treatments (Holm), at 1 % for a whole study. ``tests/analysis/studies/test_warnings.py``
    measures how often each is raised in studies that have nothing of the kind, and in studies that do.
    """
    rows = [
        *_few(slowdowns, method),
        *_control(slowdowns, level),
        *_tested(_orders(results), "order"),
        *_tested(_drifts(results), "drift"),
        *_tested(_trends(results), "trend"),
        *_tested(_all_modes(results), "modes"),
        *_outliers(results),
        *_disturbed(results),
        *_failed(failures),
        *_lost(results),
        *({"kind": "environment", "what": what, "hint": hint} for what, hint in changes(results.environment)),
    ]
    blank = {"workload": "", "treatment": ""}
    return pl.DataFrame([blank | row for row in rows], schema={column.name: column.dtype for column in WARNINGS})


def _few(slowdowns: pl.DataFrame, method: Method) -> Iterator[Row]:
    rows = slowdowns.filter(pl.col("primary"), pl.col("treatment") != BASELINE, pl.col("blocks") > 0, pl.col("low").is_null())
    for row in rows.iter_rows(named=True):
        least = LEAST_PAIRS[method]
        what = f"{row['blocks']} block{'s' if row['blocks'] > 1 else ''} give no interval: the slowdown is what happened, not a result"
        hint = f"set repetitions to {least} at least; 10 are a beginning"
        yield {"kind": "few", "workload": row["workload"], "treatment": row["treatment"], "figure": row["blocks"], "what": what, "hint": hint}
    rows = slowdowns.filter(pl.col("primary"), pl.col("treatment") == BASELINE, pl.col("low").is_not_null(), pl.col("blocks") < LEAST_PAIRS["rank"])
    for row in rows.iter_rows(named=True) if method == "t" else ():
        what = f"{row['blocks']} blocks: the intervals rest on the noise being normal, which so few cannot show"
        yield {"kind": "few", "workload": row["workload"], "figure": row["blocks"], "what": what, "hint": "set repetitions to 10 or more"}


def _control(slowdowns: pl.DataFrame, level: float) -> Iterator[Row]:
    controls = slowdowns.filter(pl.col("primary"), pl.col("treatment") == BASELINE, pl.col("low").is_not_null())
    p = holm(controls["p"].to_list())
    for row, corrected in zip(controls.iter_rows(named=True), p, strict=True):
        if not row["low"] <= 1 <= row["high"]:
            what = f"the control, the baseline against itself, is {row['slowdown']:.4g} [{row['low']:.4g}, {row['high']:.4g}]: not 1"
            chance = corrected is not None and corrected > 1 - level
            if chance:
                what += f"; of {len(controls)} controls {len(controls) * (1 - level):.2g} are so by chance, and this may be one"
            hint = f"do not believe slowdowns of this workload that are closer to 1 than {_percent(row['slowdown'])}; look for load beside the study"
            yield {"kind": "control", "workload": row["workload"], "figure": row["slowdown"], "p": corrected, "what": what, "hint": hint}


def _tested(rows: Iterator[Row], kind: str) -> Iterator[Row]:
    """Yield those that neither chance explains, all of them together, nor are too small to matter."""
    found = list(rows)
    for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
        if p is not None and p <= ALARM and abs(row["figure"]) >= SMALLEST[kind]:
            yield {**row, "kind": kind, "p": p}


def _orders(results: Results) -> Iterator[Row]:
    for workload in results.study.workloads:
        slope, p, places = order(observed(results, workload, primary(workload)))
        if p is not None:
            share = math.expm1(slope * (places - 1))
            what = f"the last run of a block takes {share:+.1%} against the first, whatever its treatment"
            hint = "the order is random, so that no treatment gains by it, but intervals are wider: let the machine rest, or warm up, before each run"
            yield {"workload": workload.name, "figure": share, "p": p, "what": what, "hint": hint}


def order(runs: pl.DataFrame) -> tuple[float, float | None, int]:
    """Return the slope of the log cost over the place in the block, its p, and the number of places; p is None for too few runs."""
    places = max(runs["position"], default=0) + 1
    blocks, treatments = runs["block"].unique().to_list(), runs["treatment"].unique().to_list()
    freedom = len(runs) - len(blocks) - len(treatments)
    if len(blocks) < LEAST["order"] or freedom < LEAST["order"] or places < 2:
        return 0.0, None, places
    design = np.zeros((len(runs), len(blocks) + len(treatments)))
    at = np.arange(len(runs))
    design[at, [blocks.index(block) for block in runs["block"]]] = 1
    for column, treatment in enumerate(treatments[1:], len(blocks)):
        design[:, column] = (runs["treatment"] == treatment).to_numpy()
    design[:, -1] = runs["position"].to_numpy()
    cost = np.log(runs["cost"].to_numpy())
    solution, _, rank, _ = np.linalg.lstsq(design, cost, rcond=None)
    rest = cost - design @ solution
    freedom = len(runs) - int(rank)
    variance = float(rest @ rest) / freedom * float(np.linalg.pinv(design.T @ design)[-1, -1])
    from scipy import stats

    if variance <= 1e-24:
        return float(solution[-1]), None, places
    return float(solution[-1]), 2 * float(stats.t.sf(abs(float(solution[-1])) / math.sqrt(variance), freedom)), places


def _drifts(results: Results) -> Iterator[Row]:
    for workload in results.study.workloads:
        base = observed(results, workload, primary(workload)).filter(pl.col("treatment") == BASELINE)
        blocks = base.group_by("repetition").agg(pl.col("cost").log().mean()).sort("repetition")
        share, p = trend(blocks["repetition"].to_list(), blocks["cost"].to_list())
        if p is not None:
            what = f"the baseline {'slows down' if share > 0 else 'gets faster'} by {_percent(math.exp(share))} from the first block to the last"
            hint = "ratios within blocks are not moved by it, times across blocks are: report ratios, and look for heat, caches, growing files"
            yield {"workload": workload.name, "figure": math.expm1(share), "p": p, "what": what, "hint": hint}


def _trends(results: Results) -> Iterator[Row]:
    for workload in results.study.workloads:
        every = pairs(results, workload)
        for treatment in results.study.treatments_of(workload):
            rows = every.filter(pl.col("treatment") == treatment.name)
            share, p = trend(rows["repetition"].to_list(), rows["ratio"].log().to_list())
            if p is not None and treatment.name != BASELINE:
                what = f"the slowdown itself {'rises' if share > 0 else 'falls'} by {_percent(math.exp(share))} from the first block to the last"
                hint = "one number does not describe it: find what grows (files, maps, the tool's memory), or let it warm up"
                yield {
                    "workload": workload.name, "treatment": treatment.name, "figure": math.expm1(share), "p": p, "what": what, "hint": hint
                }  # fmt: skip


def trend(at: Sequence[float], values: Sequence[float]) -> tuple[float, float | None]:
    """Return by how much values rise from first to last (Sen's slope), and the p of Kendall's tau; p is None for too few."""
    if len(values) < LEAST["drift"] or len(set(values)) < 2:
        return 0.0, None
    from scipy import stats

    slope = float(stats.theilslopes(values, at).slope)
    return slope * (max(at) - min(at)), float(stats.kendalltau(at, values).pvalue)


def _all_modes(results: Results) -> Iterator[Row]:
    for workload in results.study.workloads:
        runs = observed(results, workload, primary(workload))
        for treatment in results.study.treatments_of(workload):
            logs = np.sort(np.log(runs.filter(pl.col("treatment") == treatment.name)["cost"].to_numpy()))
            if len(logs) < LEAST["modes"]:
                continue
            score, split = modes(logs[None, :])
            at = int(split[0])
            apart = float(logs[at:].mean() - logs[:at].mean())
            what = f"the times are of two kinds: {at} runs, and {len(logs) - at} that take {_longer(apart)}"
            hint = "an average of two kinds describes neither: look at the points, and find what differs (CPU, memory layout, cache, frequency)"
            row = {"workload": workload.name, "treatment": treatment.name, "figure": math.expm1(apart), "what": what, "hint": hint}
            yield row | {"p": float((1 + (null(len(logs)) >= score[0]).sum()) / (1 + _SIMULATED))}


def modes(samples: Floats) -> tuple[Floats, Floats]:
    """Return, for each row of sorted values, the largest gap over the spread within the groups that it makes, and where it is.

    Only gaps are looked at that leave a fifth of the values, and three at least, on each side.
    """
    count = samples.shape[1]
    least = max(3, math.ceil(count / 5))
    best, where = np.full(len(samples), -1.0), np.zeros(len(samples))
    for at in range(least, count - least + 1):
        left, right = samples[:, :at], samples[:, at:]
        within = (left.var(axis=1) * at + right.var(axis=1) * (count - at)) / (count - 2)
        score = (right[:, 0] - left[:, -1]) / np.sqrt(np.maximum(within, 1e-24))
        better = score > best
        best, where = np.where(better, score, best), np.where(better, at, where)
    return best, where


@cache
def null(count: int) -> Floats:
    """Return what `modes` gives for samples of one mode: of normal noise, and of exponential noise, whichever is larger at each rank."""
    generator = np.random.default_rng(20261123)
    kinds = [np.sort(modes(np.sort(draw((_SIMULATED, count)), axis=1))[0]) for draw in (generator.standard_normal, generator.standard_exponential)]
    larger: Floats = np.maximum(*kinds)
    return larger


def _outliers(results: Results) -> Iterator[Row]:
    for workload in results.study.workloads:
        every = pairs(results, workload)
        for treatment in results.study.treatments_of(workload):
            rows = every.filter(pl.col("treatment") == treatment.name)
            logs = rows["ratio"].log().to_numpy()
            if len(logs) < LEAST["outlier"]:
                continue
            off = logs - np.median(logs)
            spread = 1.4826 * float(np.median(np.abs(off)))
            far = [at for at in range(len(logs)) if abs(off[at]) > max(FAR * spread, SMALLEST["modes"])]
            if far and spread > 0:
                worst = max(far, key=lambda at: abs(off[at]))
                ratio, repetition = math.exp(off[worst]), rows["repetition"][worst] + 1
                what = f"{len(far)} of {len(logs)} blocks are far off: block {repetition} has {ratio:.3g} times the usual slowdown"
                hint = "it is kept, and shown as a point; --method rank is hardly moved by it: find out what happened there"
                yield {"kind": "outlier", "workload": workload.name, "treatment": treatment.name, "figure": len(far), "what": what, "hint": hint}


def _disturbed(results: Results) -> Iterator[Row]:
    runs = results.measured()
    again = results.runs.filter(pl.col("repetition") >= 0)
    for workload in results.study.workloads:
        own = runs.filter(pl.col("workload") == workload.name)
        blocks, bad = own["block"].n_unique(), own.filter(pl.col("disturbed") == 1)
        if len(bad):
            worst, count = max(*bad["outside"], *bad["steal"]), bad["block"].n_unique()
            repeated = max(again.filter(pl.col("workload") == workload.name)["attempt"], default=0)
            share = count / blocks
            what = f"{count} of {blocks} blocks were disturbed to the last attempt ({repeated + 1}): others had up to {worst:.0%} of the machine"
            hint = "stop what else runs, or raise noise.outside or noise.steal if it cannot be stopped, and run the study again"
            yield {"kind": "disturbed", "workload": workload.name, "figure": share, "what": what, "hint": hint}


def _failed(failures: pl.DataFrame) -> Iterator[Row]:
    for row in failures.iter_rows(named=True):
        parts = [f"{row[name]} {word}" for name, word in _ENDS if row[name]]
        what = f"missing runs: {', '.join(parts)}" + (f": {row['message']}" if row["message"] else "")
        bad = row["failed"] + row["time_limit"] + row["tool_failed"] + row["not_run"]
        few = "no number is made of them" if row["runs"] == 0 or not row["not_run"] else "numbers are of the blocks that are there"
        hint = f"{few}; `ringtape study check` tells what is missing on this machine"
        if row["time_limit"]:
            hint = "they take longer than the limit, by how much is not known: raise time_limit"
        yield {"kind": "failed", "workload": row["workload"], "treatment": row["treatment"], "figure": bad, "what": what, "hint": hint}


_ENDS = (("failed", "failed"), ("time_limit", "stopped at the time limit"), ("tool_failed", "in which the tool failed"), ("not_run", "not begun"))


def _lost(results: Results) -> Iterator[Row]:
    for workload in results.study.workloads:
        for treatment in results.study.treatments_of(workload):
            own = results.measured().filter((pl.col("workload") == workload.name) & (pl.col("treatment") == treatment.name))
            lost = int(own["lost"].fill_null(0).sum())
            if lost:
                share = lost / (lost + int(own["events"].fill_null(0).sum()))
                what = f"{lost:,} events were lost, {share:.2%} of all: the slowdown flatters a tool that does not do all of its work"
                hint = "give it larger buffers, and run the study again"
                yield {"kind": "lost", "workload": workload.name, "treatment": treatment.name, "figure": share, "what": what, "hint": hint}


def _longer(apart: float) -> str:
    return f"{math.expm1(apart):.1%} longer" if apart < math.log(2) else f"{math.exp(apart):.3g} times as long"


def _percent(ratio: float) -> str:
    return f"{abs(ratio - 1):.1%}"
