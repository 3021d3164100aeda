"""The calls of every thread in the order in which it made them, a block at a time, and where that order is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.holes import Holes, holes
from ringtape.analysis.ledger import AT_ATTACH, CHILD, NO_RETURN
from ringtape.analysis.naming import syscall_label, syscall_name
from ringtape.analysis.trace import Trace

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
BLOCK = 1 << 21
"""Rows that are looked at together."""
BITS = 12
OTHER = (1 << BITS) - 1
"""Code of all calls beyond the most frequent 4095: only a program that calls random numbers has so many."""
_BINS = 4096
_EXEC = ("execve", "execveat")


@dataclass(frozen=True)
class Block:
    """Calls sorted by thread and time.

    ``linked`` is true where the next row is the next call of the same thread, and no other can have been made between them.
    ``fresh`` is false for the rows that stood in the block before as well. ``broken`` counts the places where lost calls part
    two fresh neighbours.
    """

    thread: Ints
    start: Ints
    end: Ints
    code: Ints
    linked: Bools
    fresh: Bools
    broken: int


class CallOrder:
    """The calls of a trace in order, for one pass or several.

    Calls of one thread follow each other unless the thread ended, or another program began in it (a successful exec), or
    a lost call may lie between them: a hole in the sequence numbers of any CPU that reaches into the time between the two.

    Parameters
    ----------
    trace : Trace
        The recording.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        calls = trace.scan("syscalls").filter(pl.col("kind") != CHILD)
        counted = trace.collect(calls.group_by("nr", "abi").agg(pl.len().cast(pl.Int64).alias("count")))
        self.calls = int(counted["count"].sum())
        kept = counted.sort("count", "abi", "nr", descending=[True, False, False]).head(OTHER)
        self.codes = kept.select("nr", "abi", pl.int_range(pl.len(), dtype=pl.Int64).alias("code"))
        self.labels = [*kept.select(syscall_label(trace.header.abi)).to_series(), *["(others)"] * (OTHER + 1 - len(kept))]
        self._holes: Holes | None = None

    def label(self, code: int) -> str:
        """Return the name of a call."""
        return str(self.labels[code])

    def windows(self, most: int = BLOCK) -> list[tuple[int, int]]:
        """Return windows of ``ts`` (half open) that hold all calls, each no more than so many rows unless they have one ``ts``."""
        found = self._trace.collect(self._trace.scan("syscalls").select(pl.col("ts").min().alias("low"), pl.col("ts").max().alias("high")))
        low, high = found.row(0)
        return [] if low is None else list(self._parted(int(low), int(high) + 1, most))

    def _parted(self, low: int, high: int, most: int) -> Iterator[tuple[int, int]]:
        width = max(1, -(-(high - low) // _BINS))
        place = ((pl.col("ts") - low) // width).alias("bin")
        rows = self._trace.scan("syscalls", low, high).group_by(place).agg(pl.len().cast(pl.Int64).alias("rows"))
        begin, held = low, 0
        for at, count in self._trace.collect(rows).sort("bin").iter_rows():
            left, right = low + at * width, min(low + (at + 1) * width, high)
            if held and held + count > most:
                yield begin, left
                begin, held = left, 0
            if count > most and width > 1:
                yield from self._parted(left, right, most)
                begin = right
            else:
                held += count
        if held:
            yield begin, high

    def blocks(self, keep: int, windows: list[tuple[int, int]] | None = None) -> Iterator[Block]:
        """Yield the calls in blocks.

        Parameters
        ----------
        keep : int
            Calls of each thread that the next block shows again, so that what lies across its edge is seen; a thread that ended
            is forgotten.
        windows : list of tuple, optional
            Windows to look at, which need not touch each other if nothing is kept; all by default.
        """
        carried: pl.DataFrame | None = None
        for since, until in self.windows() if windows is None else windows:
            frame = self._read(since, until)
            if carried is not None:
                frame = pl.concat([carried, frame])
            frame = frame.sort("tid", "ts", "dur", "fresh")
            frame, linked, open_end, broken = self._linked(frame)
            arrays = {name: frame[name].to_numpy() for name in ("tid", "ts", "end", "code", "fresh")}
            yield Block(arrays["tid"].astype(np.int64), arrays["ts"], arrays["end"], arrays["code"], linked, arrays["fresh"], broken)
            if keep:
                last = frame.with_columns(pl.Series("open", open_end), pl.lit(False).alias("fresh")).group_by("tid", maintain_order=True).tail(keep)
                carried = last.filter(pl.col("open").last().over("tid")).select(_COLUMNS)

    def _read(self, since: int, until: int) -> pl.DataFrame:
        done = (syscall_name().is_in(_EXEC) & (pl.col("kind") == 0) & (pl.col("ret") == 0)).fill_null(False)
        rows = self._trace.scan("syscalls", since, until).select(
            "tid", "ts", "dur", (pl.col("ts") + pl.col("dur")).alias("end"), "kind", "nr", "abi", done.alias("exec"), pl.lit(True).alias("fresh")
        )
        joined = rows.join(self.codes.lazy(), on=["nr", "abi"], how="left").with_columns(pl.col("code").fill_null(OTHER))
        return self._trace.collect(joined.select(_COLUMNS))

    def _linked(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, Bools, Bools, int]:
        """Return the rows without the children of clones, which are linked to the next, which may be, and how many links losses broke."""
        kind = frame["kind"].to_numpy()
        begins = (kind == CHILD) | (kind == AT_ATTACH)  # a new life, or the first that is known of it
        ends = (kind == NO_RETURN) | frame["exec"].to_numpy()
        if len(frame):
            number = frame["tid"].to_numpy()
            ends[:-1] |= begins[1:] & (number[1:] == number[:-1])
            frame = frame.with_columns(pl.Series("ends", ends)).filter(pl.col("kind") != CHILD)
            ends = frame["ends"].to_numpy()
            frame = frame.drop("ends")
        thread, fresh = frame["tid"].to_numpy(), frame["fresh"].to_numpy()
        follows = np.zeros(len(frame), np.bool_)
        follows[:-1] = (thread[1:] == thread[:-1]) & ~ends[:-1]
        at = np.flatnonzero(follows)
        lost = self._known_holes().between(frame["end"].to_numpy()[at], frame["ts"].to_numpy()[at + 1])
        follows[at[lost]] = False
        return frame, follows, ~ends, int(np.count_nonzero(fresh[at[lost] + 1]))

    def _known_holes(self) -> Holes:
        if self._holes is None:
            self._holes = holes(self._trace)
        return self._holes


_COLUMNS = ["tid", "ts", "dur", "end", "kind", "exec", "code", "fresh"]


def caveat(trace: Trace, broken: int, cut: int = 0) -> str | None:
    """Return what is to be said of results about calls in order; None where nothing is.

    Parameters
    ----------
    trace : Trace
        The recording.
    broken : int
        Places where lost calls broke a sequence.
    cut : int
        Places where a block of calls ended inside of a thread's sequence.
    """
    options: Mapping[str, Any] = trace.header.options
    chosen = [text for name, text in (("syscall", "some system calls"), ("min_duration", "calls that took long")) if options.get(name)]
    said = [f"only {' and '.join(chosen)} were recorded: others were made between those that stand side by side"] if chosen else []
    said += [f"sequences are broken at {broken:,} places where calls were lost"] if broken else []
    said += [f"sequences are cut at {cut:,} places where a block of calls ended"] if cut else []
    return "; ".join(said) or None
