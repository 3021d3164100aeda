"""Histograms of latency that can be kept, and added up across parts, traces and machines."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ringtape.analysis.grouping import By, Grouping
from ringtape.analysis.ledger import FOREVER, timed_losses
from ringtape.analysis.quantiles import bucket
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import RingtapeError, TraceError, UsageError
from ringtape.schemas.escape import escape

VERSION = 1
BOUND = 1 / 64
"""Durations in one bucket differ by at most this share of the shorter; the middle of a bucket is at most half of it away from any."""
_VERSION_KEY = b"ringtape.histograms"
_GROUPS: dict[str, Any] = {"syscall": pl.String, "process": pl.Int32, "thread": pl.Int32, "command": pl.String}
_COUNTS: dict[str, Any] = {"lost": pl.Boolean, "bucket": pl.Int32, "smallest": pl.Int64, "largest": pl.Int64, "count": pl.Int64, "sum": pl.Int64}
_LONGEST = 10_000_000
"""Rows of a file that is read: hundreds of rows per group are usual."""


@dataclass(frozen=True)
class Histograms:
    """A log-linear histogram for each group: 64 buckets per power of two, each with its count, sum, and shortest and longest duration.

    Adding is exact: the histograms of two traces added up equal those of both traces together, in any order, so precision never falls. A
    quantile is known between the shortest and the longest duration of the bucket that holds it, which differ by at most `BOUND` (1.6 %) of
    the shorter; durations below 128 ns are exact. (Durations beyond 2**53 ns, 104 days, are rounded to a double before.)

    Attributes
    ----------
    by : tuple of str
        What is told apart: any of ``syscall``, ``process``, ``thread``, ``command``. Process and thread numbers of different machines are not the
        same ones: add up those of syscall and command.
    counts : DataFrame
        ``by``, ``lost``, ``bucket``, ``smallest``, ``largest``, ``count``, ``sum``. Rows with ``lost`` are calls that were lost: between ``smallest``
        and ``largest`` as the ledger says; in a group that is all null they may belong to any group, or to none.
    """

    by: tuple[str, ...]
    counts: pl.DataFrame

    def __add__(self, other: Histograms) -> Histograms:
        """Return the histograms of both.

        Raises
        ------
        UsageError
            If they tell different things apart.
        """
        return merge([self, other])

    def quantiles(self, wanted: Sequence[float | str | Fraction] = ("0.5", "0.9", "0.99", "0.999", "1")) -> pl.DataFrame:
        """Return bounds of quantiles.

        Parameters
        ----------
        wanted : sequence of float, str or Fraction
            Quantiles in [0, 1]; 0.1 is read as a tenth.

        Returns
        -------
        DataFrame
            ``by``, ``calls``, ``lost``, ``quantile``, ``low``, ``high`` (ns): the ceil(q n)-th smallest of n durations lies between these, ends
            included, whatever was lost.

        Raises
        ------
        UsageError
            If a quantile is not in [0, 1].
        """
        asked = [_fraction(q) for q in wanted]
        rows = []
        anywhere = self._unlocated()
        for key, group in self._recorded().partition_by(self.by, as_dict=True, maintain_order=True).items():
            lost = pl.concat([anywhere, self._lost_of(key)])
            n, missing = int(group["count"].sum()), int(lost["count"].sum())
            for q in asked:
                low, high = _bounds(group, lost, q)
                rows.append((*key, n, missing, float(q), low, high))
        numbers = {"calls": pl.Int64, "lost": pl.Int64, "quantile": pl.Float64, "low": pl.Int64, "high": pl.Int64}
        order = ["calls", *self.by, "quantile"]
        frame = pl.DataFrame(rows, schema={name: _GROUPS[name] for name in self.by} | numbers, orient="row")
        return frame.sort(order, descending=[name == "calls" for name in order], nulls_last=True)

    def _recorded(self) -> pl.DataFrame:
        return self.counts.filter(~pl.col("lost")).sort(*self.by, "bucket")

    def _unlocated(self) -> pl.DataFrame:
        return self.counts.filter(pl.col("lost"), *(pl.col(name).is_null() for name in self.by))

    def _lost_of(self, key: tuple[Any, ...]) -> pl.DataFrame:
        return self.counts.filter(pl.col("lost"), *(pl.col(name) == value for name, value in zip(self.by, key, strict=True)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to a Parquet file, which states its version.

        Raises
        ------
        RingtapeError
            If the file cannot be written.
        """
        table = self.counts.to_arrow().replace_schema_metadata({_VERSION_KEY: str(VERSION).encode()})
        try:
            pq.write_table(table, path, compression="zstd", write_page_checksum=True)
        except OSError as error:
            raise RingtapeError(f"{escape(os.fspath(path))}: {os.strerror(error.errno or 0).lower()}", "name a file that can be written") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Histograms:
        """Read what `save` wrote.

        Raises
        ------
        TraceError
            If the file is no such file, is damaged, contradicts itself, or comes from a newer version.
        """
        name = escape(os.fspath(path))
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                version = (file.schema_arrow.metadata or {}).get(_VERSION_KEY)
                if version is None or file.metadata.num_rows > _LONGEST:
                    raise TraceError(f"{name}: these are no histograms of ringtape", "name a file that Histograms.save wrote")
                if version != str(VERSION).encode():
                    raise TraceError(f"{name}: version {escape(version)} of histograms is not known", "a newer ringtape reads it")
                counts = pl.DataFrame(pl.from_arrow(file.read()))
        except FileNotFoundError:
            raise TraceError(f"{name}: no such file") from None
        except (pa.ArrowException, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise TraceError(f"{name}: reading failed: {' '.join(str(error).split())[:200]}") from None
        by = tuple(column for column in counts.columns if column in _GROUPS)
        if not by or counts.schema != pl.Schema({column: _GROUPS[column] for column in by} | _COUNTS):
            raise TraceError(f"{name}: its columns are not those of histograms", "name a file that Histograms.save wrote")
        kept = ~pl.col("lost")
        wrong = (
            pl.any_horizontal(pl.col(_COUNTS).is_null())
            | (pl.col("count") <= 0)
            | (pl.col("smallest") > pl.col("largest"))
            | (pl.col("smallest") < 0)
            | (kept & ((bucket(pl.col("smallest")) != pl.col("bucket")) | (bucket(pl.col("largest")) != pl.col("bucket"))))
        )
        if counts.select(wrong.any()).item():
            raise TraceError(f"{name}: a bucket contradicts its durations", "the file was changed after it was written")
        return cls(by, counts)


def merge(parts: Iterable[Histograms]) -> Histograms:
    """Return the histograms of all: exact, and the same in any order.

    Raises
    ------
    UsageError
        If there are none, or they tell different things apart.
    """
    every = list(parts)
    if not every:
        raise UsageError("there are no histograms to add up", "give one or more")
    by = every[0].by
    other = next((one.by for one in every if one.by != by), None)
    if other is not None:
        raise UsageError(f"histograms by {','.join(by)} and by {','.join(other)} do not add up", "make them with the same by")
    return Histograms(by, _summed(pl.concat([one.counts for one in every]), by))


def histograms(trace: Trace, *, by: By | Sequence[By] = "syscall", syscall: str | None = None) -> Histograms:
    """Return the histograms of latency of a trace.

    Parameters
    ----------
    trace : Trace
        The recording; its table ``syscalls`` is needed.
    by : {"syscall", "process", "thread", "command"} or several of them
        What to tell apart.
    syscall : str, optional
        Only calls of this name.

    Returns
    -------
    Histograms
        Of the calls that returned and were recorded, and those that were lost.

    Examples
    --------
    >>> from ringtape.analysis.histograms import histograms
    >>> both = histograms(getfixture("example_trace")) + histograms(getfixture("example_trace"))
    >>> both.quantiles(["0.5", 1]).rows()[:2]
    [('read', 6, 0, 0.5, 200, 200), ('read', 6, 0, 1.0, 300, 300)]
    """
    trace.require("syscalls")
    grouping = Grouping.of(trace, by)
    calls, lost = trace.scan("syscalls").filter(pl.col("kind") == 0), timed_losses(trace)
    if syscall is not None:
        calls = calls.filter(grouping.is_call(syscall))
        lost = lost.filter(pl.col("nr").is_in([-1]) | grouping.is_call(syscall))
    duration = pl.col("dur")
    counted = trace.collect(
        grouping.rows(calls)
        .group_by(*grouping.keys, bucket(duration).alias("bucket"))
        .agg(duration.min().alias("smallest"), duration.max().alias("largest"), pl.len().cast(pl.Int64).alias("count"), duration.sum().alias("sum"))
    )
    recorded = grouping.named(counted).with_columns(pl.lit(False).alias("lost"))
    rows = lost.select(
        "nr", "abi", pl.col("low").alias("smallest"), pl.col("high").alias("largest"), pl.col("lost").alias("count"), pl.col("time").alias("sum")
    )
    rows = rows.with_columns(pl.lit(True).alias("lost"), pl.lit(-1, pl.Int32).alias("bucket"))
    if grouping.located and not len(lost.filter(pl.col("nr") < 0)):
        missing = grouping.named(rows)
    else:
        missing = rows.with_columns(pl.lit(None).cast(_GROUPS[name]).alias(name) for name in grouping.by)
    columns = {name: _GROUPS[name] for name in grouping.by} | _COUNTS
    both = pl.concat([frame.select(pl.col(name).cast(kind) for name, kind in columns.items()) for frame in (recorded, missing)])
    return Histograms(grouping.by, _summed(both, grouping.by))


def _summed(counts: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    kept, lost = counts.filter(~pl.col("lost")), counts.filter(pl.col("lost"))
    kept = kept.group_by(*by, "lost", "bucket").agg(pl.col("smallest").min(), pl.col("largest").max(), pl.col("count", "sum").sum())
    # A bucket of the ledger stays what it is: its ends are bounds, not durations.
    lost = lost.group_by(*by, "lost", "bucket", "smallest", "largest").agg(pl.col("count", "sum").sum())
    return pl.concat([kept, lost]).select(counts.columns).sort(*by, "lost", "bucket", "smallest", "largest", nulls_last=True)


def _fraction(q: float | str | Fraction) -> Fraction:
    try:
        found = Fraction(str(q))
    except (ValueError, ZeroDivisionError):
        found = Fraction(-1)
    if not 0 <= found <= 1:
        raise UsageError(f"quantile {q!r} is not between 0 and 1", "name one such as 0.99")
    return found


def _bounds(group: pl.DataFrame, lost: pl.DataFrame, q: Fraction) -> tuple[int, int]:
    """Return between what a quantile lies, where any of the lost calls may have been none of the group."""
    small, large, count = (group[name].to_numpy() for name in ("smallest", "largest", "count"))
    n, missing = int(count.sum()), int(lost["count"].sum())
    if not missing:
        at = int(np.searchsorted(np.cumsum(count), max(1, -(-q.numerator * n // q.denominator))))
        return int(small[at]), int(large[at])
    ends = []
    for recorded, edge in ((small, "smallest"), (large, "largest")):
        values = np.append(recorded, lost[edge].to_numpy())
        order = np.argsort(values, kind="stable")
        own = np.append(count, np.zeros(len(lost), np.int64))[order]
        other = np.append(np.zeros(len(count), np.int64), lost["count"].to_numpy())[order]
        values = values[order]
        if edge == "smallest":
            # Smallest, if of the lost calls those alone belong to the group that are no longer: the rank counts them.
            here, there = np.cumsum(own), np.cumsum(other)
            reached = [int(a + b) >= max(1, -(-q.numerator * (n + int(b)) // q.denominator)) for a, b in zip(here, there, strict=True)]
            ends.append(int(values[reached.index(True)]))
        else:
            before, longer = np.cumsum(own) - own, missing - (np.cumsum(other) - other)
            still = [int(a) < max(1, -(-q.numerator * (n + int(b)) // q.denominator)) for a, b in zip(before, longer, strict=True)]
            ends.append(int(values[len(still) - 1 - still[::-1].index(True)]))
    return ends[0], min(ends[1], FOREVER)
