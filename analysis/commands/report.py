"""What a program did and how long it took: processes, calls, latency, errors, losses, cost."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("trace", metavar="TRACE", help="trace folder")
    parser.add_argument("--html", metavar="FILE", help="write the report with its pictures as one self-contained page instead")
    parser.add_argument("--pictures", metavar="DIR", help="write the pictures into this folder")
    parser.add_argument("--forms", metavar="NAMES", default="png", help="forms of the pictures: png, svg, pdf, separated by commas (default: png)")
    parser.add_argument(
        "--width",
        choices=("column", "page", "slide"),
        default="page",
        help="where the pictures are read: 85, 190 or 250 mm wide (default: page)",
    )
    parser.add_argument("--top", metavar="N", type=int, default=20, help="lines of each table (default: %(default)s; 0 for all)")


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    import sys

    from ringtape.analysis import report
    from ringtape.analysis.runs import open_trace
    from ringtape.schemas.errors import UsageError
    from ringtape.schemas.escape import escape

    if args.top < 0:
        raise UsageError(f"--top is {args.top}", "give a number of lines, or 0 for all")
    forms = [form.strip() for form in args.forms.split(",")]
    for form in forms:
        if form not in ("png", "svg", "pdf"):
            raise UsageError(f"--forms names {form!r}", "the forms are png, svg and pdf")
    trace = open_trace(args.trace)
    content = report.make(trace, args.top or None, page=args.html is not None)
    if args.html is None:
        report.show(content)
    if args.pictures is not None or args.html is not None:
        from ringtape.analysis import pictures

        drawn = pictures.draw(trace)
        # The page first: pictures for a column or a slide are made of the same figures.
        if args.html is not None:
            from ringtape.analysis.page import write_page

            write_page(content, drawn, args.html)
            print(escape(args.html), file=sys.stderr)
        if args.pictures is not None:
            for path in pictures.save(drawn, args.pictures, forms, args.width):
                print(escape(str(path)), file=sys.stderr)
    return 0
