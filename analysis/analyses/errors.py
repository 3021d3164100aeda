"""Which calls failed: by call and error, process, thread, command or time, with the first and last example of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import polars as pl

from ringtape.analysis.grouping import GROUPS, Grouping
from ringtape.analysis.ledger import CHILD
from ringtape.analysis.naming import errno_name, is_error
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.analysis.windows import Windows
from ringtape.schemas.errors import UsageError
from ringtape.schemas.escape import escape

_SHOWN = 200
By = Literal["syscall", "errno", "process", "thread", "command"]
_ENDS = ("first", "last")
_WINDOW = Result("window", pl.Int64, "begin of the window of time in which the calls were entered", "time")


@analysis(
    tables=("syscalls",),
    groups=(_WINDOW, *(group for group in GROUPS if group.name == "syscall"), *(
        Result(f"by_{group.name}", group.dtype, group.doc) for group in GROUPS if group.name != "syscall"
    ), Result("errno", pl.String, "name of the error")),
    columns=(
        Result("count", pl.Int64, "recorded calls that failed", "count"),
        Result("share", pl.Float64, "error rate: share of the recorded calls of the same call, process, thread, command and window", "share"),
        Result("per_second", pl.Float64, "failed calls per second of the recording, or of the window", wide=True),
        Result("first", pl.Int64, "when the first of them was entered", "time", detail=True),
        Result("process", pl.Int32, "process that made the first"),
        Result("command", pl.String, "its command name; null where the table processes does not tell"),
        Result("example", pl.String, "path or address that the first was given, escaped; null where none was recorded", wide=True),
        Result("last", pl.Int64, "when the last of them was entered", "time"),
        Result("last_process", pl.Int32, "process that made the last", detail=True),
        Result("last_command", pl.String, "its command name", detail=True),
        Result("last_example", pl.String, "path or address that the last was given", wide=True),
    ),
)  # fmt: skip
def errors(trace: Trace, *, by: By | Sequence[By] = ("syscall", "errno"), window: str | None = None) -> pl.DataFrame:
    """Count failed calls.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"syscall", "errno", "process", "thread", "command"} or several of them
        What to tell apart.
    window : str, optional
        Length of windows of time, such as ``1s``, that are told apart as well.

    Returns
    -------
    DataFrame
        One row per group that has a failed call, most frequent first (by window in the order of time): the columns of the group
        (``window`` in ns of CLOCK_MONOTONIC, ``syscall``, ``by_process``, ``by_thread``, ``by_command``, ``errno``), ``count``, ``share``
        of the recorded calls of the group whatever they returned, ``per_second``, and the first and the last such call: when
        (``first``, ``last``, ns of CLOCK_MONOTONIC), by which ``process`` and ``command`` (``last_process``, ``last_command``), on what
        (``example``, ``last_example``, a path or address where the table ``paths`` holds one).

    Raises
    ------
    UsageError
        If ``by`` or ``window`` cannot be understood.
    RingtapeError
        If the trace has no table ``syscalls``, or none named ``processes`` and commands are asked for.

    Notes
    -----
    A call failed if it returned a value from -4095 to -1 (include/linux/err.h). Whether a lost call failed is not known, so
    neither counts nor shares include lost calls.

    Examples
    --------
    >>> from ringtape.analysis.analyses.errors import errors
    >>> errors(getfixture("example_trace")).select("syscall", "errno", "count", "share", "command").rows()
    [('openat', 'ENOENT', 1, 0.5, 'cat')]
    >>> errors(getfixture("example_trace"), by="process").select("by_process", "count", "share", "last_example").rows()
    [(100, 1, 0.2, '/nowhere')]
    """
    chosen = tuple(by.split(",")) if isinstance(by, str) else tuple(by)
    if len(set(chosen)) != len(chosen):
        raise UsageError(f"by names something twice: {', '.join(chosen)}", "name each of them once")
    others = [name for name in chosen if name != "errno"]
    grouping = Grouping.of(trace, others) if others or not chosen else None  # type: ignore[arg-type]
    keys = grouping.keys if grouping else []
    calls = trace.scan("syscalls").filter(pl.col("kind") != CHILD)
    begin, end = trace.span
    windows = None
    if window is not None:
        reach = trace.collect(calls.select(pl.col("ts").min().alias("low"), pl.col("ts").max().alias("high"))).row(0)
        low, high = (begin if reach[0] is None else min(begin, reach[0])), max(begin, end or begin, reach[1] or begin)
        windows = Windows.over(low, high, window)
        calls = calls.with_columns((windows.begin + windows.place(pl.col("ts")) * windows.width).alias("window"))
        keys = ["window", *keys]
    if grouping:
        calls = grouping.rows(calls)
    made = trace.collect(
        calls.group_by(keys).agg(pl.len().cast(pl.Int64).alias("made")) if keys else calls.select(pl.len().cast(pl.Int64).alias("made"))
    )
    failed = calls.filter(is_error()).with_columns(errno_name())
    groups = [*keys, "errno"] if "errno" in chosen else keys
    ends = [
        pl.col(name).min_by("ts").alias(f"first_{name}") if side == "first" else pl.col(name).max_by("ts").alias(f"last_{name}")
        for side in _ENDS
        for name in ("pid", "tid")
    ]
    sums = [pl.len().cast(pl.Int64).alias("count"), pl.col("ts").min().alias("first_ts"), pl.col("ts").max().alias("last_ts"), *ends]
    rows = trace.collect(failed.group_by(groups).agg(sums))
    rows = rows.join(made, on=keys, how="left") if keys else rows.join(made, how="cross")
    length = pl.min_horizontal(pl.lit(windows.width), windows.end - pl.col("window")) if windows else pl.lit(max((end or begin) - begin, 0))
    rate = pl.when(length > 0).then(pl.col("count") * 1e9 / length).alias("per_second")
    rows = rows.with_columns((pl.col("count") / pl.col("made")).alias("share"), rate)
    for side in _ENDS:
        rows = _with_example(trace, rows, side)
    order = ["count", *(key for key in groups if key != "command")]
    rows = rows.sort(order, descending=[True, *(False for _ in order[1:])])
    if windows:
        rows = rows.sort("window", maintain_order=True)
    named = _named(grouping, rows)
    return named.select(
        *(name for name in ("window",) if windows),
        *(name if name in ("syscall", "errno") else f"by_{name}" for name in chosen),
        "count",
        "share",
        "per_second",
        pl.col("first_ts").alias("first"),
        pl.col("first_pid").alias("process"),
        pl.col("first_command").alias("command"),
        pl.col("first_example").alias("example"),
        pl.col("last_ts").alias("last"),
        pl.col("last_pid").alias("last_process"),
        "last_command",
        "last_example",
    )


def _named(grouping: Grouping | None, rows: pl.DataFrame) -> pl.DataFrame:
    if grouping is None:
        return rows
    named = grouping.named(rows)
    return named.rename({name: f"by_{name}" for name in grouping.by if name != "syscall"})


def _with_example(trace: Trace, rows: pl.DataFrame, side: str) -> pl.DataFrame:
    """Add the command and the first string argument of the first, or last, call of each row."""
    known = trace.commands()
    codes = pl.Series(known.codes(rows[f"{side}_tid"].to_numpy(), rows[f"{side}_ts"].to_numpy()))
    names = pl.Series([*known.names, None], dtype=pl.String).gather(codes.replace(-1, len(known.names)))
    calls = rows.select(pl.col(f"{side}_tid").alias("tid"), pl.col(f"{side}_ts").alias("ts"))
    examples = _examples(trace, calls).rename({"tid": f"{side}_tid", "ts": f"{side}_ts", "example": f"{side}_example"})
    return rows.with_columns(names.alias(f"{side}_command")).join(examples, on=[f"{side}_tid", f"{side}_ts"], how="left")


def _examples(trace: Trace, calls: pl.DataFrame) -> pl.DataFrame:
    """Return the first string argument of each of the calls."""
    if "paths" not in trace.tables:
        return pl.DataFrame(schema={"tid": pl.Int32, "ts": pl.Int64, "example": pl.String})
    wanted = trace.scan("paths").select("tid", "ts", "arg", "kind", "value").join(calls.select("tid", "ts").lazy(), on=["tid", "ts"], how="semi")
    found = trace.collect(wanted).sort("tid", "ts", "arg").unique(["tid", "ts"], keep="first", maintain_order=True)
    texts = [_text(kind, value) for kind, value in found.select("kind", "value").iter_rows()]
    return found.select("tid", "ts", pl.Series("example", texts, pl.String))


def _text(kind: int, value: bytes) -> str:
    if kind == 1:
        from ringtape.analysis.decode.sockaddr import sockaddr

        text = sockaddr(value)
    else:
        text = escape(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
