"""When calls were lost: the time between the records beside each gap in the sequence numbers of a CPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.ledger import FOREVER, NO_STORAGE, RING_FULL
from ringtape.analysis.trace import Trace

Ints = npt.NDArray[np.int64]
RUN = 1 << 16
"""Sequence numbers of a CPU that are counted together."""
TOGETHER = 32
"""Runs with gaps that are read at once."""
MOST = 1 << 20
"""Holes that are kept apart; where there are more, those nearest to each other are taken as one."""


@dataclass(frozen=True)
class Holes:
    """Intervals of time, ends included, apart from each other and in order, in one of which each lost call ended."""

    starts: Ints
    ends: Ints

    def between(self, after: npt.NDArray[np.int64], before: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return where a call can be missing that was made after one instant and ended before another."""
        if not len(self.starts):
            return np.zeros(len(after), np.bool_)
        # A call that comes after another ends later, on whatever CPU.
        first = np.searchsorted(self.ends, after, "right")
        return (first < len(self.starts)) & (self.starts[np.minimum(first, len(self.starts) - 1)] <= before)


def holes(trace: Trace) -> Holes:
    """Return when calls of a trace were lost.

    A record takes the next number of its CPU when its call ends, whether it can be kept or not. So a lost call ended between
    the ends of the two records beside a gap. Where no record stands on one side, and for calls that took no number (no task
    storage), the loss ledger tells between which two looks they were lost. What was narrowed away counts as well: whose a
    lost call was is not known.

    Memory: the numbers are counted in runs of 65,536 and only those with gaps are read, 32 at a time; at most 2**20 holes are kept.
    """
    empty = np.empty(0, np.int64)
    if not trace.lost().get("syscalls"):
        return Holes(empty, empty)
    everything = Trace(trace.folder)
    end = (pl.col("ts") + pl.col("dur")).alias("end")
    records = everything.scan("syscalls").filter(pl.col("seq") >= 0).select("cpu", "seq", end)
    runs = everything.collect(
        records.group_by("cpu", (pl.col("seq") // RUN).alias("run")).agg(
            pl.len().cast(pl.Int64).alias("count"),
            pl.col("seq").min().alias("first"),
            pl.col("seq").max().alias("last"),
            pl.col("end").min_by("seq").alias("since"),
            pl.col("end").max_by("seq").alias("until"),
        )
    ).sort("cpu", "run")
    after = pl.col("last").shift().over("cpu")
    apart = runs.filter(pl.col("first") > after + 1).join(
        runs.select("cpu", "run", pl.col("until").shift().over("cpu").alias("since_before")), on=["cpu", "run"]
    )
    found = [(apart["since_before"].to_numpy(), apart["since"].to_numpy())]
    torn = runs.filter(pl.col("count") < pl.col("last") - pl.col("first") + 1)
    for at in range(0, len(torn), TOGETHER):
        few = torn[at : at + TOGETHER].select("cpu", "run").lazy()
        rows = records.with_columns((pl.col("seq") // RUN).alias("run")).join(few, on=["cpu", "run"], how="semi")
        sorted_rows = everything.collect(rows).sort("cpu", "seq")
        cpu, seq, ends = (sorted_rows[name].to_numpy() for name in ("cpu", "seq", "end"))
        gap = np.flatnonzero((cpu[1:] == cpu[:-1]) & (seq[1:] > seq[:-1] + 1))
        found.append((ends[gap], ends[gap + 1]))
    found += _at_the_edges(everything, runs)
    starts, stops = (np.concatenate([pair[side] for pair in found]).astype(np.int64) for side in (0, 1))
    return _apart(starts, np.maximum(starts, stops))


def _at_the_edges(trace: Trace, runs: pl.DataFrame) -> list[tuple[Ints, Ints]]:
    """Return the holes before the first and after the last record of each CPU, and those of calls without a number."""
    footer = trace.footer
    attempted = {int(cpu): count for cpu, count in (footer.attempted.get("syscalls", {}) if footer else {}).items()}
    known = runs.group_by("cpu").agg(pl.col("first").min(), pl.col("last").max(), pl.col("since").first(), pl.col("until").last())
    records = {int(cpu): values for cpu, *values in known.iter_rows()}
    found: list[tuple[int, int]] = []
    ledger: dict[int, tuple[int, int]] = {}
    if "losses" in trace.tables:
        rows = trace.scan("losses").filter(pl.col("table") == "syscalls", pl.col("cause").is_in([RING_FULL, NO_STORAGE]))
        for cpu, cause, since, until in trace.collect(rows.select("cpu", "cause", "ts", "until")).iter_rows():
            if cause == NO_STORAGE or cpu not in records:
                found.append((since, until))
            else:
                low, high = ledger.get(cpu, (since, until))
                ledger[cpu] = min(low, since), max(high, until)
    for cpu, (first, last, since, until) in records.items():
        low, high = ledger.get(cpu, (-FOREVER, FOREVER))
        if first > 0:
            found.append((min(low, since), since))
        missing = attempted[cpu] > last + 1 if cpu in attempted else cpu in ledger and high > until
        if missing:
            found.append((until, max(high, until)))
    if not found and not len(runs):
        found.append((-FOREVER, FOREVER))
    pairs = np.array(found, np.int64).reshape(-1, 2)
    return [(pairs[:, 0], pairs[:, 1])]


def _apart(starts: Ints, ends: Ints) -> Holes:
    """Return the union of intervals."""
    if not len(starts):
        return Holes(starts, ends)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    distance = starts[1:] - ends[:-1]
    least = 0
    if len(distance) >= MOST:
        least = max(0, int(np.partition(distance, len(distance) - MOST)[len(distance) - MOST]))
    new = np.concatenate([[True], distance > least])
    return Holes(starts[new], ends[np.concatenate([new[1:], [True]])])
