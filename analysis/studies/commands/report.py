"""Show what a study found: slowdowns with intervals, claims, cost per event, accuracy, warnings, the machine.

The table, Markdown, HTML and JSON have all of it; CSV and Parquet have one table, which --what names.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringtape.analysis.studies.reading import Reading

FORMATS = ("table", "markdown", "html", "json", "csv", "parquet")
TABLES = ("slowdowns", "costs", "claims", "accuracy", "precision", "failures", "warnings")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder that `ringtape study run` wrote")
    parser.add_argument("--format", choices=FORMATS, default="table", help="form of the report (default: table)")
    parser.add_argument("--what", choices=TABLES, help="one table instead of the report, with all its columns (csv, parquet: default slowdowns)")
    parser.add_argument("--output", metavar="FILE", help="write it to this file")
    parser.add_argument("--pictures", metavar="DIR", help="write the pictures into this folder")
    parser.add_argument("--forms", metavar="NAMES", default="png", help="forms of the pictures: png, svg, pdf, separated by commas (default: png)")
    parser.add_argument(
        "--width", choices=("column", "page", "slide"), default="page", help="where the pictures are read: 85, 190 or 250 mm wide (default: page)"
    )
    add_statistics(parser)
    parser.add_argument(
        "--precision", metavar="SHARE", default="2%", help="tell how many more blocks make the intervals this narrow, up and down (default: 2%%)"
    )


def add_statistics(parser: argparse.ArgumentParser) -> None:
    """Declare how intervals are made."""
    parser.add_argument("--method", choices=("t", "rank"), default="t", help="means of logarithms, or exact ranks, which need 6 blocks (default: t)")
    parser.add_argument("--level", type=float, default=0.95, help="confidence level (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    from ringtape.analysis.render import write
    from ringtape.analysis.studies.reading import KINDS, Reading
    from ringtape.analysis.studies.results import Results
    from ringtape.analysis.studies.slowdown import checked
    from ringtape.schemas.errors import UsageError

    forms = [form.strip() for form in args.forms.split(",")]
    for form in forms:
        if form not in ("png", "svg", "pdf"):
            raise UsageError(f"--forms names {form!r}", "the forms are png, svg and pdf")
    reading = Reading(Results(args.folder), args.method, checked(args.level), share_of(args.precision))
    # Pictures first, as Markdown names them; the page makes its own, which are never those of a column or a slide.
    drawn = _draw(reading, args.pictures, forms, args.width) if args.pictures is not None else []
    what = args.what or ("slowdowns" if args.format in ("csv", "parquet") else None)
    if what is not None:
        if args.format == "html":
            raise UsageError("--what is no page", "leave --what or --format html out")
        write(reading.frame(what), KINDS[what], args.format, args.output)
    else:
        _whole(reading, args.format, args.output, drawn)
    return 0


def share_of(text: str) -> float:
    """Return a share such as ``2%`` or ``0.02``.

    >>> share_of("2%"), share_of("0.02")
    (0.02, 0.02)
    """
    import re

    from ringtape.schemas.errors import UsageError

    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})\s*(%?)\s*", text)
    share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < share < 10:
        raise UsageError(f"{text!r} is no precision", "give a share above 0, such as 2% or 0.02")
    return share


def _whole(reading: Reading, form: str, output: str | None, drawn: list[tuple[str, str]]) -> None:
    from ringtape.analysis.studies import forms, report

    if form == "table" and output is None:
        forms.show(report.make(reading))
        return
    if form == "html":
        from ringtape.analysis.studies.pictures import draw
        from ringtape.analysis.studies.study_page import page

        text = page(report.make(reading), draw(reading))
    elif form == "json":
        text = forms.as_json(reading)
    else:
        content = report.make(reading)
        text = forms.as_markdown(content, drawn) if form == "markdown" else forms.as_text(content)
    emit(text, output)


def emit(text: str, output: str | None) -> None:
    """Write a text to a file, or to standard output."""
    from ringtape.analysis.page import save_page

    if output is None:
        print(text, end="")
    else:
        save_page(text, output)


def _draw(reading: Reading, folder: str, forms: list[str], width: str) -> list[tuple[str, str]]:
    """Write pictures; return captions and paths."""
    import sys

    from ringtape.analysis.pictures import save
    from ringtape.analysis.studies.pictures import draw
    from ringtape.schemas.escape import escape

    drawn = draw(reading)
    paths = list(save({"study": drawn}, folder, forms, width))  # type: ignore[arg-type]
    for path in paths:
        print(escape(str(path)), file=sys.stderr)
    return [(picture.caption, f"{folder}/{picture.name}.{forms[0]}") for picture in drawn]
