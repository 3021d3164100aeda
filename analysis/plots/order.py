"""Calls in the order in which threads make them."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from ringtape.analysis.plots.style import figure_with_axes, say_nothing


def transition_map(frame: pl.DataFrame, *, most: int = 16) -> Figure:
    """Draw which call follows which as a heat map.

    Parameters
    ----------
    frame : DataFrame
        Result of the analysis ``transitions``.
    most : int
        Calls that are drawn, those with most transitions.

    Returns
    -------
    Figure
        One row per call, one column per call that follows it; colour and number: probability in percent.
    """
    counted = pl.concat([frame.select(pl.col(side).alias("call"), "count") for side in ("from", "to")])
    order = counted.group_by("call").agg(pl.col("count").sum()).sort("count", "call", descending=[True, False])["call"]
    names = order.head(most).to_list()
    shown = frame.filter(pl.col("from").is_in(names), pl.col("to").is_in(names))
    left_out = int(frame["count"].sum()) - int(shown["count"].sum())
    note = f"{left_out:,} of {frame['count'].sum():,} transitions are of calls not drawn" if left_out else ""
    size = max(3.2, 1.6 + 0.36 * len(names))
    with figure_with_axes("What follows what: probability of the next call", note, size=(size + 1.6, size)) as (figure, axes):
        if not names:
            say_nothing(axes, "no thread made two calls")
            return figure
        grid = np.zeros((len(names), len(names)))
        place = {name: at for at, name in enumerate(names)}
        for first, second, probability in shown.select("from", "to", "probability").iter_rows():
            grid[place[first], place[second]] = probability * 100
        image = axes.imshow(grid, cmap="Blues", norm=PowerNorm(0.6, 0, 100), aspect="equal")
        for (row, column), value in np.ndenumerate(grid):
            if value >= 0.5:
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color="white" if value > 55 else "#222222")
        axes.set_yticks(range(len(names)), names, parse_math=False)
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.grid(visible=False)
        axes.set(xlabel="next call", ylabel="call")
        figure.colorbar(image, ax=axes, label="probability (%)", shrink=0.8)
        return figure
