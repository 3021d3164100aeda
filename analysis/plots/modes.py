"""Modes of latency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.figure import Figure

from ringtape.analysis.plots.style import COLOURS, STYLE, figure_with_axes, say_nothing, short_time, time_axis
from ringtape.analysis.render import share

Array = np.ndarray[Any, Any]


def modes(groups: Mapping[str, tuple[Array, Array]], found: pl.DataFrame, *, note: str = "") -> Figure:
    """Draw the density of log latency, a panel for each group, with a mark at each mode and a line in each valley.

    Parameters
    ----------
    groups : mapping of str to (edges, counts)
        Histograms by name of the call.
    found : DataFrame
        Result of the analysis ``modes`` by syscall.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: latency, logarithmic; y: share of calls per doubling of the latency.
    """
    if not groups:
        with figure_with_axes("Modes of latency", note) as (figure, axes):
            say_nothing(axes)
            return figure
    columns = min(2, len(groups))
    lines = -(-len(groups) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * columns, 2.3 * lines + 0.8), layout="constrained", dpi=120)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, (name, (edges, counts)) in zip(panels, groups.items(), strict=False):
            density = counts / counts.sum() / np.diff(np.log2(edges)) * 100
            axes.stairs(density, edges, fill=True, color=COLOURS[0], alpha=0.75)
            top = float(density.max())
            said: list[str] = []
            for row in found.filter(pl.col("syscall") == name).iter_rows(named=True):
                place = min(int(np.searchsorted(edges, row["peak"], "right")) - 1, len(density) - 1)
                axes.plot([row["peak"]], [density[place] + 0.05 * top], "v", color=COLOURS[1], markersize=6, clip_on=False)
                axes.annotate(str(row["mode"]), (row["peak"], density[place] + 0.1 * top), ha="center", va="bottom", fontsize=7.5)
                said.append(f"{row['mode']}: {short_time(row['peak'])}, {share(row['weight'])}")
                if row["valley"] is not None:
                    axes.axvline(row["valley"], color="#444444", linewidth=0.9, linestyle=":")
            time_axis(axes, float(edges[0]), float(edges[-1]))
            axes.set_ylim(0, top * 1.3)
            behind = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}
            axes.text(0.99, 0.97, "\n".join(said[:9]), transform=axes.transAxes, ha="right", va="top", fontsize=7.5, bbox=behind)
            axes.set_title(name, parse_math=False, fontsize=10)
        for axes in panels[len(groups) :]:
            axes.set_axis_off()
        figure.suptitle("Modes of latency (triangles) and the valleys between them (dotted)", x=0.01, ha="left", fontsize=11)
        figure.supylabel("calls per doubling of latency (%)", fontsize=9)
        figure.supxlabel("latency" + (f"\n{note}" if note else ""), fontsize=9)
        return figure
