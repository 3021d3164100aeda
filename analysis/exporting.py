"""What a form of export is: a function from a trace to a file that another tool opens."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import IO, Protocol, cast

import polars as pl

from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import RingtapeError, UsageError
from ringtape.schemas.escape import escape

BATCH = 1 << 18
"""Rows that are held at once."""


@dataclass(frozen=True)
class Choices:
    """What the person who exports chose; a form uses what concerns it.

    ``table`` is a table or an event,
    ``offcpu`` and ``symbols`` are as in `stacks.stacks`, ``iolog`` is the version of fio's log, ``beside`` where the list of its
    files goes.
    """

    table: str = "syscalls"
    offcpu: bool = False
    symbols: Path | None = None
    iolog: int = 3
    beside: Path | None = None


class Form(Protocol):
    """What a file in ``analysis/export`` holds."""

    @staticmethod
    def write(trace: Trace, file: IO[bytes], choices: Choices) -> list[str]:
        """Write the trace; return what must be said beside it, a sentence each."""


@cache
def names() -> tuple[str, ...]:
    """Return the names of all forms, found by being in ``analysis/export``."""
    from ringtape.analysis import export

    return tuple(sorted(module.name for module in iter_modules(export.__path__)))


def form(name: str) -> Form:
    """Return the form of that name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in names():
        raise UsageError(f"unknown form {escape(name)!r}", f"the forms are {', '.join(names())}")
    return cast(Form, import_module(f"ringtape.analysis.export.{name}"))


def summary(name: str) -> str:
    """Return the first line of a form's file: what opens it."""
    return (sys.modules[form(name).write.__module__].__doc__ or "").partition("\n")[0].rstrip(".")


def batches(trace: Trace, table: str, read: Callable[[int | None, int | None], pl.LazyFrame], rows: int = BATCH) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query over a table in the order of time, a bounded number at a time.

    Parameters
    ----------
    trace : Trace
        The recording.
    table : str
        The table whose rows the query returns, one for one or fewer.
    read : callable
        ``(since, until)`` to the query over that window of ``ts``: bounds as those of `Trace.scan`.
    rows : int
        Rows of the table that are looked at once, about; so many more as have the same ``ts``.

    Raises
    ------
    TraceError
        If a part that passed its checks still cannot be read.
    """
    # One query for all rows, taken in batches, lets polars read ahead without bound: 3 GB for 10 million rows of text.
    for since, until in windows(trace, table, rows):
        found = trace.collect(read(since, until))
        if len(found):
            yield found.rechunk()


def windows(trace: Trace, table: str, rows: int = BATCH) -> list[tuple[int | None, int | None]]:
    """Return bounds of ``ts``, half open, between which about so many rows of a table lie: together all of them."""
    if trace.rows(table) <= rows:
        return [(None, None)]
    step = max(1, rows // 64)
    sample = trace.collect(trace.scan(table).select(pl.col("ts").gather_every(step)))["ts"].sort()
    cuts = sample.gather_every(rows // step)[1:].unique(maintain_order=True).to_list()
    return list(zip([None, *cuts], [*cuts, None], strict=True))


@contextmanager
def opened(output: str, force: bool) -> Iterator[IO[bytes]]:
    """Open what an export is written to: ``-`` is standard output, a name that ends in ``.gz`` is compressed.

    A file that an error leaves half written is removed.

    Raises
    ------
    UsageError
        If the file exists and ``force`` is not set.
    RingtapeError
        If it cannot be written.
    """
    if output == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    try:
        raw = path.open("wb" if force else "xb")
    except FileExistsError:
        raise UsageError(f"{escape(output)} exists", "name another file, or add --force to replace it") from None
    except OSError as error:
        raise RingtapeError(f"{escape(output)}: {os.strerror(error.errno or 0).lower()}", "name a file that can be written") from None
    try:
        with raw:
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", 1, raw, 0) as packed:
                    yield cast(IO[bytes], packed)
            else:
                yield raw
    except BaseException as error:
        if path.is_file():
            path.unlink()
        if isinstance(error, OSError) and not isinstance(error, RingtapeError):
            raise RingtapeError(f"{escape(output)}: {os.strerror(error.errno or 0).lower()}", "name a file on a disk with room") from None
        raise


def origin(trace: Trace) -> int:
    """Return the time from which exports count, in ns of CLOCK_MONOTONIC: when the recording began."""
    return trace.header.attached_at
