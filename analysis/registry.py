"""What an analysis is: a function of a trace that declares the tables it needs and the columns it returns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Concatenate, Literal, ParamSpec

import polars as pl

from ringtape.analysis.runs import RUN, Runs
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import UsageError

P = ParamSpec("P")
Narrows = Literal["time", "process"]
Placed = bool | Literal["page", "small"]


@dataclass(frozen=True, slots=True)
class Result:
    """One column that an analysis returns.

    ``unit`` is ``ns``, ``bytes``, ``share`` (a fraction of 1), ``count``, ``time`` (ns of CLOCK_MONOTONIC) or empty; it
    decides how people see the value, never how it is stored. A ``quiet`` column is shown to people only where one of its
    values is not 0; a ``wide`` one only where the line is long enough. ``indent`` names a column that says how far to the
    right people see this one, and which they do not see itself; a ``detail`` column is for programs and never shown. ``absent``
    is what people read where the value is null and that says something.
    """

    name: str
    dtype: Any
    doc: str
    unit: str = ""
    quiet: bool = False
    wide: bool = False
    indent: str = ""
    detail: bool = False
    absent: str = ""


@dataclass(frozen=True)
class Analysis:
    """A registered analysis; calling it calls the function.

    ``groups`` holds the columns that a ``by`` argument may choose from: those chosen come first in the result. A ``free``
    one may have other columns too, named by its arguments.
    """

    name: str
    function: Callable[..., pl.DataFrame]
    tables: tuple[str, ...]
    columns: tuple[Result, ...]
    groups: tuple[Result, ...]
    section: Placed
    free: bool = False
    narrows: tuple[Narrows, ...] = ("time", "process")

    @property
    def summary(self) -> str:
        """First line of its file: what it tells."""
        return (sys.modules[self.function.__module__].__doc__ or "").partition("\n")[0].rstrip(".")

    def refuse(self, trace: Trace) -> None:
        """Refuse a trace that is narrowed to what this analysis cannot be narrowed to."""
        if trace.narrowing.in_time and "time" not in self.narrows:
            raise UsageError(f"{self.name} cannot be narrowed to a window of time: it needs what came before", "ask it of the whole trace")
        if trace.narrowing.processes is not None and "process" not in self.narrows:
            raise UsageError(f"{self.name} cannot be narrowed to processes: it needs what the others did", "ask it of the whole trace")

    def notes(self, result: pl.DataFrame) -> list[str]:
        """Return what its module's function ``notes``, if it has one, says beside a result."""
        found = getattr(sys.modules[self.function.__module__], "notes", None)
        return list(found(result)) if found else []

    def schema(self, by: Sequence[str] = ()) -> pl.Schema:
        """Return the schema of its result."""
        chosen = {group.name: group for group in self.groups}
        return pl.Schema({column.name: column.dtype for column in (*(chosen[name] for name in by), *self.columns)})

    def column(self, name: str) -> Result | None:
        """Return the declaration of a column of its result."""
        return next((column for column in (_RUN, *self.groups, *self.columns) if column.name == name), None)


_RUN = Result(RUN, pl.String, "name of the trace folder")
_REGISTERED: dict[str, Analysis] = {}


def analysis(
    *,
    tables: Sequence[str],
    columns: Sequence[Result],
    groups: Sequence[Result] = (),
    section: Placed = True,
    free: bool = False,
    narrows: Sequence[Narrows] = ("time", "process"),
) -> Callable[[Callable[Concatenate[Trace, P], pl.DataFrame]], Callable[Concatenate[Trace | Runs, P], pl.DataFrame]]:
    """Register the function that is decorated under its name.

    Parameters
    ----------
    tables : sequence of str
        Tables without which it cannot answer.
    columns : sequence of Result
        Columns of its result, in order; they are the same when the trace is empty.
    groups : sequence of Result
        Columns from which its argument ``by`` chooses.
    section : bool, "page" or "small"
        Whether the report shows it. For what takes much longer than a count: "page", only the report's page; "small", the page,
        and the report of traces of up to a million calls.
    free : bool
        Whether its result may have columns that are not declared, which stay as they are.
    narrows : sequence of {"time", "process"}
        What a trace may be narrowed to for it; without one, what it tells of a part depends on all the rest.

    Raises
    ------
    RingtapeError
        When called on a trace without one of the tables, or on one that is narrowed to what it cannot be narrowed to.
    """

    def register(function: Callable[Concatenate[Trace, P], pl.DataFrame]) -> Callable[Concatenate[Trace | Runs, P], pl.DataFrame]:
        name = function.__name__

        @wraps(function)
        def call(trace: Trace | Runs, /, *args: P.args, **kwargs: P.kwargs) -> pl.DataFrame:
            if isinstance(trace, Runs):
                return pl.concat([call(one, *args, **kwargs).select(pl.lit(run).alias(RUN), pl.all()) for run, one in trace.named()])
            trace.require(*tables)
            found.refuse(trace)
            result = function(trace, *args, **kwargs)
            expected = found.schema([name for name in result.columns if name in {group.name for group in groups}])
            if free:
                return result.with_columns([pl.col(column).cast(dtype) for column, dtype in expected.items()])
            return result.select([pl.col(column).cast(dtype) for column, dtype in expected.items()])

        found = Analysis(name, call, tuple(tables), tuple(columns), tuple(groups), section, free, tuple(narrows))
        _REGISTERED[name] = found
        return call

    return register


def kind_of_result(name: str, columns: Sequence[Result]) -> Analysis:
    """Return what tells how to write a result that is not that of one trace; it is no analysis that a trace can be given to."""

    def refuse(trace: Trace) -> pl.DataFrame:
        raise TypeError(f"{name} is not asked of one trace, such as {trace.path}")

    return Analysis(name, refuse, (), tuple(columns), (), section=False)


def get(name: str) -> Analysis:
    """Return the analysis of that name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in names():
        raise UsageError(f"unknown analysis {name!r}", f"the analyses are {', '.join(names())}")
    import_module(f"ringtape.analysis.analyses.{name}")
    return _REGISTERED[name]


@cache
def names() -> tuple[str, ...]:
    """Return the names of all analyses, found by being in ``analysis/analyses``."""
    from ringtape.analysis import analyses

    return tuple(sorted(module.name for module in iter_modules(analyses.__path__)))


def every() -> Mapping[str, Analysis]:
    """Return every analysis by name."""
    return {name: get(name) for name in names()}
