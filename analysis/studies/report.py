"""The report of a study: the same facts and tables for every form in which people read it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from ringtape.analysis.render import Cells, cell, number, share
from ringtape.analysis.studies.declaration import BASELINE, Study
from ringtape.analysis.studies.reading import Reading
from ringtape.analysis.studies.verdicts import overall
from ringtape.analysis.words import words
from ringtape.schemas.escape import escape
from ringtape.schemas.units import format_duration, format_size

MOST_REPETITIONS = 10_000
"""Of a study file."""
CONTROL = "none again"
"""How people see the control."""


@dataclass(frozen=True)
class Section:
    """A table of the report with its title, and what is to be said below it."""

    name: str
    title: str
    content: Cells
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyReport:
    """What the report says; every text in it can be shown."""

    title: str
    question: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]


def make(reading: Reading) -> StudyReport:
    """Return the report of a study."""
    results = reading.results
    sections = [_slowdowns(reading), _claims(reading), _costs(reading), _accuracy(reading), _times(reading), _precision(reading)]
    sections += [_warnings(reading), _environment(reading)]
    kept = tuple(section for section in sections if section.content.rows or section.notes)
    return StudyReport(escape(results.study.name), escape(results.study.question), tuple(_facts(reading)), kept)


def _facts(reading: Reading) -> Iterator[tuple[str, str]]:
    results, study = reading.results, reading.results.study
    runs, counted = results.runs, results.measured()
    yield "results", escape(str(results.path))
    if len(runs):
        took = int(runs["ts"][-1]) + int(runs["total"][-1]) - int(runs["ts"][0])
        yield (
            "when",
            f"{_date(int(runs['ts'][0]))}, {len(results.environment)} session{'s' * (len(results.environment) != 1)}, {format_duration(took)}",
        )
    treatments = [one.name for one in study.treatments if one.name != BASELINE]
    blocks = f"{study.repetitions} blocks of each of {_count(len(study.workloads), 'workload')} after {_count(study.warmups, 'warm-up')}"
    inside = f"{_count(len(treatments), 'treatment')} and the baseline twice, in random order (seed {study.seed})"
    yield "design", f"{blocks}; in each block {inside}"
    yield "runs", f"{len(runs):,} made, {len(counted):,} count; {int((runs['end'] != 0).sum()):,} failed or were stopped"
    words_of = {"t": "geometric mean of the ratios in blocks, Student's interval", "rank": "Hodges-Lehmann estimate, exact Wilcoxon interval"}
    yield "intervals", f"{_level(reading)}, over blocks: {words_of[reading.method]}"
    yield from _machine(results.environment)
    verdicts = _by_claim(reading)
    if verdicts:
        found = list(verdicts.values())
        yield "claims", ", ".join(f"{found.count(word)} {word}" for word in dict.fromkeys(found))
    yield "warnings", str(len(reading.warnings))
    yield "again", _how(study)


def _level(reading: Reading) -> str:
    return f"{100 * reading.level:.4g} %"


def _how(study: Study) -> str:
    """Return how the study is repeated by somebody who has the results."""
    return f"ringtape study verify {words([str(study.path.parent)])}"


def _date(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return "at no known time"


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _machine(environment: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    state = environment[0].get("before") if environment else None
    if not isinstance(state, Mapping):
        return
    cpus = state.get("cpus")
    parts = [str(state.get("cpu") or "unknown CPU"), f"{len(cpus)} CPUs" if isinstance(cpus, list) else "", str(state.get("hypervisor") or "")]
    memory = state.get("memory")
    if isinstance(memory, int):
        parts.append(format_size(memory))
    governor = state.get("governor")
    if isinstance(governor, list) and governor:
        parts.append(f"governor {', '.join(map(str, governor))}")
    yield "machine", escape(", ".join(part for part in parts if part)[:300])
    yield "kernel", escape(f"{state.get('kernel')} {state.get('machine')}"[:200])


def _slowdowns(reading: Reading) -> Section:
    study = reading.results.study
    rows = {(row["workload"], row["treatment"]): row for row in reading.slowdowns.filter(pl.col("primary")).iter_rows(named=True)}
    why = {(row["workload"], row["treatment"]): row for row in reading.failures.iter_rows(named=True)}
    names = [one.name for one in study.treatments]
    content = []
    for workload in study.workloads:
        base = rows[workload.name, BASELINE]
        texts = [_slowdown(rows.get((workload.name, name)), why.get((workload.name, name))) for name in names]
        without = next(
            (rows[workload.name, name]["base"] for name in (*names[1:], BASELINE) if (rows.get((workload.name, name)) or base)["base"]), None
        )
        measure = base["unit"] if base["measure"] == "metric" else "wall time"
        content.append([escape(workload.name), escape(measure), cell(without, "ns" if measure == "wall time" else ""), *texts])
    heads = ["workload", "measure", "without", *(CONTROL if name == BASELINE else escape(name) for name in names)]
    notes = [
        f"times as slow as without a tool [{_level(reading)} interval]; {CONTROL}: the baseline against itself in the same blocks, which is to be 1"
    ]
    numeric = [False, False, *[True] * (len(heads) - 2)]
    if len(names) > 2 * len(study.workloads):
        # Few workloads under many treatments are read downwards.
        heads, content, numeric = _turned(heads, content)
    return Section("slowdowns", "Slowdown", Cells(heads, numeric, content), tuple(notes))


def _turned(heads: list[str], content: list[list[str]]) -> tuple[list[str], list[list[str]], list[bool]]:
    turned = [[head, *(row[at] for row in content)] for at, head in enumerate(heads)]
    return ["treatment", *turned[0][1:]], turned[1:], [False, *[True] * len(content)]


def ratio_text(value: float | None, low: float | None, high: float | None) -> str:
    """Return a ratio with its interval.

    >>> ratio_text(1.1034, 1.1, 1.107)
    '1.103 [1.100, 1.107]'
    """
    if value is None:
        return ""
    digits = min(8, 2 - math.floor(math.log10(value))) if 0 < value < 0.1 else 3 if value < 10 else 2 if value < 100 else 1 if value < 1000 else 0
    text = f"{value:,.{digits}f}"
    return text if low is None or high is None else f"{text} [{low:,.{digits}f}, {high:,.{digits}f}]"


def _slowdown(row: Mapping[str, Any] | None, failed: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    if row["slowdown"] is None:
        if failed and failed["runs"]:
            return "time limit" if failed["time_limit"] else "failed"
        return "not run"
    few = "" if not row["missing"] else f" ({row['blocks']} of {row['blocks'] + row['missing']} blocks)"
    return ratio_text(row["slowdown"], row["low"], row["high"]) + few


def _by_claim(reading: Reading) -> Mapping[str, str]:
    found: dict[str, list[str]] = {claim: [] for claim in reading.results.study.claims}
    for claim, verdict in reading.claims.select("claim", "verdict").iter_rows():
        found[claim].append(verdict)
    return {claim: overall(verdicts) for claim, verdicts in found.items()}


def value_text(row: Mapping[str, Any]) -> str:
    """Return what a claim's value is, with its interval."""
    if row["value"] is None:
        return ""
    if row["scale"] in ("value", "ratio") and not row["unit"]:
        return ratio_text(row["value"], row["low"], row["high"])
    texts = ["" if row[end] is None else cell(row[end], row["unit"] or "count") for end in ("value", "low", "high")]
    return texts[0] + (f" [{texts[1]}, {texts[2]}]" if texts[1] else "")


