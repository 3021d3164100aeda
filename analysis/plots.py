"""Pictures: functions from result frames to matplotlib figures, in one style."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from ringtape.schemas.units import format_duration

COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")
"""Paul Tol's bright colours, which people with any colour vision can tell apart (personal.sron.nl/~pault)."""
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.prop_cycle": cycler(color=COLOURS),
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "ringtape",
}
SIZE = (7.5, 4.2)
LINES = len(COLOURS)
VISIBLE = 0.003
"""Share below which a bar is thinner than a line."""
_PERCENTILES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999, 0.9999999)


@contextmanager
def _figure(title: str, note: str = "", size: tuple[float, float] = SIZE) -> Iterator[tuple[Figure, Axes]]:
    # Figure, never pyplot: it keeps no global list of figures and needs no display.
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained", dpi=120)
        axes = figure.add_subplot()
        # Names come from traces: a dollar sign in them is not mathematics.
        axes.set_title(title, parse_math=False)
        if note:
            figure.text(0.995, 0.002, note, ha="right", va="bottom", fontsize=8, color="#666666", parse_math=False)
            figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))  # type: ignore[union-attr, call-arg]
        yield figure, axes


def _groups(frame: pl.DataFrame, most: int) -> list[tuple[str, pl.DataFrame]]:
    """Return the groups with most calls, with their names, in that order."""
    keys = [name for name in frame.columns if name not in ("dur", "at_most", "share", "above")]
    sizes = frame.group_by(keys).agg(pl.col("at_most").max()).sort("at_most", *keys, descending=[True, *(False for _ in keys)], nulls_last=True)
    found = []
    for row in sizes.head(most).iter_rows(named=True):
        same = pl.all_horizontal(pl.col(key).eq_missing(pl.lit(row[key])) for key in keys)
        found.append((", ".join("?" if row[key] is None else str(row[key]) for key in keys), frame.filter(same)))
    return found


def _time_axis(axes: Axes, low: float, high: float, *, vertical: bool = False) -> None:
    """Make an axis logarithmic, its ticks with units."""
    axis = axes.yaxis if vertical else axes.xaxis
    (axes.set_yscale if vertical else axes.set_xscale)("log")
    if low == high:
        low, high = low / 2, high * 2
    (axes.set_ylim if vertical else axes.set_xlim)(low * 0.9, high * 1.1)
    axis.set_major_locator(LogLocator(10, numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    if high / low < 20:
        axis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=20))


def _short(ns: float) -> str:
    text = format_duration(ns)
    number, _, unit = text.partition(" ")
    return f"{float(number):g} {unit}"


