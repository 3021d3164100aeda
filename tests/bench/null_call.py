"""What a call costs more while it is recorded: one pinned loop under every tool, the recorder on another CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict

from tests.bench.figures import Figure, Row, Section, Target, at_most, difference, nanoseconds, number, pair, ratio, said, share, times
from tests.bench.peers import AGAIN, BARE, BPFTRACE_HIST, FLOOR, PERF_RECORD, RINGTAPE, STRACE, Run, Tool, tools
from tests.bench.rounds import interleave
from tests.bench.workshop import Workshop

ROUNDS = 7
SECONDS = 0.8
"""How long each run's loop is meant to take."""
TRIALS = 3
"""Runs before the first round that find out how many calls that is: a single one, disturbed, would make all rounds short."""
BOUNDS = {FLOOR.name: 1.5, PERF_RECORD.name: 0.45, BPFTRACE_HIST.name: 0.6, STRACE.name: 0.01}


def measure(shop: Workshop) -> Section:
    """Return the section."""
    section = Section("null-call", "Added cost per system call (getppid in a loop, wall time)")
    usable: list[Tool] = []
    calls: dict[str, int] = {}
    found, absent = tools()
    for tool in found:
        try:
            trials = [shop.quiet.run(_caller(tool, shop, tool.first)) for _ in range(1 if shop.quick else TRIALS)]
        except RuntimeError as error:
            print(f"bench: {tool.name}: {error}", file=sys.stderr)
            section.rows.append(said(tool.name, f"did not work here: {' '.join(str(error).split())[:160]}"))
            continue
        usable.append(tool)
        calls[tool.name] = tool.first if shop.quick else _two_digits(SECONDS * 1e9 / min(trial.loop.per_call for trial in trials))
    rounds = 1 if shop.quick else ROUNDS
    results = interleave({tool.name: _caller(tool, shop, calls[tool.name]) for tool in usable}, rounds, shop.quiet)
    wall = {name: Figure.of([run.loop.per_call for run in runs]) for name, runs in results.items()}
    used = {name: Figure.of([run.loop.cpu_per_call for run in runs]) for name, runs in results.items()}
    added = {name: difference(figure, wall[BARE.name]) for name, figure in wall.items()}
    section.remarks = [
        f"Loop on CPU {shop.loop_cpu}, tool on CPU {shop.recorder_cpu}; {rounds} rounds, each tool once a round in random order;",
        f"calls per run scaled so that the loop takes about {SECONDS} s.",
        "Added = wall ns per call - bare, of the best runs and of the medians; ratios are of added costs.",
    ]
    lines = [Row("bare call", pair(wall[BARE.name]), nanoseconds, None, f"{calls[BARE.name]:,} calls a run")]
    lines.append(Row("the same again / the same: what noise alone does", ratio(pair(wall[AGAIN.name]), pair(wall[BARE.name])), times))
    for tool in usable:
        if tool not in (BARE, AGAIN):
            lines.append(Row(f"{tool.name}: added", added[tool.name], nanoseconds, None, _beside(results[tool.name], calls[tool.name])))
    for tool in usable:
        if tool in (BARE, AGAIN, RINGTAPE) or RINGTAPE.name not in added:
            continue
        bound = BOUNDS.get(tool.name)
        target: Target | None = at_most(bound) if bound else None
        lines.append(Row(f"ringtape / {tool.name}", ratio(added[RINGTAPE.name], added[tool.name]), times, target))
    if RINGTAPE.name in used and FLOOR.name in used:
        by_cpu = ratio(difference(used[RINGTAPE.name], used[BARE.name]), difference(used[FLOOR.name], used[BARE.name]))
        lines.append(Row("ringtape / floor by the loop's CPU time instead of wall time", by_cpu, times))
        lost = Figure.of([float(run.lost or 0) for run in results[RINGTAPE.name]])
        lines.append(Row("ringtape: records lost", pair(lost), number, at_most(0, "0")))
    section.rows = lines + section.rows + [said(gone.name, f"absent; it comes with the package {gone.packages}") for gone in absent]
    section.raw = {name: [asdict(run) for run in runs] for name, runs in results.items()}
    return section


def _caller(tool: Tool, shop: Workshop, calls: int) -> Callable[[], Run]:
    return lambda: tool.run(shop, calls)


def _two_digits(value: float) -> int:
    return int(float(f"{value:.2g}"))


def _beside(runs: list[Run], calls: int) -> str:
    """Return what a tool stored and lost, and how far the loop had to wait for its CPU."""
    words = [f"{calls:,} calls a run"]
    last = runs[-1]
    events = sum(run.events or 0 for run in runs)
    if last.events is not None and events:
        lost = sum(run.lost or 0 for run in runs)
        words.append(f"lost {share(lost / (lost + events))}")
        if last.size is not None:
            words.append(f"{sum(run.size or 0 for run in runs) / events * last.per_call:.2f} B per call stored")
        if last.cpu is not None:
            used = sum(run.cpu or 0 for run in runs)
            words.append(f"{events / used:,.0f} events per CPU second of the reader, start included" if used else "")
    waited = Figure.of([run.loop.waited / run.loop.wall for run in runs])
    words.append(f"loop waited for its CPU {share(waited.median)} of the time")
    return "; ".join(word for word in words if word)
