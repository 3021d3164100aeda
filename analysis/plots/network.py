"""The network over time: throughput, retransmissions, connections."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ringtape.analysis.plots.style import COLOURS, LINES, figure_with_axes, say_nothing, short_time, time_unit


def _labels(frame: pl.DataFrame, keys: list[str]) -> pl.Series:
    known = [pl.col(key).cast(pl.String).fill_null("") for key in keys]
    return frame.select(pl.concat_str(known, separator=" ").str.strip_chars().replace("", "(unknown)").alias("label"))["label"]


def _largest(frame: pl.DataFrame, size: pl.Expr) -> list[str]:
    """Return the labels of the largest groups, and one for all others where there are more than fit."""
    order = frame.group_by("label").agg(size.alias("size")).sort("size", "label", descending=[True, False])["label"].to_list()
    return order if len(order) <= LINES else order[: LINES - 1]


def _rest(count: int) -> str:
    return f"{count} others"


def _size_unit(largest: float) -> tuple[float, str]:
    """Return the bytes of a unit that suits a size, and its name."""
    for power, name in ((1, "B"), (1 << 10, "KiB"), (1 << 20, "MiB")):
        if largest < power * 1024:
            return power, name
    return 1 << 30, "GiB"


def _legend_below(figure: Figure) -> None:
    # Names of groups are long: beside the axes they would leave no room for them.
    for text in figure.legend(loc="outside lower left", ncols=2, handlelength=1.2).get_texts():
        text.set_parse_math(False)


def throughput(frame: pl.DataFrame, width: int, bins: int, *, note: str = "") -> Figure:
    """Draw rates over time: what is sent above the axis, what is received below.

    Parameters
    ----------
    frame : DataFrame
        Group columns, ``begin`` (ns after the probes were attached), ``sent``, ``received`` (bytes in that stretch).
    width : int
        Length of each stretch in ns.
    bins : int
        How many stretches there are.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: time since the start; y: bytes per second.
    """
    keys = frame.columns[: next(at for at, name in enumerate(frame.columns) if name in ("sent", "received"))]
    with figure_with_axes("Network throughput: sent above, received below", note) as (figure, axes):
        moved = frame.filter(pl.col("sent") + pl.col("received") > 0)
        if not len(moved):
            say_nothing(axes, "nothing was sent or received")
            return figure
        moved = moved.with_columns(_labels(moved, keys))
        shown = _largest(moved, (pl.col("sent") + pl.col("received")).sum())
        others = moved["label"].n_unique() - len(shown)
        moved = moved.with_columns(pl.when(pl.col("label").is_in(shown)).then("label").otherwise(pl.lit(_rest(others))))
        unit, unit_name = time_unit(width * bins)
        edges = np.arange(bins + 1) * width / unit
        peak = (
            moved.group_by("label", "begin").agg(pl.col("sent", "received").sum()).select(pl.max_horizontal(pl.col("sent", "received").max())).item()
        )
        size, size_name = _size_unit(peak * 1e9 / width)
        for label, colour in zip([*shown, *([_rest(others)] if others else [])], COLOURS, strict=False):
            one = moved.filter(pl.col("label") == label)
            place = one["begin"].to_numpy() // width
            for column, sign in (("sent", 1), ("received", -1)):
                rate = np.zeros(bins)
                np.add.at(rate, place, one[column].to_numpy() * 1e9 / width / size)
                if rate.any():
                    axes.stairs(sign * rate, edges, color=colour, linewidth=1.2, label=label)
                    axes.stairs(sign * rate, edges, fill=True, color=colour, alpha=0.25)
                    label = "_"  # noqa: PLW2901 - one entry of the legend for both directions
        axes.axhline(0, color="#666666", linewidth=0.8)
        axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
        axes.set(xlabel=f"time since the start ({unit_name})", xlim=(0, edges[-1]), ylabel=f"{size_name}/s")
        _legend_below(figure)
        return figure


def moments(frame: pl.DataFrame, width: int, bins: int, *, note: str = "") -> Figure:
    """Draw how often something happened over time, by group, one upon the other.

    Parameters
    ----------
    frame : DataFrame
        Group columns, ``bin`` (number of the stretch), ``count``.
    width : int
        Length of each stretch in ns.
    bins : int
        How many stretches there are.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: time since the start; y: retransmissions in that stretch.
    """
    keys = [name for name in frame.columns if name not in ("bin", "count")]
    with figure_with_axes("Segments sent again", note) as (figure, axes):
        frame = frame.with_columns(_labels(frame, keys))
        shown = _largest(frame, pl.col("count").sum())
        others = frame["label"].n_unique() - len(shown)
        frame = frame.with_columns(pl.when(pl.col("label").is_in(shown)).then("label").otherwise(pl.lit(_rest(others))))
        unit, unit_name = time_unit(width * bins)
        edges = np.arange(bins + 1) * width / unit
        base = np.zeros(bins)
        for label, colour in zip([*shown, *([_rest(others)] if others else [])], COLOURS, strict=False):
            one = frame.filter(pl.col("label") == label)
            top = base.copy()
            np.add.at(top, one["bin"].to_numpy(), one["count"].to_numpy())
            axes.stairs(top, edges, baseline=base, fill=True, color=colour, label=label)
            base = top
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel=f"time since the start ({unit_name})", ylabel=f"segments per {short_time(width)}", xlim=(0, edges[-1]), ylim=(0, None))
        _legend_below(figure)
        return figure


def connections(frame: pl.DataFrame, begin: int, end: int, *, note: str = "") -> Figure:
    """Draw how many connections there were over time, and when some failed.

    Parameters
    ----------
    frame : DataFrame
        Result of the analysis ``tcp_life``.
    begin, end : int
        Of the recording, ns of CLOCK_MONOTONIC.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: time since the start; y: connections that had begun and not ended; crosses: those that ended otherwise than closed.
    """
    with figure_with_axes("TCP connections", note) as (figure, axes):
        if not len(frame):
            say_nothing(axes, "no connection was seen")
            return figure
        unit, unit_name = time_unit(max(1, end - begin))
        start = (frame["start"].to_numpy() - begin) / unit
        stop = (frame["start"].to_numpy() + frame["duration"].to_numpy() - begin) / unit
        last = frame["state"].is_not_null().to_numpy()
        times = np.concatenate([start, stop[~last]])
        steps = np.concatenate([np.ones(len(start)), -np.ones(int((~last).sum()))])
        order = np.lexsort((steps, times))  # an end before a beginning of the same instant
        count = np.cumsum(steps[order])
        edge = (end - begin) / unit
        axes.step(
            np.concatenate([[0], times[order], [edge]]), np.concatenate([[0], count, count[-1:]]), where="post", color=COLOURS[0], label="at a time"
        )
        failed = frame.filter(pl.col("state").is_null() & (pl.col("end") != "closed"))
        for (reason, rows), colour in zip(failed.group_by("end", maintain_order=True), COLOURS[1:], strict=False):
            when = (rows["start"].to_numpy() + rows["duration"].to_numpy() - begin) / unit
            axes.plot(when, np.zeros(len(when)), "x", color=colour, markersize=6, clip_on=False, label=f"{reason[0]} ({len(when):,})")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel=f"time since the start ({unit_name})", ylabel="connections", xlim=(0, edge), ylim=(0, None))
        if len(failed):
            _legend_below(figure)
        return figure
