"""Runs of n calls that a thread made one after the other, counted in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ringtape.analysis.call_order import BITS, OTHER, Block, CallOrder
from ringtape.analysis.trace import Trace

LONGEST = 63 // BITS
MOST = 1 << 20
"""Different runs that are kept."""
_SUMS = ("seen", "count", "time", "inside", "wait")


@dataclass(frozen=True)
class Grams:
    """Counted runs.

    ``frame`` has a row per run: ``gram`` (codes, the last in the lowest bits), ``seen`` (the least that its number can be),
    ``most`` (the most), and of those seen ``time`` (from the entry of the first to the return of the last), ``inside`` (the
    durations), ``wait`` (between the calls), ``wait_min`` and ``wait_max`` (ns). ``total`` is the exact number of all.
    """

    frame: pl.DataFrame
    order: CallOrder
    total: int
    broken: int

    def codes(self, n: int) -> list[pl.Series]:
        """Return the codes of the first, second ... call of each run."""
        gram = self.frame["gram"]
        return [((gram // (1 << (BITS * (n - 1 - at)))) % (OTHER + 1)).alias(f"code{at}") for at in range(n)]


def grams(trace: Trace, n: int) -> Grams:
    """Count the runs of n calls of all threads.

    Memory does not grow with the number of calls: they come in blocks of 2**21, the last n - 1 of each thread are kept for
    the next block, and so are at most 2**20 different runs. Where there are more, the summary of Misra and Gries (1982), merged as
    Agarwal et al. (Mergeable summaries, 2012), keeps those that were met most, with bounds on their numbers.
    """
    order = CallOrder(trace)
    held = pl.DataFrame(schema={"gram": pl.Int64, **dict.fromkeys((*_SUMS, "wait_min", "wait_max"), pl.Int64)})
    total = broken = taken = 0
    for block in order.blocks(n - 1):
        found = _of_block(block, n)
        total += int(found["seen"].sum())
        broken += block.broken
        sums = [pl.col(name).sum() for name in _SUMS]
        held = pl.concat([held, found.with_columns(pl.col("seen").alias("count")).select(held.columns)])
        held = held.group_by("gram").agg(*sums, pl.col("wait_min").min(), pl.col("wait_max").max())
        if len(held) > MOST:
            cut = int(held["count"].top_k(MOST // 2 + 1).min())  # type: ignore[arg-type]
            held = held.with_columns(pl.col("count") - cut).filter(pl.col("count") > 0)
            taken += cut
    return Grams(held.with_columns((pl.col("count") + taken).alias("most")), order, total, broken)


def _of_block(block: Block, n: int) -> pl.DataFrame:
    size = max(0, len(block.code) - n + 1)
    whole = block.fresh[n - 1 :].copy() if size else np.zeros(0, np.bool_)
    for at in range(n - 1):
        whole &= block.linked[at : at + size]
    first = np.flatnonzero(whole)
    gram = np.zeros(len(first), np.int64)
    inside = np.zeros(len(first), np.int64)
    wait = np.zeros(len(first), np.int64)
    for at in range(n):
        gram = (gram << BITS) | block.code[first + at]
        inside += block.end[first + at] - block.start[first + at]
        if at:
            wait += block.start[first + at] - block.end[first + at - 1]
    rows = pl.DataFrame({"gram": gram, "time": inside + wait, "inside": inside, "wait": wait})
    return rows.group_by("gram").agg(
        pl.len().cast(pl.Int64).alias("seen"),
        pl.col("time", "inside", "wait").sum(),
        pl.col("wait").min().alias("wait_min"),
        pl.col("wait").max().alias("wait_max"),
    )
