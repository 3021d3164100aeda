"""How long threads waited for a CPU after they could run (run-queue latency)."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from ringtape.analysis.analyses.latency import QUANTILES
from ringtape.analysis.order_statistics import bounded_quantiles
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.schedule import BLOCKED, RUNNING_AT_ATTACH, lives, stays, unlocated
from ringtape.analysis.threads import GROUPS, KEYS, By, named
from ringtape.analysis.trace import Trace


def _quantile_columns() -> Iterator[Result]:
    for name in QUANTILES:
        doc = "longest wait" if name == "max" else f"quantile {name[1:].replace('_', '.')} % of the waits"
        yield Result(name, pl.Int64, doc, "ns")
        yield Result(f"{name}_low", pl.Int64, f"least that {name} can be, whatever was lost", "ns")
        yield Result(f"{name}_high", pl.Int64, f"most that {name} can be", "ns")


@analysis(
    tables=("sched",),
    groups=GROUPS,
    columns=(
        Result("waits", pl.Int64, "times that a thread was put on a CPU after it had waited, however shortly", "count"),
        Result("woken", pl.Int64, "of these, after a wake-up; the others after the CPU had been taken away", "count"),
        Result("lost", pl.Int64, "waits that were lost with their stays", "count", quiet=True),
        Result("time", pl.Int64, "time spent waiting", "ns"),
        Result("share", pl.Float64, "time / (time waiting + time on a CPU)", "share"),
        *_quantile_columns(),
    ),
)
def runq_latency(trace: Trace, *, by: By = "process") -> pl.DataFrame:
    """Tell how long threads that could run waited for a CPU.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"process", "thread", "command"}
        What to tell apart.

    Returns
    -------
    DataFrame
        One row per group, most time first: ``waits``, ``woken``, ``lost``, ``time`` (ns), ``share``, and ``p50``, ``p90``, ``p99``,
        ``p99_9``, ``max`` (ns), each with ``_low`` and ``_high``.

    Raises
    ------
    RingtapeError
        If the table ``sched`` was not recorded.

    Notes
    -----
    A wait lasts from the wake-up (``sched_waking``), or from the moment at which the CPU was taken away, to the moment at which
    the thread is put on a CPU again; quantiles are order statistics, as in the analysis ``latency``.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.runq_latency import runq_latency
    >>> trace = ringtape.open("datasets/families.trace")
    >>> runq_latency(trace, by="command").select("command", "waits", "woken").rows()[:2]
    [('python3', 1575, 921), ('gzip', 11, 4)]
    """
    rows = stays(trace)
    threads = lives(trace, rows)
    # A wait belongs to the window in which it ended.
    known = ~pl.col("kind").is_in([BLOCKED, RUNNING_AT_ATTACH]) & trace.narrowing.holds(pl.col("ts"))
    waits = (
        rows.filter(trace.narrowing.touches(pl.col("before").fill_null(0), pl.col("end")))
        .rename({"thread": "number"})
        .with_columns(
            pl.when(known).then(pl.col("wait")).alias("waited"),
            trace.narrowing.within(pl.col("ts"), pl.col("end")).alias("length"),
            (pl.col("left") != 0).fill_null(True).alias("slept"),
        )
    )
    waits = waits.join(named(trace, threads, by), on="number", how="left")
    sums = waits.group_by(KEYS[by]).agg(
        pl.col("waited").is_not_null().sum().cast(pl.Int64).alias("waits"),
        (pl.col("waited").is_not_null() & pl.col("slept")).sum().cast(pl.Int64).alias("woken"),
        pl.col("gap").sum().alias("lost"),
        pl.col("waited").sum().alias("time"),
        pl.col("length").sum().alias("on"),
    )
    found = sums.join(
        bounded_quantiles(waits, KEYS[by], "waited", QUANTILES, "gap", unlocated(trace, rows)), on=KEYS[by], how="left", nulls_equal=True
    )
    total = pl.col("time") + pl.col("on")
    found = found.with_columns(pl.when(total > 0).then(pl.col("time") / total).otherwise(0.0).alias("share")).filter(
        pl.col("waits") + pl.col("lost") > 0
    )
    return found.sort("time", *KEYS[by], descending=[True, *(False for _ in KEYS[by])], nulls_last=True)


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the distribution."""
    from ringtape.analysis.plots.sched import waits

    rows = stays(trace).filter(pl.col("kind") == 0, trace.narrowing.holds(pl.col("ts")))
    yield Picture("runq-latency", "How long threads that could run waited for a CPU.", waits(rows["wait"]))
