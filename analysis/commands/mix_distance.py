"""Compare two mixes of calls: how far they are apart, and which calls make it up."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringtape.analysis.mix_distance import MixDistance
    from ringtape.analysis.registry import Result

EPILOG = """The distance is the square root of the Jensen-Shannon divergence in base 2: 0 for the same shares, 1 for nothing in common. The
contributions of the calls add up to the divergence. Without a second trace, the two sides are parts of the first one, named by
--between and --process for the one and --other-between and --other-process for the other.

examples:
  ringtape mix-distance before.trace after.trace
  ringtape mix-distance run.trace --between 0s,10s --other-between 50s,60s --of time
  ringtape mix-distance run.trace --process tar --other-process gzip
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    from ringtape.analysis.render import FORMATS
    from ringtape.analysis.verb import add_narrowing, options_anywhere

    parser.epilog = EPILOG
    options_anywhere(parser)
    parser.add_argument("base", metavar="A", help="trace folder")
    parser.add_argument("other", metavar="B", nargs="?", help="the other trace folder (default: the same)")
    add_narrowing(parser)
    parser.add_argument("--other-between", metavar="FROM,TO", help="the window of the other side (default: as --between)")
    parser.add_argument("--other-process", metavar="PID|COMM", action="append", default=[], help="the processes of the other side (as --process)")
    parser.add_argument("--of", choices=("calls", "time"), default="calls", help="shares of the number of calls or of their time (default: calls)")
    parser.add_argument("--by", choices=("syscall", "command"), default="syscall", help="what the mix is made of (default: syscall)")
    parser.add_argument("--format", choices=FORMATS, default="table", help="form of the result (default: table); json holds the distance too")
    parser.add_argument("--output", metavar="FILE", help="write the result to this file")
    parser.add_argument("--picture", metavar="FILE", help="draw the result into this file (PNG)")
    parser.add_argument("--strict", action="store_true", help="refuse a trace in which anything was lost")


def run(args: argparse.Namespace) -> int:
    """Compare and write."""
    import os
    from pathlib import Path

    from ringtape.analysis.mix_distance import mix_distance
    from ringtape.analysis.registry import Analysis
    from ringtape.analysis.render import write
    from ringtape.analysis.runs import open_trace
    from ringtape.analysis.verb import loss_sentence, narrowed
    from ringtape.schemas.errors import RingtapeError, UsageError
    from ringtape.schemas.escape import escape

    if args.other is None and args.other_between is None and not args.other_process:
        raise UsageError("there is nothing to compare with", "name a second trace, or a part of the first with --other-between or --other-process")
    second = argparse.Namespace(
        between=args.between if args.other_between is None else args.other_between, process=args.other_process or args.process
    )
    sides = (narrowed(open_trace(args.base), args), narrowed(open_trace(args.base if args.other is None else args.other), second))
    sentences = [loss_sentence(side) for side in sides]
    for side, lost in zip(sides, sentences, strict=True):
        if lost and args.strict:
            raise RingtapeError(f"{side.path}: {lost}", "leave --strict out to compare what the loss ledger allows")
    found = mix_distance(*sides, of=args.of, by=args.by)
    columns = columns_of(args.of)
    shown = Analysis("mix_distance", mix_distance, ("syscalls",), columns, (), False)  # type: ignore[arg-type]
    write(found.contributions, shown, args.format, args.output)
    if found.distance is None or found.divergence is None:
        empty = "the first" if not found.contributions["base"].sum() else "the other"
        print(f"ringtape: note: {empty} side has no {args.of}: there is no distance", file=sys.stderr)
    else:
        print(verdict(found), file=sys.stderr if args.format != "table" or args.output is not None else sys.stdout)
    if args.picture is not None:
        from ringtape.analysis.pictures import png
        from ringtape.analysis.plots.mix import mix_difference

        try:
            Path(args.picture).write_bytes(png(mix_difference(found.contributions, found.distance)))
        except OSError as error:
            raise RingtapeError(f"{args.picture}: {os.strerror(error.errno or 0).lower()}", "name a file that can be written") from None
    for side, lost in zip(sides, sentences, strict=True):
        if lost:
            said = "their calls are in the numbers as the loss ledger has them" if args.by == "syscall" else "they are not in the numbers"
            print(f"ringtape: note: {escape(str(side.path))}: {lost}; {said}", file=sys.stderr)
    return 0


def columns_of(of: str) -> tuple[Result, ...]:
    """Return what the columns of the contributions mean."""
    import polars as pl

    from ringtape.analysis.registry import Result

    unit = "count" if of == "calls" else "ns"
    return (
        Result("group", pl.String, "system call or command"),
        Result("base", pl.Int64, f"{of} of the first side", unit),
        Result("other", pl.Int64, f"{of} of the other side", unit),
        Result("share_base", pl.Float64, "its share of the first side", "share"),
        Result("share_other", pl.Float64, "its share of the other side", "share"),
        Result("contribution", pl.Float64, "what it adds to the divergence, in bits"),
        Result("part", pl.Float64, "its share of the divergence", "share"),
    )


def verdict(found: MixDistance) -> str:
    """Return a comparison as two sentences."""
    text = f"distance {found.distance:.4f} of at most 1 (Jensen-Shannon, base 2; divergence {found.divergence:.6f} bits)"
    if found.bias is not None:
        text += f", by chance alone {found.bias:.2g} bits if calls were independent"
    if found.chance is None:
        return text + ".\nThe sides are too short to tell what chance makes of it."
    below = "more than" if (found.distance or 0) > found.chance else "no more than"
    return text + f".\nThat is {below} the {found.chance:.4f} that stretches of the two, dealt at random, stay below in 95 % (p = {found.p:.3f})."
