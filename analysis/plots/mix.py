"""Mixes as bars."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from ringtape.analysis.plots.style import COLOURS, SIZE, figure_with_axes, say_nothing

VISIBLE = 0.003
"""Share below which a bar is thinner than a line."""


def mix(frame: pl.DataFrame, *, most: int = 15) -> Figure:
    """Draw a mix as bars: share of calls and share of time.

    Parameters
    ----------
    frame : DataFrame
        Result of the analysis ``syscall_mix``.
    most : int
        How many groups are drawn, those with most time; the rest, and those too small to be seen, are drawn as one.

    Returns
    -------
    Figure
        One pair of bars per group, in percent.
    """
    keys = frame.columns[: frame.columns.index("calls")]
    names = [", ".join("(lost)" if value is None else str(value) for value in row) for row in frame.select(keys).iter_rows()]
    shares = [frame["share_time"].to_list(), frame["share_calls"].to_list()]
    seen = [at for at in range(len(names)) if max(shares[0][at], shares[1][at]) >= VISIBLE][: most - 1]
    rest = [at for at in range(len(names)) if at not in seen]
    if len(rest) > 1:
        shares = [[*(values[at] for at in seen), sum(values[at] for at in rest)] for values in shares]
        names = [*(names[at] for at in seen), f"{len(rest)} others"]
    with figure_with_axes("Share of time inside calls, and of their number", size=(SIZE[0], max(2.0, 0.9 + 0.3 * len(names)))) as (figure, axes):
        if not names:
            say_nothing(axes)
            return figure
        places = np.arange(len(names))
        for offset, values, label, colour in ((-0.2, shares[0], "time", COLOURS[0]), (0.2, shares[1], "calls", COLOURS[3])):
            axes.barh(places + offset, np.array(values) * 100, 0.38, label=label, color=colour)
        axes.set_yticks(places, names, parse_math=False)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="share (%)", xlim=(0, None))
        axes.legend(loc="lower right")
        return figure
