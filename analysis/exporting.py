"""What a form of export is: a function from a trace to a file that another tool opens."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import IO, Protocol, cast

from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import RingtapeError, UsageError
from ringtape.schemas.escape import escape


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
