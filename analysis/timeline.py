"""The time ledger over time."""

from __future__ import annotations

import polars as pl

from ringtape.analysis.time_ledger import BLOCKED, TimeLedger
from ringtape.analysis.trace import Trace
from ringtape.analysis.waiting import reason


def over_time(trace: Trace, bins: int = 120) -> pl.DataFrame:
    """Return where the time of all threads went in equal stretches of time.

    Returns
    -------
    DataFrame
        ``begin`` and ``end`` of the stretch (ns of CLOCK_MONOTONIC), ``what`` (as ``where`` of the analysis ``ledger``, for what was
        blocked with the reason), ``time`` (ns).
    """
    found = TimeLedger(trace, bins)
    edges = pl.Series(found.edges, dtype=pl.Int64)
    what = pl.when(pl.col("where") == BLOCKED).then(pl.concat_str(pl.lit("blocked: "), reason())).otherwise(pl.col("where")).alias("what")
    sums = found.entries.with_columns(what).group_by("bin", "what").agg(pl.col("time").sum()).sort("bin", "what")
    return sums.select(edges.gather(sums["bin"]).alias("begin"), edges.gather(sums["bin"] + 1).alias("end"), "what", "time")
