"""List the recordings of the repository, for trying things without root."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = 'In Python: ringtape.datasets.load("redis"). `./run datasets NAME` records one anew, as root.'
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything about each, a JSON object a line")
    form.add_argument("--markdown", action="store_true", help="the sections of datasets/README.md")


def run(args: argparse.Namespace) -> int:
    """List them, and say which are not those of the README: recorded anew here, or damaged."""
    import json
    import sys

    from ringtape import datasets
    from ringtape.analysis.dataset_listing import every, markdown, recorded_sums
    from ringtape.analysis.render import Cells, console, number, print_table
    from ringtape.schemas.units import format_size

    found = every()
    if args.markdown:
        sys.stdout.write(markdown(found))
        return 0
    sums = recorded_sums((datasets.folder() / "README.md").read_text(encoding="utf-8"))
    changed = [one.name for one in found if sums.get(one.name) != one.sha256]
    if args.json:
        for one in found:
            values = {
                "name": one.name,
                "what": one.what,
                "paths": [str(trace.path) for trace in one.traces],
                "options": one.options,
                "created": one.traces[0].header.created,
                "format": one.traces[0].header.version,
                "rows": one.rows,
                "schemas": one.versions,
                "lost": one.lost,
                "bytes": one.size,
                "sha256": one.sha256,
                "as_published": one.name not in changed,
            }
            print(json.dumps(values))
    else:
        heads = ["name", "runs", "rows", "size", "lost", "tables", "format", "recorded", "SHA-256", "what"]
        rows = []
        for one in found:
            header = one.traces[0].header
            sizes = [number(len(one.traces)), number(sum(one.rows.values())), format_size(one.size), number(one.lost), number(len(header.tables))]
            state = "differs" if one.name in changed else "as published"
            rows.append([one.name, *sizes, header.version, header.created[:10], state, one.what])
        print_table(console(), Cells(heads, [False, True, True, True, True, True, False, False, False, False], rows))
        print(f"\n{datasets.folder()}; the SHA-256 of each: --json")
    if changed:
        print(f"ringtape: note: not as published: {', '.join(changed)}", file=sys.stderr)
    return 0
