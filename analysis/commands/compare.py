"""Compare two sides of several runs each: what became faster, slower, more or fewer, and how sure that is.

BASE and OTHER are trace folders, or folders that hold trace folders (*.trace); every trace is one run, and the run, not the event,
is what is replicated. With one run on a side the numbers are shown and no verdict is given. Verdicts hold for all rows together.
Status: 0; 3 if --fail-if names a verdict that a row has.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ringtape.analysis.verb import add_narrowing, loss_sentence, narrowed, options_anywhere

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from ringtape.analysis.registry import Analysis
    from ringtape.analysis.trace import Trace

FOUND = 3
"""Exit status when a verdict was found that the caller asked to fail at."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from ringtape.analysis.render import FORMATS

    options_anywhere(parser)
    parser.add_argument("base", metavar="BASE", nargs="+", help="runs of the base side")
    parser.add_argument("--with", dest="other", metavar="OTHER", nargs="+", required=True, help="runs of the other side")
    parser.add_argument("--paired", action="store_true", help="the runs were made in blocks: compare the first with the first, and so on")
    parser.add_argument("--measures", metavar="NAMES", help="what to compare by, separated by commas; all for all (default: the usual ones)")
    parser.add_argument("--method", choices=("t", "rank"), default="t", help="means of logarithms, or exact ranks, which need more runs (default: t)")
    parser.add_argument("--level", type=float, default=0.95, help="confidence level (default: %(default)s)")
    parser.add_argument("--margin", type=float, metavar="SHARE", help="smallest change that matters, such as 0.02")
    parser.add_argument("--syscall", metavar="NAMES", help="only these calls (and what is of no call), separated by commas")
    parser.add_argument("--top", metavar="N", type=int, default=40, help="rows of a table for people; 0 for all (default: %(default)s)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--explain", action="store_true", help="divide the change of the totals instead: which calls, more of them or slower ones")
    what.add_argument("--shift", metavar="SYSCALL", help="compare the latency of one call quantile by quantile instead")
    add_narrowing(parser)
    parser.add_argument("--format", choices=FORMATS, default="table", help="form of the result (default: table)")
    parser.add_argument("--output", metavar="FILE", help="write the result to this file")
    parser.add_argument("--picture", metavar="FILE", help="draw the comparison (forest plot) or the shift function into this file (PNG)")
    parser.add_argument("--fail-if", metavar="VERDICTS", help="end with status 3 if a row has one of these verdicts, such as slower")
    parser.add_argument("--strict", action="store_true", help="refuse runs in which anything was lost")


def run(args: argparse.Namespace) -> int:
    """Compare and write."""
    import sys

    from ringtape.analysis.comparison import compare as comparing
    from ringtape.analysis.render import write
    from ringtape.analysis.runs import open_all
    from ringtape.schemas.errors import RingtapeError, UsageError
    from ringtape.schemas.escape import escape

    if args.top < 0:
        raise UsageError(f"--top is {args.top}", "give a number of rows, or 0 for all")
    base, other = (narrowed(open_all(side), args) for side in (args.base, args.other))
    for trace in (*base, *other):
        if args.strict and (lost := loss_sentence(trace)):
            raise RingtapeError(f"{trace.path}: {lost}", "leave --strict out to compare what the loss ledger leaves sure")
    result, kind, shown = _result(args, base, other)
    if args.format in ("table", "markdown") and kind is comparing.KIND:
        write(comparing.shown(shown), comparing.SHOWN, args.format, args.output)
    else:
        write(shown if args.format == "table" else result, kind, args.format, args.output)
    for note in (*_notes(base, other), *([f"{len(result) - len(shown):,} more rows: --top 0"] if len(shown) < len(result) else [])):
        print(f"ringtape: note: {escape(note)}", file=sys.stderr)
    if args.picture is not None:
        _draw(args, result)
    verdicts = set((args.fail_if or "").split(",")) - {""}
    return FOUND if verdicts and "verdict" in result.columns and not set(result["verdict"]).isdisjoint(verdicts) else 0


def _result(args: argparse.Namespace, base: Sequence[Trace], other: Sequence[Trace]) -> tuple[pl.DataFrame, Analysis, pl.DataFrame]:
    """Return the whole result, how to write it, and what people are shown of it."""
    import polars as pl

    from ringtape.analysis.comparison import compare as comparing
    from ringtape.analysis.comparison import explain, shift
    from ringtape.analysis.comparison.measures import MEASURES, USUAL

    if args.explain:
        found = explain.explain(base, other)
        return found, explain.KIND, found.head(args.top or len(found))
    if args.shift is not None:
        found = shift.shift(base, other, args.shift, method=args.method, level=args.level)
        return found, shift.KIND, found
    names = tuple(MEASURES) if args.measures == "all" else tuple(args.measures.split(",")) if args.measures else USUAL
    options: dict[str, Any] = {"pair": args.paired, "method": args.method, "level": args.level, "margin": args.margin}
    found = comparing.compare(base, other, measures=names, **options)
    if args.syscall:
        calls = [call.strip() for call in args.syscall.split(",")]
        found = found.filter(pl.col("what").is_in(["(all)", *calls]) | (pl.col("measure") == "ledger"))
    # People read first what has a verdict, and of the rest what takes most time.
    plain = pl.col("verdict").is_in([comparing.NO_DIFFERENCE, comparing.NEGLIGIBLE])
    weight = pl.max_horizontal("base", "other")
    ranked = (
        found.with_row_index("place").sort(pl.col("what") != "(all)", plain, weight, descending=[False, False, True]).head(args.top or len(found))
    )
    return found, comparing.KIND, ranked.sort("place").drop("place")


def _notes(base: Sequence[Trace], other: Sequence[Trace]) -> Iterator[str]:
    """Yield what makes the two sides hard to compare."""
    everything = [*base, *other]
    for what, values in (
        ("kernels", {str(trace.header.host.get("kernel")) for trace in everything}),
        ("machines", {f"{trace.header.host.get('name')} ({trace.header.host.get('cpu')})" for trace in everything}),
        ("tables", {", ".join(sorted(trace.tables)) for trace in everything}),
        ("options", {", ".join(f"{name}={value}" for name, value in sorted(trace.header.options.items()) if value) for trace in everything}),
        ("states", {trace.state for trace in everything}),
    ):
        if len(values) > 1:
            yield f"the runs differ in their {what}: {'; '.join(sorted(values))[:300]}"
    for trace in everything:
        if lost := loss_sentence(trace):
            yield f"{trace.path}: {lost}; counts and times are exact, quantiles that the losses leave open are missing"
    few = min(len(base), len(other))
    if few < 5:
        yield f"{len(base)} and {len(other)} runs: intervals are wide or absent; five or more on each side, in random order, tell more"


def _draw(args: argparse.Namespace, result: pl.DataFrame) -> None:
    import os
    from pathlib import Path

    from ringtape.analysis.pictures import png
    from ringtape.analysis.plots.comparison import forest, shift_plot
    from ringtape.schemas.errors import RingtapeError, UsageError

    if args.explain:
        raise UsageError("--explain has no picture", "leave --picture or --explain out")
    if args.shift is not None:
        figure = shift_plot(result, f"Latency of {args.shift}: other against base, by percentile")
    else:
        figure = forest(result, "Other against base", "grey: no difference shown")
    try:
        Path(args.picture).write_bytes(png(figure))
    except OSError as error:
        raise RingtapeError(f"{args.picture}: {os.strerror(error.errno or 0).lower()}", "name a file that can be written") from None
