"""Exact order statistics of durations in bounded memory, and the interval that holds them where calls were lost.

Two passes. The first counts durations in a histogram of 64 buckets per power of two (at most 1.6 % wide), which tells
the bucket that holds each wanted rank. The second counts the distinct durations inside those buckets alone: a bucket
around 2**k ns holds at most 2**(k-6) of them, so memory depends on the number of groups and not on that of rows.

Where groups are few, durations below `SHORT` ns have a bucket each in the first pass, and longer ones are counted one by one beside
it, as long as they are no more than `LONG`: one reading of the files tells everything then.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.trace import Trace

Ints = npt.NDArray[np.int64]
_SUBDIVISION = 1 << (52 - 6)
FINEST = 64
"""Buckets per power of two; durations below 128 ns have one each."""
SHORTEST, SHORT = 128, 1 << 17
"""Durations (ns) below which each has a bucket of its own: always, and where groups are few."""
LONG = 1 << 23
"""Longer durations of which each may be counted: what that needs stays below half a gigabyte though all be different."""
FEW = ["nr", "abi"]
"""What tells few groups apart: there are some hundreds of system calls."""


def bucket(duration: pl.Expr) -> pl.Expr:
    """Return the expression for the histogram bucket of a duration: it never falls as the duration grows.

    The bits of a positive IEEE 754 double, read as an integer, grow with its value; their upper part is exponent and
    leading digits, which is a histogram with linear steps inside each power of two.
    """
    return (duration.clip(0).cast(pl.Float64).reinterpret(dtype=pl.Int64) // _SUBDIVISION).cast(pl.Int32)


def place(duration: pl.Expr, short: int) -> pl.Expr:
    """Return the expression for the bucket of a duration where those below ``short`` ns have one each."""
    edge = (struct.unpack("q", struct.pack("d", float(short)))[0] // _SUBDIVISION) - short
    return pl.when(duration < short).then(duration.clip(0).cast(pl.Int32)).otherwise(bucket(duration) - edge)


def histogram(trace: Trace, calls: pl.LazyFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Count the durations of each group.

    Returns
    -------
    DataFrame
        ``keys``, ``bucket``, ``count``, ``smallest`` and ``largest`` duration in the bucket (ns), sorted.
    """
    duration = pl.col("dur")
    counted = calls.group_by(*keys, place(duration, SHORTEST).alias("bucket")).agg(
        pl.len().cast(pl.Int64).alias("count"), duration.min().alias("smallest"), duration.max().alias("largest")
    )
    return trace.collect(counted).sort(*keys, "bucket")


