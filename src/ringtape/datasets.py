"""The recordings of the repository, by name: real programs, small enough to ship, for trying analyses without root."""

from __future__ import annotations

import os
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ringtape.schemas.errors import RingtapeError, UsageError

if TYPE_CHECKING:
    from ringtape.analysis.runs import Runs
    from ringtape.analysis.trace import Trace

VARIABLE = "RINGTAPE_DATASETS"


def folder() -> Path:
    """Return the folder that holds the recordings: what ``RINGTAPE_DATASETS`` names, else the checkout's.

    Raises
    ------
    RingtapeError
        If there is none: ringtape was installed without its repository.
    """
    named = os.environ.get(VARIABLE)
    found = Path(named) if named else Path(__file__).resolve().parents[2] / "datasets"
    if not any(found.glob("*.trace")):
        raise RingtapeError(f"{found}: no recordings are there", f"clone ringtape's repository, and let {VARIABLE} name its folder datasets")
    return found


@cache
def _traces(where: Path) -> dict[str, tuple[Path, ...]]:
    single = {path.stem: (path,) for path in where.glob("*.trace")}
    several = {path.name: tuple(sorted(path.glob("*.trace"))) for path in where.iterdir() if path.is_dir() and path.suffix == ""}
    return dict(sorted((name, paths) for name, paths in (single | several).items() if paths))


def names() -> tuple[str, ...]:
    """Return the names of all recordings.

    >>> "redis" in names() and "buffer" in names()
    True
    """
    return tuple(_traces(folder()))


def paths(name: str) -> tuple[Path, ...]:
    """Return the trace folders of a recording: one, or one of each run.

    Raises
    ------
    UsageError
        If there is no recording of that name.
    """
    found = _traces(folder())
    if name not in found:
        close = get_close_matches(name, found, 3)
        raise UsageError(f"there is no dataset {name!r}", f"did you mean {' or '.join(close)}?" if close else f"the datasets are {', '.join(found)}")
    return found[name]


def path(name: str) -> Path:
    """Return the trace folder of a recording of one run, such as ``redis``, or of one run of several, such as ``buffer/before-1``.

    Raises
    ------
    UsageError
        If there is no such recording, or it has several runs and none of them is named.
    """
    name, _, run = name.partition("/")
    found = paths(name)
    if run:
        if run not in [one.stem for one in found]:
            raise UsageError(f"the dataset {name} has no run {run!r}", f"its runs are {', '.join(one.stem for one in found)}")
        return next(one for one in found if one.stem == run)
    if len(found) > 1:
        raise UsageError(f"the dataset {name} has {len(found)} runs", f"name one, such as {name}/{found[0].stem}, or open all with load")
    return found[0]


def load(name: str) -> Trace | Runs:
    """Open a recording.

    Parameters
    ----------
    name : str
        One of `names`, or a run of one of them, such as ``buffer/before-1``.

    Returns
    -------
    Trace or Runs
        The recording; several runs as `Runs`, whose results have a column ``run``.

    Raises
    ------
    UsageError
        If there is no recording of that name.
    RingtapeError
        If ringtape was installed without its repository.

    Examples
    --------
    >>> load("redis").tables[-2:]
    ('syscalls', 'transfers')
    >>> len(load("buffer"))
    12
    """
    from ringtape.analysis.runs import open as open_runs

    found = [path(name)] if "/" in name else paths(name)
    return open_runs(found[0]) if len(found) == 1 else open_runs(list(found))
