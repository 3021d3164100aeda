"""Latency per window of time."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ringtape.analysis.plots.style import COLOURS, STYLE, figure_with_axes, say_nothing, short_time, time_unit

_LINES = (("max", COLOURS[1]), ("p99", COLOURS[3]), ("p50", COLOURS[0]))


def windows(frame: pl.DataFrame, origin: int, *, most: int = 6, note: str = "") -> Figure:
    """Draw quantiles of latency per window, a panel for each of the groups with most calls.

    Parameters
    ----------
    frame : DataFrame
        Result of the analysis ``windows``.
    origin : int
        The time that stands at 0, ns of CLOCK_MONOTONIC.
    most : int
        How many groups are drawn.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: time; y: latency, logarithmic, and in a second axis below the calls per second.
    """
    import matplotlib as mpl

    keys = frame.columns[: frame.columns.index("begin")]
    groups = frame.select(keys).unique(maintain_order=True).head(most)
    if not len(groups):
        with figure_with_axes("Latency per window of time", note) as (figure, axes):
            say_nothing(axes)
            return figure
    columns = min(2, len(groups))
    lines = -(-len(groups) // columns)
    scale, unit = time_unit(float(frame["end"].max() - origin))  # type: ignore[operator]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * columns + 0.6, 2.3 * lines + 0.9), layout="constrained", dpi=120)
        panels = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
        for axes, row in zip(panels, groups.iter_rows(named=True), strict=False):
            rows = frame.filter(pl.col(key).eq_missing(pl.lit(row[key])) for key in keys)
            edges = np.append(rows["begin"].to_numpy(), rows["end"][-1] if len(rows) else 0)
            times = (edges - origin) / scale
            for name, colour in _LINES:
                low, high = (_log_safe(rows[f"{name}_{end}"]) for end in ("low", "high"))
                uncertain = rows[name].is_null().to_numpy() & ~np.isnan(low)
                axes.stairs(np.where(uncertain, np.nan, low), times, baseline=None, color=colour, linewidth=1.4, label=name)
                for at in np.flatnonzero(uncertain):
                    axes.fill_between(times[at : at + 2], low[at], min(high[at], 1e12), color=colour, alpha=0.3, linewidth=0)
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(10, numticks=8))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_time(value)))
            axes.set_title(", ".join("?" if row[key] is None else str(row[key]) for key in keys), parse_math=False, fontsize=10)
        for axes in panels[len(groups) :]:
            axes.set_axis_off()
        figure.suptitle(f"Latency per window of {short_time(float(frame['end'][0] - frame['begin'][0]))}", x=0.01, ha="left", fontsize=11)
        figure.supxlabel(f"time since the start ({unit}); a call counts where it returned" + (f"\n{note}" if note else ""), fontsize=9)
        handles, labels = panels[0].get_legend_handles_labels()
        # Beside the title, which is short, and so not at the cost of the panels.
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), handlelength=1.0, columnspacing=1.0, borderpad=0.1)
        return figure


def _log_safe(values: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    numbers = values.cast(pl.Float64).to_numpy()
    return np.asarray(np.where(numbers < 1, 1.0, numbers), np.float64)
