"""Pictures of studies: slowdowns with all their points, and the cost of an event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ringtape.analysis.plots.style import COLOURS, figure_with_axes, say_nothing, short_time

MARKERS = "osD^vPX<>*d"
TREATMENTS = (*COLOURS[:6], "#222222")
"""Eleven marks and seven colours: the first 77 treatments differ."""
CONTROL = "#777777"
"""Colour of the baseline against itself, which is no tool."""
_POINT = 9.0
_LEAST_BAND, _HIGHEST = 0.3, 4.4
"""Inches: of the band of a workload, and of all of them."""


@dataclass(frozen=True)
class Line:
    """One treatment of one workload: a number with its interval, and the points behind it, a block each."""

    group: str
    name: str
    value: float
    low: float | None
    high: float | None
    points: Sequence[float]
    control: bool = False


def slowdown_forest(lines: Sequence[Line], title: str, note: str = "") -> Figure:
    """Draw the slowdowns of one workload, a line each, with all points, on a logarithmic axis.

    Parameters
    ----------
    lines : sequence of Line
        In the order in which they are drawn from above; the control, if it is there, is grey.
    title, note : str
        What stands above and below.
    """
    with figure_with_axes(title, note, (7.5, max(2.6, 1.35 + 0.36 * len(lines)))) as (figure, axes):
        if not lines:
            say_nothing(axes, "no block has both the tool and the baseline")
            return figure
        names = list(dict.fromkeys(line.name for line in lines if not line.control))
        for place, line in enumerate(reversed(lines)):
            _draw(axes, line, place, names, spread=0.14, size=5.5)
            text = f"{line.value:.3f}" if line.value < 10 else f"{line.value:.1f}" if line.value < 100 else f"{line.value:,.0f}"
            axes.annotate(text, (1.0, place), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.axvline(1, color="#444444", linewidth=0.9, zorder=1)
        axes.set_yticks(range(len(lines)), [line.name for line in reversed(lines)], parse_math=False)
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.grid(visible=False, axis="y")
        _log_axis(axes, lines, unity=True)
        axes.set_xlabel("slowdown: times as slow as without a tool")
    return figure


def overview(lines: Sequence[Line], title: str, note: str = "", *, time: bool = False) -> Figure:
    """Draw all workloads of a study in one picture: a band each, in it every treatment by colour and mark, with all points.

    Parameters
    ----------
    lines : sequence of Line
        Grouped by workload.
    title, note : str
        What stands above and below.
    time : bool
        Whether the values are times in ns; else they are ratios.
    """
    drawn = [line for line in lines if line.value > 0]
    groups = list(dict.fromkeys(line.group for line in lines))
    names = list(dict.fromkeys(line.name for line in drawn if not line.control))
    order = [*(line.name for line in drawn[:1] if line.control), *names]
    # As high as the marks need, but no higher than a slide has room for, as long as bands can be told apart.
    band = max(_LEAST_BAND, min(0.08 * (len(order) + 1.6), _HIGHEST / max(1, len(groups))))
    left_out = len(lines) - len(drawn)
    notes = [note] * bool(note) + [f"{left_out} below 0 are not drawn"] * bool(left_out)
    with figure_with_axes(title, "; ".join(notes), (7.5, max(3.2, 1.35 + band * len(groups)))) as (figure, axes):
        if not drawn:
            say_nothing(axes, "no block has both the tool and the baseline")
            return figure
        step = 0.84 / max(1, len(order))
        for line in drawn:
            at = len(groups) - 1 - groups.index(line.group)
            offset = (len(order) - 1) / 2 - order.index(line.name) if line.name in order else 0.0
            _draw(axes, line, at + offset * step, names, spread=step * 0.22, size=4.5)
        for edge in range(1, len(groups)):
            axes.axhline(edge - 0.5, color="#CCCCCC", linewidth=0.7, zorder=0)
        if not time:
            axes.axvline(1, color="#444444", linewidth=0.9, zorder=1)
        axes.set_yticks(range(len(groups)), list(reversed(groups)), parse_math=False)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.5, len(groups) - 0.5)
        axes.grid(visible=False, axis="y")
        _log_axis(axes, drawn, unity=not time, time=time)
        axes.set_xlabel("wall time that an event adds" if time else "slowdown: times as slow as without a tool")
        handles = {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
        legend = axes.legend(
            [handles[name] for name in order if name in handles],
            [name for name in order if name in handles],
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            handlelength=1.2,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def _draw(axes: Axes, line: Line, place: float, names: Sequence[str], spread: float, size: float) -> None:
    at = 0 if line.control else names.index(line.name)
    colour = CONTROL if line.control else TREATMENTS[at % len(TREATMENTS)]
    marker = "|" if line.control else MARKERS[at % len(MARKERS)]
    points = [point for point in line.points if point > 0 and math.isfinite(point)]
    # Points of one line are set apart by turns, always in the same way, so that equal ones are seen.
    heights = [place + spread * ((number % 5) - 2) / 2 for number in range(len(points))]
    axes.scatter(points, heights, s=_POINT, color=colour, alpha=0.35, linewidths=0, zorder=2)
    if line.low is not None and line.high is not None and line.high > 0:
        low = line.low if line.low > 0 else min([*points, line.value]) / 2
        axes.plot([low, line.high], [place, place], color=colour, linewidth=2.0, solid_capstyle="butt", zorder=3)
    axes.plot(
        [line.value],
        [place],
        marker,
        color=colour,
        markersize=size * (1.8 if line.control else 1),
        markeredgewidth=1.6 if line.control else 0.5,
        markeredgecolor=colour if line.control else "white",
        label=line.name,
        zorder=4,
    )


def _log_axis(axes: Axes, lines: Sequence[Line], *, unity: bool, time: bool = False) -> None:
    values = [value for line in lines for value in (line.value, line.high, *line.points, *([1.0] if unity else [])) if value and value > 0]
    values += [line.low for line in lines if line.low and line.low > 0]
    low, high = min(values), max(values)
    axes.set_xscale("log")
    margin = max((high / low) ** 0.03, 1.002)
    axes.set_xlim(low / margin, high * margin)
    width = high / low
    if width > 2:
        subs: Sequence[float] = (1,) if width > 300 else (1, 2, 5) if width > 5 else (1, 1.5, 2, 3, 5, 7)
        axes.xaxis.set_major_locator(LogLocator(10, subs=subs, numticks=12))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_time(value) if time else f"{value:,.10g}"))