def _claims(reading: Reading) -> Section:
    content = []
    for claim, verdict in _by_claim(reading).items():
        rows = reading.claims.filter(pl.col("claim") == claim).to_dicts()
        # What holds in every run of every workload alike is one line; intervals are shown each.
        alike = len(rows) > 1 and len({(row["verdict"], row["value"], row["low"], row["why"]) for row in rows}) == 1
        if alike:
            content.append([escape(claim), f"all {len(rows)}", verdict, value_text(rows[0]), rows[0]["scale"], escape(rows[0]["why"])])
            continue
        if len(rows) != 1:
            content.append([escape(claim), f"all {len(rows)}" if rows else "none", verdict, "", "", ""])
        for row in rows:
            name = escape(claim) if len(rows) == 1 else ""
            content.append([name, escape(row["workload"]), row["verdict"], value_text(row), row["scale"], escape(row["why"])])
    heads = ["claim", "workload", "verdict", "found", "as", "why"]
    return Section("claims", "Claims", Cells(heads, [False, False, False, True, False, False], content))


def _costs(reading: Reading) -> Section:
    content = []
    for row in reading.costs.filter(pl.col("blocks") > 0).iter_rows(named=True):
        content.append([
            escape(row["workload"]), escape(row["treatment"]), cell(row["events"], "count"), _lost(row), cell(row["bytes"], "bytes"),
            cell(row["bytes_per_event"], ""), _times_text(row, "cost"), _times_text(row, "cpu_cost"), cell(row["tool_cpu"], "ns"),
            cell(row["tool_cpu_per_event"], "ns"),
        ])  # fmt: skip
    heads = ["workload", "treatment", "events", "lost", "on disk", "bytes/event", "wall/event", "CPU/event", "tool's CPU", "tool's CPU/event"]
    notes = (
        "wall/event: what an event adds to the time of the work; CPU/event: to the CPU time of the workload; the tool's own CPU time is beside it",
    )
    return Section("costs", "Cost per event, and what is kept", Cells(heads, [False, False, *[True] * 8], content), notes if content else ())


