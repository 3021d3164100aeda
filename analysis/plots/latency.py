"""Distributions of latency: ECDF, tail, percentiles, heat map."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ringtape.analysis.plots.style import LINES, figure_with_axes, legend_beside, say_nothing, short_time, time_axis, time_unit

_PERCENTILES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999, 0.9999999)


def _groups(frame: pl.DataFrame, most: int) -> list[tuple[str, pl.DataFrame]]:
    """Return the groups with most calls, with their names, in that order."""
    keys = [name for name in frame.columns if name not in ("dur", "at_most", "share", "above")]
    sizes = frame.group_by(keys).agg(pl.col("at_most").max()).sort("at_most", *keys, descending=[True, *(False for _ in keys)], nulls_last=True)
    found = []
    for row in sizes.head(most).iter_rows(named=True):
        same = pl.all_horizontal(pl.col(key).eq_missing(pl.lit(row[key])) for key in keys)
        found.append((", ".join("?" if row[key] is None else str(row[key]) for key in keys), frame.filter(same)))
    return found


def ecdf(frame: pl.DataFrame, *, most: int = LINES, note: str = "") -> Figure:
    """Draw the distribution function of latency.

    Parameters
    ----------
    frame : DataFrame
        Result of `distributions.latency_ecdf`.
    most : int
        How many groups are drawn, those with most calls.
    note : str
        What is to be said below the picture, such as how many calls are missing.

    Returns
    -------
    Figure
        x: latency, logarithmic; y: share of calls that took at most that long.
    """
    with figure_with_axes("Latency: share of calls that took at most this long", note) as (figure, axes):
        groups = _groups(frame, most)
        for name, rows in groups:
            axes.step(_positive(rows["dur"]), rows["share"].to_numpy() * 100, where="post", label=name)
        if not groups:
            say_nothing(axes)
            return figure
        time_axis(axes, *_reach(groups))
        axes.set(xlabel="latency", ylabel="calls (%)", ylim=(0, 101))
        legend_beside(axes, len(groups))
        return figure


def ccdf(frame: pl.DataFrame, *, most: int = LINES, note: str = "") -> Figure:
    """Draw the complementary distribution function of latency, both axes logarithmic: the tail.

    Parameters
    ----------
    frame : DataFrame
        Result of `distributions.latency_ecdf`.
    most : int
        How many groups are drawn, those with most calls.
    note : str
        What is to be said below the picture, such as how many calls are missing.

    Returns
    -------
    Figure
        x: latency; y: share of calls that took longer. The longest call of a group has no y and ends its line.
    """
    with figure_with_axes("Latency: share of calls that took longer", note) as (figure, axes):
        groups = _groups(frame, most)
        for name, rows in groups:
            tail = rows.filter(pl.col("above") > 0)
            x = np.append(_positive(tail["dur"]), float(rows["dur"].max() or 1))  # type: ignore[arg-type]
            y = np.append(tail["above"].to_numpy(), tail["above"].to_numpy()[-1:] if len(tail) else [1.0])
            axes.step(x, y, where="post", label=name)
        if not groups:
            say_nothing(axes)
            return figure
        time_axis(axes, *_reach(groups))
        axes.set_yscale("log")
        axes.set_ylim(top=1.2)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="latency", ylabel="calls that took longer")
        legend_beside(axes, len(groups))
        return figure


def percentiles(frame: pl.DataFrame, *, most: int = LINES, note: str = "") -> Figure:
    """Draw latency by percentile, the axis stretched towards the tail.

    Parameters
    ----------
    frame : DataFrame
        Result of `distributions.latency_ecdf`.
    most : int
        How many groups are drawn, those with most calls.
    note : str
        What is to be said below the picture, such as how many calls are missing.

    Returns
    -------
    Figure
        x: 1 / (1 - p), logarithmic, labelled with p; y: latency, logarithmic.
    """
    with figure_with_axes("Latency by percentile", note) as (figure, axes):
        groups = _groups(frame, most)
        if not groups:
            say_nothing(axes)
            return figure
        furthest = 10.0
        for name, rows in groups:
            share = rows["share"].to_numpy()
            calls = int(rows["at_most"].max() or 1)  # type: ignore[arg-type]
            # The largest of n calls stands for every p above (n - 1) / n: its line ends at half a call.
            x = np.append(1.0, 1 / np.maximum(1 - share, 0.5 / calls))
            axes.step(x, np.append(_positive(rows["dur"])[0], _positive(rows["dur"])), where="pre", label=name)
            furthest = max(furthest, float(x[-1]))
        time_axis(axes, *_reach(groups), vertical=True)
        axes.set_xscale("log")
        axes.set_xlim(1, furthest * 1.1)
        ticks = [p for p in _PERCENTILES if 1 / (1 - p) <= furthest * 1.05]
        axes.xaxis.set_major_locator(FixedLocator([1 / (1 - p) for p in ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{p * 100:.10g}" for p in ticks])
        axes.set(xlabel="percentile", ylabel="latency")
        legend_beside(axes, len(groups))
        return figure


def heat_map(frame: pl.DataFrame, *, title: str = "Latency over time", what: str = "calls", note: str = "") -> Figure:
    """Draw how many calls took how long, over time.

    Parameters
    ----------
    frame : DataFrame
        Result of `distributions.latency_over_time`.
    title, what : str
        What the picture shows, and what is counted.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: time since the probes were attached; y: latency, logarithmic; colour: calls, logarithmic.
    """
    with figure_with_axes(title, note) as (figure, axes):
        if not len(frame):
            say_nothing(axes)
            return figure
        width = float(frame["end"][0] - frame["begin"][0])
        columns = np.rint(frame["begin"].to_numpy() / width).astype(int)
        lows = np.unique(np.concatenate([frame["low"].to_numpy(), frame["high"].to_numpy()]))
        # Every quarter of a power of two from the lowest to the highest, those without a call too.
        bits = lows.view(np.int64)
        edges = (np.arange(bits.min() >> 50, (bits.max() >> 50) + 1, dtype=np.int64) << 50).view(np.float64)
        grid = np.zeros((len(edges) - 1, int(columns.max()) + 1))
        grid[np.searchsorted(edges, frame["low"].to_numpy()), columns] = frame["count"].to_numpy()
        seconds, unit = time_unit(width * grid.shape[1])
        mesh = axes.pcolormesh(
            np.arange(grid.shape[1] + 1) * width / seconds,
            edges,
            np.ma.masked_equal(grid, 0),
            norm=LogNorm(1, max(2.0, float(grid.max()))),
            cmap="cividis",
            rasterized=True,
        )
        time_axis(axes, float(edges[0]), float(edges[-1]), vertical=True)
        axes.set_ylim(edges[0], edges[-1])
        axes.set(xlabel=f"time since the start ({unit})", ylabel="latency")
        bar = figure.colorbar(mesh, ax=axes, pad=0.02)
        bar.set_label(f"{what} per {short_time(width)}")
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        return figure


def _positive(values: pl.Series) -> np.ndarray[Any, np.dtype[np.float64]]:
    # A logarithmic axis has no 0: such a duration stands at 1 ns.
    return np.asarray(np.maximum(values.to_numpy(), 1), np.float64)


def _reach(groups: list[tuple[str, pl.DataFrame]]) -> tuple[float, float]:
    values = np.concatenate([_positive(rows["dur"]) for _, rows in groups])
    return float(values.min()), float(values.max())
