"""Which calls were made: counts, time, errors, by system call, process, thread or command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from ringtape.analysis.grouping import GROUPS, By, Grouping
from ringtape.analysis.ledger import CHILD, NO_RETURN, UNFINISHED, lost_calls
from ringtape.analysis.naming import errno_name, is_error
from ringtape.analysis.pictures import Picture
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace


@analysis(
    tables=("syscalls",),
    groups=GROUPS,
    columns=(
        Result("calls", pl.Int64, "calls made, lost ones included", "count"),
        Result("share_calls", pl.Float64, "share of all calls", "share"),
        Result("time", pl.Int64, "time spent inside them during the recording, summed over threads, lost calls included", "ns"),
        Result("share_time", pl.Float64, "share of the time of all calls", "share"),
        Result("mean", pl.Float64, "time / calls", "ns"),
        Result("errors", pl.Int64, "recorded calls that returned an error; lost ones may add up to `lost`", "count"),
        Result("errnos", pl.String, "their errors, most frequent first, as `NAME count`", wide=True),
        Result("unfinished", pl.Int64, "recorded calls whose beginning or return was not seen (kinds 1 to 3)", "count", quiet=True, wide=True),
        Result("children", pl.Int64, "returns of a clone in the new thread; not among the calls", "count", quiet=True, wide=True),
        Result("lost", pl.Int64, "calls among `calls` that are known from the loss ledger only", "count", quiet=True),
    ),
)
def syscall_mix(trace: Trace, *, by: By | Sequence[By] = "syscall") -> pl.DataFrame:
    """Count calls, their time and their errors.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"syscall", "process", "thread", "command"} or several of them
        What to tell apart.

    Returns
    -------
    DataFrame
        One row per group, most time first: ``calls``, ``share_calls``, ``time`` (ns), ``share_time``, ``mean`` (ns),
        ``errors``, ``errnos``, ``unfinished``, ``children``, ``lost``.

    Raises
    ------
    UsageError
        If ``by`` is not one of these.
    RingtapeError
        If the trace has no table ``syscalls``, or none named ``processes`` and commands are asked for.

    Notes
    -----
    Counts and times are exact also where records were lost: the loss ledger holds count and duration of every lost call by
    system call. Grouped by anything else, lost calls form a group of their own with a null key.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.syscall_mix import syscall_mix
    >>> trace = getfixture("example_trace")
    >>> syscall_mix(trace).select("syscall", "calls", "time", "errnos").rows()
    [('openat', 2, 3000, 'ENOENT 1'), ('read', 3, 600, '')]
    """
    grouping = Grouping.of(trace, by)
    keys = grouping.keys
    calls = grouping.rows(trace.scan("syscalls"))
    own = pl.col("kind") != CHILD
    counted = trace.collect(
        calls.group_by(keys).agg(
            own.sum().cast(pl.Int64).alias("calls"),
            pl.col("dur").filter(own).sum().alias("time"),
            pl.col("kind").is_between(NO_RETURN, UNFINISHED).sum().cast(pl.Int64).alias("unfinished"),
            (pl.col("kind") == CHILD).sum().cast(pl.Int64).alias("children"),
        )
    )
    failed = trace.collect(calls.filter(is_error(), own).group_by([*keys, "ret"]).agg(pl.len().cast(pl.Int64).alias("count")))
    failed = failed.with_columns(errno_name()).sort("count", "errno", descending=[True, False])
    text = pl.concat_str("errno", pl.lit(" "), "count").str.join(", ").alias("errnos")
    errors = failed.group_by(keys, maintain_order=True).agg(pl.col("count").sum().alias("errors"), text)
    rows = counted.join(errors, on=keys, how="left").with_columns(pl.col("errors").fill_null(0), pl.col("errnos").fill_null(""))
    rows = _with_lost(rows.with_columns(pl.lit(0, pl.Int64).alias("lost")), lost_calls(trace), keys)
    shares = (
        _share("calls").alias("share_calls"),
        _share("time").alias("share_time"),
        pl.when(pl.col("calls") > 0).then(pl.col("time") / pl.col("calls")).alias("mean"),
    )
    order = [*grouping.by]
    return grouping.named(rows.with_columns(shares)).sort("time", "calls", *order, descending=[True, True, *(False for _ in order)], nulls_last=True)


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the mix."""
    from ringtape.analysis.plots.mix import mix

    yield Picture("mix", "Share of the time inside system calls, and of their number.", mix(syscall_mix(trace)))


def _share(column: str) -> pl.Expr:
    return pl.when(pl.col(column).sum() > 0).then(pl.col(column) / pl.col(column).sum()).otherwise(0.0)


def _with_lost(rows: pl.DataFrame, lost: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Add the ledger's calls to the groups that it can tell, each to its system call."""
    known = [key for key in keys if key in ("nr", "abi")]
    own = ~pl.col("child")
    totals = (
        pl.col("lost").filter(own).sum().alias("calls"),
        pl.col("time").filter(own).sum(),
        pl.col("lost").filter(~own).sum().alias("children"),
        pl.col("lost").filter(own).sum().alias("lost"),
    )
    if not len(lost):
        return rows
    added = lost.group_by(known).agg(totals) if known else lost.select(totals)
    numbers = ["calls", "time", "unfinished", "children", "errors", "lost"]
    extra = added.with_columns(
        *(pl.lit(None).cast(rows.schema[key]).alias(key) for key in keys if key not in known),
        pl.lit(0, pl.Int64).alias("unfinished"),
        pl.lit(0, pl.Int64).alias("errors"),
        pl.lit("").alias("errnos"),
    ).select(rows.columns)
    joined = pl.concat([rows, extra.cast(rows.schema)])
    return joined.group_by(keys, maintain_order=True).agg(pl.col(numbers).sum(), pl.col("errnos").str.join(""))
