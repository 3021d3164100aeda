"""Files as bars."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from ringtape.analysis.plots.style import COLOURS, SIZE, figure_with_axes, say_nothing, time_unit
from ringtape.schemas.units import format_size


def files(frame: pl.DataFrame, *, most: int = 15, note: str = "") -> Figure:
    """Draw the files with most time as bars: time in reads, in writes, and in all other calls.

    Parameters
    ----------
    frame : DataFrame
        Result of the analysis ``files``.
    most : int
        How many files are drawn, those with most time; the rest is drawn as one.
    note : str
        What is to be said below the picture, such as how many calls are missing.

    Returns
    -------
    Figure
        One bar per file; behind its name the bytes that were read and written.
    """
    rows = frame.select("file", "time", "read_time", "write_time", "bytes_read", "bytes_written", "calls").rows()
    shown, rest = rows[:most], rows[most:]
    if rest:
        folded = int(rest[-1][0].split()[0][1:].replace(",", "")) - 1 if rest[-1][0].endswith(" others)") else 0
        sums = [sum(row[at] for row in rest) for at in range(1, 7)]
        shown = [*shown, (f"{len(rest) + folded:,} others", *sums)]
    with figure_with_axes("Time in calls, by file", note, size=(SIZE[0] + 1.5, max(2.0, 0.9 + 0.3 * len(shown)))) as (figure, axes):
        if not shown:
            say_nothing(axes)
            return figure
        unit, name = time_unit(max(row[1] for row in shown))
        places = np.arange(len(shown))
        left = np.zeros(len(shown))
        kinds = (
            ("reads", COLOURS[0], [row[2] for row in shown]),
            ("writes", COLOURS[1], [row[3] for row in shown]),
            ("all other calls", COLOURS[6], [row[1] - row[2] - row[3] for row in shown]),
        )
        for label, colour, values in kinds:
            lengths = np.array(values, np.float64) / unit
            axes.barh(places, lengths, 0.7, left=left, label=label, color=colour)
            left += lengths
        for place, row in enumerate(shown):
            bytes_text = ", ".join(f"{format_size(size)} {way}" for size, way in ((row[4], "in"), (row[5], "out")) if size)
            axes.annotate(bytes_text, (left[place], place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7, color="#666666")
        axes.set_yticks(places, [_tail(row[0], 52) for row in shown], parse_math=False)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=f"time ({name})", xlim=(0, float(left.max() or 1) * 1.25))
        axes.legend(loc="lower right")
        return figure


def _tail(text: str, most: int) -> str:
    """Return the end of a path, which tells more than its beginning."""
    return text if len(text) <= most else "…" + text[1 - most :]
