"""Makes a trace folder from another tool's recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from itertools import islice
from os import PathLike, fspath
from pkgutil import iter_modules
from types import ModuleType

from ringtape.analysis.importing import sources as package
from ringtape.analysis.importing.findings import Findings
from ringtape.analysis.importing.lines import read_lines
from ringtape.analysis.importing.threads import Threads
from ringtape.analysis.importing.writer import ImportWriter
from ringtape.schemas.abi.syscalls import ABI_IDS, native_abi
from ringtape.schemas.errors import RingtapeError, UsageError

_PEEK = 200
"""Lines by which a source is recognised."""
ABIS = ("x86_64", "arm64")


@cache
def sources() -> Mapping[str, ModuleType]:
    """Return every source by name: each file in ``sources`` is one."""
    return {module.name.replace("_", "-"): import_module(f"{package.__name__}.{module.name}") for module in iter_modules(package.__path__)}


def import_recording(
    files: str | PathLike[str] | Sequence[str | PathLike[str]], output: str | PathLike[str], *, source: str | None = None, abi: str | None = None
) -> Findings:
    """Make a trace folder from the text that another tool wrote.

    Parameters
    ----------
    files : path or sequence of path
        The text, also compressed by gzip; ``-`` for standard input. Several are the files of one recording (strace -ff).
    output : path
        Trace folder to be made.
    source : str, optional
        What wrote them, a name of `sources`; recognised by the first lines if it is not given.
    abi : {"x86_64", "arm64"}, optional
        System calls of the recorded machine; those of this one if the text does not tell.

    Returns
    -------
    Findings
        Lines and calls, and what could not be taken over. It also stands in the trace.

    Raises
    ------
    UsageError
        If no such source is known.
    RingtapeError
        If a file cannot be read, is nothing that this version knows, or the folder cannot be made. No folder is left behind.
    """
    names = [fspath(files)] if isinstance(files, str | PathLike) else [fspath(file) for file in files]
    if not names:
        raise UsageError("no file was named", "name the text that strace or perf script wrote")
    if abi is not None and abi not in ABIS:
        raise UsageError(f"unknown ABI {abi!r:.40}", f"the ABIs are {', '.join(ABIS)}")
    reader = _source(names, source)
    chosen = abi or _native()
    findings = Findings()
    rows: list[dict[str, object]] = []
    threads = Threads(rows)
    writer = ImportWriter(fspath(output), reader.TABLES, threads.numbers)
    writer.processes = rows
    try:
        found = reader.read(names, writer, threads, findings, abi=chosen)
        found["options"]["abi"] = f"{found.get('abi', chosen)} ({'told' if abi else found.get('abi_from', 'this machine')})"
        found.pop("abi_from", None)
        writer.finish(**{"tool": _name(reader), "abi": chosen, "findings": findings, **found})
    except BaseException:
        writer.discard()
        raise
    return findings


def _name(reader: ModuleType) -> str:
    return next(name for name, module in sources().items() if module is reader).replace("-", " ")


def _native() -> str:
    try:
        found = native_abi()
    except RingtapeError:
        return "x86_64"
    return found if found in ABI_IDS else "x86_64"


def _source(names: Sequence[str], wanted: str | None) -> ModuleType:
    known = sources()
    if wanted is not None:
        if wanted not in known:
            raise UsageError(f"unknown source {wanted!r:.40}", f"the sources are {', '.join(known)}")
        return known[wanted]
    if "-" in names:
        raise UsageError("standard input is not recognised by its beginning", f"say what it is with --source {' or '.join(known)}")
    lines = [line for _, line in islice(read_lines(names[0]), _PEEK)]
    if not any(lines):
        raise RingtapeError(f"{names[0]} is empty", "name the text that strace or perf script wrote")
    if lines[0].startswith("PERFILE2"):
        raise RingtapeError(
            f"{names[0]} is perf's own file, not text", f"write its text first: perf script --ns --show-lost-events -i {names[0]} >FILE"
        )
    for module in known.values():
        if module.recognises(lines):
            return module
    raise RingtapeError(
        f"{names[0]}: not recognised as {' or '.join(known)}; its first line is {next(line for line in lines if line)[:80]!r}",
        "; ".join(f"{name}: {module.SUMMARY}" for name, module in known.items()),
    )
