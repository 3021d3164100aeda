"""The reference of all tables, written from their declarations."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ringtape.schemas.columns import Column
from ringtape.schemas.studies import CALLS, RUNS
from ringtape.schemas.table import Table, tables
from ringtape.schemas.units import format_size

_HEAD = """# Tables

Written by `./run docs` from the declarations in `schemas/tables/`; a test compares the two. How the tables lie in a trace
folder, and how another program checks them, is in [format.md](format.md).

Integers are signed. Times are CLOCK_MONOTONIC of the recorded machine; the manifest holds what turns them into wall time.
No column is ever null. A part's rows are sorted by `ts`."""

_STUDIES = """# Tables of studies

What `ringtape study run` leaves beside the study file, from the declarations in `schemas/studies.py`. Here values may be null where the
meaning says so."""

_ARROW = {"i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "f64": "float64", "comm": "binary", "bytes": "binary", "text": "string"}


def reference() -> str:
    """Return the Markdown page that documents every declared table.

    Returns
    -------
    str
        One section per table, with one line per column: Arrow type, unit, meaning, source.

    Examples
    --------
    >>> "## syscalls" in reference()
    True
    """
    traces = (line for table in tables().values() for line in _section(table))
    studies = (line for table in (RUNS, CALLS) for line in _section(table))
    return "\n".join([_HEAD, "", *_contents(), *traces, _STUDIES, "", *studies])


def _contents() -> Iterator[str]:
    yield "| table | version | one row per | rows from | in a recording by default |"
    yield "|---|---|---|---|---|"
    for table in tables().values():
        origin = f"kernel ring, {format_size(table.ring_size)} for all CPUs" if table.origin == "ring" else "recorder"
        yield f"| [{table.name}](#{table.name}) | {table.version} | {_cell(_row_per(table))} | {origin} | {'yes' if table.default else 'no'} |"
    yield ""


def _row_per(table: Table) -> str:
    return table.doc.removeprefix("One row per ").rstrip(".")


def _section(table: Table) -> Iterator[str]:
    yield f"## {table.name}"
    yield ""
    yield f"`{table.schema_id}`: {table.doc}"
    yield ""
    yield "| column | Arrow type | unit | meaning | source |"
    yield "|---|---|---|---|---|"
    for column in table.columns:
        unit = column.unit or " "
        yield f"| `{column.name}` | {_ARROW[column.type]} | {unit} | {_cell(_meaning(column))} | {_cell(column.source) or ' '} |"
    yield ""
    if table.origin == "ring":
        yield "The record in the ring:"
        yield ""
        yield "```c"
        yield table.c_struct()
        yield "```"
        yield ""


def _meaning(column: Column) -> str:
    text = column.doc
    if column.type == "comm":
        text += " (at most 15 bytes, without the ending NUL)"
    if column.values:
        text += ": " + ", ".join(f"{code} {meaning}" for code, meaning in sorted(column.values.items()))
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: Sequence[str]) -> int:
    """Write the page to the file that is named, or to standard output."""
    if arguments:
        Path(arguments[0]).write_text(reference(), encoding="utf-8")
    else:
        print(reference(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
