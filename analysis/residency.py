"""How much memory processes had when, from the table ``memory``."""

from __future__ import annotations

import polars as pl

from ringtape.analysis.faulting import of_the_target
from ringtape.analysis.in_force import InForce
from ringtape.analysis.trace import Trace

RESIDENT = ("anon", "file", "shmem")
BINS = 1200
"""Stretches of time that pictures tell apart."""


def process_lives(trace: Trace) -> tuple[InForce, pl.DataFrame]:
    """Return which process a process number means at a time, and the name that each had last.

    Returns
    -------
    InForce, DataFrame
        Codes by process number and time; ``life`` (the code), ``pid``, ``command``.
    """
    if "processes" not in trace.tables:
        return InForce.of(*(pl.Series([], dtype=pl.Int64).to_numpy() for _ in range(3))), pl.DataFrame(
            schema={"life": pl.Int64, "pid": pl.Int32, "command": pl.String}
        )
    events = trace.collect(trace.scan("processes").filter(pl.col("tid") == pl.col("pid")).select("ts", "seq", "pid", "start")).sort("ts", "seq")
    born = events.group_by("pid", "start", maintain_order=True).agg(pl.col("ts").first(), pl.col("ts").last().alias("last"))
    born = born.with_row_index("life").with_columns(pl.col("life").cast(pl.Int64))
    known = trace.commands()
    texts = pl.Series([*known.names, "?"], dtype=pl.String)
    codes = known.codes(born["pid"].to_numpy(), born["last"].to_numpy())
    names = texts.gather(pl.Series(codes).replace(-1, len(known.names))).alias("command")
    in_force = InForce.of(born["pid"].to_numpy(), born["ts"].to_numpy(), born["life"].to_numpy())
    return in_force, born.select("life", "pid", names)


def numbered(in_force: InForce) -> pl.Expr:
    """Return the expression for the process of a row (``life``): a code, or a negative number for one that no event names."""

    def codes(pairs: pl.Series) -> pl.Series:
        pid = pairs.struct.field("pid")
        found = pl.Series(in_force.codes(pid.to_numpy(), pairs.struct.field("ts").to_numpy())).cast(pl.Int64)
        return found.zip_with(found >= 0, -1 - pid.cast(pl.Int64))

    return pl.struct("pid", "ts").map_batches(codes, return_dtype=pl.Int64, is_elementwise=True).alias("life")


def samples(trace: Trace, in_force: InForce) -> pl.LazyFrame:
    """Return what is known of each process's memory at an instant.

    Parameters
    ----------
    trace : Trace
        The recording; needs the table ``memory``.
    in_force : InForce
        Of `process_lives`.

    Returns
    -------
    LazyFrame
        ``life``, ``pid``, ``ts`` (ns; the end of a stall), ``anon``, ``file``, ``shmem``, ``swap``, ``resident`` (the sum of the first
        three), ``mapped``, ``peak``, ``mapped_peak`` (bytes). Every row of the table is a sample, stalls and OOM kills too.
    """
    rows = trace.scan("memory").filter(of_the_target(trace), pl.col("mapped") > 0)
    values = [*RESIDENT, "swap", "mapped", "peak", "mapped_peak"]
    return rows.select(numbered(in_force), "pid", (pl.col("ts") + pl.col("dur")).alias("ts"), *values, pl.sum_horizontal(RESIDENT).alias("resident"))


def over_time(trace: Trace, lives: pl.DataFrame | None = None, bins: int = BINS) -> pl.DataFrame:
    """Return the memory of processes over time, thinned out for a picture.

    Parameters
    ----------
    trace : Trace
        The recording; needs the table ``memory``.
    lives : DataFrame, optional
        Only processes whose ``life`` is in this frame.
    bins : int
        Equal stretches of time of which each has one row at most.

    Returns
    -------
    DataFrame
        By process and time: ``life``, ``pid``, and of the sample with most resident memory in each stretch ``ts``, ``anon``, ``file``,
        ``shmem``, ``swap``, ``resident``, ``mapped``.
    """
    begin, end = trace.span
    width = max(1, -(-((end if end is not None else begin) + 1 - begin) // bins))
    in_force, _ = process_lives(trace)
    rows = samples(trace, in_force)
    if lives is not None:
        rows = rows.filter(pl.col("life").is_in(lives["life"].implode()))
    place = ((pl.col("ts") - begin) // width).alias("bin")
    columns = ["pid", "ts", *RESIDENT, "swap", "resident", "mapped"]
    found = trace.collect(rows.with_columns(place).group_by("life", "bin").agg(pl.col(columns).sort_by("resident", "ts").last()))
    return found.sort("life", "ts").select("life", *columns)
