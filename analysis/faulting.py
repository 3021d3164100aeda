"""What became of each page fault, from the counters of its thread that the rows of the table ``faults`` carry.

A row holds how many minor and major faults the kernel had counted for the thread when the fault was taken, so the row after it (or
the exit of the thread) tells what the fault itself came to, and what the kernel counted without trapping: pages populated in advance,
those that a system call pinned, and the faults whose rows were lost. Sums of the differences are therefore exact, whatever was lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl

from ringtape.analysis.in_force import InForce
from ringtape.analysis.trace import Trace

EXISTING, FORK, EXEC, EXIT = 0, 1, 2, 3
USER, KERNEL = 0, 1
COUNTERS = -1
"""Kind of what the table ``processes`` tells of a thread's counters: 0 at its fork, and those of its exit."""
NONE, MINOR, MAJOR, UNCLEAR, OPEN = range(5)
"""What became of a fault: no counter moved (it failed, or was served by another thread meanwhile), minor, major, one of several faults
until the next row of which some were minor and some major, nothing known because there is no later row."""
WINDOW = 500_000
"""Rows that are looked at together, about."""


class Lives:
    """Which thread a thread number means at a time: numbers are used again, and handed on by exec.

    Attributes
    ----------
    counters : DataFrame
        What ``processes`` tells of counters: ``ts``, ``pid``, ``tid``, ``min_flt``, ``maj_flt``, ``kind`` (`COUNTERS`), ``life``,
        ``place`` (0 before, 1 after the thread's other rows of that instant).
    """

    def __init__(self, trace: Trace) -> None:
        columns = ["ts", "start", "pid", "tid", "creator", "kind", "min_flt", "maj_flt", "seq"]
        empty = pl.DataFrame(schema=dict.fromkeys(columns, pl.Int64))
        recorded = "processes" in trace.tables
        events = trace.collect(trace.scan("processes").select(pl.col(columns).cast(pl.Int64))) if recorded else empty
        events = events.sort("ts", "seq")
        took_over = (pl.col("kind") == EXEC) & (pl.col("creator") > 0) & (pl.col("creator") != pl.col("tid"))
        born = events.filter(pl.struct("tid", "start").is_first_distinct()).with_row_index("life").with_columns(pl.col("life").cast(pl.Int64))
        taken = events.filter(took_over)
        first = InForce.of(born["tid"].to_numpy(), born["ts"].to_numpy(), born["life"].to_numpy())
        heirs = taken.with_columns(pl.Series("life", first.codes(taken["creator"].to_numpy(), taken["ts"].to_numpy()), pl.Int64))
        known = pl.concat([born.select("tid", "ts", "life"), heirs.select("tid", "ts", "life")])
        self._in_force = InForce.of(known["tid"].to_numpy(), known["ts"].to_numpy(), known["life"].to_numpy())
        told = events.filter(pl.col("kind").is_in([FORK, EXIT])).with_columns((pl.col("kind") == EXIT).cast(pl.Float64).alias("place"))
        self.counters = self.numbered(
            told.select("ts", pl.col("pid", "tid").cast(pl.Int32), "min_flt", "maj_flt", pl.lit(COUNTERS, pl.Int8).alias("kind"), "place")
        )

    def numbered(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the frame with ``life``: 0, 1, 2 ..., or a negative number of its own for a thread that no event names."""
        tid = frame["tid"].to_numpy().astype(np.int64)
        codes = self._in_force.codes(tid, frame["ts"].to_numpy()).astype(np.int64)
        return frame.with_columns(pl.Series("life", np.where(codes >= 0, codes, -1 - tid), pl.Int64))


def launched(trace: Trace) -> tuple[int, int] | None:
    """Return the process of the recorded command and when it became the command: what it was before is the recorder's own."""
    if not trace.header.command or "processes" not in trace.tables:
        return None
    execs = trace.scan("processes").filter(pl.col("kind") == EXEC).select("ts", "pid")
    first = trace.collect(execs.sort("ts").head(1))
    if not len(first):
        return None
    pid, ts = first["pid"][0], first["ts"][0]
    earlier = trace.scan("processes").filter(pl.col("pid") == pid, pl.col("ts") < ts, pl.col("kind").is_in([EXISTING, FORK]))
    return None if len(trace.collect(earlier.select("ts").head(1))) else (pid, ts)


def of_the_target(trace: Trace) -> pl.Expr:
    """Return the expression that is false for rows of the command's process from before it was the command."""
    found = launched(trace)
    return pl.lit(True) if found is None else (pl.col("pid") != found[0]) | (pl.col("ts") >= found[1])


def _windows(trace: Trace) -> Iterator[tuple[int, int]]:
    """Yield half-open stretches of time that hold `WINDOW` rows or fewer each on average, all rows together."""
    parts = sorted((part for part in trace.parts("faults") if part.rows), key=lambda part: part.max_ts)
    if not parts:
        return
    begin, rows = min(part.min_ts for part in parts), 0
    for part in parts:
        rows += part.rows
        if rows >= WINDOW or part is parts[-1]:
            yield from _cut(begin, part.max_ts + 1, -(-rows // WINDOW))
            begin, rows = part.max_ts + 1, 0


def _cut(begin: int, end: int, number: int) -> Iterator[tuple[int, int]]:
    edges = [begin + (end - begin) * at // number for at in range(number + 1)]
    yield from ((since, until) for since, until in pairwise(edges) if since < until)


def outcomes(trace: Trace) -> Iterator[pl.DataFrame]:
    """Tell what became of each fault, in pieces of bounded size.

    Parameters
    ----------
    trace : Trace
        The recording; needs the table ``faults``.

    Yields
    ------
    DataFrame
        By thread and time: ``life`` (of `Lives`), ``pid``, ``tid``, ``ts``, ``until`` (time of the thread's next row), ``kind``
        (that of the row, or `COUNTERS`), ``region``, ``error``, ``ip``, ``became`` (`NONE`, `MINOR`, `MAJOR`, `UNCLEAR`, `OPEN`; null
        for rows that are no faults), ``min_flt`` and ``maj_flt`` (faults that the kernel counted from this row to the next, without
        the one of the row itself where it is known).
    """
    lives = Lives(trace)
    columns = ["ts", "pid", "tid", "min_flt", "maj_flt", "kind", "region", "error", "ip"]
    target, at = of_the_target(trace), None
    carried: pl.DataFrame | None = None
    for since, until in _windows(trace):
        rows = lives.numbered(trace.collect(trace.scan("faults", since, until).filter(target).select(columns)))
        rows = rows.with_columns(pl.lit(0.5).alias("place"))
        # Births and deaths that no window holds stand in the one after them.
        told = lives.counters.filter(pl.col("ts") < until if at is None else pl.col("ts").is_between(at, until, closed="left"))
        at = until
        frame = pl.concat([piece for piece in (carried, rows, told) if piece is not None], how="diagonal")
        frame = _with_effect(frame)
        last = pl.col("until").is_null()
        carried = frame.filter(last, pl.col("place") < 1).select(*columns, "life", "place")
        yield _judged(frame.filter(~last))
    if carried is None:
        return
    told = lives.counters.filter(pl.col("ts") >= at)
    yield _judged(_with_effect(pl.concat([carried, told], how="diagonal")))


def _with_effect(frame: pl.DataFrame) -> pl.DataFrame:
    """Add ``until`` and the increase of both counters up to the next row of the same thread (null for the last one)."""
    # At one instant a thread is born before it takes a fault, and ends after it; then the counters decide.
    frame = frame.sort("life", "ts", "place", pl.col("min_flt") + pl.col("maj_flt"))
    same = pl.col("life") == pl.col("life").shift(-1)
    return frame.with_columns(
        pl.when(same).then(pl.col("ts").shift(-1)).alias("until"),
        *(pl.when(same).then((pl.col(name).shift(-1) - pl.col(name)).clip(0)).alias(f"_{name}") for name in ("min_flt", "maj_flt")),
    )


def _judged(frame: pl.DataFrame) -> pl.DataFrame:
    minor, major = pl.col("_min_flt"), pl.col("_maj_flt")
    became = (
        pl.when(~pl.col("kind").is_in([USER, KERNEL]))
        .then(None)
        .when(minor.is_null())
        .then(OPEN)
        .when(minor + major == 0)
        .then(NONE)
        .when(major == 0)
        .then(MINOR)
        .when(minor == 0)
        .then(MAJOR)
        .otherwise(UNCLEAR)
        .cast(pl.Int8)
    )
    judged = frame.with_columns(became.alias("became"))
    own = pl.col("became")
    return judged.select(
        "life", "pid", "tid", "ts", "until", "kind", "region", "error", "ip", "became",
        (minor.fill_null(0) - (own == MINOR).fill_null(False).cast(pl.Int64)).alias("min_flt"),
        (major.fill_null(0) - (own == MAJOR).fill_null(False).cast(pl.Int64)).alias("maj_flt"),
    )  # fmt: skip


def over_time(trace: Trace, bins: int = 150) -> pl.DataFrame:
    """Count minor and major faults of each process in equal stretches of time.

    Parameters
    ----------
    trace : Trace
        The recording; needs the table ``faults``.
    bins : int
        Stretches.

    Returns
    -------
    DataFrame
        ``begin`` and ``end`` (ns of CLOCK_MONOTONIC), ``pid``, ``minor``, ``major``; stretches without a fault are left out. What the
        kernel counted without trapping stands where the thread's next row is.

    Examples
    --------
    >>> from ringtape.analysis.faulting import over_time
    >>> over_time(getfixture("memory_trace"), bins=1).select("pid", "minor", "major").rows()
    [(100, 6, 1)]
    """
    begin, end = trace.span
    width = max(1, -(-((end if end is not None else begin) + 1 - begin) // bins))
    pieces = [pl.DataFrame(schema={"bin": pl.Int64, "pid": pl.Int32, "minor": pl.Int64, "major": pl.Int64})]

    def place(time: str) -> pl.Expr:
        return ((pl.col(time) - begin) // width).clip(0, bins - 1).alias("bin")

    for rows in outcomes(trace):
        own = rows.filter(pl.col("became").is_in([MINOR, MAJOR]))
        is_own = [(pl.col("became") == code).cast(pl.Int64).alias(name) for code, name in ((MINOR, "minor"), (MAJOR, "major"))]
        rest = rows.filter(pl.col("min_flt") + pl.col("maj_flt") > 0)
        both = pl.concat([
            own.select(place("ts"), "pid", *is_own),
            rest.select(place("until"), "pid", pl.col("min_flt").alias("minor"), pl.col("maj_flt").alias("major")),
        ])  # fmt: skip
        pieces.append(both.group_by("bin", "pid").agg(pl.col("minor", "major").sum()))
    found = pl.concat(pieces).group_by("bin", "pid").agg(pl.col("minor", "major").sum()).sort("bin", "pid")
    return found.select((begin + pl.col("bin") * width).alias("begin"), (begin + (pl.col("bin") + 1) * width).alias("end"), "pid", "minor", "major")
