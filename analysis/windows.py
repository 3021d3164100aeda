"""Windows of equal length, and how much of calls lies in each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError
from ringtape.schemas.units import parse_duration

Ints = npt.NDArray[np.int64]
USUAL = 60
MOST = 100_000


@dataclass(frozen=True)
class Windows:
    """Windows of ``width`` ns from ``begin`` on; the last may be shorter and ends at ``end``."""

    begin: int
    end: int
    width: int

    @classmethod
    def over(cls, begin: int, end: int, width: str | None) -> Windows:
        """Cut a stretch of time into windows: as long as is said, or of a round length so that there are at most 60.

        Raises
        ------
        UsageError
            If the length cannot be read, is not above 0, or makes more than 100,000 windows.
        """
        end = max(end, begin + 1)
        size = _round(-(-(end - begin) // USUAL)) if width is None else parse_duration(width)
        if size <= 0:
            raise UsageError(f"windows of {width} have no length", "give one such as 100ms")
        if (end - begin) / size > MOST:
            raise UsageError(f"windows of {width} would be more than {MOST:,}", "give longer ones, or ask of less time with `between`")
        return cls(begin, end, size)

    def __len__(self) -> int:
        return max(0, -(-(self.end - self.begin) // self.width))

    @property
    def edges(self) -> Ints:
        """Begin of each window, and the end of the last."""
        return np.append(self.begin + self.width * np.arange(len(self), dtype=np.int64), self.end)

    def place(self, instant: pl.Expr) -> pl.Expr:
        """Return the number of the window that holds an instant; of the first or last for those outside."""
        return ((instant - self.begin) // self.width).clip(0, len(self) - 1)

    def places(self, instants: Ints) -> Ints:
        """Return the same for an array."""
        return np.clip((instants - self.begin) // self.width, 0, len(self) - 1)


def _round(ns: int) -> int:
    """Return the smallest 1, 2 or 5 times a power of ten that is not below.

    >>> [_round(ns) for ns in (1, 3, 70, 100, 501)]
    [1, 5, 100, 100, 1000]
    """
    step = 1
    while step * 10 < ns:
        step *= 10
    return next(step * factor for factor in (1, 2, 5, 10) if step * factor >= ns)


@dataclass(frozen=True)
class Shares:
    """Per group (rows) and window (columns): calls entered, errors among them, and ns inside calls."""

    calls: Ints
    errors: Ints
    time: Ints


def per_window(trace: Trace, calls: pl.LazyFrame, groups: int, windows: Windows) -> Shares:
    """Return how many calls were entered in each window, and how much of their time lies in it.

    Parameters
    ----------
    trace : Trace
        The recording.
    calls : LazyFrame
        ``group`` (number), ``ts``, ``dur``, ``counted`` (whether it counts as entered), ``failed``.
    groups : int
        How many groups there are.
    windows : Windows
        The windows. What lies outside of them is cut off; time is exact.
    """
    start = pl.col("ts").clip(windows.begin, windows.end)
    stop = (pl.col("ts") + pl.col("dur")).clip(windows.begin, windows.end)
    placed = calls.with_columns(start.alias("start"), stop.alias("stop")).with_columns(
        windows.place(pl.col("start")).alias("first"), windows.place(pl.col("stop")).alias("last")
    )
    across = pl.col("last") > pl.col("first")
    until = windows.begin + (pl.col("first") + 1) * windows.width
    firsts = trace.collect(
        placed.group_by("group", "first").agg(
            pl.col("counted").sum().cast(pl.Int64).alias("calls"),
            (pl.col("counted") & pl.col("failed")).sum().cast(pl.Int64).alias("errors"),
            (pl.when(across).then(until).otherwise("stop") - pl.col("start")).sum().alias("time"),
            across.sum().cast(pl.Int64).alias("open"),
        )
    )
    since = windows.begin + pl.col("last") * windows.width
    lasts = trace.collect(
        placed.filter(across).group_by("group", "last").agg((pl.col("stop") - since).sum().alias("time"), pl.len().cast(pl.Int64).alias("shut"))
    )
    shape = (groups, len(windows))
    found = {name: np.zeros(shape, np.int64) for name in ("calls", "errors", "time")}
    going = np.zeros((groups, len(windows) + 1), np.int64)
    group, first = firsts["group"].to_numpy(), firsts["first"].to_numpy()
    for name, values in found.items():
        np.add.at(values, (group, first), firsts[name].to_numpy())
    np.add.at(going, (group, first + 1), firsts["open"].to_numpy())
    group, last = lasts["group"].to_numpy(), lasts["last"].to_numpy()
    np.add.at(found["time"], (group, last), lasts["time"].to_numpy())
    np.add.at(going, (group, last), -lasts["shut"].to_numpy())
    # Whole windows between the first and the last of a call.
    found["time"] += np.cumsum(going, axis=1)[:, :-1] * windows.width
    return Shares(**found)
