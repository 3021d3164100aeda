"""The tail of latency with its fit."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ringtape.analysis.plots.style import COLOURS, LINES, figure_with_axes, legend_beside, say_nothing, time_axis


def tails(frame: pl.DataFrame, fits: pl.DataFrame, *, most: int = LINES - 1, note: str = "") -> Figure:
    """Draw the tails of the groups that took most time, and the fits that are to be had.

    Parameters
    ----------
    frame : DataFrame
        Result of `distributions.latency_ecdf`.
    fits : DataFrame
        Result of the analysis ``tail``, grouped as ``frame``.
    most : int
        How many groups are drawn: those whose tail has an index before others, then by time.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: latency, y: share of calls that took longer, both logarithmic; dashed: the fit above its threshold (a dot).
    """
    keys = fits.columns[: fits.columns.index("calls")]
    chosen = fits.with_columns(pl.col("index").is_null().alias("_without")).sort("_without", "time", descending=[False, True], maintain_order=True)
    with figure_with_axes("The tail of latency: share of calls that took longer", note) as (figure, axes):
        if not len(fits):
            say_nothing(axes)
            return figure
        lowest, longest, rarest = float("inf"), 1.0, 1.0
        for colour, row in zip(COLOURS, chosen.head(most).iter_rows(named=True), strict=False):
            rows = frame.filter(pl.col(key).eq_missing(pl.lit(row[key])) for key in keys)
            last = float(np.max(np.maximum(rows["dur"].to_numpy(), 1)))
            seen = rows.filter(pl.col("above") > 0)
            least = 0.5 / row["calls"]
            x = np.append(np.maximum(seen["dur"].to_numpy(), 1.0), last)
            axes.step(x, np.append(seen["above"].to_numpy(), least), where="post", color=colour, label=_label(row, keys))
            lowest, longest, rarest = min(lowest, float(x[0])), max(longest, last), min(rarest, least)
            if row["index"] is not None:
                share = row["above"] / row["calls"]
                reach = np.geomspace(row["threshold"], last * 1.5, 50)
                line = "--" if row["pareto"] else ":"
                axes.plot(reach, share * (row["threshold"] / reach) ** row["index"], line, color="#333333", linewidth=1.1, zorder=3)
                axes.plot([row["threshold"]], [share], "o", color=colour, markersize=5, markeredgecolor="#333333", zorder=4)
        axes.set_yscale("log")
        axes.set_ylim(rarest * 0.7, 1.3)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        time_axis(axes, lowest, longest)
        axes.set(xlabel="latency", ylabel="calls that took longer")
        axes.plot([], [], "--", color="#333333", linewidth=1.1, label="Pareto fit, plausible")
        axes.plot([], [], ":", color="#333333", linewidth=1.1, label="refuted by the data")
        legend_beside(axes, most)
        return figure


def _label(row: dict[str, object], keys: list[str]) -> str:
    name = ", ".join("?" if row[key] is None else str(row[key]) for key in keys)
    return f"{name} (index {row['index']:.3g})" if row["index"] is not None else name
