"""Results as people read them: cells with units, and tables for terminals, Markdown and files."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import TYPE_CHECKING, Any, Literal

from ringtape.schemas.errors import RingtapeError, UsageError
from ringtape.schemas.escape import escape, harmless
from ringtape.schemas.units import format_duration, format_size

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from ringtape.analysis.registry import Analysis

Format = Literal["table", "csv", "json", "parquet", "markdown"]
FORMATS: tuple[Format, ...] = ("table", "csv", "json", "parquet", "markdown")
GAP = 2
BAR = 40
"""Characters of the longest bar."""
LONGEST = 200
"""Longer texts are shortened for people; the forms for programs have all of them."""
INDENT = "  "
DEEPEST = 12
"""Deeper trees are shown as if they were no deeper: the text would leave the screen."""
UPRIGHT = 12
"""A single row of more values than these is shown upright, a line for each."""
FOLDED = 24
"""Columns of a terminal that a text has at least, when it is longer than that."""
HEADS = {"p99_9": "p99.9", "slowest_1": "slowest 1 %", "slowest_01": "slowest 0.1 %"}
"""Heads of columns whose names cannot be said in letters and digits."""
WIDE = 110
"""Columns of a terminal from which the ``wide`` columns of a result are shown."""


@dataclass(frozen=True)
class Cells:
    """A result as text: heads, whether each column holds numbers, rows; beside the rows the numbers by which they sort, if any."""

    heads: list[str]
    numeric: list[bool]
    rows: list[list[str]]
    keys: list[list[float | None]] = field(default_factory=list)


def number(value: float) -> str:
    """Return a count with thousands separated.

    >>> number(1234567)
    '1,234,567'
    """
    return f"{value:,.0f}"


def share(value: float) -> str:
    """Return a fraction as a percentage with enough digits to tell it from 0 and from 100.

    >>> share(0.12345), share(0.0000012), share(0.99999)
    ('12.3 %', '<0.01 %', '>99.9 %')
    """
    percent = value * 100
    if 0 < percent < 0.01:
        return "<0.01 %"
    if 99.95 <= percent < 100:
        return ">99.9 %"
    return f"{percent:.2f} %" if percent < 1 and percent else f"{percent:.1f} %"


def bar(value: float) -> str:
    """Return a share of the longest bar as a bar; whatever is not nothing is seen.

    >>> bar(0.25)
    '##########'
    """
    return "#" * (max(1, round(value * BAR)) if value > 0 else 0)


def cell(value: Any, unit: str, origin: int = 0) -> str:
    """Return one value as text in its unit; nothing for a null. Times are shown from ``origin`` on, in seconds."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return ""
    if unit == "ns":
        return format_duration(value)
    if unit == "bytes":
        return format_size(value)
    if unit == "time":
        return f"{(value - origin) / 1e9:+.6f} s"
    if unit == "share":
        return share(value)
    if unit == "bar":
        return bar(value)
    if unit == "count":
        return number(value)
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    # Analyses escape what they decode; an analysis that forgets must not let a trace write to the terminal.
    text = harmless(str(value))
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def cells(frame: pl.DataFrame, analysis: Analysis, *, wide: bool = True, limit: int | None = None, origin: int = 0) -> Cells:
    """Return a result as people read it.

    Times are shown in seconds from ``origin`` on. Columns ``x_low`` and ``x_high`` are shown inside ``x``: where the ends differ, as the interval.
    """
    names = [name for name in frame.columns if not _is_end(name, frame.columns)]
    shown: list[tuple[str, str]] = []
    declared = {name: analysis.column(name) for name in names}
    absent = {name: column.absent for name, column in declared.items() if column and column.absent}
    indents = {name: column.indent for name, column in declared.items() if column and column.indent in frame.columns}
    for name in names:
        column = declared[name]
        if name in indents.values() or (column is not None and column.detail):
            continue
        if column is not None and column.quiet and not frame[name].fill_null(0).cast(bool).any():
            continue
        if column is None or wide or not column.wide:
            shown.append((name, column.unit if column else ""))
    rows, keys = [], []
    for row in frame.head(limit if limit is not None else len(frame)).iter_rows(named=True):
        keys.append([row[name] if isinstance(row[name], int | float) and not isinstance(row[name], bool) else None for name, _ in shown])
        texts = [
            absent[name]
            if row[name] is None and name in absent
            else _interval(row, name, unit)
            if f"{name}_low" in row
            else cell(row[name], unit, origin)
            for name, unit in shown
        ]
        rows.append(
            [INDENT * min(row[indents[name]], DEEPEST) + text if name in indents else text for (name, _), text in zip(shown, texts, strict=True)]
        )
    heads = [HEADS.get(name, name.replace("_", " ")) for name, _ in shown]
    return Cells(heads, [unit != "bar" and (bool(unit) or frame.schema[name].is_numeric()) for name, unit in shown], rows, keys)


def _is_end(name: str, columns: Sequence[str]) -> bool:
    stem, _, end = name.rpartition("_")
    return end in ("low", "high") and stem in columns


