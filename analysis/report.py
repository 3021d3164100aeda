"""The report: the sections that the registered analyses give, the same for terminals and for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ringtape.analysis import registry
from ringtape.analysis.render import Cells, cells, console, is_wide, print_facts, print_table
from ringtape.analysis.summary import facts, size_cells
from ringtape.analysis.trace import Trace
from ringtape.analysis.verb import flags
from ringtape.schemas.escape import escape

FIRST = ("where", "ledger", "processes", "syscall_mix", "latency", "errors", "files", "cpu")
SMALL = 1_000_000
"""Calls up to which the report also shows what takes long for many."""
LAST = ("loss", "overhead_self")
"""First and last sections of the report; other analyses stand between them by name."""


@dataclass(frozen=True)
class Section:
    """One analysis in the report: its table for wide and for narrow lines, and what is to be said below it."""

    name: str
    title: str
    wide: Cells
    narrow: Cells
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What the report says; ``untold`` is a line for each table without which analyses could not tell anything."""

    title: str
    path: str
    facts: tuple[tuple[str, str], ...]
    sizes: Cells
    sections: tuple[Section, ...]
    untold: tuple[str, ...]


def make(trace: Trace, top: int | None = 20, page: bool = False) -> Report:
    """Run every analysis that the report shows.

    Parameters
    ----------
    trace : Trace
        The recording; analyses whose tables were not recorded are named at the end instead.
    top : int or None
        Lines of each table; None for all.
    page : bool
        Whether it is for the page, which shows what takes longer as well.

    Returns
    -------
    Report
        Facts and sections as text.
    """
    small = "syscalls" not in trace.tables or trace.rows("syscalls") <= SMALL
    every = {
        name: analysis
        for name, analysis in registry.every().items()
        if analysis.section is True or (page and analysis.section) or (small and analysis.section == "small")
    }
    between = [name for name in every if name not in FIRST + LAST]
    names = [name for name in (*FIRST, *between, *LAST) if name in every]
    absent: dict[str, list[str]] = {}
    for name in names:
        if missing := [table for table in every[name].tables if table not in trace.tables]:
            absent.setdefault(missing[0], []).append(name.replace("_", "-"))
    told = [every[name] for name in names if set(every[name].tables) <= set(trace.tables)]
    sections = tuple(_section(trace, analysis, top) for analysis in told)
    untold = tuple(f"not told: {', '.join(found)}: the table {table} was not recorded (--tables {table})" for table, found in sorted(absent.items()))
    if not (small or page):
        left_out = [name.replace("_", "-") for name, analysis in registry.every().items() if analysis.section == "small"]
        untold += (f"not told of more than {SMALL:,} calls, as it takes long: {', '.join(left_out)}; the verb tells it, and --html",)
    return Report(escape(str(trace.path)), str(trace.path), tuple(facts(trace.folder)), Cells(*size_cells(trace.folder)), sections, untold)


def _section(trace: Trace, analysis: registry.Analysis, top: int | None) -> Section:
    # An analysis that can add up what exceeds a number of rows is asked to, and its last row is shown as well.
    adds_up = "top" in {flag.name for flag in flags(analysis.function)}
    result = analysis.function(trace, **({"top": top or 0} if adds_up else {}))
    notes = tuple(_notes(trace, analysis, result, top + 1 if adds_up and top is not None else top))
    limit = len(result) if adds_up else top
    wide, narrow = (cells(result, analysis, wide=wide, limit=limit, origin=trace.header.attached_at) for wide in (True, False))
    return Section(analysis.name, analysis.summary, wide, narrow, notes)


def _notes(trace: Trace, analysis: registry.Analysis, result: Any, top: int | None) -> list[str]:
    notes = []
    if not len(result):
        notes.append("none")
    notes += analysis.notes(result)
    if top is not None and len(result) > top:
        notes.append(f"{len(result) - top:,} more: `ringtape {analysis.name.replace('_', '-')} {escape(str(trace.path))}` lists all")
    lost = trace.lost().get("syscalls", 0)
    if lost and analysis.name in ("processes", "errors"):
        notes.append(f"{lost:,} calls were lost and are not counted here: the loss ledger does not know their process or result")
    if "excluded" in result.columns and (excluded := int(result["excluded"].sum())):
        notes.append(f"{excluded:,} calls without a latency are left out: they did not return, or began before the recording")
    if lost and "lost" in result.columns:
        notes.append(
            "calls were lost: where a quantile depends on them, the bounds of its true value are shown"
            if analysis.name == "latency"
            else "counts and times include what was lost"
            if analysis.name == "syscall_mix"
            else ""
        )
    return [note for note in notes if note]


def show(report: Report) -> None:
    """Write the report to standard output."""
    target = console()
    print_facts(target, [("trace", report.title), *report.facts])
    target.print()
    print_table(target, report.sizes)
    for section in report.sections:
        target.print()
        target.print(section.title, style="bold")
        if section.wide.rows:
            target.print()
            print_table(target, section.wide if is_wide(target) else section.narrow)
        for note in section.notes:
            target.print(note, style="dim")
    if report.untold:
        target.print()
    for line in report.untold:
        target.print(line, style="dim")
