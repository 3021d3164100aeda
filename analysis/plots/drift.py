"""Stalls and their period."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from ringtape.analysis.plots.style import COLOURS, figure_with_axes, short_time, time_axis, time_unit


def slow_calls(frame: pl.DataFrame, row: dict[str, Any]) -> Figure:
    """Draw slow calls over time with lines a period apart.

    Parameters
    ----------
    frame : DataFrame
        ``at`` (ns since the start, when the call returned) and ``dur`` (ns).
    row : dict
        The row of the analysis ``drift``, with ``syscall``, ``period`` and ``strength``.

    Returns
    -------
    Figure
        x: time; y: latency, logarithmic.
    """
    title = f"{row['syscall']}: stalls every {short_time(row['period'])} (strength {row['strength']:.2f})"
    with figure_with_axes(title) as (figure, axes):
        at, dur = frame["at"].to_numpy().astype(float), np.maximum(frame["dur"].to_numpy(), 1)
        scale, unit = time_unit(float(at.max()))
        slowest = at[np.argsort(dur)[-max(6, row["stalls"]) :]]
        phase = np.angle(np.exp(2j * np.pi * slowest / row["period"]).sum()) / (2 * np.pi) * row["period"]
        lines = np.arange(phase % row["period"], at.max() + 1, row["period"])
        if len(lines) <= 200:
            axes.vlines(lines / scale, dur.min() * 0.9, dur.max() * 1.1, color=COLOURS[1], linewidth=0.8, alpha=0.7, label="period")
        axes.plot(at / scale, dur, ".", color=COLOURS[0], markersize=3, rasterized=True, label=f"the {len(frame):,} slowest calls")
        time_axis(axes, float(dur.min()), float(dur.max()), vertical=True)
        axes.set(xlabel=f"time since the start ({unit})", ylabel="latency")
        axes.legend(loc="upper right", bbox_to_anchor=(1.0, 1.12), ncols=2)
        return figure
