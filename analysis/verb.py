"""Makes a verb of the command line from an analysis: its flags are the arguments of the function."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ringtape.schemas.errors import RingtapeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl
    from matplotlib.figure import Figure

    from ringtape.analysis.runs import Runs
    from ringtape.analysis.trace import Trace

Opened = TypeVar("Opened", "Trace", "Runs")


@dataclass(frozen=True)
class Flag:
    """One keyword argument of an analysis, as the command line sees it."""

    name: str
    choices: tuple[str, ...]
    many: bool
    kind: type
    default: Any
    doc: str


def flags(function: Callable[..., Any]) -> Iterator[Flag]:
    """Yield the keyword arguments of an analysis with what its annotations and its docstring say of them."""
    hints = get_type_hints(function)
    documented = parameter_docs(function.__doc__ or "")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            leaves = list(_leaves(hints[parameter.name]))
            choices = tuple(dict.fromkeys(leaf for leaf in leaves if isinstance(leaf, str)))
            kinds = [leaf for leaf in leaves if leaf in (int, float, bool, str)]
            many = any(get_origin(part) is not None and get_origin(part).__name__ == "Sequence" for part in _parts(hints[parameter.name]))
            kind = kinds[0] if kinds and not choices else str
            yield Flag(parameter.name, choices, many, kind, parameter.default, documented.get(parameter.name, ""))


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    if get_origin(hint) is not Literal:
        for part in get_args(hint):
            yield from _parts(part)


def _leaves(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_args(hint):
        for part in get_args(hint):
            yield from _leaves(part)
    else:
        yield hint


def parameter_docs(docstring: str) -> dict[str, str]:
    """Return the text of each parameter of a numpydoc docstring."""
    section = re.search(r"\n *Parameters\n *-+\n(.*?)(?=\n *\w+\n *-{3,}\n|\Z)", inspect.cleandoc(docstring), re.DOTALL)
    result: dict[str, str] = {}
    name = ""
    for line in (section[1] if section else "").splitlines():
        if line and not line[0].isspace():
            name = line.partition(":")[0].strip()
            result[name] = ""
        elif line.strip():
            result[name] = f"{result[name]} {line.strip()}".strip()
    return result


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Give the parser the flags of the analysis of that name."""
    from ringtape.analysis.registry import get
    from ringtape.analysis.render import FORMATS

    analysis = get(name)
    options_anywhere(parser)
    parser.set_defaults(analysis=name, first=None)
    parser.add_argument("trace", metavar="TRACE", nargs="+", help="trace folder, or a folder of traces; of several, the result has a column `run`")
    add_narrowing(parser, analysis.narrows)
    options = list(flags(analysis.function))
    for flag in options:
        option = "--" + flag.name.replace("_", "-")
        doc = flag.doc.replace("%", "%%").replace("``", "")
        if flag.kind is bool:
            parser.add_argument(option, dest=flag.name, action=argparse.BooleanOptionalAction, default=flag.default, help=doc)
        elif flag.many:
            choice = ",".join(flag.choices) if flag.choices else flag.name.upper()
            parser.add_argument(option, dest=flag.name, type=_several(flag), default=flag.default, metavar=choice, help=doc + _default(flag))
        else:
            choices = flag.choices or None
            parser.add_argument(option, dest=flag.name, type=flag.kind, choices=choices, default=flag.default, help=doc + _default(flag))
    if not any(flag.name == "top" for flag in options):
        parser.add_argument("--top", dest="first", metavar="N", type=int, help="only the first N rows of each trace's result (default: 0, all)")
    parser.add_argument("--format", choices=FORMATS, default="table", help="form of the result; durations are ns except in tables (default: table)")
    parser.add_argument("--output", metavar="FILE", help="write the result to this file")
    if _picture(name) is not None:
        parser.add_argument("--picture", metavar="FILE", help="draw the result into this file (PNG)")
    parser.add_argument("--strict", action="store_true", help="refuse a trace in which anything was lost")
    parser.epilog = "columns:\n" + "\n".join(
        f"  {column.name:<15} {column.doc}" + (f" ({column.unit})" if column.unit else "") for column in (*analysis.groups, *analysis.columns)
    )


def options_anywhere(parser: argparse.ArgumentParser) -> None:
    """Let options stand before the names that a verb takes, between them and behind them."""
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]


