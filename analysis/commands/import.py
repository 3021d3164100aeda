"""Make a trace from the text of strace or perf script, to be studied with the same analyses."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from ringtape.analysis.importing.importing import ABIS, sources
    from ringtape.analysis.verb import options_anywhere

    options_anywhere(parser)
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="what the tool wrote, also as .gz; - is standard input; several are those of strace -ff"
    )
    parser.add_argument("-o", "--output", metavar="TRACE", help="trace folder to be made (FILE.trace)")
    parser.add_argument("--source", choices=list(sources()), help="which tool wrote it (recognised by its first lines)")
    parser.add_argument("--abi", choices=ABIS, help="system calls of the recorded machine, where the text does not tell (those of this machine)")
    parser.epilog = "sources:\n" + "\n".join(f"  {name:<12} {module.SUMMARY}" for name, module in sources().items())


def run(args: argparse.Namespace) -> int:
    """Import, and say on standard error what could not be taken over."""
    import sys
    from pathlib import Path

    from ringtape.analysis.importing.importing import import_recording
    from ringtape.schemas.errors import UsageError
    from ringtape.schemas.escape import escape

    if args.output is None and args.files[0] == "-":
        raise UsageError("the trace of standard input has no name", "name it with --output")
    output = args.output or f"{Path(args.files[0]).name}.trace"
    found = import_recording(args.files, output, source=args.source, abi=args.abi)
    for line in found.text():
        print(escape(line), file=sys.stderr)
    print(f"{escape(output)}: {found.calls:,} calls from {found.lines:,} lines", file=sys.stderr)
    return 0
