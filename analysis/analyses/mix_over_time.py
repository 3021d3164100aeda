"""How the mix of calls changes: counts, time and errors in windows of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.grouping import By, Grouping
from ringtape.analysis.ledger import CHILD, CLONES, FOREVER, NO_STORAGE, RING_FULL
from ringtape.analysis.naming import is_error, syscall_name
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.analysis.windows import Windows, per_window
from ringtape.schemas.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Ints = npt.NDArray[np.int64]
OTHERS, LOST = "(others)", "(lost)"


@analysis(
    tables=("syscalls",),
    section=False,
    columns=(
        Result("begin", pl.Int64, "begin of the window", "time"),
        Result("end", pl.Int64, "end of the window", "time"),
        Result("group", pl.String, "system call, process, thread or command; `(others)`: all but the largest; `(lost)`: known from the ledger only"),
        Result("calls", pl.Int64, "calls entered in the window, lost ones included; null where their window is not known", "count"),
        Result("calls_low", pl.Int64, "the least that calls can be", "count"),
        Result("calls_high", pl.Int64, "the most that calls can be", "count"),
        Result("time", pl.Int64, "time inside calls that lies in the window, summed over threads; null where it is not known", "ns"),
        Result("time_low", pl.Int64, "the least that time can be", "ns"),
        Result("time_high", pl.Int64, "the most that time can be", "ns"),
        Result("share", pl.Float64, "share of the time (time_low) of all calls in the window", "share"),
        Result("errors", pl.Int64, "recorded calls entered in the window that failed", "count"),
    ),
)
def mix_over_time(
    trace: Trace, *, by: By = "syscall", window: str | None = None, top: int = 6, order: Literal["time", "calls"] = "time"
) -> pl.DataFrame:
    """Count calls, their time and their errors in windows of time.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"syscall", "process", "thread", "command"}
        What to tell apart.
    window : str, optional
        Length of the windows, such as ``100ms``; by default a round length so that there are at most 60.
    top : int
        Groups that are told apart: those largest over all windows. The rest is one group.
    order : {"time", "calls"}
        What makes a group large.

    Returns
    -------
    DataFrame
        One row per window and group, also where it has no call: ``begin``, ``end`` (ns of CLOCK_MONOTONIC), ``group``, ``calls``,
        ``time`` (ns), both with ``_low`` and ``_high``, ``share``, ``errors``.

    Raises
    ------
    UsageError
        If ``by`` or ``window`` cannot be understood.

    Notes
    -----
    A call counts in the window in which it was entered; its time is divided among the windows through which it went, so that
    the time of a window divided by its length is the mean number of threads inside calls (Little's law with exact times). Over
    all windows, calls, time and errors add up to those of ``syscall_mix``; of a trace narrowed to a window of time, what
    went on from before is in ``time``.

    A lost call is placed where the loss ledger leaves no choice: when it ended is known between two looks at the ledger, how
    long it took within a factor of two. Where it leaves one, low and high are the ends of what is possible.

    Examples
    --------
    >>> from ringtape.analysis.analyses.mix_over_time import mix_over_time
    >>> trace = getfixture("example_trace").between("0", "8us")
    >>> mix_over_time(trace, window="4us").select("group", "calls", "time", "errors").rows()
    [('openat', 1, 1000, 0), ('read', 2, 300, 0), ('openat', 1, 2000, 1), ('read', 1, 300, 0)]
    """
    if by not in get_args(By):
        raise UsageError(f"the mix over time is by one thing, not by {by!r}", f"by is one of {', '.join(get_args(By))}")
    if top < 1:
        raise UsageError(f"top {top} leaves no group", "give the number of groups that are told apart")
    grouping = Grouping.of(trace, by)
    calls = _calls(trace)
    windows = _windows(trace, calls, window)
    held = pl.col("ts") + pl.col("dur")
    time = (held.clip(windows.begin, windows.end) - pl.col("ts").clip(windows.begin, windows.end)).sum().alias("time")
    calls = calls.with_columns(trace.narrowing.holds(pl.col("ts")).alias("counted"))
    sizes = trace.collect(grouping.rows(calls).group_by(grouping.keys).agg(pl.col("counted").sum().cast(pl.Int64).alias("calls"), time))
    ledger = _ledger(trace)
    if grouping.located:
        lost = ledger.group_by(grouping.keys).agg(pl.col("lost").sum().alias("calls"), pl.col("sum").sum().alias("time"))
        sizes = pl.concat([sizes, lost.select(sizes.columns).cast(sizes.schema)]).group_by(grouping.keys).agg(pl.col("calls", "time").sum())
    sizes = sizes.filter((pl.col("calls") > 0) | (pl.col("time") > 0))
    largest = sizes.sort(order, *grouping.keys, descending=[True, *(False for _ in grouping.keys)])
    if len(largest) == top + 1:
        top += 1  # "(others)" would be one
    chosen = largest.head(top).with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("group"))
    names = [*grouping.named(chosen.drop("calls", "time", "group")).to_series().cast(pl.String).fill_null("?").to_list(), OTHERS, LOST]
    keyed = grouping.rows(calls).join(chosen.select(*grouping.keys, "group").lazy(), on=grouping.keys, how="left")
    rows = keyed.select(pl.col("group").fill_null(len(chosen)), "ts", "dur", "counted", (is_error() & (pl.col("kind") != CHILD)).alias("failed"))
    shares = per_window(trace, rows, len(names), windows)
    low_calls, high_calls, low_time, high_time = (values.copy() for values in (shares.calls, shares.calls, shares.time, shares.time))
    if len(ledger):
        group = pl.lit(len(chosen) + 1, pl.Int64).alias("group")
        if grouping.located:
            ledger = ledger.join(chosen.select(*grouping.keys, "group"), on=grouping.keys, how="left").with_columns(
                pl.col("group").fill_null(len(chosen))
            )
        else:
            ledger = ledger.with_columns(group)
        _place(ledger, windows, ("lost", "entered", "left"), low_calls, high_calls)
        _place(ledger, windows, ("sum", "entered", "until"), low_time, high_time)
    used = [at for at in range(len(names)) if at < len(chosen) or high_calls[at].any() or high_time[at].any()]
    return _frame(windows, [names[at] for at in used], *(values[used] for values in (low_calls, high_calls, low_time, high_time, shares.errors)))


def _calls(trace: Trace) -> pl.LazyFrame:
    own = pl.col("kind") != CHILD
    if not trace.narrowing.in_time:
        return trace.scan("syscalls").filter(own)
    # What was entered before may go on in the window.
    going = trace.narrowing.touches(pl.col("ts"), pl.col("ts") + pl.col("dur")) | trace.narrowing.holds(pl.col("ts"))
    return trace.whole.scan("syscalls", None, trace.narrowing.until).filter(own, going)


def _windows(trace: Trace, calls: pl.LazyFrame, window: str | None) -> Windows:
    begin, end = trace.span
    if trace.narrowing.since is None or trace.narrowing.until is None:
        # No call is left out: one may end after the last look at the clock.
        reach = calls.select(pl.col("ts").min().alias("low"), (pl.col("ts") + pl.col("dur")).max().alias("high"))
        low, high = trace.collect(reach).row(0)
        if trace.narrowing.since is None and low is not None:
            begin = min(begin, low)
        if trace.narrowing.until is None and high is not None:
            end = max(high, begin if end is None else end)
    return Windows.over(begin, begin if end is None else end, window)


def _ledger(trace: Trace) -> pl.DataFrame:
    """Return the lost calls: ``nr``, ``abi``, ``lost``, ``sum``, ``entered`` and ``left`` (the first and last entry that is possible), ``until``."""
    missing = trace.lost().get("syscalls", 0)
    frames = []
    if "losses" in trace.tables:
        query = trace.scan("losses").filter(pl.col("table") == "syscalls", pl.col("cause").is_in([RING_FULL, NO_STORAGE]))
        bucket = pl.col("bucket").cast(pl.Int64).clip(0, 62)
        edge = pl.lit(2, pl.Int64).pow(bucket).cast(pl.Int64)
        timed = pl.col("cause") == RING_FULL
        child = (timed & (bucket == 0) & syscall_name().is_in(CLONES)).fill_null(False)
        shortest, longest = pl.when(timed & (bucket > 0)).then(edge).otherwise(0), pl.when(timed).then(edge - 1 + edge).otherwise(0)
        rows = trace.collect(query.filter(~child)).select(
            "nr",
            "abi",
            pl.col("count").alias("lost"),
            "sum",
            # A call was not entered before the recording began, as far as its time counts.
            pl.max_horizontal(pl.col("ts") - longest, pl.lit(trace.header.attached_at)).alias("entered"),
            (pl.col("until") - shortest).alias("left"),
            "until",
            trace.narrowing.certain().alias("certain"),
        )
        frames.append(rows)
        missing -= int(trace.collect(query.filter(timed).select(pl.col("count").sum())).item() or 0)
    if missing > 0:
        nowhere = {"nr": -1, "abi": 0, "lost": missing, "sum": 0, "entered": -FOREVER, "left": FOREVER, "until": FOREVER, "certain": False}
        frames.append(pl.DataFrame([nowhere], schema=_LEDGER))
    return pl.concat([frame.cast(_LEDGER) for frame in frames]) if frames else pl.DataFrame(schema=_LEDGER)  # type: ignore[arg-type]


_LEDGER = dict.fromkeys(("nr", "abi", "lost", "sum", "entered", "left", "until"), pl.Int64) | {"nr": pl.Int32, "abi": pl.Int8, "certain": pl.Boolean}


def _place(ledger: pl.DataFrame, windows: Windows, names: tuple[str, str, str], low: Ints, high: Ints) -> None:
    """Add a number of each row of the ledger to the windows in which it belongs, or may belong."""
    values, first, last = (ledger[name].to_numpy() for name in names)
    first, last = windows.places(first), windows.places(np.maximum(first, last))
    group = ledger["group"].to_numpy()
    sure = (first == last) & ledger["certain"].to_numpy()
    np.add.at(low, (group[sure], first[sure]), values[sure])
    may = np.zeros((high.shape[0], high.shape[1] + 1), np.int64)
    np.add.at(may, (group, first), values)
    np.add.at(may, (group, last + 1), -values)
    high += np.cumsum(may, axis=1)[:, :-1]


def _frame(windows: Windows, names: list[str], low_calls: Ints, high_calls: Ints, low_time: Ints, high_time: Ints, errors: Ints) -> pl.DataFrame:
    count = len(names)
    edges = windows.edges
    flat = {
        "calls_low": low_calls, "calls_high": high_calls, "time_low": low_time, "time_high": high_time, "errors": errors,
    }  # fmt: skip
    whole = np.maximum(low_time.sum(axis=0), 1)
    frame = pl.DataFrame(
        {
            "begin": np.repeat(edges[:-1], count),
            "end": np.repeat(edges[1:], count),
            "group": pl.Series(names * len(windows), dtype=pl.String),
            **{name: values.T.reshape(-1) for name, values in flat.items()},
            "share": (low_time / whole).T.reshape(-1),
        }
    )
    exact = [pl.when(pl.col(f"{name}_low") == pl.col(f"{name}_high")).then(f"{name}_low").alias(name) for name in ("calls", "time")]
    order = ["begin", "end", "group", "calls", "calls_low", "calls_high", "time", "time_low", "time_high", "share", "errors"]
    return frame.with_columns(exact).select(order)


def picture(result: pl.DataFrame) -> Figure:
    """Draw a result."""
    from ringtape.analysis.plots.mix import mix_over_time as draw

    return draw(result)


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the mix over time, by time and by number."""
    from ringtape.analysis.plots.mix import mix_over_time as draw

    yield Picture("mix-over-time", "Threads inside system calls over time, by call.", draw(mix_over_time(trace)))
    yield Picture("calls-over-time", "Calls per second over time, by call.", draw(mix_over_time(trace, order="calls"), what="calls"))
