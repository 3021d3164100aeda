"""Mixes as bars."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ringtape.analysis.plots.style import COLOURS, SIZE, figure_with_axes, legend_beside, say_nothing, time_unit
from ringtape.schemas.units import format_duration

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


def mix_over_time(frame: pl.DataFrame, *, what: Literal["time", "calls"] = "time") -> Figure:
    """Draw a mix over time, stacked.

    Parameters
    ----------
    frame : DataFrame
        Result of the analysis ``mix_over_time``.
    what : {"time", "calls"}
        Whether to draw the time inside calls or their number.

    Returns
    -------
    Figure
        x: time since the start; y: threads inside calls on average, or calls per second, stacked by group. What lost calls may add
        stands hatched above.
    """
    ends = frame["end"].unique().sort().to_numpy()
    begins = frame["begin"].unique().sort().to_numpy()
    note = ""
    if len(begins) > 1 and 2 * (ends[-1] - begins[-1]) < ends[0] - begins[0]:
        # A rate over next to no time is noise.
        note = f"the last {format_duration(int(ends[-1] - begins[-1]))} are not drawn"
        frame, begins, ends = frame.filter(pl.col("begin") < begins[-1]), begins[:-1], ends[:-1]
    title = "Threads inside system calls, over time" if what == "time" else "System calls per second, over time"
    with figure_with_axes(title, note) as (figure, axes):
        if not frame[f"{what}_high"].sum():
            say_nothing(axes, "no call was recorded")
            return figure
        scale, unit = time_unit(float(ends[-1] - begins[0]))
        edges = (np.append(begins, ends[-1]) - begins[0]) / scale
        per = (ends - begins) / (1 if what == "time" else 1e9)
        base = np.zeros(len(begins))
        names = [name for name in frame["group"].unique(maintain_order=True) if name not in _REST]
        colours = [*COLOURS[:-1], *EXTRA]
        for at, name in enumerate([*names, *_REST]):
            rows = frame.filter(pl.col("group") == name).sort("begin")
            if not len(rows):
                continue
            heights = rows[f"{what}_low"].to_numpy() / per
            colour = COLOURS[-1] if name in _REST else colours[at % len(colours)]
            axes.stairs(base + heights, edges, baseline=base, fill=True, color=colour, label=name)
            base = base + heights
        spare = frame.group_by("begin").agg((pl.col(f"{what}_high") - pl.col(f"{what}_low")).sum()).sort("begin")
        most = spare[f"{what}_high"].to_numpy() / per
        if most.any():
            axes.stairs(
                base + most, edges, baseline=base, fill=True, facecolor="none", edgecolor="#666666", hatch="///", label="may have been lost here"
            )
        axes.set(xlabel=f"time since the start ({unit})", ylabel="threads" if what == "time" else "calls per second")
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        legend_beside(axes, 2)
        return figure


_REST = ("(others)", "(lost)")
EXTRA = ("#332288", "#882255", "#117733", "#DDCC77")
"""More colours, of Tol's muted scheme, for more groups than the bright one has."""


def mix_difference(frame: pl.DataFrame, distance: float | None, *, most: int = 15) -> Figure:
    """Draw two mixes beside each other, by what they contribute to their distance.

    Parameters
    ----------
    frame : DataFrame
        ``contributions`` of a `mix_distance.MixDistance`.
    distance : float, optional
        The distance.
    most : int
        Groups that are drawn, those that contribute most.

    Returns
    -------
    Figure
        Left: share of each group in both mixes, in percent. Right: its part of the divergence, in percent.
    """
    rows = frame.head(most)
    note = f"{len(frame) - len(rows)} others are not drawn" if len(frame) > len(rows) else ""
    title = "Two mixes" if distance is None else f"Two mixes, {distance:.3f} apart (Jensen-Shannon distance, at most 1)"
    with figure_with_axes(title, note, size=(SIZE[0], max(2.2, 1.2 + 0.32 * len(rows)))) as (figure, axes):
        if not len(rows) or distance is None:
            say_nothing(axes, "one of them has no call")
            return figure
        figure.delaxes(axes)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        places = np.arange(len(rows))
        for offset, name, label, colour in ((-0.2, "share_base", "first", COLOURS[0]), (0.2, "share_other", "other", COLOURS[3])):
            left.barh(places + offset, rows[name].to_numpy() * 100, 0.38, label=label, color=colour)
        right.barh(places, rows["part"].to_numpy() * 100, 0.7, color=COLOURS[5])
        left.set_yticks(places, rows["group"].to_list(), parse_math=False)
        left.invert_yaxis()
        left.set_title(title, loc="left")
        for each in (left, right):
            each.grid(axis="y", visible=False)
        left.set(xlabel="share (%)", xlim=(0, None))
        right.set(xlabel="part of the divergence (%)", xlim=(0, None))
        left.legend(loc="lower right")
        return figure
