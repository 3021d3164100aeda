"""The families of tables, one file each: what is run to measure their cost, and what is attached beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.workshop import Workshop


@dataclass(frozen=True)
class Family:
    """How the cost of a family is measured.

    Parameters
    ----------
    name : str
        What the rows are called.
    table : str
        Table whose records are counted as events.
    record : tuple of str
        Options of ``ringtape record`` that record the family and nothing else.
    tracepoints : tuple of str
        Typed raw tracepoints to which the floor attaches an empty program each: all that the family's probes attach to.
    perf : tuple of str
        Events for ``perf record -e``: the same tracepoints under their names in tracefs.
    workload : callable
        Returns the command to run, for a workshop and a size; a larger size is more work. It may make files in ``shop.folder``.
    size : int
        How much work a round does.
    perf_options : tuple of str
        What else ``perf record`` is given.
    """

    name: str
    table: str
    record: tuple[str, ...]
    tracepoints: tuple[str, ...]
    perf: tuple[str, ...]
    workload: Callable[[Workshop, int], Sequence[str | Path]]
    size: int
    perf_options: tuple[str, ...] = ()


def families() -> list[Family]:
    """Return every family, found by being in this folder."""
    return [import_module(f"{__name__}.{module.name}").FAMILY for module in iter_modules(__path__)]
