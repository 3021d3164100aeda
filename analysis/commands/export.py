"""Write a trace as other tools take it: Perfetto, Chrome, speedscope, flame graphs, tables, fio."""

from __future__ import annotations

import argparse

from ringtape.analysis.verb import add_narrowing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``ringtape export``."""
    from ringtape.analysis.exporting import names, summary

    parser.epilog = "forms:\n" + "\n".join(f"  {name:<12} {summary(name)}" for name in names()).replace("%", "%%")
    parser.add_argument("trace", metavar="TRACE", help="the folder that `ringtape record` made")
    parser.add_argument("--format", required=True, choices=names(), metavar="FORM", help="one of those below")
    parser.add_argument("--output", required=True, metavar="FILE", help="file to make; compressed if it ends in .gz; - is standard output")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    add_narrowing(parser)
    parser.add_argument("--table", default="syscalls", metavar="NAME", help="csv, jsonl: table, or recorded tracepoint (default: %(default)s)")
    parser.add_argument("--offcpu", action="store_true", help="folded, speedscope: time off the CPU instead of time on it")
    parser.add_argument("--symbols", metavar="DIR", help="folded, speedscope: folder with the programs, or their debug files")
    parser.add_argument("--iolog", type=int, choices=(2, 3), default=3, help="fio: version of the log (default: %(default)s)")
    parser.add_argument("--strict", action="store_true", help="refuse a trace in which anything was lost")


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    import sys
    from pathlib import Path

    from ringtape.analysis.exporting import Choices, form, opened
    from ringtape.analysis.runs import open_trace
    from ringtape.analysis.verb import loss_sentence, narrowed
    from ringtape.schemas.errors import RingtapeError, UsageError
    from ringtape.schemas.escape import escape

    trace = narrowed(open_trace(args.trace), args)
    lost = loss_sentence(trace)
    if lost and args.strict:
        raise RingtapeError(f"{trace.path}: {lost}", "leave --strict out to export what was recorded")
    # Beside a pipe or a device (standard output, /dev/null) there is no place for a second file.
    named = args.output != "-" and (Path(args.output).is_file() or not Path(args.output).exists())
    beside = Path(f"{args.output}.files") if args.format == "fio" and named else None
    if beside is not None and beside.exists() and not args.force:
        raise UsageError(f"{escape(str(beside))} exists", "name another file, or add --force to replace it")
    choices = Choices(args.table, args.offcpu, Path(args.symbols) if args.symbols else None, args.iolog, beside)
    with opened(args.output, args.force) as file:
        notes = form(args.format).write(trace, file, choices)
    for note in [*notes, *([f"{lost}; what was lost is not in the file"] if lost else [])]:
        print(f"ringtape: note: {note}", file=sys.stderr)
    return 0
