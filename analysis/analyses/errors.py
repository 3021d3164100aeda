"""Which calls failed: by system call and error, with the first example of each."""

from __future__ import annotations

import polars as pl

from ringtape.analysis.grouping import Grouping
from ringtape.analysis.ledger import CHILD
from ringtape.analysis.naming import errno_name, is_error
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.schemas.escape import escape

_SHOWN = 200


@analysis(
    tables=("syscalls",),
    columns=(
        Result("syscall", pl.String, "name of the call; `name@abi` where it was not made in the machine's own ABI"),
        Result("errno", pl.String, "name of the error"),
        Result("count", pl.Int64, "recorded calls that failed with it", "count"),
        Result("share", pl.Float64, "share of the recorded calls of that system call", "share"),
        Result("first", pl.Int64, "when the first of them was entered", "time", detail=True),
        Result("process", pl.Int32, "process that made the first"),
        Result("command", pl.String, "its command name; null where the table processes does not tell"),
        Result("example", pl.String, "path or address that the first was given, escaped; null where none was recorded", wide=True),
    ),
)
def errors(trace: Trace) -> pl.DataFrame:
    """Count failed calls by system call and error.

    Parameters
    ----------
    trace : Trace
        The recording.

    Returns
    -------
    DataFrame
        One row per system call and error, most frequent first: ``count``, ``share`` of the recorded calls of that name, and
        the first such call: when (``first``, ns of CLOCK_MONOTONIC), by which ``process`` and ``command``, on what
        (``example``, a path where the table ``paths`` holds one).

    Raises
    ------
    RingtapeError
        If the trace has no table ``syscalls``.

    Notes
    -----
    A call failed if it returned a value from -4095 to -1 (include/linux/err.h). Whether a lost call failed is not known.

    Examples
    --------
    >>> from ringtape.analysis.analyses.errors import errors
    >>> errors(getfixture("example_trace")).select("syscall", "errno", "count", "share", "command").rows()
    [('openat', 'ENOENT', 1, 0.5, 'cat')]
    """
    grouping = Grouping.of(trace, "syscall")
    keys = ["nr", "abi"]
    calls = trace.scan("syscalls").filter(pl.col("kind") != CHILD)
    failed = calls.filter(is_error())
    first = [pl.col(name).min_by("ts") for name in ("pid", "tid")]
    counted = trace.collect(failed.group_by(*keys, "ret").agg(pl.len().cast(pl.Int64).alias("count"), pl.col("ts").min(), *first))
    made = trace.collect(calls.group_by(keys).agg(pl.len().cast(pl.Int64).alias("made")))
    rows = counted.join(made, on=keys, how="left").with_columns((pl.col("count") / pl.col("made")).alias("share"), errno_name())
    known = trace.commands()
    codes = pl.Series(known.codes(rows["tid"].to_numpy(), rows["ts"].to_numpy()))
    names = pl.Series([*known.names, None], dtype=pl.String).gather(codes.replace(-1, len(known.names)))
    rows = rows.with_columns(names.alias("command")).join(_examples(trace, rows), on=["tid", "ts"], how="left")
    named = grouping.named(rows.sort("count", "nr", "ret", descending=[True, False, True]))
    return named.rename({"ts": "first", "pid": "process"})


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
