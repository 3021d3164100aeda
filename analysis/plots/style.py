"""The one style of all pictures: sizes, colours, axes with units, legends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

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


@contextmanager
def figure_with_axes(title: str, note: str = "", size: tuple[float, float] = SIZE) -> Iterator[tuple[Figure, Axes]]:
    """Make a figure with one pair of axes in the style; ``note`` stands below it."""
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


def time_axis(axes: Axes, low: float, high: float, *, vertical: bool = False) -> None:
    """Make an axis logarithmic, its ticks with units."""
    axis = axes.yaxis if vertical else axes.xaxis
    (axes.set_yscale if vertical else axes.set_xscale)("log")
    if low == high:
        low, high = low / 2, high * 2
    (axes.set_ylim if vertical else axes.set_xlim)(low * 0.9, high * 1.1)
    axis.set_major_locator(LogLocator(10, numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_time(value)))
    if high / low < 20:
        axis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=20))


def short_time(ns: float) -> str:
    """Return a time of ns as a tick has it."""
    text = format_duration(ns)
    number, _, unit = text.partition(" ")
    return f"{float(number):g} {unit}"


def legend_beside(axes: Axes, drawn: int, outside: bool = True) -> None:
    """Put the legend to the right of the axes."""
    if drawn > 1 or outside:
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)
        for text in legend.get_texts():
            text.set_parse_math(False)


def say_nothing(axes: Axes, reason: str = "no call that returned was recorded") -> None:
    """Say in an empty picture why it is empty."""
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center")
    axes.set_xticks([])
    axes.set_yticks([])


def time_unit(ns: float) -> tuple[float, str]:
    """Return the ns of a unit that suits a span, and its name."""
    for scale, unit in ((1e3, "µs"), (1e6, "ms"), (1e9, "s"), (60e9, "min")):
        if ns < scale * (1000 if scale < 1e9 else 300):
            return scale, unit
    return 3600e9, "h"
