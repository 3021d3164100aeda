"""Memory over time: resident and mapped, by kind, page faults, stalls."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from ringtape.analysis.plots.style import COLOURS, SIZE, STYLE, figure_with_axes, legend_beside, say_nothing, time_axis, time_unit

PROCESSES = 6
"""Processes that stacked pictures tell apart; the rest is drawn as one."""


def _size_axis(axes: Axes, most: float) -> None:
    """Label the vertical axis with sizes at round binary steps."""
    scale, unit = next(((1 << shift, unit) for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")) if most >= 1 << shift), (1, "B"))
    ticks = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(0, most / scale)
    axes.yaxis.set_ticks([tick * scale for tick in ticks if tick * scale <= most * 1.05])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g} {unit}" if value else "0"))
    axes.set_ylim(0, most * 1.05 or 1)


def levels(frame: pl.DataFrame, names: pl.DataFrame, column: str, origin: int, *, kills: pl.DataFrame | None = None, note: str = "") -> Figure:
    """Draw the memory of processes as steps over time.

    Parameters
    ----------
    frame : DataFrame
        Result of `residency.over_time`.
    names : DataFrame
        ``life``, ``pid``, ``command``: the processes to draw, in the order of the legend.
    column : {"resident", "mapped"}
        What to draw.
    origin : int
        Time from which the axis counts (ns).
    kills : DataFrame, optional
        OOM kills (``ts``, ``pid``), drawn as crosses.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: time since the start; y: bytes; each line ends with the last sample of its process.
    """
    title = {"resident": "Resident memory", "mapped": "Size of the address space"}[column]
    with figure_with_axes(title, note) as (figure, axes):
        if not len(frame):
            say_nothing(axes, "no sample was recorded")
            return figure
        scale, unit = time_unit(float(frame["ts"].max() - origin))  # type: ignore[operator]
        for at, (life, pid, command) in enumerate(names.select("life", "pid", "command").iter_rows()):
            rows = frame.filter(pl.col("life") == life)
            x, y = (rows["ts"].to_numpy() - origin) / scale, rows[column].to_numpy()
            axes.step(x, y, where="post", label=f"{command} {pid}", color=COLOURS[at % len(COLOURS)])
            if len(rows) == 1:
                axes.plot(x, y, "o", markersize=4, color=COLOURS[at % len(COLOURS)])
            for ts in kills.filter(pl.col("pid") == pid)["ts"] if kills is not None else ():
                before = rows.filter(pl.col("ts") <= ts)[column]
                axes.plot((ts - origin) / scale, before[-1] if len(before) else 0, "X", color="black", markersize=9, zorder=5, clip_on=False)
        if kills is not None and len(kills):
            axes.plot([], [], "X", color="black", markersize=9, linestyle="none", label="OOM kill")
        _size_axis(axes, float(frame[column].max()))  # type: ignore[arg-type]
        axes.set(xlabel=f"time since the start ({unit})", xlim=(0, None))
        legend_beside(axes, len(names))
        return figure


def composition(frame: pl.DataFrame, title: str, origin: int) -> Figure:
    """Draw what the memory of one process consists of, over time.

    Parameters
    ----------
    frame : DataFrame
        Rows of one process out of the result of `residency.over_time`.
    title : str
        Title.
    origin : int
        Time from which the axis counts (ns).

    Returns
    -------
    Figure
        x: time since the start; y: bytes, anonymous, file and shared memory stacked, and above them what is in swap.
    """
    with figure_with_axes(title) as (figure, axes):
        if not len(frame):
            say_nothing(axes, "no sample was recorded")
            return figure
        scale, unit = time_unit(float(frame["ts"].max() - origin))  # type: ignore[operator]
        x = (frame["ts"].to_numpy() - origin) / scale
        base = np.zeros(len(frame))
        for name, label, colour in (
            ("anon", "anonymous", COLOURS[0]),
            ("file", "file", COLOURS[3]),
            ("shmem", "shared", COLOURS[2]),
            ("swap", "in swap", COLOURS[6]),
        ):
            values = frame[name].to_numpy()
            if not values.any():
                continue
            axes.fill_between(x, base, base + values, step="post", color=colour, label=label, linewidth=0)
            base = base + values
        _size_axis(axes, float(base.max()))
        axes.set(xlabel=f"time since the start ({unit})", xlim=(float(x[0]), None if len(x) > 1 else float(x[0]) + 1))
        legend_beside(axes, 2)
        return figure


def faults_over_time(frame: pl.DataFrame, names: pl.DataFrame, origin: int, *, note: str = "") -> Figure:
    """Draw page faults per second by process: minor ones above, major ones below.

    Parameters
    ----------
    frame : DataFrame
        Result of `faulting.over_time`.
    names : DataFrame
        ``process``, ``command``: processes, those with most faults first.
    origin : int
        Where the first stretch may begin (ns): the axis counts from there.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: time since the start; y: faults per second, stacked.
    """
    if not len(frame):
        with figure_with_axes("Page faults", note) as (figure, axes):
            say_nothing(axes, "no page fault was recorded")
            return figure
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], SIZE[1] + 0.8), layout="constrained", dpi=120)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        begins = frame["begin"].to_numpy()
        width = int(frame["end"][0] - frame["begin"][0])
        count = int((begins.max() - origin) // width) + 1
        scale, unit = time_unit(float(count * width))
        edges = np.arange(count + 1) * width / scale
        chosen = names["process"].to_list()[:PROCESSES]
        labels = dict(names.select("process", "command").iter_rows())
        for axes, column, title in ((upper, "minor", "Minor page faults"), (lower, "major", "Major page faults")):
            base = np.zeros(count)
            for at, process in enumerate([*chosen, None]):
                mine = ~pl.col("pid").is_in(chosen) if process is None else pl.col("pid") == process
                rows = frame.filter(mine).group_by("begin").agg(pl.col(column).sum()).sort("begin")
                heights = np.zeros(count)
                heights[(rows["begin"].to_numpy() - origin) // width] = rows[column].to_numpy() * 1e9 / width
                if process is None and not frame.filter(mine).height:
                    continue
                label = f"{labels[process]} {process}" if process is not None else f"{len(names) - len(chosen)} others"
                axes.stairs(base + heights, edges, baseline=base, fill=True, color=COLOURS[at], label=label)
                base += heights
            axes.set_title(title)
            axes.set(ylabel="per second", xlim=(0, edges[-1]), ylim=(0, base.max() * 1.05 or 1))
            axes.yaxis.set_major_locator(MaxNLocator(5 if axes is upper else 3, integer=True))
            axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
        lower.set_xlabel(f"time since the start ({unit})")
        legend_beside(upper, len(chosen))
        if note:
            figure.text(0.995, 0.002, note, ha="right", va="bottom", fontsize=8, color="#666666")
            figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))  # type: ignore[union-attr, call-arg]
        return figure


def stalls(rows: pl.DataFrame, kinds: Mapping[int, str], origin: int) -> Figure:
    """Draw stalls as points: when, and how long; OOM kills as lines.

    Parameters
    ----------
    rows : DataFrame
        ``ts``, ``dur``, ``pid``, ``kind`` (a code).
    kinds : mapping of int to str
        What the codes mean; 5 is an OOM kill.
    origin : int
        Time from which the axis counts (ns).

    Returns
    -------
    Figure
        x: time since the start; y: length of the stall, logarithmic.
    """
    with figure_with_axes("Waiting for memory") as (figure, axes):
        waits = rows.filter(pl.col("kind") != 5)
        scale, unit = time_unit(float((rows["ts"] + rows["dur"]).max() - origin))  # type: ignore[operator]
        for at, kind in enumerate(sorted(waits["kind"].unique())):
            mine = waits.filter(pl.col("kind") == kind)
            x, y = (mine["ts"].to_numpy() - origin) / scale, np.maximum(mine["dur"].to_numpy(), 1)
            total = int(mine["dur"].sum())
            label = f"{kinds.get(kind, kind)}: {len(mine):,} stalls, {total / 1e6:,.3g} ms"
            axes.plot(x, y, ".", markersize=4, alpha=0.6, color=COLOURS[at % len(COLOURS)], label=label)
        for at, (ts, pid) in enumerate(rows.filter(pl.col("kind") == 5).sort("ts").select("ts", "pid").iter_rows()):
            axes.axvline((ts - origin) / scale, color="black", linewidth=1.2, label=f"OOM kill of {pid}" if at < 3 else None)
        if len(waits):
            time_axis(axes, float(max(1, waits["dur"].min())), float(max(1, waits["dur"].max())), vertical=True)  # type: ignore[type-var, arg-type]
        else:
            axes.set_yticks([])
        axes.set(xlabel=f"time since the start ({unit})", ylabel="length of the stall", xlim=(0, None))
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2)
        return figure
