"""What was lost, where and when, and whether every record is accounted for."""

from __future__ import annotations

from typing import Literal

import polars as pl

from ringtape.analysis.events import named_events
from ringtape.analysis.ledger import NO_STORAGE, RING_FULL
from ringtape.analysis.naming import syscall_label
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.schemas.escape import escape
from ringtape.schemas.retirement import added
from ringtape.schemas.table import table as declared

_UNREADABLE, _SKIPPED = 2, 3


@analysis(
    narrows=(),
    tables=("losses",),
    groups=(
        Result("cpu", pl.Int16, "CPU on which the records were made"),
        Result("syscall", pl.String, "system call, or tracepoint of the table events; null for tables that have none"),
    ),
    columns=(
        Result("table", pl.String, "table"),
        Result("attempted", pl.Int64, "records that the probes made; null where the recording did not come to its end", "count"),
        Result("recorded", pl.Int64, "records in the table", "count"),
        Result("lost", pl.Int64, "records lost because the ring was full, by the loss ledger", "count"),
        Result("share", pl.Float64, "lost / (recorded + lost)", "share"),
        Result("unaccounted", pl.Int64, "attempted - recorded - lost; 0 unless the trace is incomplete", "count", quiet=True),
        Result("time", pl.Int64, "sum of the durations of the lost records", "ns"),
        Result("since", pl.Int64, "when the first was lost", "time"),
        Result("until", pl.Int64, "when the last was lost", "time"),
        Result("no_storage", pl.Int64, "calls not recorded because the kernel had no memory for the thread's state", "count", quiet=True),
        Result("unreadable", pl.Int64, "strings that could not be read from the program's memory", "count", quiet=True),
        Result("skipped", pl.Int64, "times that the kernel did not run a probe that was running already (CPU -1)", "count", quiet=True),
    ),
)
def loss(trace: Trace, *, by: Literal["cpu", "syscall"] = "cpu") -> pl.DataFrame:
    """Account for every record: attempted = recorded + lost, by table and CPU, or by table and system call.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"cpu", "syscall"}
        What to tell apart besides tables. The number attempted is counted by CPU only.

    Returns
    -------
    DataFrame
        One row per table and CPU (all of them), or per table and system call (those with losses): ``attempted``,
        ``recorded``, ``lost``, ``share``, ``unaccounted``, ``time`` (ns), ``since`` and ``until`` (ns of CLOCK_MONOTONIC),
        ``no_storage``, ``unreadable``, ``skipped``.

    Raises
    ------
    RingtapeError
        If the trace has no loss ledger.

    Examples
    --------
    >>> from ringtape.analysis.analyses.loss import loss
    >>> loss(getfixture("example_trace")).select("table", "cpu", "attempted", "recorded", "lost").rows()
    [('paths', 0, 2, 2, 0), ('processes', 0, 2, 2, 0), ('syscalls', 0, 5, 5, 0)]
    """
    ledger = trace.scan("losses")
    keys = ["table", "cpu"] if by == "cpu" else ["table", "nr", "abi"]
    full, cause = pl.col("cause") == RING_FULL, pl.col("cause")
    lost = trace.collect(
        ledger.group_by(keys).agg(
            pl.col("count").filter(full).sum().alias("lost"),
            pl.col("sum").filter(full).sum().alias("time"),
            pl.col("ts").filter(full).min().alias("since"),
            pl.col("until").filter(full).max(),
            pl.col("count").filter(cause == NO_STORAGE).sum().alias("no_storage"),
            pl.col("count").filter(cause == _UNREADABLE).sum().alias("unreadable"),
            pl.col("count").filter(cause == _SKIPPED).sum().alias("skipped"),
        )
    )
    recorded = pl.concat([pl.DataFrame(schema={**{key: lost.schema[key] for key in keys}, "recorded": pl.Int64}), *_recorded(trace, keys)])
    rows = lost.join(recorded, on=keys, how="full" if by == "cpu" else "left", coalesce=True, nulls_equal=True)
    if by == "cpu":
        rows = rows.join(_attempted(trace), on=keys, how="full", coalesce=True, nulls_equal=True)
    else:
        event = pl.when(pl.col("nr") >= 0).then(named_events(trace.events, "nr"))
        label = pl.when(pl.col("table") == "events").then(event).otherwise(syscall_label(trace.header.abi))
        rows = rows.with_columns(pl.lit(None, pl.Int64).alias("attempted"), label.alias("syscall"))
    numbers = ("recorded", "lost", "time", "no_storage", "unreadable", "skipped")
    rows = rows.with_columns(pl.col(numbers).fill_null(0)).with_columns(
        (pl.col("attempted") - pl.col("recorded") - pl.col("lost")).alias("unaccounted"),
        pl.when(pl.col("recorded") + pl.col("lost") > 0).then(pl.col("lost") / (pl.col("recorded") + pl.col("lost"))).otherwise(0.0).alias("share"),
    )
    # Every other text is bytes, and escaped where it is decoded; this one a trace may hold as it likes.
    rows = rows.with_columns(pl.col("table").map_elements(escape, return_dtype=pl.String))
    return rows.drop([key for key in keys if key in ("nr", "abi")]).sort("table", by, nulls_last=True)


def _recorded(trace: Trace, keys: list[str]) -> list[pl.DataFrame]:
    """Count the rows of every table that comes from rings; rows of iterators (seq -1) were no attempts."""
    counts = []
    for name in trace.tables:
        table = declared(name)
        columns = {column.name for column in table.columns}
        if name == "events" and "nr" in keys:
            rows = (
                trace.scan(name).group_by(pl.col("event").alias("nr"), pl.lit(0, pl.Int8).alias("abi")).agg(pl.len().cast(pl.Int64).alias("recorded"))
            )
            counts.append(trace.collect(rows).select(pl.lit(name).alias("table"), *keys[1:], "recorded"))
        if table.origin == "ring" and set(keys) - {"table"} <= columns:
            rows = trace.scan(name).filter(pl.col("seq") >= 0).group_by(keys[1:]).agg(pl.len().cast(pl.Int64).alias("recorded"))
            counts.append(trace.collect(rows).select(pl.lit(name).alias("table"), *keys[1:], "recorded"))
    return counts


def _attempted(trace: Trace) -> pl.DataFrame:
    footer = trace.footer
    gone = trace.folder.retired  # neither the rows nor the losses of what was dropped are here
    dropped = added(gone.numbered, gone.lost)
    rows = [
        (table, int(cpu), count - dropped.get(table, {}).get(cpu, 0))
        for table, cpus in (footer.attempted if footer else {}).items()
        for cpu, count in cpus.items()
        if count
    ]
    return pl.DataFrame(rows, schema={"table": pl.String, "cpu": pl.Int16, "attempted": pl.Int64}, orient="row")
