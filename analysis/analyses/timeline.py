"""What each thread was doing from when to when (Gantt chart)."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.schedule import LOST, OFF, ON, SLEEP, STOPPED, UNINTERRUPTIBLE, WAIT, cut, lives, segments, stays
from ringtape.analysis.threads import GROUPS, named
from ringtape.analysis.trace import Trace

WHAT = {ON: "on CPU", WAIT: "run queue", SLEEP: "sleeping", UNINTERRUPTIBLE: "uninterruptible", STOPPED: "stopped", OFF: "blocked", LOST: "lost"}


@analysis(
    tables=("sched",),
    groups=GROUPS,
    columns=(
        Result("start", pl.Int64, "when it began", "time"),
        Result("time", pl.Int64, "how long it lasted", "ns"),
        Result("what", pl.String, "on CPU, run queue, sleeping, uninterruptible, stopped, blocked (state unknown) or lost"),
        Result("cpu", pl.Int16, "CPU, where on one"),
    ),
    section=False,
)
def timeline(trace: Trace) -> pl.DataFrame:
    """List what each thread was doing, without gap or overlap.

    Parameters
    ----------
    trace : Trace
        The recording.

    Returns
    -------
    DataFrame
        By thread and time: ``start`` (ns of CLOCK_MONOTONIC), ``time`` (ns), ``what``, ``cpu``.

    Raises
    ------
    RingtapeError
        If the table ``sched`` was not recorded.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.timeline import timeline
    >>> trace = ringtape.open("datasets/families.trace")
    >>> timeline(trace).select("command", "what").rows()[:3]
    [('sh', 'on CPU'), ('sh', 'uninterruptible'), ('sh', 'run queue')]
    """
    rows = stays(trace)
    threads = lives(trace, rows)
    found = trace.narrowing.clip(segments(rows, threads), "start", "stop").rename({"thread": "number"})
    found = found.join(named(trace, threads, "thread"), on="number", how="left", maintain_order="left")
    on = pl.col("cpu") >= 0
    return found.select(
        "process",
        "thread",
        "command",
        "start",
        (pl.col("stop") - pl.col("start")).alias("time"),
        pl.col("kind").replace_strict(list(WHAT), list(WHAT.values()), return_dtype=pl.String).alias("what"),
        pl.when(on).then(pl.col("cpu")).alias("cpu"),
    )


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the threads with most time on a CPU, a line each."""
    from ringtape.analysis.plots.sched import LINES, PIXELS, gantt

    rows = stays(trace)
    threads = lives(trace, rows)
    parts = trace.narrowing.clip(segments(rows, threads), "start", "stop")
    busy = parts.filter(pl.col("kind") == ON).group_by("thread").agg((pl.col("stop") - pl.col("start")).sum().alias("on"))
    chosen = busy.sort("on", "thread", descending=[True, False]).head(LINES)
    few = parts.join(chosen.select("thread"), on="thread", how="semi")
    begin, end = (int(few["start"].min()), int(few["stop"].max())) if len(few) else (0, 1)  # type: ignore[arg-type]
    edges = [begin + (end - begin) * at // PIXELS for at in range(PIXELS + 1)]
    shares = cut(few, "start", "stop", edges).group_by("thread", "bin", "kind").agg((pl.col("stop") - pl.col("start")).sum().alias("time"))
    names = named(trace, threads.join(chosen.select("thread"), on="thread", how="semi").sort("begin"), "thread")
    note = f"the {LINES} of {len(threads):,} threads with most time on a CPU" if len(threads) > LINES else ""
    yield Picture("timeline", "What each thread was doing, over time.", gantt(shares, names, edges, note=note))
