"""Stacks as a flame graph: an interactive SVG, or files for speedscope and flamegraph.pl."""

from __future__ import annotations

import argparse

from ringtape.analysis.verb import add_narrowing, narrowed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("trace", metavar="TRACE", help="trace folder, recorded with --profile or --offcpu-stacks")
    parser.add_argument("--format", choices=("svg", "folded", "speedscope"), default="svg", help="form of the result (default: %(default)s)")
    parser.add_argument("--offcpu", action="store_true", help="time off the CPU, by the stack that left it, instead of time on it")
    add_narrowing(parser)
    parser.add_argument("--symbols", metavar="DIR", help="folder with the programs, or their debug files looked at first; build ids must match")
    parser.add_argument("--output", metavar="FILE", help="write to this file instead of standard output")


def run(args: argparse.Namespace) -> int:
    """Write the flame graph."""
    import sys
    from pathlib import Path

    from ringtape.analysis import flamegraph
    from ringtape.analysis.runs import open_trace
    from ringtape.analysis.stacks import Of, stacks
    from ringtape.schemas.escape import escape

    trace = narrowed(open_trace(args.trace), args)
    of: Of = "offcpu" if args.offcpu else "cpu"
    found = stacks(trace, of, Path(args.symbols) if args.symbols else None)
    title = f"{'off' if args.offcpu else 'on'} the CPU: {escape(' '.join(trace.header.command) or trace.path.name)}"
    if args.format == "folded":
        text = flamegraph.folded(trace, found)
    elif args.format == "speedscope":
        text = flamegraph.speedscope(trace, found, title)
    else:
        text = flamegraph.svg(trace, found, of, title)
    if args.output:
        Path(args.output).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    for count, what in ((found.lost, "samples were lost, and are in no stack"), (found.unmapped, "mappings were lost: functions may lack names")):
        if count:
            print(f"ringtape: note: {count:,} {what}", file=sys.stderr)
    return 0
