"""How often which tracepoint was met: by event, or by any columns of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from ringtape.analysis.events import named_events
from ringtape.analysis.occurrences import Missing, as_key, missing, several
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace


@analysis(
    tables=("events",),
    free=True,
    columns=(
        Result("event", pl.String, "tracepoint; by chosen columns, these stand behind it"),
        Result("count", pl.Int64, "occurrences that were recorded", "count"),
        Result("share", pl.Float64, "share of the recorded occurrences of the event", "share"),
        Result("lost", pl.Int64, "occurrences that were lost, by the loss ledger; it does not know their fields", "count", quiet=True),
        Result(
            "skipped", pl.Int64, "at most so many more were missed, as the kernel did not run the probe inside of another one", "count", quiet=True
        ),
    ),
)
def event_count(trace: Trace, *, event: str | None = None, by: str | Sequence[str] = ()) -> pl.DataFrame:
    """Count occurrences of tracepoints.

    Parameters
    ----------
    trace : Trace
        The recording.
    event : str, optional
        Only this one; the part before the colon may be left out.
    by : str or sequence of str
        Columns of the event to tell apart, as `Trace.event` has them (``event_comm``, ``event_cpu``, fields and their names),
        or elements of arrays such as ``args[0]``. Without an event, or where only one was recorded: those that all have.

    Returns
    -------
    DataFrame
        One row per event, or per combination of values: ``event``, the chosen columns, ``count``, ``share``, ``lost``,
        ``skipped``; most frequent first. What was lost of an event that is told apart by columns is a row with nulls in them.

    Raises
    ------
    UsageError
        If there is no such column.
    RingtapeError
        If the event was not recorded.

    Examples
    --------
    >>> from ringtape.analysis.analyses.event_count import event_count
    >>> event_count(getfixture("event_trace"), event="sched_process_wait", by="comm,pid").select("comm", "pid", "count").rows()
    [('sh', 0, 1), ('sh', 101, 1)]
    """
    keys = several(by) if by else ()
    only = trace.named_event(event) if event is not None or (keys and len(trace.events) == 1) else None
    named = named_events(trace.events).alias("event")
    gone = missing(trace)
    if not keys:
        rows = trace.scan("events") if only is None else trace.scan("events").filter(pl.col("event") == only.id)
        counted = trace.collect(rows.group_by("event").agg(pl.len().cast(pl.Int64).alias("count")))
        wanted = [only] if only else list(trace.events.values())
        every = pl.DataFrame({"event": [one.id for one in wanted]}, schema={"event": pl.Int32})
        counted = every.join(counted, on="event", how="full", coalesce=True).with_columns(pl.col("count").fill_null(0))
        counted = _with_missing(counted, {number: one for number, one in gone.items() if number in counted["event"] or (only is None and number < 0)})
        rows_of = counted.with_columns(named, _share(pl.col("count").sum())).sort("count", "event", descending=[True, False])
        return rows_of.select("event", "count", "share", "lost", "skipped")
    if only is not None:
        frame = trace.event(only.name)
        grouped = frame.group_by(as_key(frame, only, key) for key in keys).agg(pl.len().cast(pl.Int64).alias("count"))
        counted = trace.collect(grouped.select(pl.lit(only.id, pl.Int32).alias("event"), *keys, "count"))
    else:
        frame = _common(trace)
        grouped = frame.group_by("event", *(as_key(frame.drop("event"), None, key) for key in keys)).agg(pl.len().cast(pl.Int64).alias("count"))
        counted = trace.collect(grouped.select("event", *keys, "count"))
    zero = pl.lit(0, pl.Int64)
    counted = counted.with_columns(zero.alias("lost"), zero.alias("skipped"))
    lost = [(number, one.lost, one.skipped) for number, one in gone.items() if (only is None or number == only.id) and (one.lost or one.skipped)]
    extra = pl.DataFrame(lost, schema={"event": pl.Int32, "lost": pl.Int64, "skipped": pl.Int64}, orient="row").with_columns(zero.alias("count"))
    told = pl.concat([counted, extra.select(_or_null(counted, name) for name in counted.columns)])
    told = told.with_columns(_share(pl.col("count").sum().over("event"))).with_columns(named)
    order = [key for key in keys if not isinstance(told.schema[key], pl.List)]
    return told.select("event", *keys, "count", "share", "lost", "skipped").sort(
        "count", "event", *order, descending=[True, *(False for _ in range(len(order) + 1))], nulls_last=True
    )


def _common(trace: Trace) -> pl.LazyFrame:
    """Return what all events have, under the names that frames of one event have."""
    names = {name: f"event_{name}" for name in ("pid", "tid", "cpu", "comm", "context_name")}
    return trace.frame("events").select("event", *(pl.col(name).alias(alias) for name, alias in names.items()))


def _or_null(like: pl.DataFrame, name: str) -> pl.Expr:
    return pl.col(name) if name in ("event", "count", "lost", "skipped") else pl.lit(None, like.schema[name]).alias(name)


def _with_missing(counted: pl.DataFrame, gone: dict[int, Missing]) -> pl.DataFrame:
    rows = [(number, one.lost, one.skipped) for number, one in gone.items()]
    extra = pl.DataFrame(rows, schema={"event": pl.Int32, "lost": pl.Int64, "skipped": pl.Int64}, orient="row")
    joined = counted.join(extra, on="event", how="full", coalesce=True)
    return joined.with_columns(pl.col("count", "lost", "skipped").fill_null(0))


def _share(total: pl.Expr) -> pl.Expr:
    return pl.when(total > 0).then(pl.col("count") / total).otherwise(0.0).alias("share")


def event_rate(trace: Trace, *, windows: int = 120) -> pl.DataFrame:
    """Count occurrences over time.

    Parameters
    ----------
    trace : Trace
        The recording.
    windows : int
        Into how many windows the recording is cut.

    Returns
    -------
    DataFrame
        ``event``, ``begin`` and ``end`` of the window (ns after the probes were attached), ``count``; windows without any are
        left out.

    Examples
    --------
    >>> from ringtape.analysis.analyses.event_count import event_rate
    >>> event_rate(getfixture("event_trace"), windows=1)["count"].sum()
    4
    """
    begin, end = trace.span
    width = max(1, -(-((end if end is not None else begin) + 1 - begin) // windows))
    window = ((pl.col("ts") - begin) // width).clip(0, windows - 1).alias("window")
    counted = trace.collect(trace.scan("events").group_by("event", window).agg(pl.len().cast(pl.Int64).alias("count")))
    return counted.select(
        named_events(trace.events).alias("event"),
        (pl.col("window") * width).alias("begin"),
        ((pl.col("window") + 1) * width).alias("end"),
        "count",
    ).sort("event", "begin")


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the rates of the most frequent events."""
    from ringtape.analysis.plots.events import rates

    lost = trace.lost().get("events", 0)
    note = f"{lost:,} occurrences were lost and are not in the picture" if lost else ""
    yield Picture("event-rate", "How often each tracepoint was met per second.", rates(event_rate(trace), note=note))
