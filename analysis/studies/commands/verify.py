"""Repeat a published study, and say of each of its claims whether it holds here too.

OTHER is the folder of its results. Status: 0 if every claim that holds there holds here; 3 if not.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ringtape.analysis.studies.commands.report import add_statistics

if TYPE_CHECKING:
    import polars as pl

    from ringtape.analysis.render import Cells
    from ringtape.analysis.studies.reading import Reading
    from ringtape.analysis.studies.results import Results

FORMATS = ("table", "markdown", "json", "csv", "parquet")
NOT_CONFIRMED = 3
"""Exit status when a claim that holds there is not shown to hold here."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("other", metavar="OTHER", type=Path, help="folder of the results of the published study")
    parser.add_argument("--against", metavar="FOLDER", type=Path, help="compare with this repetition, which was run before, and run nothing")
    parser.add_argument("-o", "--folder", metavar="FOLDER", type=Path, help="folder of the repetition (default: the study's name with -here.study)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("--format", choices=FORMATS, default="table", help="form of the result (default: table)")
    parser.add_argument("--output", metavar="FILE", help="write the result to this file")
    add_statistics(parser)


def run(args: argparse.Namespace) -> int:
    """Repeat, compare, and write."""
    import sys

    from ringtape.analysis.render import write
    from ringtape.analysis.studies.reading import Reading
    from ringtape.analysis.studies.results import Results
    from ringtape.analysis.studies.slowdown import checked
    from ringtape.analysis.studies.verification import CONFIRMED, KIND, NEVER, differences, verify
    from ringtape.schemas.errors import UsageError
    from ringtape.schemas.escape import escape

    level = checked(args.level)
    published = Results(args.other)
    if not published.study.claims:
        raise UsageError(f"{args.other}: the study claims nothing", "give it claims = [...]; `ringtape study report` shows what it found")
    repeated = Results(args.against) if args.against is not None else _repeat(published, args)
    there, here = (Reading(results, args.method, level) for results in (published, repeated))
    found = verify(there, here)
    if args.format in ("table", "markdown"):
        _show(found, there, here, args.format, args.output)
    else:
        write(found, KIND, args.format, args.output)
    for note in differences(there, here):
        print(f"ringtape: note: {escape(note)}", file=sys.stderr)
    return 0 if set(found["outcome"]) <= {CONFIRMED, NEVER} else NOT_CONFIRMED


def _repeat(published: Results, args: argparse.Namespace) -> Results:
    from ringtape.analysis.studies.commands.run import Progress
    from ringtape.analysis.studies.experiment import run_study
    from ringtape.schemas.errors import UsageError

    study = published.study
    folder = args.folder or Path(f"{study.name.replace(' ', '_')}-here.study")
    if folder.resolve() == args.other.resolve():
        raise UsageError(f"{folder} holds the published results", "name another folder with -o")
    return run_study(study, folder, None if args.quiet else Progress())


def _show(found: pl.DataFrame, there: Reading, here: Reading, form: str, output: str | None) -> None:
    from ringtape.analysis.render import console, markdown, print_table
    from ringtape.analysis.studies.commands.report import emit

    tables = [_claims(found), _slowdowns(there, here)]
    if form == "table" and output is None:
        target = console()
        for number, table in enumerate(tables):
            if number:
                target.print()
            print_table(target, table)
        return
    if form == "markdown":
        from ringtape.analysis.studies.forms import in_markdown

        emit("\n".join(markdown(in_markdown(table)) for table in tables), output)
        return
    import io

    from rich.console import Console

    text = io.StringIO()
    for table in tables:
        print_table(Console(file=text, width=10_000, highlight=False, markup=False, emoji=False), table)
        text.write("\n")
    emit(text.getvalue(), output)


def _claims(found: pl.DataFrame) -> Cells:
    from ringtape.analysis.render import Cells
    from ringtape.analysis.studies.report import value_text
    from ringtape.schemas.escape import escape

    rows = []
    for row in found.iter_rows(named=True):
        texts = [value_text({**row, **{end: row[f"{side}_{end}"] for end in ("value", "low", "high")}}) for side in ("there", "here")]
        rows.append([escape(row["claim"]), escape(row["workload"]), row["outcome"], *texts, escape(row["here_why"] or row["there_why"])])
    return Cells(["claim", "workload", "outcome", "there", "here", "why"], [False, False, False, True, True, False], rows)


def _slowdowns(there: Reading, here: Reading) -> Cells:
    from ringtape.analysis.render import Cells
    from ringtape.analysis.studies.declaration import BASELINE
    from ringtape.analysis.studies.report import CONTROL, ratio_text
    from ringtape.analysis.studies.verification import beside
    from ringtape.schemas.escape import escape

    rows = []
    for row in beside(there, here).iter_rows(named=True):
        texts = [ratio_text(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in ("there", "here", "change")]
        rows.append([escape(row["workload"]), CONTROL if row["treatment"] == BASELINE else escape(row["treatment"]), *texts])
    return Cells(["workload", "treatment", "slowdown there", "slowdown here", "here / there"], [False, False, True, True, True], rows)