def add_narrowing(parser: argparse.ArgumentParser, narrows: Sequence[str] = ("time", "process")) -> None:
    """Give the parser the flags that say which part of a trace is asked about; `narrowed` reads them."""
    if "time" in narrows:
        parser.add_argument(
            "--between", metavar="FROM,TO", help="only this window of time since the recording began, such as 1.5s,2s; either may be empty"
        )
    if "process" in narrows:
        parser.add_argument(
            "--process", metavar="PID|COMM", action="append", default=[], help="only processes with this number or command name (repeatable)"
        )


def window(text: str) -> tuple[str | None, str | None]:
    """Return the ends of ``FROM,TO``, either of which may be empty.

    Raises
    ------
    UsageError
        If it is not written so.
    """
    first, comma, last = (part.strip() or None for part in text.partition(","))
    if comma is None or (first is None and last is None):
        raise UsageError(f"--between {text!r} is not FROM,TO", "write two times since the start of the recording, such as 1.5s,2s")
    return first, last


def narrowed(traces: Opened, args: argparse.Namespace) -> Opened:
    """Return the part of a trace, or of several, that the flags of `add_narrowing` ask about.

    Raises
    ------
    UsageError
        If a window cannot be read.
    RingtapeError
        If no process has such a name.
    """
    between, which = getattr(args, "between", None), getattr(args, "process", [])
    if between is not None:
        traces = traces.between(*window(between))
    return traces.process(*which) if which else traces


def _picture(name: str) -> Callable[[pl.DataFrame], Figure] | None:
    """Return the function that draws the results of an analysis, if its file has one."""
    module = sys.modules[f"ringtape.analysis.analyses.{name}"]
    return getattr(module, "picture", None)


def _default(flag: Flag) -> str:
    if flag.default in (None, inspect.Parameter.empty):
        return ""
    return f" (default: {','.join(flag.default) if isinstance(flag.default, tuple) else flag.default})"


def _several(flag: Flag) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        values = tuple(part.strip() for part in text.split(","))
        for value in values:
            if flag.choices and value not in flag.choices:
                raise argparse.ArgumentTypeError(f"{value!r} is not one of {', '.join(flag.choices)}")
        return values

    return parse


def run(args: argparse.Namespace) -> int:
    """Run the analysis and write its result."""
    from ringtape.analysis.registry import get
    from ringtape.analysis.render import write
    from ringtape.analysis.runs import Runs, open_all
    from ringtape.schemas.escape import escape

    analysis = get(args.analysis)
    if args.first is not None and args.first < 0:
        raise UsageError(f"--top {args.first} is negative", "name how many rows to write, or 0 for all")
    traces = list(narrowed(open_all(args.trace), args))
    sentences = [(trace, loss_sentence(trace)) for trace in traces]
    for trace, lost in sentences:
        if lost and args.strict:
            raise RingtapeError(f"{trace.path}: {lost}", "leave --strict out to get the bounds that the loss ledger allows")
    result = analysis.function(
        traces[0] if len(traces) == 1 else Runs(traces), **{flag.name: getattr(args, flag.name) for flag in flags(analysis.function)}
    )
    written = first_rows(result, args.first) if args.first else result
    write(written, analysis, args.format, args.output, traces[0].header.attached_at)
    if len(written) < len(result):
        print(f"ringtape: note: {len(result) - len(written):,} more rows are left out (--top)", file=sys.stderr)
    for note in analysis.notes(result):
        print(f"ringtape: note: {note}", file=sys.stderr)
    draw = _picture(args.analysis)
    if draw is not None and args.picture is not None:
        from ringtape.analysis.pictures import png

        try:
            Path(args.picture).write_bytes(png(draw(result)))
        except OSError as error:
            raise RingtapeError(f"{args.picture}: {os.strerror(error.errno or 0).lower()}", "name a file that can be written") from None
    for trace, lost in sentences:
        if lost:
            place = f"{escape(str(trace.path))}: " if len(traces) > 1 else ""
            print(f"ringtape: note: {place}{lost}; `ringtape loss` tells how far to trust the numbers", file=sys.stderr)
    return 0


def first_rows(result: pl.DataFrame, count: int) -> pl.DataFrame:
    """Return the first rows of a result, of that of several traces the first of each."""
    from ringtape.analysis.runs import RUN

    return result.group_by(RUN, maintain_order=True).head(count).select(result.columns) if RUN in result.columns else result.head(count)


def loss_sentence(trace: Trace) -> str:
    """Return what a trace, as far as it is asked about, has lost as one sentence, or nothing."""
    lost = trace.lost()
    return ", ".join(f"{count:,} {'record' if count == 1 else 'records'} of {table} lost" for table, count in sorted(lost.items()))
