"""The pictures of a study: slowdowns of all workloads, of each by itself, and the cost of an event."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from ringtape.analysis.pictures import Picture
from ringtape.analysis.plots.studies import Line, overview, slowdown_forest
from ringtape.analysis.studies.costs import per_block
from ringtape.analysis.studies.declaration import BASELINE
from ringtape.analysis.studies.reading import Reading
from ringtape.analysis.studies.report import CONTROL
from ringtape.analysis.studies.slowdown import pairs
from ringtape.schemas.escape import escape


def draw(reading: Reading) -> tuple[Picture, ...]:
    """Return the pictures of a study, that of all workloads first."""
    study = reading.results.study
    every = _slowdowns(reading)
    # In the title, not in a note: in a column there is no room for one.
    blocks = f"{100 * reading.level:.4g} % intervals, a point for each block"
    name = escape(study.name)
    found = [Picture("slowdowns", f"Slowdown of every workload under every tool ({name})", overview(every, f"Slowdown: {name} ({blocks})"))]
    for number, workload in enumerate(study.workloads, 1):
        own = [line for line in every if line.group == escape(workload.name)]
        shown = escape(workload.name)
        figure = slowdown_forest(own, f"Slowdown of {shown} ({blocks})")
        found.append(Picture(f"slowdown-{number:02}-{_file_name(workload.name)}", f"Slowdown of {shown}, with its control", figure))
    costs = _costs(reading)
    if costs:
        found.append(
            Picture("cost-per-event", f"Wall time that an event adds ({name})", overview(costs, f"Cost of an event: {name} ({blocks})", time=True))
        )
    return tuple(found)


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)


def _slowdowns(reading: Reading) -> Sequence[Line]:
    lines = []
    points = {workload.name: pairs(reading.results, workload) for workload in reading.results.study.workloads}
    for row in reading.slowdowns.filter(pl.col("primary"), pl.col("slowdown").is_not_null()).iter_rows(named=True):
        ratios = points[row["workload"]].filter(pl.col("treatment") == row["treatment"])["ratio"].to_list()
        control = row["treatment"] == BASELINE
        name = CONTROL if control else escape(row["treatment"])
        lines.append(Line(escape(row["workload"]), name, row["slowdown"], row["low"], row["high"], ratios, control))
    return lines


def _costs(reading: Reading) -> Sequence[Line]:
    points = {workload.name: per_block(reading.results, workload) for workload in reading.results.study.workloads}
    lines = []
    for row in reading.costs.filter(pl.col("cost").is_not_null()).iter_rows(named=True):
        values = points[row["workload"]].filter(pl.col("treatment") == row["treatment"])["cost"].drop_nulls().to_list()
        lines.append(Line(escape(row["workload"]), escape(row["treatment"]), row["cost"], row["cost_low"], row["cost_high"], values))
    return lines
