"""Make a trace of what another tool recorded: a log of strace, or text of perf script.

The result is a trace folder like any other: report, print, compare and all analyses take it. What the log does not tell is not
made up: CPU numbers are -1, arguments of which only the contents are shown are 0, and `ringtape info` tells the resolution of its times.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

HEAD = 200
"""Lines by which the source is told."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("log", metavar="LOG", nargs="+", help="the text; several for the files of `strace -ff -o NAME` (NAME.PID)")
    parser.add_argument("--source", metavar="NAME", help="strace or perf-script (default: told by the first lines)")
    parser.add_argument("--abi", metavar="ABI", default="x86_64", help="system call numbering: x86_64 or arm64 (default: x86_64)")
    parser.add_argument("-o", "--output", metavar="TRACE", help="the trace folder to make (default: LOG.trace)")


def run(args: argparse.Namespace) -> int:
    """Read the log and write the trace."""
    import shutil
    import sys
    from pathlib import Path

    from ringtape.analysis.importing.rows import Rows
    from ringtape.schemas.errors import RingtapeError, UsageError
    from ringtape.schemas.escape import escape

    if args.abi not in ("x86_64", "arm64"):
        raise UsageError(f"--abi is {args.abi!r}", "it is x86_64 or arm64")
    logs = [Path(log) for log in args.log]
    name, source = _source(args.source, logs[0])
    output = Path(args.output) if args.output else logs[0].with_name(logs[0].name + ".trace")
    try:
        output.mkdir(mode=0o700)
    except FileExistsError:
        raise RingtapeError(f"{output}: exists already", "name another folder with --output, or remove it") from None
    except OSError as error:
        raise RingtapeError(f"{output}: {error.strerror}", "name a folder that can be made with --output") from None
    rows = Rows(output)
    try:
        source.read(_lines(logs), rows, args.abi)
        if rows.strangers.count * 2 > max(rows.lines, 1):
            number, line = rows.strangers.examples[0]
            raise RingtapeError(
                f"{logs[0]}: {rows.strangers.count:,} of {rows.lines:,} lines are not those of {name}; the first is line {number}: {line!r}",
                "see `ringtape import --help` for what is read",
            )
        rows.close(name, str(logs[0]), args.abi, _wall(logs[-1], rows) if name == "perf-script" else None)
    except BaseException as error:
        shutil.rmtree(output)
        if isinstance(error, RingtapeError) and not error.what.startswith(str(logs[0])):
            raise RingtapeError(f"{logs[0]}: {error.what}", error.hint) from None
        raise
    for number, line in rows.strangers.examples:
        print(f"ringtape: note: line {number} was not understood: {escape(line)}", file=sys.stderr)
    if rows.halves:
        print(f"ringtape: note: of {rows.halves:,} calls half is missing: they stand in the loss ledger, without a duration", file=sys.stderr)
    if rows.strangers.count > len(rows.strangers.examples):
        print(f"ringtape: note: {rows.strangers.count:,} of {rows.lines:,} lines were not understood", file=sys.stderr)
    print(escape(str(output)))
    return 0


def _wall(log: Path, rows: object) -> int:
    """Return what makes wall time of perf's times, which count from the start of the machine: the file was last written at the end."""
    from ringtape.analysis.importing.rows import Rows

    assert isinstance(rows, Rows)
    rows.facts["wall clock"] = "from the time of the file, about"
    return max(0, log.stat().st_mtime_ns - rows.last)


def _source(asked: str | None, log: Path) -> tuple[str, ModuleType]:
    from importlib import import_module
    from itertools import islice
    from pkgutil import iter_modules

    from ringtape.analysis import importing
    from ringtape.schemas.errors import RingtapeError, UsageError

    modules = [import_module(f"{importing.__name__}.{found.name}") for found in iter_modules(importing.__path__)]
    sources = {module.__name__.rpartition(".")[2].replace("_", "-"): module for module in modules if hasattr(module, "SUMMARY")}
    if asked is not None:
        if asked not in sources:
            raise UsageError(f"--source is {asked!r}", f"it is one of {', '.join(sources)}")
        return asked, sources[asked]
    head = list(islice(_lines([log]), HEAD))
    for name, module in sources.items():
        if head and module.fits(head):
            return name, module
    known = "; ".join(f"{name}: {module.SUMMARY}" for name, module in sources.items())
    raise RingtapeError(f"{log}: its first {len(head)} lines are of no source that is known", f"name one with --source. {known}")


def _lines(logs: list[Path]) -> Iterator[str]:
    """Yield the lines of all logs; those of `strace -ff` get the number that the name of their file ends with."""
    import re

    from ringtape.schemas.errors import RingtapeError

    for log in logs:
        number = re.search(r"\.(\d+)$", log.name) if len(logs) > 1 else None
        try:
            with open(log, encoding="utf-8", errors="surrogateescape") as file:
                while line := file.readline(1 << 22):
                    yield f"{number[1]} {line}" if number and re.match(r"[\d:.]+ ", line) else line
        except OSError as error:
            raise RingtapeError(f"{log}: {(error.strerror or '').lower()}", "name a file that can be read") from None
