"""Pictures of comparisons: the forest plot and the shift function."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ringtape.analysis.plots.style import COLOURS, figure_with_axes, say_nothing

LINES = 24
_BETTER, _WORSE, _NEITHER = COLOURS[2], COLOURS[1], "#888888"
_COLOUR = {"faster": _BETTER, "slower": _WORSE, "more": COLOURS[0], "fewer": COLOURS[0], "less": COLOURS[0]}


def forest(rows: pl.DataFrame, title: str, note: str = "") -> Figure:
    """Draw ratios with their intervals, a line each; differences of shares are left out.

    Parameters
    ----------
    rows : DataFrame
        Result of `compare`: those with a ratio and an interval are drawn, those with a difference first, at most `LINES`.
    title : str
        What stands above.
    note : str
        What stands below.
    """
    drawn = rows.filter(pl.col("ratio").is_not_null(), pl.col("low").is_not_null())
    plain = ~pl.col("verdict").is_in(list(_COLOUR))
    drawn = drawn.sort(plain, pl.col("ratio").log().abs(), descending=[False, True], maintain_order=True)
    left_out = max(0, len(drawn) - LINES)
    drawn = drawn.head(LINES)
    notes = [note] * bool(note) + [f"{left_out:,} more rows are not drawn"] * bool(left_out)
    with figure_with_axes(title, "; ".join(notes), (7.5, 1.3 + 0.26 * max(4, len(drawn)))) as (figure, axes):
        if not len(drawn):
            say_nothing(axes, "no ratio has an interval: too few runs")
            return figure
        places = range(len(drawn))[::-1]
        for place, row in zip(places, drawn.iter_rows(named=True), strict=True):
            colour = _COLOUR.get(row["verdict"], _NEITHER)
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
            axes.plot([row["ratio"]], [place], "o", color=colour, markersize=4.5)
        axes.axvline(1, color="#444444", linewidth=0.9)
        axes.set_yticks(list(places), [_label(row) for row in drawn.iter_rows(named=True)], parse_math=False)
        axes.set_ylim(-0.7, len(drawn) - 0.3)
        _ratio_axis(axes.xaxis, axes.set_xscale, drawn)
        axes.set_xlabel("other / base, with its interval over runs")
        axes.grid(visible=False, axis="y")
    return figure


def _label(row: dict[str, object]) -> str:
    name = str(row["measure"]).replace("p99_9", "p99.9")
    return name if row["what"] == "(all)" else f"{row['what']}: {name}"


def _ratio_axis(axis: object, set_scale: object, rows: pl.DataFrame) -> None:
    low, high = min(1.0, float(rows["low"].min())), max(1.0, float(rows["high"].max()))  # type: ignore[arg-type]
    set_scale("log")  # type: ignore[operator]
    width = high / low
    subs: Sequence[float] = (1,) if width > 1000 else (1, 2, 5) if width > 8 else (1, 1.5, 2, 3, 5, 7) if width > 2 else tuple(range(1, 10))
    if width > 2:
        axis.set_major_locator(LogLocator(10, subs=subs, numticks=12))  # type: ignore[attr-defined]
    else:
        from matplotlib.ticker import MaxNLocator

        axis.set_major_locator(MaxNLocator(6))  # type: ignore[attr-defined]
    axis.set_minor_locator(NullLocator())  # type: ignore[attr-defined]
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # type: ignore[attr-defined]


def shift_plot(rows: pl.DataFrame, title: str, note: str = "") -> Figure:
    """Draw the ratio of each quantile with its interval.

    Parameters
    ----------
    rows : DataFrame
        Result of `shift`.
    title, note : str
        What stands above and below.
    """
    drawn = rows.filter(pl.col("ratio").is_not_null())
    with figure_with_axes(title, note) as (figure, axes):
        if not len(drawn):
            say_nothing(axes, "no quantile is known on both sides")
            return figure
        # The quantile q stands at 1/(1 - q), so that the tail has room.
        at = (1 / (1 - drawn["quantile"])).to_list()
        axes.set_xscale("log")
        banded = drawn.filter(pl.col("low").is_not_null())
        if len(banded):
            axes.fill_between((1 / (1 - banded["quantile"])).to_list(), banded["low"], banded["high"], color=COLOURS[0], alpha=0.25, linewidth=0)
        axes.plot(at, drawn["ratio"], "o-", color=COLOURS[0], markersize=3.5)
        axes.axhline(1, color="#444444", linewidth=0.9)
        ticks = {0.5: "50", 0.75: "75", 0.9: "90", 0.95: "95", 0.99: "99", 0.999: "99.9"}
        axes.set_xticks([1 / (1 - point) for point in ticks], list(ticks.values()))
        axes.xaxis.set_minor_locator(NullLocator())
        ends = drawn.with_columns(pl.coalesce("low", "ratio").alias("low"), pl.coalesce("high", "ratio").alias("high"))
        _ratio_axis(axes.yaxis, axes.set_yscale, ends)
        axes.set_xlabel("percentile of the latency")
        axes.set_ylabel("other / base")
    return figure
