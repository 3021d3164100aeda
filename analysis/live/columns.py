"""Columns of the screen's tables: what is shown of a row, how wide, and which go first where there is little room."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.cells import cell_len

from ringtape.analysis.live.cells import Piece, fit
from ringtape.schemas.escape import harmless
from ringtape.schemas.units import format_duration, format_size

Row = Mapping[str, Any]
NOTHING: Final = "-"
"""What stands for a number that was not recorded."""


@dataclass(frozen=True)
class Column:
    """One column of a table on the screen.

    Parameters
    ----------
    name : str
        The column of the snapshot's frame that it shows and is sorted by.
    title : str
        Its head.
    show : callable
        A value as text.
    width : int
        Cells; of the column that is stretched, the fewest.
    rank : int
        Which columns are left out first where there is no room: those with the highest rank.
    stretch : bool
        Whether it takes what room is left, up to ``most`` cells.
    style : callable, optional
        The style of a value.
    """

    name: str
    title: str
    show: Callable[[Any], str]
    width: int
    rank: int = 0
    stretch: bool = False
    most: int = 40
    left: bool = False
    descending: bool = True
    style: Callable[[Any], str] | None = None


def count(value: float | None) -> str:
    """Return a number with three digits and k, M or G; a dash where there is none.

    >>> count(0), count(0.25), count(999.7), count(1234567), count(None)
    ('0', '0.25', '1.00k', '1.23M', '-')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    if value < 9.995:
        return f"{value:.0f}" if value == round(value) else f"{value:.2f}"
    if value < 999.5:
        return f"{value:.0f}"
    for unit in "kMGT":
        value /= 1000
        if value < 999.5:
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return f"{value:.3g}T"


def duration(value: float | None) -> str:
    """Return ns with a unit, a dash where there are none."""
    return NOTHING if value is None else format_duration(value)


def size(value: float | None) -> str:
    """Return bytes with a unit, a dash where they are not known."""
    return NOTHING if value is None else "0" if value == 0 else format_size(value)


def share(value: float | None) -> str:
    """Return a share of a CPU in per cent.

    >>> share(0.0123), share(1.5), share(None)
    ('1.2%', '150%', '-')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value * 100:.{1 if value < 0.0995 else 0}f}%"


def text(value: Any) -> str:
    """Return a value as it is."""
    return NOTHING if value is None else str(value)


def bad(value: float | None) -> str:
    """Return the style of a count of errors."""
    return "warn" if value else ""


def chosen(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """Return the columns that fit into a width, in their order, each with its cells; the first one always does."""
    kept = list(columns)
    while len(kept) > 1 and sum(column.width + 1 for column in kept) - 1 > width:
        kept.remove(max(kept, key=lambda column: (column.rank, columns.index(column))))
    spare = width - sum(column.width + 1 for column in kept) + 1
    widths = [column.width for column in kept]
    growing = [index for index, column in enumerate(kept) if column.stretch]
    while spare > 0 and growing:
        for index in growing[:]:
            if spare > 0 and widths[index] < kept[index].most:
                widths[index] += 1
                spare -= 1
            elif widths[index] >= kept[index].most:
                growing.remove(index)
    if len(kept) == 1:
        widths[0] = min(widths[0], max(1, width))
    return list(zip(kept, widths, strict=True))


def head(columns: Sequence[tuple[Column, int]], sort: str, reverse: bool) -> list[Piece]:
    """Return the line of the columns' heads, that by which rows are sorted marked."""
    pieces: list[Piece] = []
    for column, width in columns:
        own = column.name == sort
        mark = ("▼" if column.descending != reverse else "▲") if own else ""
        label = fit(column.title + mark, width, not column.left)
        pieces += [(label, "sorted" if own else "head"), (" ", "")]
    return pieces[:-1]


def row(columns: Sequence[tuple[Column, int]], values: Row, under_cursor: bool, total: int) -> list[Piece]:
    """Return the line of a row; under the cursor it is reversed as a whole."""
    pieces: list[Piece] = []
    for column, width in columns:
        value = values.get(column.name)
        shown = fit(column.show(value), width, not column.left)
        pieces += [(shown, column.style(value) if column.style else ""), (" ", "")]
    pieces.pop()
    if under_cursor:
        line = "".join(part for part, _ in pieces)
        return [(line + " " * max(0, total - cell_len(harmless(line))), "cursor")]
    return pieces
