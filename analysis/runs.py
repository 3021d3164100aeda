"""Opening traces: one, or several runs together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import overload

import polars as pl

from ringtape.analysis.narrowing import Instant
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import TraceError, UsageError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import FILE
from ringtape.schemas.table import tables

Name = str | os.PathLike[str]
Many = list[Name] | list[str] | list[Path] | tuple[Name, ...]
RUN = "run"
"""Column that tells the runs apart."""


class Runs(Sequence[Trace]):
    """Several recordings, in the order in which they were named.

    A table is one LazyFrame over all of them (``runs.syscalls``), and every analysis takes them as it takes one trace: its
    result then begins with the column ``run``, the name of the trace folder (its path where two have the same name).
    """

    def __init__(self, traces: Sequence[Trace]) -> None:
        self.traces = tuple(traces)

    def __repr__(self) -> str:
        return f"Runs({', '.join(self.names)})"

    @overload
    def __getitem__(self, at: int) -> Trace: ...
    @overload
    def __getitem__(self, at: slice) -> Runs: ...
    def __getitem__(self, at: int | slice) -> Trace | Runs:
        """Return one trace, or some of them."""
        return Runs(self.traces[at]) if isinstance(at, slice) else self.traces[at]

    def __len__(self) -> int:
        return len(self.traces)

    @property
    def names(self) -> list[str]:
        """What tells the runs apart: the names of their folders, or their paths where two have the same name."""
        short = [trace.path.name for trace in self.traces]
        return [name if short.count(name) == 1 else str(trace.path) for name, trace in zip(short, self.traces, strict=True)]

    def named(self) -> Iterator[tuple[str, Trace]]:
        """Yield every name with its trace."""
        return zip(self.names, self.traces, strict=True)

    def between(self, start: Instant = None, end: Instant = None) -> Runs:
        """Narrow each of them to a window of time since its own beginning; see `Trace.between`."""
        return Runs([trace.between(start, end) for trace in self.traces])

    def process(self, *which: str | int) -> Runs:
        """Narrow each of them to processes; see `Trace.process`."""
        return Runs([trace.process(*which) for trace in self.traces])

    def frame(self, table: str) -> pl.LazyFrame:
        """Return a table of all runs, with the column ``run`` before its own (``sched`` has one itself: it is called ``sched_run``).

        Raises
        ------
        RingtapeError
            If one of the runs did not record the table.
        """
        for trace in self.traces:
            trace.require(table)
        own = {RUN: f"{table}_{RUN}"}
        return pl.concat([trace.frame(table).rename(own, strict=False).select(pl.lit(name).alias(RUN), pl.all()) for name, trace in self.named()])

    def __getattr__(self, name: str) -> pl.LazyFrame:
        """Return the frame of the declared table of that name."""
        if name not in tables():
            raise AttributeError(f"Runs have neither an attribute nor a table {name!r}")
        return self.frame(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *sorted({table for trace in self.traces for table in trace.tables})]


@overload
def open(path: Name) -> Trace: ...  # noqa: A001
@overload
def open(path: Many) -> Runs: ...  # noqa: A001
def open(path: Name | Many) -> Trace | Runs:  # noqa: A001 - ringtape.open is the front door, as gzip.open is
    """Open a trace folder, or several.

    Traces that are still being recorded, and those whose recording was cut off, open as well; ``Trace.state`` tells.

    Parameters
    ----------
    path : path, pattern, or sequence of them
        The folder that ``ringtape record`` made; a pattern such as ``"runs/base-*.trace"``; a folder that holds traces
        (``*.trace``); or several of these.

    Returns
    -------
    Trace or Runs
        The trace as its manifest describes it at this moment; for a pattern or a sequence all of them as `Runs`, those of a
        pattern by name. Nothing but the manifests has been read.

    Raises
    ------
    TraceError
        If a folder is not there, is no trace, is damaged, or comes from a newer major version; or if nothing fits a pattern.
    UsageError
        If an empty sequence was given.

    Examples
    --------
    >>> import ringtape
    >>> ringtape.open("/nowhere/run.trace")
    Traceback (most recent call last):
    ...
    ringtape.schemas.errors.TraceError: /nowhere/run.trace: no such trace folder
    hint: name the folder that `ringtape record` made
    >>> ringtape.open("datasets/[df]*.trace").names
    ['demo.trace', 'families.trace']
    """
    if not isinstance(path, str | os.PathLike):
        found = [each for name in path for each in _fitting(name)]
        if not found:
            raise UsageError("no trace was named", "give one path or more")
        return Runs([open_trace(each) for each in found])
    fitting = _fitting(path)
    if fitting == [path]:
        return open_trace(path)
    return Runs([open_trace(each) for each in fitting])


def open_all(names: Iterable[Name]) -> Runs:
    """Open every trace that paths, patterns and folders of traces name, in their order; errors as those of `open`."""
    return Runs([open_trace(each) for name in names for each in _fitting(name)])


def open_trace(path: Name) -> Trace:
    """Open one trace folder; errors as those of `open`."""
    return Trace(TraceFolder.open(path))


def _fitting(name: Name) -> list[Name]:
    """Return the folders that fit a pattern, or the traces in a folder that is none itself; anything else is itself."""
    text, path = os.fspath(name), Path(name)
    if path.is_dir() and not (path / FILE).exists() and (inside := sorted(path.glob("*.trace"))):
        return list(inside)
    if not has_magic(text) or path.exists():
        return [name]
    found = sorted(each for each in glob(text) if Path(each).is_dir())  # noqa: PTH207 - a pattern may be absolute
    if not found:
        raise TraceError(f"{text}: no trace folder fits", "name the folders that `ringtape record` made")
    return list(found)
