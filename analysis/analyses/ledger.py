"""Where the time of every thread went, to the nanosecond (time ledger)."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ringtape.analysis.naming import syscall_label
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.threads import GROUPS, KEYS, By, named
from ringtape.analysis.time_ledger import BLOCKED, TimeLedger
from ringtape.analysis.trace import Trace
from ringtape.analysis.waiting import MEANING, reason


@analysis(
    tables=("sched", "syscalls"),
    groups=GROUPS,
    columns=(
        Result(
            "where",
            pl.String,
            "user: on a CPU, in no system call; syscall: on a CPU in one; run queue: waiting for a CPU; blocked: in a call; fault: blocked"
            " uninterruptibly in no call; stopped: by a signal or a tracer; unknown; lost",
        ),
        Result("syscall", pl.String, "the system call (where syscall and blocked)"),
        Result("reason", pl.String, f"what for (where blocked): {MEANING}"),
        Result("time", pl.Int64, "time spent there", "ns"),
        Result("share", pl.Float64, "time / time of the group", "share"),
        Result("threads", pl.Int64, "threads of the group that were there", "count"),
    ),
)
def ledger(trace: Trace, *, by: By = "process") -> pl.DataFrame:
    """Put every nanosecond of every thread in exactly one place.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"process", "thread", "command"}
        Whose time.

    Returns
    -------
    DataFrame
        Rows of a group together, groups with most time first: ``where``, ``syscall``, ``reason``, ``time`` (ns), ``share``,
        ``threads``. The times of a group add up exactly to the wall time of its threads: from when each could first run (or the
        recording began) to when it left its CPU for ever (or the recording ended).

    Raises
    ------
    RingtapeError
        If the tables ``sched`` and ``syscalls`` were not recorded.

    Notes
    -----
    ``user`` holds what the program itself did, and page faults and interrupts meanwhile. Where calls were lost, or left out by
    ``--syscall`` or ``--min-duration``, their time cannot be told from it: during losses it is ``unknown``. What a
    call waits for is told by the call or by its descriptor, followed from its making (see the analysis ``files``); ``disk`` is any other
    uninterruptible wait of a call that names a file, ``other`` what neither tells: a FIFO opened by its path, say. Pipes are known
    if the table ``paths`` was recorded; a socket whose making was not is ``network``, whatever its family.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.ledger import ledger
    >>> trace = ringtape.open("datasets/families.trace")
    >>> ledger(trace, by="command").select("command", "where", "syscall", "reason").rows()[:2]
    [('python3', 'blocked', 'poll', 'poll'), ('python3', 'blocked', 'futex', 'lock')]
    """
    found = TimeLedger(trace)
    keys = KEYS[by]
    rows = found.entries.rename({"thread": "number"}).join(named(trace, found.threads, by), on="number", how="left")
    rows = rows.with_columns(syscall_label(trace.header.abi), pl.when(pl.col("where") == BLOCKED).then(reason()).alias("reason"))
    sums = rows.group_by([*keys, "where", "syscall", "reason"]).agg(pl.col("time").sum(), pl.col("number").n_unique().cast(pl.Int64).alias("threads"))
    whole = pl.col("time").sum().over(keys)
    sums = sums.with_columns(whole.alias("whole"), (pl.col("time") / whole).alias("share"))
    return sums.sort(
        "whole", *keys, "time", "where", "syscall", "reason", descending=[True, *(False for _ in keys), True, False, False, False], nulls_last=True
    )


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the ledger of each process, and over time."""
    from ringtape.analysis.plots.sched import ledger_bars, ledger_over_time
    from ringtape.analysis.timeline import over_time

    yield Picture("ledger", "Where the time of the threads of each process went.", ledger_bars(ledger(trace)))
    yield Picture("ledger-time", "Where the time of all threads went, over time.", ledger_over_time(over_time(trace)))