def _of_few(trace: Trace, calls: pl.LazyFrame) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Count the durations of each system call: the result of `histogram` with a bucket for each duration below `SHORT`.

    Beside it, the number of each longer duration (``nr``, ``abi``, ``bucket``, ``value``, ``count``), unless they are too many.

    To group by one number costs half of grouping by three columns, and a conditional bucket a third on top of it.
    """
    width = 2 * SHORT
    duration, count = pl.col("dur"), pl.len().cast(pl.Int64).alias("count")
    packed = (pl.col("nr").cast(pl.Int64) * 256 + pl.col("abi").cast(pl.Int64) + 128) * width + duration.clip(0, SHORT)
    above = calls.filter(duration >= SHORT)
    # Both at once read and decode the files once. What is cut off here is told by the count beside it.
    each = above.select(*FEW, "dur").head(LONG + 1).group_by(*FEW, duration.alias("value")).agg(count)
    counted, longer = trace.collect_all([calls.group_by(packed.alias("packed")).agg(count), each])
    group, duration = pl.col("packed") // width, pl.col("packed") - pl.col("packed") // width * width
    placed = counted.select(
        (group // 256).cast(pl.Int32).alias("nr"),
        (group - group // 256 * 256 - 128).cast(pl.Int8).alias("abi"),
        duration.cast(pl.Int32).alias("bucket"),
        "count",
        duration.alias("smallest"),
        duration.alias("largest"),
    )
    short, beyond = placed.filter(pl.col("bucket") < SHORT), placed.filter(pl.col("bucket") == SHORT)["count"].sum()
    if beyond <= LONG:
        known = longer.with_columns(place(pl.col("value"), SHORT).alias("bucket"))
        value = pl.col("value")
        rest = known.group_by(*FEW, "bucket").agg(pl.col("count").sum(), value.min().alias("smallest"), value.max().alias("largest"))
    else:
        known, duration = None, pl.col("dur")
        grouped = above.group_by(*FEW, place(duration, SHORT).alias("bucket"))
        rest = trace.collect(grouped.agg(count, duration.min().alias("smallest"), duration.max().alias("largest")))
    return pl.concat([short, rest.select(short.columns)]).sort(*FEW, "bucket"), known


@dataclass(frozen=True)
class _Side:
    """Counts in ascending order of duration, group after group: recorded calls, and lost ones at one end of their interval."""

    starts: Ints
    group: Ints
    recorded: Ints
    lost: Ints
    spare: Ints
    """By group: how many of the lost calls may not belong to it."""

    def before(self, values: Ints) -> Ints:
        """Return the running total inside each group, exclusive."""
        total = np.cumsum(values) - values
        return np.asarray(total - total[self.starts][self.group], np.int64)

    def totals(self, values: Ints) -> Ints:
        return np.add.reduceat(values, self.starts) if len(self.starts) else values[:0]


def _rank(q: Fraction, n: Ints) -> Ints:
    return np.maximum(-((-q.numerator * n) // q.denominator), 1)


def _first_reaching(side: _Side, before: tuple[Ints, Ints], totals: tuple[Ints, Ints], q: Fraction) -> Ints:
    """Return, by group, the row of the smallest duration that the quantile can have.

    The quantile can be as small as x if some choice of lost calls puts ceil(q n) durations at or below x; the best choice
    leaves out as many calls above x as may be left out.
    """
    recorded, lost = before[0] + side.recorded, before[1] + side.lost
    everything, missing = totals[0][side.group], totals[1][side.group]
    left_out = np.minimum(side.spare[side.group], missing - lost)
    reached = recorded + lost >= _rank(q, everything + missing - left_out)
    return side.starts + np.add.reduceat((~reached).astype(np.int64), side.starts)


def _last_open(side: _Side, before: tuple[Ints, Ints], totals: tuple[Ints, Ints], q: Fraction) -> Ints:
    """Return, by group, the row of the largest duration that the quantile can have.

    It can be as large as x if some choice leaves fewer than ceil(q n) durations below x; the best choice leaves out calls
    below x.
    """
    recorded, lost = before
    everything, missing = totals[0][side.group], totals[1][side.group]
    left_out = np.minimum(side.spare[side.group], lost)
    still = recorded + lost - left_out < _rank(q, everything + missing - left_out)
    return side.starts + np.add.reduceat(still.astype(np.int64), side.starts) - 1


def _merge(recorded: pl.DataFrame, lost: pl.DataFrame, edge: str, by: Sequence[str], short: int) -> pl.DataFrame:
    """Put lost calls, each at one edge of its interval, among recorded counts."""
    if not len(lost):
        return recorded.with_columns(pl.lit(0, pl.Int64).alias("lost"))
    extra = lost.select(
        *(
            pl.col("group") if name == "group" else place(pl.col(edge), short).alias(name) if name == "bucket" else pl.col(edge).alias(name)
            for name in by
        ),
        pl.col("lost"),
    )
    extra = extra.group_by(by).agg(pl.col("lost").sum())
    return (
        recorded.join(extra, on=list(by), how="full", coalesce=True)
        .with_columns(pl.col("count").fill_null(0), pl.col("lost").fill_null(0))
        .sort(*by)
    )  # fmt: skip


def _numbers(frame: pl.DataFrame, column: str) -> Ints:
    return frame[column].cast(pl.Int64).to_numpy().astype(np.int64)


def quantiles(
    trace: Trace, calls: pl.LazyFrame, keys: Sequence[str], wanted: Sequence[Fraction], lost: pl.DataFrame, spare: int | None
) -> pl.DataFrame:
    """Return order statistics of ``dur`` in each group.

    The q-quantile of n durations is the ceil(q n)-th smallest (at least the first): a duration that did occur.

    Parameters
    ----------
    trace : Trace
        The recording.
    calls : LazyFrame
        Rows with the columns ``keys`` and ``dur``.
    keys : sequence of str
        Columns to group by.
    wanted : sequence of Fraction
        Quantiles, each in [0, 1].
    lost : DataFrame
        Calls that are missing: some of ``keys`` (they are missing in every group that agrees with those), ``low`` and
        ``high`` (ns) between which each duration lies, ``lost`` (their number).
    spare : int or None
        How many of the missing calls may, in truth, not belong to the group; None for any number.

    Returns
    -------
    DataFrame
        ``keys``, ``count`` (recorded calls), and for each quantile ``low_<i>`` and ``high_<i>`` (ns): the interval that
        holds the true value whatever the missing durations were; its ends are equal where nothing is missing. ``low_<i>``
        and ``high_<i>`` are null for groups of which no call is known for certain to exist.
    """
    short = SHORT if list(keys) == FEW else SHORTEST
    counted, known = _of_few(trace, calls) if list(keys) == FEW else (histogram(trace, calls, keys), None)
    groups = counted.select(keys).unique(maintain_order=True)
    shared = [key for key in keys if key in lost.columns]
    if len(lost) and len(shared) == len(keys):
        groups = pl.concat([groups, lost.select(keys).cast(groups.schema)]).unique(maintain_order=True)
    groups = groups.with_row_index("group").with_columns(pl.col("group").cast(pl.Int64))
    counted = counted.join(groups, on=list(keys), nulls_equal=True).sort("group", "bucket")
    missing = _missing(lost, groups, shared)
    number = len(groups)
    spares = np.full(number, np.iinfo(np.int64).max if spare is None else spare, np.int64)

    result = groups.join(counted.group_by("group").agg(pl.col("count").sum()), on="group", how="left").with_columns(pl.col("count").fill_null(0))
    result = result.sort("group")
    sides = ("low", "high") if len(missing) else ("low",)
    for side in sides:
        # Below 2 ns a missing call may be one without a duration: that there is a short one more lowers no upper bound.
        here = missing.filter(pl.col("high") > 1) if side == "high" else missing
        found = _side_quantiles(_Calls(trace, calls, keys, groups, short, known), counted, here, side, wanted, spares)
        result = result.with_columns(pl.Series(f"{side}_{index}", values, pl.Int64) for index, values in enumerate(found))
    if len(sides) == 1:
        result = result.with_columns(pl.col(f"low_{index}").alias(f"high_{index}") for index in range(len(wanted)))
        return result.drop("group")
    # A group of which nothing but such calls is known has no duration above theirs.
    most = missing.group_by("group").agg(pl.col("high").max().alias("_most"))
    result = result.join(most, on="group", how="left", maintain_order="left")
    return result.with_columns(pl.col(f"high_{index}").fill_null(pl.col("_most")) for index in range(len(wanted))).drop("group", "_most")


def _missing(lost: pl.DataFrame, groups: pl.DataFrame, shared: list[str]) -> pl.DataFrame:
    """Return the missing calls of every group."""
    columns = ["group", "low", "high", "lost"]
    if not len(lost):
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.Int64))
    joined = lost.join(groups, on=shared, nulls_equal=True) if shared else lost.join(groups, how="cross")
    return joined.select(columns)


@dataclass(frozen=True)
class _Calls:
    """The calls that are asked about: where they are read, how they are grouped, and which durations are counted already."""

    trace: Trace
    rows: pl.LazyFrame
    keys: Sequence[str]
    groups: pl.DataFrame
    short: int
    known: pl.DataFrame | None


def _side_quantiles(
    calls: _Calls, counted: pl.DataFrame, missing: pl.DataFrame, edge: str, wanted: Sequence[Fraction], spares: Ints
) -> list[list[int | None]]:
    short = calls.short
    search = _first_reaching if edge == "low" else _last_open
    coarse = _merge(counted, missing, edge, ("group", "bucket"), short)
    present = np.unique(_numbers(coarse, "group"))
    answers: list[list[int | None]] = [[None] * len(calls.groups) for _ in wanted]
    if not len(present):
        return answers
    side = _side(coarse, spares, present)
    before = (side.before(side.recorded), side.before(side.lost))
    totals = (side.totals(side.recorded), side.totals(side.lost))
    chosen = [np.minimum(search(side, before, totals, q), np.append(side.starts[1:], len(coarse)) - 1) for q in wanted]

    fine = _distinct(calls, coarse, np.unique(np.concatenate(chosen)))
    fine = _merge(fine, _inside(missing, edge, fine, short), edge, ("group", "bucket", "value"), short).filter(pl.col("value").is_not_null())
    ends = np.flatnonzero(np.diff(np.append(_row_of(fine), -1)))
    begins = np.append(0, ends[:-1] + 1)
    at = np.full(len(coarse), -1, np.int64)
    at[_index_in(coarse, fine[begins])] = np.arange(len(begins))
    values = _numbers(fine, "value")
    for number, rows in enumerate(chosen):
        segment = at[rows]
        picked = _expand(begins[segment], ends[segment] + 1)
        starts = np.append(0, np.cumsum(ends[segment] + 1 - begins[segment])[:-1])
        inner = _Side(
            starts, np.repeat(np.arange(len(rows)), ends[segment] + 1 - begins[segment]), _numbers(fine, "count")[picked],
            _numbers(fine, "lost")[picked], side.spare,
        )  # fmt: skip
        ahead = (before[0][rows][inner.group] + inner.before(inner.recorded), before[1][rows][inner.group] + inner.before(inner.lost))
        place = np.minimum(search(inner, ahead, totals, wanted[number]), np.append(starts[1:], len(picked)) - 1)
        for group, value in zip(present, values[picked[place]], strict=True):
            answers[number][int(group)] = int(value)
    return answers


def _side(coarse: pl.DataFrame, spares: Ints, present: Ints) -> _Side:
    group = _numbers(coarse, "group")
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    dense = np.searchsorted(present, group)
    return _Side(starts, dense, _numbers(coarse, "count"), _numbers(coarse, "lost"), spares[present])


def _expand(begins: Ints, ends: Ints) -> Ints:
    """Return the numbers of all the half-open ranges, one range after the other."""
    lengths = ends - begins
    offsets = np.append(0, np.cumsum(lengths)[:-1])
    return np.repeat(begins - offsets, lengths) + np.arange(int(lengths.sum()))


def _row_of(fine: pl.DataFrame) -> Ints:
    """Return the number of the (group, bucket) pair that each row of a sorted frame belongs to."""
    return _numbers(fine.select(pl.struct("group", "bucket").rle_id().alias("pair")), "pair")


def _index_in(coarse: pl.DataFrame, pairs: pl.DataFrame) -> Any:
    numbered = coarse.select("group", "bucket").with_row_index("row")
    return _numbers(pairs.select("group", "bucket").join(numbered, on=["group", "bucket"], how="left", maintain_order="left"), "row")


def _inside(missing: pl.DataFrame, edge: str, fine: pl.DataFrame, short: int) -> pl.DataFrame:
    """Return the missing calls whose edge lies in one of the buckets that were looked into."""
    placed = missing.with_columns(place(pl.col(edge), short).alias("bucket"))
    return placed.join(fine.select("group", "bucket").unique(), on=["group", "bucket"], how="semi")


def _distinct(calls: _Calls, coarse: pl.DataFrame, rows: Ints) -> pl.DataFrame:
    """Count the distinct durations inside the buckets that hold a wanted rank; a bucket of one value needs no look."""
    inside = coarse[rows]
    single = inside.filter(pl.col("smallest") == pl.col("largest")).select("group", "bucket", pl.col("smallest").alias("value"), "count")
    # Buckets of lost calls alone have no recorded value: the edge stands in for it.
    hollow = inside.filter(pl.col("count") == 0).select("group", "bucket", pl.lit(None, pl.Int64).alias("value"), pl.lit(0, pl.Int64).alias("count"))
    several = inside.filter(pl.col("smallest") < pl.col("largest"))
    pieces = [single, hollow]
    if len(several):
        wanted = several.join(calls.groups, on="group").select(*calls.keys, "bucket", "group")
        pieces.append(_looked_up(calls, wanted, several["smallest"].min(), several["largest"].max()).select(single.columns))
    return pl.concat(pieces).sort("group", "bucket", "value")


def _looked_up(calls: _Calls, wanted: pl.DataFrame, low: Any, high: Any) -> pl.DataFrame:
    """Count the distinct durations in some buckets; ``low`` and ``high`` (ns) hold between them all that lies in those."""
    on = [*calls.keys, "bucket"]
    if calls.known is not None:
        return calls.known.join(wanted, on=on, nulls_equal=True)
    counted = (
        calls.rows.filter(pl.col("dur").is_between(low, high))
        .select(*calls.keys, "dur", place(pl.col("dur"), calls.short).alias("bucket"))
        .join(wanted.lazy(), on=on, nulls_equal=True)
        .group_by("group", "bucket", pl.col("dur").alias("value"))
        .agg(pl.len().cast(pl.Int64).alias("count"))
    )
    return calls.trace.collect(counted)