def _legend(axes: Axes, drawn: int, outside: bool = True) -> None:
    if drawn > 1 or outside:
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no call that returned was recorded", transform=axes.transAxes, ha="center", va="center")
    axes.set_xticks([])
    axes.set_yticks([])


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
    with _figure("Latency: share of calls that took at most this long", note) as (figure, axes):
        groups = _groups(frame, most)
        for name, rows in groups:
            axes.step(_positive(rows["dur"]), rows["share"].to_numpy() * 100, where="post", label=name)
        if not groups:
            _nothing(axes)
            return figure
        _time_axis(axes, *_reach(groups))
        axes.set(xlabel="latency", ylabel="calls (%)", ylim=(0, 101))
        _legend(axes, len(groups))
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
    with _figure("Latency: share of calls that took longer", note) as (figure, axes):
        groups = _groups(frame, most)
        for name, rows in groups:
            tail = rows.filter(pl.col("above") > 0)
            x = np.append(_positive(tail["dur"]), float(rows["dur"].max() or 1))  # type: ignore[arg-type]
            y = np.append(tail["above"].to_numpy(), tail["above"].to_numpy()[-1:] if len(tail) else [1.0])
            axes.step(x, y, where="post", label=name)
        if not groups:
            _nothing(axes)
            return figure
        _time_axis(axes, *_reach(groups))
        axes.set_yscale("log")
        axes.set_ylim(top=1.2)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="latency", ylabel="calls that took longer")
        _legend(axes, len(groups))
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
    with _figure("Latency by percentile", note) as (figure, axes):
        groups = _groups(frame, most)
        if not groups:
            _nothing(axes)
            return figure
        furthest = 10.0
        for name, rows in groups:
            share = rows["share"].to_numpy()
            calls = int(rows["at_most"].max() or 1)  # type: ignore[arg-type]
            # The largest of n calls stands for every p above (n - 1) / n: its line ends at half a call.
            x = np.append(1.0, 1 / np.maximum(1 - share, 0.5 / calls))
            axes.step(x, np.append(_positive(rows["dur"])[0], _positive(rows["dur"])), where="pre", label=name)
            furthest = max(furthest, float(x[-1]))
        _time_axis(axes, *_reach(groups), vertical=True)
        axes.set_xscale("log")
        axes.set_xlim(1, furthest * 1.1)
        ticks = [p for p in _PERCENTILES if 1 / (1 - p) <= furthest * 1.05]
        axes.xaxis.set_major_locator(FixedLocator([1 / (1 - p) for p in ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{p * 100:.10g}" for p in ticks])
        axes.set(xlabel="percentile", ylabel="latency")
        _legend(axes, len(groups))
        return figure


def heat_map(frame: pl.DataFrame, *, note: str = "") -> Figure:
    """Draw how many calls took how long, over time.

    Parameters
    ----------
    frame : DataFrame
        Result of `distributions.latency_over_time`.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: time since the probes were attached; y: latency, logarithmic; colour: calls, logarithmic.
    """
    with _figure("Latency over time", note) as (figure, axes):
        if not len(frame):
            _nothing(axes)
            return figure
        width = float(frame["end"][0] - frame["begin"][0])
        columns = np.rint(frame["begin"].to_numpy() / width).astype(int)
        lows = np.unique(np.concatenate([frame["low"].to_numpy(), frame["high"].to_numpy()]))
        # Every quarter of a power of two from the lowest to the highest, those without a call too.
        bits = lows.view(np.int64)
        edges = (np.arange(bits.min() >> 50, (bits.max() >> 50) + 1, dtype=np.int64) << 50).view(np.float64)
        grid = np.zeros((len(edges) - 1, int(columns.max()) + 1))
        grid[np.searchsorted(edges, frame["low"].to_numpy()), columns] = frame["count"].to_numpy()
        seconds, unit = _time_unit(width * grid.shape[1])
        mesh = axes.pcolormesh(
            np.arange(grid.shape[1] + 1) * width / seconds,
            edges,
            np.ma.masked_equal(grid, 0),
            norm=LogNorm(1, max(2.0, float(grid.max()))),
            cmap="cividis",
            rasterized=True,
        )
        _time_axis(axes, float(edges[0]), float(edges[-1]), vertical=True)
        axes.set_ylim(edges[0], edges[-1])
        axes.set(xlabel=f"time since the start ({unit})", ylabel="latency")
        bar = figure.colorbar(mesh, ax=axes, pad=0.02)
        bar.set_label(f"calls per {_short(width)}")
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        return figure


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
    with _figure("Share of time inside calls, and of their number", size=(SIZE[0], max(2.0, 0.9 + 0.3 * len(names)))) as (figure, axes):
        if not names:
            _nothing(axes)
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


def _positive(values: pl.Series) -> np.ndarray[Any, np.dtype[np.float64]]:
    # A logarithmic axis has no 0: such a duration stands at 1 ns.
    return np.asarray(np.maximum(values.to_numpy(), 1), np.float64)


def _reach(groups: list[tuple[str, pl.DataFrame]]) -> tuple[float, float]:
    values = np.concatenate([_positive(rows["dur"]) for _, rows in groups])
    return float(values.min()), float(values.max())


def _time_unit(ns: float) -> tuple[float, str]:
    for scale, unit in ((1e3, "µs"), (1e6, "ms"), (1e9, "s"), (60e9, "min")):
        if ns < scale * (1000 if scale < 1e9 else 300):
            return scale, unit
    return 3600e9, "h"
