"""What a workload is run under: one file per tool, found by being there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from ringtape.schemas.errors import UsageError


@dataclass(frozen=True)
class Tally:
    """What a tool says of one system call, of all threads together; None where it does not say."""

    count: int
    errors: int | None = None
    time: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What a tool left behind.

    Parameters
    ----------
    events : int, optional
        Events that it captured: what its own output has one of for each.
    lost : int, optional
        Events that it says it lost.
    bytes : int
        Size of its files.
    calls : mapping of str to Tally
        System calls by name, as far as it tells them apart.
    """

    events: int | None = None
    lost: int | None = None
    bytes: int | None = None
    calls: Mapping[str, Tally] = field(default_factory=dict)


@dataclass(frozen=True)
class Limit:
    """What explains that a tool is off: seen in runs, not guessed.

    Parameters
    ----------
    quantity : {"count", "errors", "time", "bytes"}
        What it reports.
    more : bool
        Whether this makes it more than the truth, or less.
    why : str
        The reason.
    seen : str
        Workload of ``datasets/studies/accuracy.toml``, or command, that shows it.
    """

    quantity: str
    more: bool
    why: str
    seen: str


@dataclass(frozen=True)
class Tool:
    """A tool that a workload can be run under.

    Parameters
    ----------
    name : str
        As ``tool = "..."`` of a study file names it.
    summary : str
        What it does to the workload, in one sentence.
    wrap : callable
        ``(options, output, command)`` to the argument list that runs the command under the tool; what the tool writes goes to
        files at or in ``output``, a path that does not exist yet, and whose folder does.
    outcome : callable
        ``(output, detailed)`` to `Outcome`, from what the tool left there; calls by name only if detailed. Raises RingtapeError
        where it cannot be read.
    missing : callable
        ``()`` to the sentence that says why the tool does not run on this machine; None where it does.
    environment : mapping of str to str
        What the tool, and not the workload, needs in its environment.
    limits : sequence of Limit
        Why it may be off.
    """

    name: str
    summary: str
    wrap: Callable[[Sequence[str], Path, Sequence[str]], list[str]]
    outcome: Callable[[Path, bool], Outcome]
    missing: Callable[[], str | None]
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Sequence[Limit] = ()

    def known_limits(self, quantity: str, difference: float) -> str | None:
        """Return why it reports so much more than the truth (below 0: less) of a quantity; None if nothing is known."""
        found = [limit.why for limit in self.limits if limit.quantity == quantity and limit.more == (difference > 0)]
        return "; ".join(found) or None


def needs(program: str, packages: str) -> Callable[[], str | None]:
    """Return the check of a tool that is one program, which packages of these names bring."""

    def missing() -> str | None:
        return None if shutil.which(program) else f"{program} is not installed; it comes with the package {packages}"

    return missing


@cache
def tools() -> Mapping[str, Tool]:
    """Return every tool by name; one is declared by a file in this folder."""
    found = [import_module(f"{__name__}.{module.name}").TOOL for module in iter_modules(__path__)]
    return {tool.name: tool for tool in sorted(found, key=lambda tool: tool.name)}


def tool(name: str) -> Tool:
    """Return one tool.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    try:
        return tools()[name]
    except KeyError:
        raise UsageError(f"unknown tool {name!r}", f"the tools are {', '.join(tools())}") from None
