"""Keep the latency of traces as histograms, and add up those of other traces and machines.

TRACE is a trace folder, or a file that `--save` wrote. All that are named are added up, exactly and in any order: from the histograms of parts follow
the same quantiles as from all the calls together, between bounds that differ by at most 1.6 %, and further where calls were lost.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ringtape.analysis.verb import add_narrowing, loss_sentence, narrowed, options_anywhere

if TYPE_CHECKING:
    from ringtape.analysis.histograms import Histograms

QUANTILES = "0.5,0.9,0.99,0.999,1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from ringtape.analysis.render import FORMATS

    parser.epilog = (__doc__ or "").partition("\n\n")[2].replace("%", "%%")
    options_anywhere(parser)
    parser.add_argument("names", metavar="TRACE", nargs="+", help="trace folder, folder of traces, or file of histograms")
    parser.add_argument(
        "--by", metavar="NAMES", help="syscall, process, thread, command or several, separated by commas (default: as the files, else syscall)"
    )
    parser.add_argument("--syscall", metavar="NAME", help="only calls of this name; of traces alone")
    parser.add_argument("--quantiles", metavar="Q", default=QUANTILES, help="quantiles, separated by commas (default: %(default)s)")
    parser.add_argument("--save", metavar="FILE", help="write the histograms to this file, to be added to others later")
    add_narrowing(parser)
    parser.add_argument(
        "--format", choices=FORMATS, default="table", help="form of the quantiles; durations are ns except in tables (default: table)"
    )
    parser.add_argument("--output", metavar="FILE", help="write the quantiles to this file")
    parser.add_argument("--strict", action="store_true", help="refuse traces and files in which anything was lost")


def run(args: argparse.Namespace) -> int:
    """Add up, keep, and write the quantiles."""
    from pathlib import Path

    import polars as pl

    from ringtape.analysis.grouping import GROUPS
    from ringtape.analysis.histograms import Histograms, histograms, merge
    from ringtape.analysis.ledger import FOREVER
    from ringtape.analysis.registry import Result, kind_of_result
    from ringtape.analysis.render import write
    from ringtape.analysis.runs import open_all
    from ringtape.schemas.errors import RingtapeError, UsageError

    files = [name for name in args.names if Path(name).is_file()]
    if files and (args.syscall is not None or args.between is not None or args.process):
        raise UsageError(f"{files[0]}: a file of histograms has neither times nor processes to choose from", "choose when it is made from the trace")
    parts = [Histograms.load(name) for name in files]
    by = tuple(word.strip() for word in args.by.split(",")) if args.by else parts[0].by if parts else ("syscall",)
    for name, part in zip(files, parts, strict=True):
        if args.strict and (lost := _lost(part)):
            raise RingtapeError(f"{name}: {lost:,} calls lost", "leave --strict out to get the bounds that the loss ledger allows")
    for trace in narrowed(open_all([name for name in args.names if name not in files]), args):
        if args.strict and (sentence := loss_sentence(trace)):
            raise RingtapeError(f"{trace.path}: {sentence}", "leave --strict out to get the bounds that the loss ledger allows")
        parts.append(histograms(trace, by=by, syscall=args.syscall))  # type: ignore[arg-type]
    found = merge(parts)
    if args.by and set(found.by) != set(by):
        raise UsageError(f"{files[0]}: histograms by {','.join(found.by)}, not by {args.by}", "leave --by out")
    result = found.quantiles(args.quantiles.split(",")).with_columns(pl.when(pl.col("high") < FOREVER).then("high").alias("high"))
    if args.save is not None:
        found.save(args.save)
    columns = (
        *(group for group in GROUPS if group.name in found.by),
        Result("calls", pl.Int64, "calls that returned and were recorded", "count"),
        Result("lost", pl.Int64, "calls that were lost and belong, or may belong, to the group", "count", quiet=True),
        Result("quantile", pl.Float64, "the ceil(q n)-th smallest of n durations"),
        Result("low", pl.Int64, "the least that it can be", "ns"),
        Result("high", pl.Int64, "the most that it can be; null where nothing bounds what was lost", "ns"),
    )
    write(result, kind_of_result("histogram", columns), args.format, args.output)
    if lost := _lost(found):
        print(f"ringtape: note: {lost:,} calls were lost: low and high hold the truth whatever they took", file=sys.stderr)
    return 0


def _lost(part: Histograms) -> int:
    import polars as pl

    return int(part.counts.filter(pl.col("lost"))["count"].sum())
