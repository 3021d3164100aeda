"""Whether two busy CPUs disturb each other in any family: its workload pinned to one CPU, and one on each of two at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench.families import Family, families
from tests.bench.family_cost import Metered, recorded, run_metered
from tests.bench.figures import Figure, Pair, Row, Section, at_most, nanoseconds, ratio, said, times
from tests.bench.rounds import interleave
from tests.bench.workshop import Workshop

ROUNDS = 5
BOUND = 1.15


def measure(shop: Workshop) -> Section:
    """Return the section."""
    section = Section("family-pairs", "Two busy CPUs in each family, against one")
    if len(shop.cpus) < 2:
        section.rows.append(said("two CPUs", "this machine has only one"))
        return section
    section.remarks = [
        "The workload of each family on one CPU, and one on each of two CPUs at once: CPU time added per event. What two at once cost more without",
        "a recorder (caches, locks, the other hardware thread) is in the bare figures and not in the added ones.",
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
    cpus = {"one": [shop.cpus[-1]], "both": [shop.cpus[0], shop.cpus[-1]]}
    variants: dict[str, Callable[[], Metered]] = {}
    for name, chosen in cpus.items():
        variants[f"bare, {name}"] = lambda chosen=chosen: run_metered(shop, [], _pinned(command, chosen))  # type: ignore[misc]
        variants[f"recorded, {name}"] = lambda chosen=chosen: recorded(shop, family, _pinned(command, chosen))  # type: ignore[misc]
    rounds = 1 if shop.quick else ROUNDS
    results = interleave(variants, rounds, shop.quiet)

    def added(name: str) -> Pair:
        events = Figure.of([float(run.events) for run in results[f"recorded, {name}"]]).median
        if not events:
            raise RuntimeError("no event was recorded")
        with_us, without = (Figure.of([run.cpu for run in results[f"{kind}, {name}"]]) for kind in ("recorded", "bare"))
        return Pair((with_us.best - without.best) / events, (with_us.median - without.median) / events, rounds)

    for name in cpus:
        section.rows.append(Row(f"{family.name}: added per event, {name}", added(name), nanoseconds))
    section.rows.append(Row(f"{family.name}: both / one", ratio(added("both"), added("one")), times, at_most(BOUND)))
    section.raw[family.name] = {name: [asdict(run) for run in runs] for name, runs in results.items()}


def _pinned(command: Sequence[str | Path], cpus: Sequence[int]) -> list[str | Path]:
    """Return a command that runs the command on each of these CPUs at once."""
    each = " ".join(f'taskset -c {cpu} "$@" &' for cpu in cpus)
    return ["sh", "-c", f"{each} wait", "sh", *command]
