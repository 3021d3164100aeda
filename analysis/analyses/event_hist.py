"""How the values of one field of a tracepoint are distributed: a histogram with buckets of powers of two or of one width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import polars as pl

from ringtape.analysis.events import column_names
from ringtape.analysis.occurrences import Missing, as_key, column, missing, several
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError
from ringtape.schemas.events import Event

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILLED = 1000
"""Empty buckets between others are told as long as there are no more in all."""

_COLUMNS = (
    Result("event", pl.String, "tracepoint; by chosen columns, these stand behind it"),
    Result("field", pl.String, "the column whose values are counted"),
    Result("low", pl.Float64, "smallest value of the bucket; null for what has no value", "count"),
    Result("high", pl.Float64, "first value behind the bucket", "count"),
    Result("count", pl.Int64, "recorded occurrences with a value in it", "count"),
    Result("share", pl.Float64, "share of the recorded occurrences of the group", "share"),
    Result("lost", pl.Int64, "occurrences that were lost, by the loss ledger; their values are not known", "count", quiet=True),
    Result("bar", pl.Float64, "count / the largest count of the group", "bar"),
)


@analysis(
    tables=("events",),
    free=True,
    section=False,
    columns=_COLUMNS,
)
def event_hist(
    trace: Trace,
    *,
    event: str | None = None,
    field: str | None = None,
    scale: Literal["log2", "linear"] = "log2",
    buckets: int = 20,
    width: int | None = None,
    by: str | Sequence[str] = (),
) -> pl.DataFrame:
    """Count the values of a field by bucket.

    Parameters
    ----------
    trace : Trace
        The recording.
    event : str, optional
        The tracepoint, where more than one was recorded; the part before the colon may be left out.
    field : str, optional
        A column of it with numbers, or an element of an array such as ``args[0]``, where it has more than one.
    scale : {"log2", "linear"}
        Buckets from one power of two to the next, or all of one width.
    buckets : int
        How many linear buckets about: their width is 1, 2 or 5 times a power of ten.
    width : int, optional
        Width of linear buckets, which begin at multiples of it.
    by : str or sequence of str
        Columns of the event: a histogram for each combination of their values.

    Returns
    -------
    DataFrame
        One row per bucket from the smallest value to the largest, ``low`` to below ``high``: ``event``, the chosen columns,
        ``field``, ``low``, ``high``, ``count``, ``share``, ``lost``, ``bar``. The last row of an event whose occurrences were
        lost, or did not hold the field, has neither ``low`` nor ``high``.

    Raises
    ------
    UsageError
        If there is no such column, or its values are no numbers.
    RingtapeError
        If the event was not recorded.

    Notes
    -----
    A bucket of powers of two holds the values from 2^k on and less than 2^(k+1); 0 has one of its own, and negative values lie
    as their opposites do. The edges are floating-point numbers, exact up to 2^53, and powers of two always.

    Examples
    --------
    >>> from ringtape.analysis.analyses.event_hist import event_hist
    >>> event_hist(getfixture("event_trace"), event="sched_process_wait", field="pid").select("low", "high", "count").rows()[::7]
    [(0.0, 1.0, 1), (64.0, 128.0, 1)]
    """
    if buckets < 1 or (width is not None and width < 1):
        raise UsageError(f"{'--buckets' if buckets < 1 else '--width'} is {buckets if buckets < 1 else width}", "give a number from 1 on")
    if not trace.events and event is None:
        return pl.DataFrame(schema={one.name: one.dtype for one in _COLUMNS})
    one = trace.named_event(event)
    frame = trace.event(one.name)
    name = field if field is not None else _only_number(frame, one)
    value = column(frame, one, name)
    kind = frame.select(value).collect_schema()[name]
    if not (kind.is_integer() or kind == pl.Boolean):
        raise UsageError(f"column {name} of {one.name} holds no numbers", f"those that do are {', '.join(_numbers(frame, one))}")
    keys = several(by) if by else ()
    values = frame.select(
        *(as_key(frame, one, key).alias(f"by_{key}") for key in keys), value.cast(pl.Int16 if kind == pl.Boolean else kind).alias("value")
    )
    low, high = trace.collect(values.select(pl.col("value").min().alias("low"), pl.col("value").max().alias("high"))).row(0)
    linear = scale == "linear" or width is not None
    step = (width or _nice(low, high, buckets)) if linear else 0
    number = _linear(step) if linear else _log2(kind)
    groups = [f"by_{key}" for key in keys]
    counted = trace.collect(values.group_by(*groups, number.alias("bucket")).agg(pl.len().cast(pl.Int64).alias("count")))
    if low is not None:
        counted = _filled(counted, groups)
    edges = _linear_edges(step) if linear else _log2_edges()
    gone = missing(trace).get(one.id, Missing()).lost
    zero = pl.lit(0, pl.Int64).alias("lost")
    rows = counted.with_columns(edges[0].alias("low"), edges[1].alias("high"), zero)
    if gone:
        nulls = {key: counted.schema[key] for key in [*groups, "bucket"]}
        lost = pl.DataFrame({"count": [0], "lost": [gone]}).select(
            *(pl.lit(None, dtype).alias(key) for key, dtype in nulls.items()),
            "count",
            *(pl.lit(None, pl.Float64).alias(end) for end in ("low", "high")),
            "lost",
        )
        rows = pl.concat([rows, lost.select(rows.columns)])
    over = pl.col("count").sum().over(groups) if groups else pl.col("count").sum()
    largest = pl.col("count").max().over(groups) if groups else pl.col("count").max()
    rows = rows.sort(*groups, "bucket", nulls_last=True).with_columns(
        pl.when(over > 0).then(pl.col("count") / over).otherwise(0.0).alias("share"),
        pl.when(largest > 0).then(pl.col("count") / largest).otherwise(0.0).alias("bar"),
    )
    own = {one.name for one in _COLUMNS}
    named = [pl.col(f"by_{key}").alias(key if key not in own else f"{key}_") for key in keys]
    return rows.select(pl.lit(one.name).alias("event"), *named, pl.lit(name).alias("field"), "low", "high", "count", "share", "lost", "bar")


def picture(result: pl.DataFrame) -> Figure:
    """Draw the histogram."""
    from ringtape.analysis.plots.events import histogram

    return histogram(result)


def _numbers(frame: pl.LazyFrame, event: Event) -> list[str]:
    """Return the fields that hold numbers, those first that are neither names nor addresses."""
    schema = frame.collect_schema()
    found = [name for name, of in column_names(event).items() if of and (schema[name].is_integer() or schema[name] == pl.Boolean)]
    shown = {field.name: field.show for field in event.fields}
    return sorted(found, key=lambda name: shown.get(name) == "hex")


def _only_number(frame: pl.LazyFrame, event: Event) -> str:
    found = _numbers(frame, event)
    if len(found) != 1:
        raise UsageError(f"which field of {event.name}?", f"name one with --field: {', '.join(found)}" if found else "it has no numbers")
    return found[0]


def _nice(low: int | None, high: int | None, buckets: int) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50 ... of which so many reach from the smallest value to the largest."""
    if low is None or high is None:
        return 1
    exact = max(1, -(-(high - low + 1) // buckets))
    power = 10 ** (len(str(exact)) - 1)
    return int(power * next(factor for factor in (1, 2, 5, 10) if factor * power >= exact))


def _linear(step: int) -> pl.Expr:
    return (pl.col("value") // step).cast(pl.Int64)


def _linear_edges(step: int) -> tuple[pl.Expr, pl.Expr]:
    return pl.col("bucket").cast(pl.Float64) * step, (pl.col("bucket") + 1).cast(pl.Float64) * step


def _log2(kind: pl.DataType) -> pl.Expr:
    """Return the number of the bucket: 0 for 0, k + 1 for values from 2^k on, -(k + 1) for their opposites."""
    value = pl.col("value")
    if kind == pl.UInt64:
        return (64 - value.bitwise_leading_zeros().cast(pl.Int64)).cast(pl.Int64)
    wide = value.cast(pl.Int64)
    # The opposite of the smallest number is itself, with its only bit in the highest place: right where it belongs.
    size = 64 - pl.when(wide < 0).then(-wide).otherwise(wide).bitwise_leading_zeros().cast(pl.Int64)
    return pl.when(wide < 0).then(-size).otherwise(size).cast(pl.Int64)


def _log2_edges() -> tuple[pl.Expr, pl.Expr]:
    number = pl.col("bucket")
    powers = {k: (0.0 if k == 0 else math.ldexp(1.0, k - 1)) for k in range(66)}

    def power(k: pl.Expr) -> pl.Expr:
        return k.replace_strict(list(powers), list(powers.values()), default=None, return_dtype=pl.Float64)

    here, above = power(number.abs()), power(number.abs() + 1)
    low = pl.when(number < 0).then(1.0 - above).otherwise(here)
    high = pl.when(number < 0).then(1.0 - here).otherwise(above)
    return low, high


def _filled(counted: pl.DataFrame, groups: list[str]) -> pl.DataFrame:
    """Put the empty buckets between those that are not, in each group."""
    known = counted.filter(pl.col("bucket").is_not_null())
    low, high = known["bucket"].min(), known["bucket"].max()
    assert isinstance(low, int)
    assert isinstance(high, int)
    each = (
        known.group_by(groups, maintain_order=True).agg(pl.col("bucket").min().alias("first"), pl.col("bucket").max().alias("last"))
        if groups
        else None
    )
    if high - low >= FILLED or (each is not None and int((each["last"] - each["first"] + 1).sum()) > 10 * FILLED):
        return counted
    every = pl.DataFrame({"bucket": range(low, high + 1)}, schema={"bucket": pl.Int64})
    if each is not None:
        every = each.join(every, how="cross").filter(pl.col("bucket").is_between("first", "last")).select(*groups, "bucket")
    full = every.join(counted, on=[*groups, "bucket"], how="full", coalesce=True, nulls_equal=True)
    return full.with_columns(pl.col("count").fill_null(0)).select(counted.columns)
