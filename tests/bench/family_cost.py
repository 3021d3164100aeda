"""What each family of tables costs a program, per event: beside nothing, empty probes at the same tracepoints, and perf record."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ringtape.schemas.folder import TraceFolder
from tests.bench import floor
from tests.bench.families import Family, families
from tests.bench.figures import Figure, Pair, Row, Section, at_most, difference, nanoseconds, number, octets, ratio, said, times
from tests.bench.peers import perf_samples
from tests.bench.rounds import interleave
from tests.bench.workshop import Workshop, discard

ROUNDS = 7
BARE, AGAIN, FLOOR, RINGTAPE, PERF = "bare", "bare again", "floor: empty probes", "ringtape", "perf record"


@dataclass(frozen=True)
class Metered:
    """A workload under a tool: wall, user and system ns of it and its children; events, lost ones and bytes that the tool stored."""

    wall: int
    user: int
    system: int
    events: int = 0
    lost: int = 0
    size: int = 0

    @property
    def cpu(self) -> float:
        """CPU ns of the workload."""
        return float(self.user + self.system)


def measure(shop: Workshop) -> Section:
    """Return the section."""
    section = Section("families", "Added cost per event of each family of tables")
    section.remarks = [
        "CPU time (user and system) of a real workload and all its children, of which nothing of the tool is part: added = CPU ns - bare,",
        "divided by the events that ringtape recorded. Each variant once a round in random order.",
        "The floor attaches an empty program to each of the same tracepoints; perf record stores the same events.",
    ]
    for family in families():
        try:
            _measure(family, shop, section)
        except (RuntimeError, FileNotFoundError) as error:
            print(f"bench: {family.name}: {error}", file=sys.stderr)
            section.rows.append(said(family.name, f"did not work here: {' '.join(str(error).split())[:160]}"))
    return section


def _measure(family: Family, shop: Workshop, section: Section) -> None:
    command = list(family.workload(shop, max(1, family.size // 20) if shop.quick else family.size))
    variants: dict[str, Callable[[], Metered]] = {
        BARE: lambda: run_metered(shop, [], command),
        AGAIN: lambda: run_metered(shop, [], command),
        FLOOR: lambda: _floor(shop, family, command),
        RINGTAPE: lambda: recorded(shop, family, command),
    }
    if shutil.which("perf") and family.perf:
        variants[PERF] = lambda: _perf(shop, family, command)
    rounds = 1 if shop.quick else ROUNDS
    results = interleave(variants, rounds, shop.quiet)
    cpu = {name: Figure.of([run.cpu for run in runs]) for name, runs in results.items()}
    events = Figure.of([float(run.events) for run in results[RINGTAPE]]).median
    if not events:
        raise RuntimeError("no event was recorded")

    def per_event(name: str) -> Pair:
        added = difference(cpu[name], cpu[BARE])
        return Pair(added.best / events, added.median / events, added.repeats)

    bare = Pair(cpu[BARE].best / events, cpu[BARE].median / events, rounds)
    section.rows.append(Row(f"{family.name}: the workload itself, per event", bare, nanoseconds, None, f"{events:,.0f} events a run"))
    section.rows.append(Row(f"{family.name}: noise (bare again - bare)", per_event(AGAIN), nanoseconds))
    for name in (FLOOR, RINGTAPE, PERF):
        if name in results:
            stored = Figure.of([run.size / run.events if run.events else 0.0 for run in results[name]]).median
            beside = f"{octets(stored)} an event stored" if stored else ""
            section.rows.append(Row(f"{family.name}: {name}, added per event", per_event(name), nanoseconds, None, beside))
    section.rows.append(Row(f"{family.name}: ringtape / floor", ratio(per_event(RINGTAPE), per_event(FLOOR)), times, at_most(2)))
    if PERF in results:
        section.rows.append(Row(f"{family.name}: ringtape / perf record", ratio(per_event(RINGTAPE), per_event(PERF)), times, at_most(1)))
    lost = Figure.of([float(run.lost) for run in results[RINGTAPE]])
    section.rows.append(Row(f"{family.name}: records lost", Pair(lost.best, lost.median, rounds), number, at_most(0, "0")))
    section.raw[family.name] = {name: [asdict(run) for run in runs] for name, runs in results.items()}


def run_metered(shop: Workshop, prefix: Sequence[str | Path], command: Sequence[str | Path]) -> Metered:
    """Run a workload, under a tool if a prefix is given."""
    result = shop.new(".meter")
    shop.run([*prefix, shop.program("meter"), result, *command])
    wall, user, system = map(int, result.read_text().split())
    discard(result)
    return Metered(wall, user, system)


def _floor(shop: Workshop, family: Family, command: Sequence[str | Path]) -> Metered:
    with floor.attached("empty", family.tracepoints):
        return run_metered(shop, [], command)


def recorded(shop: Workshop, family: Family, command: Sequence[str | Path]) -> Metered:
    """Run a workload while its family is recorded."""
    trace = shop.new(".trace")
    run = run_metered(shop, [*shop.record(trace, *family.record), "--"], command)
    footer = TraceFolder.open(trace).footer
    assert footer is not None
    size = sum(os.path.getsize(path) for path in (trace / family.table).iterdir())
    found = Metered(run.wall, run.user, run.system, footer.rows[family.table], sum(footer.lost.values()), size)
    discard(trace)
    return found


def _perf(shop: Workshop, family: Family, command: Sequence[str | Path]) -> Metered:
    data = shop.new(".perf")
    chosen = [word for event in family.perf for word in ("-e", event)]
    run = run_metered(shop, ["perf", "record", "-q", "-o", data, *family.perf_options, *chosen, "--"], command)
    found = Metered(run.wall, run.user, run.system, perf_samples(shop, data), 0, data.stat().st_size)
    discard(data)
    return found
