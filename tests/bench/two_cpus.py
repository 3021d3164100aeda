"""Whether two busy CPUs that are recorded at once disturb each other: rings are per CPU, so they should not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from tests.bench.figures import Figure, Pair, Row, Section, at_most, nanoseconds, number, ratio, said, times
from tests.bench.rounds import interleave
from tests.bench.traces import facts
from tests.bench.workshop import Loop, Workshop, discard

CALLS = 3_000_000
ROUNDS = 7
BOUND = 1.15


def _bare(shop: Workshop, cpus: Sequence[int], calls: int) -> Callable[[], tuple[list[Loop], int]]:
    return lambda: (shop.loop([], calls, cpus), 0)


def _recorded(shop: Workshop, cpus: Sequence[int], calls: int) -> Callable[[], tuple[list[Loop], int]]:
    def run() -> tuple[list[Loop], int]:
        trace = shop.new(".trace")
        loops = shop.loop([*shop.record(trace), "--"], calls, cpus)
        lost = facts(trace).lost
        discard(trace)
        return loops, lost

    return run


def measure(shop: Workshop) -> Section:
    """Return the section."""
    section = Section("two-cpus", "Two busy CPUs recorded at once, against one")
    if len(shop.cpus) < 2:
        section.rows.append(said("two CPUs", "this machine has only one"))
        return section
    first, second = shop.cpus[0], shop.cpus[-1]
    calls, rounds = (20_000, 1) if shop.quick else (CALLS, ROUNDS)
    where = {f"CPU {first} alone": [first], f"CPU {second} alone": [second], "both": [first, second]}
    variants = {f"bare, {name}": _bare(shop, cpus, calls) for name, cpus in where.items()}
    variants |= {f"recorded, {name}": _recorded(shop, cpus, calls) for name, cpus in where.items()}
    results = interleave(variants, rounds, shop.quiet)
    used = {name: Figure.of([sum(loop.cpu_per_call for loop in loops) / len(loops) for loops, _ in runs]) for name, runs in results.items()}
    wall = {name: Figure.of([sum(loop.per_call for loop in loops) / len(loops) for loops, _ in runs]) for name, runs in results.items()}
    section.remarks = [
        f"{calls:,} null calls a loop, {rounds} rounds in random order. Judged is the loop's own CPU time per call (CLOCK_THREAD_CPUTIME_ID),",
        "mean of the loops: with both CPUs busy the recorder must take its time from one of them.",
        "The wall time shows that, the CPU time leaves it out.",
        *([] if len(shop.cpus) > 2 else ["This machine has no third CPU for the recorder."]),
    ]

    def one(figures: dict[str, Figure], kind: str) -> Pair:
        names = [f"{kind}, {name}" for name in where if name != "both"]
        best = sum(figures[name].best for name in names) / len(names)
        return Pair(best, sum(figures[name].median for name in names) / len(names), rounds)

    def both(figures: dict[str, Figure], kind: str) -> Pair:
        figure = figures[f"{kind}, both"]
        return Pair(figure.best, figure.median, rounds)

    def added(which: Callable[[dict[str, Figure], str], Pair]) -> Pair:
        with_us, without = which(used, "recorded"), which(used, "bare")
        return Pair(with_us.best - without.best, with_us.median - without.median, rounds)

    for name in variants:
        section.rows.append(Row(f"{name}: CPU time per call", Pair(used[name].best, used[name].median, rounds), nanoseconds))
    section.rows += [
        Row("bare: both / one (what the machine itself does)", ratio(both(used, "bare"), one(used, "bare")), times),
        Row("recorded: both / one, CPU time per call", ratio(both(used, "recorded"), one(used, "recorded")), times, at_most(BOUND)),
        Row("recorded: both / one, added CPU time per call", ratio(added(both), added(one)), times, at_most(BOUND), "the stricter reading"),
        Row(
            "recorded: both / one, wall time per call",
            ratio(both(wall, "recorded"), one(wall, "recorded")),
            times,
            None,
            "the recorder's share included",
        ),
    ]
    lost = [float(lost) for _, lost in results["recorded, both"]]
    section.rows.append(Row("records lost with both busy", Pair(min(lost), Figure.of(lost).median, rounds), number))
    section.raw = {name: [{"loops": [asdict(loop) for loop in loops], "lost": gone} for loops, gone in runs] for name, runs in results.items()}
    return section