def _lost(row: Mapping[str, Any]) -> str:
    if row["lost"] is None:
        return "unknown" if row["events"] is not None else ""
    return "0" if not row["lost"] else f"{number(row['lost'])} ({share(row['lost_share'] or 0)})"


def _times_text(row: Mapping[str, Any], name: str) -> str:
    texts = ["" if row[key] is None else format_duration(row[key]) for key in (name, f"{name}_low", f"{name}_high")]
    return texts[0] + (f" [{texts[1]}, {texts[2]}]" if texts[1] else "")


def _accuracy(reading: Reading) -> Section:
    content = []
    for row in reading.accuracy.iter_rows(named=True):
        unit = {"time": "ns", "bytes": "bytes"}.get(row["quantity"], "count")
        if unit == "bytes":
            unit = "count"
        apart = "" if row["difference"] is None or row["verdict"] == "equal" else f"{row['difference']:+.3%}"
        if apart and row["least"] != row["most"]:
            apart += f" [{row['least']:+.3%}, {row['most']:+.3%}]"
        equal = f"{row['equal']} of {row['runs']}" if row["reported"] is not None else ""
        content.append([
            escape(row["workload"]), escape(row["syscall"]), row["quantity"], escape(row["treatment"]), cell(row["truth"], unit),
            cell(row["reported"], unit), row["verdict"], apart, equal, escape(row["why"]),
        ])  # fmt: skip
    heads = ["workload", "syscall", "quantity", "treatment", "truth", "reported", "verdict", "off by", "runs equal", "why"]
    numeric = [False, False, False, False, True, True, False, True, True, False]
    return Section("accuracy", "Accuracy: what tools report, against what the workload knows", Cells(heads, numeric, content))


def _times(reading: Reading) -> Section:
    study, content = reading.results.study, []
    rows = {(row["workload"], row["treatment"], row["measure"]): row for row in reading.slowdowns.iter_rows(named=True)}
    for workload in study.workloads:
        for treatment in study.treatments_of(workload):
            found = [rows[workload.name, treatment.name, measure] for measure in ("wall", "cpu", "user", "system")]
            if found[0]["blocks"]:
                texts = [ratio_text(row["slowdown"], row["low"], row["high"]) for row in found]
                name = CONTROL if treatment.name == BASELINE else escape(treatment.name)
                content.append([escape(workload.name), name, cell(found[0]["other"], "ns"), cell(found[1]["other"], "ns"), *texts])
    heads = ["workload", "treatment", "wall time", "CPU time", "wall, ratio", "CPU, ratio", "user, ratio", "system, ratio"]
    return Section("times", "Time and CPU time of the workload", Cells(heads, [False, False, *[True] * 6], content))


