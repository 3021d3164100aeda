"""Run overhead and accuracy studies: workloads under tools, in random blocks, and what can be claimed after them."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

COMMANDS = Path(__file__).resolve().parent.parent / "studies" / "commands"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs of studies, each with its arguments."""
    verbs = parser.add_subparsers(dest="study_verb", metavar="VERB", required=True, parser_class=type(parser))
    for module in sorted(iter_modules([str(COMMANDS)]), key=lambda one: ORDER.find(one.name)):
        command = import_module(f"ringtape.analysis.studies.commands.{module.name}")
        summary = (command.__doc__ or "").split("\n")[0]
        verb = verbs.add_parser(
            module.name,
            help=summary[0].lower() + summary[1:].rstrip("."),
            description=(command.__doc__ or "").strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(verb)
        verb.set_defaults(study_run=command.run)


def run(args: argparse.Namespace) -> int:
    """Run the verb that was named."""
    status: int = args.study_run(args)
    return status


ORDER = "new check run report verify"
"""As one uses them; others come first."""