def _interval(row: dict[str, Any], name: str, unit: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if row[name] is not None or low is None:
        return cell(row[name], unit)
    most = "?" if high is None or high >= (1 << 63) - 1 else cell(high, unit)
    first, second = cell(low, unit), most
    return first if first == second else f"≥ {first}\n≤ {second}"


def console() -> Console:
    """Return the console for standard output: as wide as the terminal; as wide as the table when the output is no terminal."""
    from rich.console import Console

    class Filter(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - rich would end with status 1: what every verb does when its reader goes is for the caller to say

    piped = not sys.stdout.isatty()
    width = 10_000 if piped and "COLUMNS" not in os.environ else None
    return Filter(width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def is_wide(target: Console) -> bool:
    """Whether a console has room for the ``wide`` columns."""
    return target.width >= WIDE


def print_table(target: Console, content: Cells) -> None:
    """Write cells to a console.

    Nothing is cut off: long texts are folded, and where the columns do not fit side by side, the table goes on below with its
    first columns repeated.
    """
    if len(content.rows) == 1 and len(content.heads) > UPRIGHT:
        print_facts(target, [pair for pair in zip(content.heads, content.rows[0], strict=True) if pair[1]])
        return
    for number_of, piece in enumerate(_fitting(content, target.width)):
        if number_of:
            target.print()
        _print_piece(target, piece)


def _fitting(content: Cells, width: int) -> list[Cells]:
    """Part a table into pieces that fit, the columns before the first number in each of them."""
    sizes = [
        max(len(line) for value in (head, *(row[at] for row in content.rows)) for line in value.split("\n")) for at, head in enumerate(content.heads)
    ]
    keys = next((at for at, numeric in enumerate(content.numeric) if numeric), len(sizes))
    sizes = [size if numeric else min(size, FOLDED) for size, numeric in zip(sizes, content.numeric, strict=True)]
    base = sum(sizes[:keys]) + GAP * keys
    pieces: list[list[int]] = [[]]
    room = width - base
    for at in range(keys, len(sizes)):
        if pieces[-1] and room < sizes[at]:
            pieces.append([])
            room = width - base
        pieces[-1].append(at)
        room -= sizes[at] + GAP
    return [_columns(content, [*range(keys), *piece]) for piece in pieces]


def _columns(content: Cells, chosen: Sequence[int]) -> Cells:
    rows = [[row[at] for at in chosen] for row in content.rows]
    return Cells([content.heads[at] for at in chosen], [content.numeric[at] for at in chosen], rows)


def _print_piece(target: Console, content: Cells) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for head, numeric in zip(content.heads, content.numeric, strict=True):
        table.add_column(Text(head), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in content.rows:
        table.add_row(*(Text(value) for value in row))
    _print_stripped(target, table)


def _print_stripped(target: Console, content: Any) -> None:
    # Rich fills every line to its end: whoever reads a pipe wants none of these blanks.
    if target.is_terminal:
        target.print(content)
    else:
        with target.capture() as captured:
            target.print(content)
        target.file.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def markdown(content: Cells) -> str:
    """Return cells as a Markdown table."""

    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(value.replace("|", "\\|").replace("\n", " ") for value in values) + " |"

    rule = "|" + "|".join("---:" if numeric else "---" for numeric in content.numeric) + "|"
    return "\n".join([line(content.heads), rule, *(line(row) for row in content.rows)]) + "\n"


def write(frame: pl.DataFrame, analysis: Analysis, form: Format, output: str | None, origin: int = 0) -> None:
    """Write a result to standard output or to a file.

    Raises
    ------
    UsageError
        If Parquet would go to a terminal.
    RingtapeError
        If the file cannot be written.
    """
    if form == "table" and output is None:
        target = console()
        print_table(target, cells(frame, analysis, wide=is_wide(target), origin=origin))
        return
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise UsageError("Parquet is not for terminals", "name a file with --output, or send the output to one")
    data = _encoded(frame, analysis, form, origin)
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        with open(output, "wb") as file:
            file.write(data)
    except OSError as error:
        raise RingtapeError(f"{escape(output)}: {os.strerror(error.errno or 0).lower()}", "name a file that can be written") from None


def _encoded(frame: pl.DataFrame, analysis: Analysis, form: Format, origin: int) -> bytes:
    import polars as pl

    if form in ("csv", "json"):
        texts = [name for name, kind in frame.schema.items() if kind == pl.String]
        plain = frame.with_columns(pl.col(texts).map_elements(harmless, return_dtype=pl.String)) if texts else frame
        return (plain.write_csv() if form == "csv" else plain.write_json() + "\n").encode()
    if form == "markdown":
        return markdown(cells(frame, analysis, origin=origin)).encode()
    buffer = io.BytesIO()
    if form == "parquet":
        frame.write_parquet(buffer)
    else:
        from rich.console import Console

        text = io.StringIO()
        print_table(Console(file=text, width=10_000, highlight=False, markup=False, emoji=False), cells(frame, analysis, origin=origin))
        buffer.write(text.getvalue().encode())
    return buffer.getvalue()


def print_facts(target: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Write names and their texts, the texts folded beside their names."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, GAP, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in pairs:
        table.add_row(Text(name, style="dim"), Text(text))
    _print_stripped(target, table)