def _precision(reading: Reading) -> Section:
    content = []
    rows = reading.precision.filter(pl.col("blocks") > 0)
    for row in rows.filter(pl.col("more").is_null() | (pl.col("more") > 0)).iter_rows(named=True):
        name = CONTROL if row["treatment"] == BASELINE else escape(row["treatment"])
        half = "none" if row["half"] is None else f"\u00b1{100 * row['half']:.2f} %"
        content.append([escape(row["workload"]), name, half, str(row["blocks"]), cell(row["more"], "count") or "unknown", cell(row["time"], "ns")])
    reached = f"{len(rows) - len(content)} of {len(rows)} intervals are \u00b1{100 * reading.wanted:.3g} % of the slowdown or narrower"
    most = max((count for count in rows["needed"] if count is not None), default=None)
    notes = [reached] if len(rows) else []
    if most is not None and most > MOST_REPETITIONS:
        notes.append(f"no study can have {number(most)} blocks: there is less to be gained by more of them than by a quieter machine or longer runs")
    elif content and most is not None:
        notes.append(f"repetitions = {most} in the study file, and another folder for the results, are expected to make all of them so")
    heads = ["workload", "treatment", "interval", "blocks", "more blocks", "time for them"]
    return Section(
        "precision", f"Runs for intervals of \u00b1{100 * reading.wanted:.3g} %", Cells(heads, [False, False, *[True] * 4], content), tuple(notes)
    )


def _warnings(reading: Reading) -> Section:
    content = []
    for row in reading.warnings.iter_rows(named=True):
        where = ", ".join(escape(name) for name in (row["workload"], row["treatment"]) if name) or "the study"
        p = "" if row["p"] is None else f"{row['p']:.2g}"
        content.append([row["kind"], where, f"{escape(row['what'])}\n-> {escape(row['hint'])}", p])
    none = "none: few blocks, the control, order, drift, trends, modes, outliers, load, failures, losses and the machine were looked at"
    heads = ["kind", "where", "what was found, and what to do", "p"]
    return Section("warnings", "Warnings", Cells(heads, [False, False, False, True], content), () if content else (none,))


def _environment(reading: Reading) -> Section:
    """Return the first session in full, and of the others what is not as it was then."""
    content: list[list[str]] = []
    first: Mapping[str, Any] = {}
    for at, session in enumerate(reading.results.environment, 1):
        before, after = (state if isinstance(state := session.get(name), Mapping) else {} for name in ("before", "after"))
        first = first or before
        for key in dict.fromkeys((*before, *after)):
            texts = [_short(key, state.get(key)) for state in (before, after)]
            if (
                key in ("time", "boot", "programs", "mitigations")
                or not any(texts)
                or (at > 1 and texts[0] == _short(key, first.get(key)) == texts[1])
            ):
                continue
            content.append([str(at), escape(str(key)[:60]).replace("_", " "), texts[0], texts[1] if texts[1] != texts[0] else ""])
    heads = ["session", "what", "before", "after, if not the same"]
    return Section("environment", "Machine, before and after each session", Cells(heads, [False] * 4, content))


def _short(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key == "memory" and isinstance(value, int):
        return format_size(value)
    if isinstance(value, list):
        return escape(", ".join(f"{item:.2f}" if isinstance(item, float) else str(item) for item in value[:64])[:120])
    if isinstance(value, Mapping):
        return escape(", ".join(f"{name}: {item}" for name, item in list(value.items())[:20])[:200])
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return escape(text if len(text) <= 120 else text[:117] + "...")
