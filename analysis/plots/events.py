"""Tracepoints as pictures: rates over time, histograms of values."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ringtape.analysis.plots.style import COLOURS, SIZE, figure_with_axes, legend_beside, say_nothing, time_unit

MOST = 6


def rates(frame: pl.DataFrame, *, note: str = "") -> Figure:
    """Draw how often events occurred per second.

    Parameters
    ----------
    frame : DataFrame
        Result of ``event_rate``.
    note : str
        What to say below the picture.

    Returns
    -------
    Figure
        A line for each of the six most frequent events; the rest together.
    """
    totals = frame.group_by("event").agg(pl.col("count").sum()).sort("count", "event", descending=[True, False])
    first = totals["event"].head(MOST).to_list()
    with figure_with_axes("Tracepoints per second", note) as (figure, axes):
        if not len(frame):
            say_nothing(axes, "no tracepoint was met")
            return figure
        width = int(frame["end"][0] - frame["begin"][0])
        number = int(frame["end"].max()) // width  # type: ignore[arg-type]
        scale, unit = time_unit(number * width)
        edges = np.arange(number + 1) * (width / scale)
        drawn = [(name, frame.filter(pl.col("event") == name)) for name in first]
        if len(totals) > MOST:
            drawn.append((f"{len(totals) - MOST} others", frame.filter(~pl.col("event").is_in(first)).group_by("begin").agg(pl.col("count").sum())))
        for (name, rows), colour in zip(drawn, COLOURS, strict=False):
            counts = np.zeros(number)
            counts[(rows["begin"].to_numpy() // width).clip(0, number - 1)] += rows["count"].to_numpy()
            axes.stairs(counts * (1e9 / width), edges, label=name, color=colour, linewidth=1.4)
        axes.set(xlabel=f"time since the probes were attached ({unit})", ylabel="occurrences per second", xlim=(0, edges[-1]), ylim=(0, None))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        legend_beside(axes, len(drawn))
        return figure


def histogram(frame: pl.DataFrame) -> Figure:
    """Draw a histogram as bars.

    Parameters
    ----------
    frame : DataFrame
        Result of the analysis ``event_hist``.

    Returns
    -------
    Figure
        A bar per bucket; histograms of several groups are stacked, those beyond the six largest as one.
    """
    names = frame.columns[frame.columns.index("event") + 1 : frame.columns.index("field")]
    rows = frame.filter(pl.col("low").is_not_null()).with_columns(
        pl.concat_str([pl.format("{}={}", pl.lit(name), pl.col(name).cast(pl.String).fill_null("?")) for name in names], separator=" ").alias("group")
        if names
        else pl.lit("").alias("group")
    )
    title = f"{frame['event'][0]}: {frame['field'][0]}" if len(frame) else "no occurrence"
    lost = int(frame["lost"].sum())
    without = int(frame.filter(pl.col("low").is_null())["count"].sum())
    said = [f"{lost:,} occurrences were lost and are not in the picture"] if lost else []
    said += [f"{without:,} have no value"] if without else []
    with figure_with_axes(title, "; ".join(said)) as (figure, axes):
        if not len(rows):
            say_nothing(axes, "no value was recorded")
            return figure
        lows = rows.select("low", "high").unique().sort("low")
        places = {low: at for at, low in enumerate(lows["low"])}
        order = rows.group_by("group").agg(pl.col("count").sum()).sort("count", "group", descending=[True, False])["group"].to_list()
        # One colour is for all that comes behind the largest groups.
        drawn = [(name, [name]) for name in order[: MOST if len(order) > MOST + 1 else MOST + 1]]
        if len(order) > len(drawn):
            drawn.append((f"{len(order) - len(drawn)} others", order[len(drawn) :]))
        base = np.zeros(len(lows))
        for (label, members), colour in zip(drawn, COLOURS, strict=False):
            counts = np.zeros(len(lows))
            for low, count in rows.filter(pl.col("group").is_in(members)).select("low", "count").iter_rows():
                counts[places[low]] += count
            axes.bar(np.arange(len(lows)), counts, 0.9, bottom=base, label=label, color=colour)
            base += counts
        ticks = [_short(low) for low in lows["low"]]
        every = max(1, -(-len(ticks) // 24))
        axes.set_xticks(np.arange(len(ticks))[::every], ticks[::every], rotation=90 if len(ticks) > 10 else 0)
        axes.set(xlabel="smallest value of the bucket", ylabel="occurrences", ylim=(0, None))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.grid(axis="x", visible=False)
        if names:
            legend_beside(axes, len(drawn))
        figure.set_size_inches(max(SIZE[0], min(14, 0.3 * len(ticks))), SIZE[1])
        return figure


def _short(value: float) -> str:
    """Return a number as a tick has it: powers of 1024 by their letters."""
    for power, letter in ((6, "E"), (5, "P"), (4, "T"), (3, "G"), (2, "M"), (1, "K")):
        unit = 1024.0**power
        if abs(value) >= unit and value % unit == 0:
            return f"{value / unit:.0f} {letter}i"
    return f"{value:,.0f}"
