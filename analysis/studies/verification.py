"""A published study beside its repetition: whether each claim holds here too, and how the slowdowns differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from ringtape.analysis.comparison.intervals import difference
from ringtape.analysis.registry import Result, kind_of_result
from ringtape.analysis.studies.claims import parse_claim
from ringtape.analysis.studies.reading import Reading
from ringtape.analysis.studies.slowdown import pairs
from ringtape.analysis.studies.verdicts import FAILS, HOLDS, UNDECIDED, claims
from ringtape.schemas.errors import UsageError

CONFIRMED, CONTRADICTED, OPEN, NEVER = "holds here too", "does not hold here", "undecided here", "not shown there"
_SIDE = ("verdict", "value", "low", "high", "blocks", "why")
COLUMNS = (
    Result("claim", pl.String, "the claim, as published"),
    Result("workload", pl.String, "name of the workload"),
    Result("scale", pl.String, "what the values are; see `verdicts.COLUMNS`"),
    Result("unit", pl.String, "of the values"),
    *(
        Result(f"{side}_{name}", {"verdict": pl.String, "why": pl.String, "blocks": pl.Int64}.get(name, pl.Float64), f"{name} {where}")
        for side, where in (("there", "in the published study"), ("here", "in the repetition"))
        for name in _SIDE
    ),
    Result("outcome", pl.String, "holds here too; does not hold here; undecided here; not shown there"),
)
KIND = kind_of_result("verification", COLUMNS)
SLOWDOWNS = (
    Result("workload", pl.String, "name of the workload"),
    Result("treatment", pl.String, "name of the treatment; none: the control"),
    *(Result(f"{side}{end}", pl.Float64, f"slowdown {side}{end.replace('_', ', ')}") for side in ("there", "here") for end in ("", "_low", "_high")),
    Result("change", pl.Float64, "slowdown here / slowdown there"),
    Result("change_low", pl.Float64, "lower end of its interval"),
    Result("change_high", pl.Float64, "upper end"),
)


def verify(there: Reading, here: Reading) -> pl.DataFrame:
    """Judge the claims of a published study by its own runs and by those of a repetition.

    Parameters
    ----------
    there, here : Reading
        The published study and the repetition, which may have other numbers of repetitions; both are read with the method and the
        level of ``there``.

    Returns
    -------
    DataFrame
        `COLUMNS`: one row per claim and workload.

    Raises
    ------
    UsageError
        If the study has no claims, or the repetition does not have their workloads or treatments.
    """
    texts = there.results.study.claims
    if not texts:
        raise UsageError(f"{there.results.path}: the study claims nothing", "give it claims = [...]; `ringtape study report` shows what it found")
    for text in texts:
        try:
            parse_claim(text, here.results.study)
        except UsageError as error:
            raise UsageError(f"{here.results.path} is no repetition of {there.results.path}: {error.what}", error.hint) from None
    sides = []
    for side, reading in (("there", there), ("here", here)):
        found = claims(reading.results, texts, method=there.method, level=there.level)
        sides.append(found.select("claim", "workload", "scale", "unit", *(pl.col(name).alias(f"{side}_{name}") for name in _SIDE)))
    known = sides[1].drop("scale", "unit")
    both = (
        sides[0]
        .unique(["claim", "workload"], maintain_order=True)
        .join(known.unique(["claim", "workload"]), on=["claim", "workload"], how="left", maintain_order="left")
    )
    both = both.with_columns(
        pl.col("here_verdict").fill_null(UNDECIDED), pl.col("here_why").fill_null("not run here"), pl.col("here_blocks").fill_null(0)
    )
    outcome = (
        pl.when(pl.col("there_verdict") != HOLDS)
        .then(pl.lit(NEVER))
        .when(pl.col("here_verdict") == HOLDS)
        .then(pl.lit(CONFIRMED))
        .when(pl.col("here_verdict") == FAILS)
        .then(pl.lit(CONTRADICTED))
        .otherwise(pl.lit(OPEN))
    )
    return both.with_columns(outcome.alias("outcome")).select(pl.col(column.name).cast(column.dtype) for column in COLUMNS)


def beside(there: Reading, here: Reading) -> pl.DataFrame:
    """Return the slowdowns of both, and how they differ.

    Returns
    -------
    DataFrame
        `SLOWDOWNS`: one row per workload and treatment that the published study has. ``change`` is of runs on other machines, or at
        other times: its interval is Welch's of the log ratios of all blocks, or that of the exact Mann-Whitney test.
    """
    ours = {(row["workload"], row["treatment"]): row for row in here.slowdowns.filter(pl.col("primary")).iter_rows(named=True)}
    works = {one.name: one for one in here.results.study.workloads}
    rows: list[Mapping[str, Any]] = []
    for workload in there.results.study.workloads:
        theirs, mine = pairs(there.results, workload), pairs(here.results, works[workload.name]) if workload.name in works else None
        for row in there.slowdowns.filter(pl.col("primary"), pl.col("workload") == workload.name).iter_rows(named=True):
            found: dict[str, Any] = {"workload": workload.name, "treatment": row["treatment"]}
            sides = (("there", row), ("here", ours.get((workload.name, row["treatment"]), {})))
            for side, of in sides:
                found |= {side: of.get("slowdown"), f"{side}_low": of.get("low"), f"{side}_high": of.get("high")}
            logs = [
                [] if frame is None else frame.filter(pl.col("treatment") == row["treatment"])["ratio"].log().to_list() for frame in (theirs, mine)
            ]
            if all(logs):
                change = difference(logs[0], logs[1], there.method, there.level)
                ends = (change.value, change.low, change.high)
                found |= dict(
                    zip(("change", "change_low", "change_high"), (None if end is None else math.exp(min(end, 700.0)) for end in ends), strict=True)
                )
            rows.append(found)
    return pl.DataFrame(rows, schema={column.name: column.dtype for column in SLOWDOWNS})


def differences(there: Reading, here: Reading) -> Iterator[str]:
    """Yield in what the repetition is another study, or was made on another machine."""
    first, second = there.results.study, here.results.study
    for name in ("repetitions", "seed", "warmups"):
        if getattr(first, name) != getattr(second, name):
            yield f"{name}: {getattr(first, name)} there, {getattr(second, name)} here"
    for what, ones, others in (("workload", first.workloads, second.workloads), ("treatment", first.treatments, second.treatments)):
        known = {one.name: one for one in others}
        for one in ones:
            if one.name not in known:
                yield f"the {what} {one.name} is not in the repetition"
            elif known[one.name] != one:
                yield f"the {what} {one.name} is not declared alike"
    machines = [reading.results.environment[0].get("before") if reading.results.environment else None for reading in (there, here)]
    if all(isinstance(state, Mapping) for state in machines):
        for key in ("cpu", "cpus", "kernel", "hypervisor", "governor", "ringtape", "versions"):
            values = [state.get(key) for state in machines if isinstance(state, Mapping)]
            if values[0] != values[1]:
                yield f"{key}: {_said(values[0])} there, {_said(values[1])} here"


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(map(str, value.values()))[:160] or "none"
    return (", ".join(map(str, value)) if isinstance(value, list) else str(value))[:160]
