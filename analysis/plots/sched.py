"""Threads and CPUs: waits, time ledgers, Gantt charts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ringtape.analysis.plots.style import SIZE, figure_with_axes, legend_beside, say_nothing, time_axis, time_unit

LINES = 30
"""Threads that a Gantt chart shows."""
PIXELS = 1200
KINDS = (
    ("on CPU", "#228833"),
    ("run queue", "#EE6677"),
    ("sleeping", "#E4ECF4"),
    ("uninterruptible", "#CCBB44"),
    ("stopped", "#AA3377"),
    ("blocked", "#C9C9C9"),
    ("lost", "#000000"),
)
"""What `schedule` tells apart, in its order, each with its colour."""
PLACES = {
    "user": "#228833",
    "syscall": "#4477AA",
    "run queue": "#EE6677",
    "fault": "#AA3377",
    "blocked: disk": "#CCBB44",
    "blocked: memory": "#882255",
    "blocked: network": "#66CCEE",
    "blocked: unix socket": "#44AA99",
    "blocked: pipe": "#117733",
    "blocked: message queue": "#999933",
    "blocked: lock": "#DDAA77",
    "blocked: other": "#BFBFBF",
    "blocked: poll": "#C6D9EC",
    "blocked: child": "#D9D2E9",
    "blocked: terminal": "#F0E0D0",
    "blocked: sleep": "#ECECEC",
    "stopped": "#777777",
    "unknown": "#999999",
    "lost": "#000000",
}
"""The places of the time ledger, from what works to what waits."""


def waits(values: pl.Series) -> Figure:
    """Draw how long threads waited for a CPU: counts by power of two, and the share that waited at most as long.

    Parameters
    ----------
    values : Series
        Waits in ns.

    Returns
    -------
    Figure
        x: wait, logarithmic; bars: waits; line: share that waited at most that long.
    """
    with figure_with_axes("Waiting for a CPU", f"{len(values):,} waits") as (figure, axes):
        known = np.sort(np.maximum(values.to_numpy(), 1))
        if not len(known):
            say_nothing(axes, "no thread waited for a CPU")
            return figure
        exponents = np.arange(int(np.log2(known[0])), int(np.log2(known[-1])) + 2)
        counts, edges = np.histogram(known, 2.0**exponents)
        axes.stairs(counts, edges, fill=True, color="#C6D9EC")
        axes.set(xlabel="wait", ylabel="waits")
        time_axis(axes, float(known[0]), float(known[-1]))
        share = axes.twinx()
        share.step(known, np.arange(1, len(known) + 1) * 100 / len(known), where="post", color="#4477AA")
        share.set(ylabel="waited at most this long (%)", ylim=(0, 101))
        share.grid(visible=False)
        share.spines["right"].set_visible(True)
        return figure


def ledger_bars(frame: pl.DataFrame, *, most: int = 12) -> Figure:
    """Draw a bar for the time of each group of threads, parted by where it went.

    Parameters
    ----------
    frame : DataFrame
        Result of the analysis ``ledger``.
    most : int
        Groups that are drawn, those with most time.

    Returns
    -------
    Figure
        x: share of the group's time; one bar for each group.
    """
    keys = frame.columns[: frame.columns.index("where")]
    placed = frame.with_columns(_place())
    order = placed.group_by(keys, maintain_order=True).agg(pl.col("time").sum().alias("whole")).head(most)
    with figure_with_axes("Where the time went", size=(SIZE[0], max(2.2, 1.2 + 0.3 * len(order)))) as (figure, axes):
        if not len(order):
            say_nothing(axes, "no thread was on a CPU")
            return figure
        left = np.zeros(len(order))
        for place, colour in PLACES.items():
            times = placed.filter(pl.col("what") == place).group_by(keys).agg(pl.col("time").sum())
            widths = order.join(times, on=keys, how="left", nulls_equal=True, maintain_order="left")["time"].fill_null(0).to_numpy()
            widths = widths * 100 / order["whole"].to_numpy()
            if widths.max() >= 0.05:
                axes.barh(np.arange(len(order)), widths, 0.7, left=left, color=colour, label=place)
            left += widths
        labels = [" ".join("?" if value is None else str(value) for value in row) for row in order.select(keys).iter_rows()]
        axes.set_yticks(np.arange(len(order)), labels, parse_math=False)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="share of the time of its threads (%)", xlim=(0, 100))
        legend_beside(axes, 2)
        return figure


def _place() -> pl.Expr:
    return pl.when(pl.col("where") == "blocked").then(pl.concat_str(pl.lit("blocked: "), pl.col("reason"))).otherwise(pl.col("where")).alias("what")


def ledger_over_time(frame: pl.DataFrame) -> Figure:
    """Draw where the time of all threads went, over time.

    Parameters
    ----------
    frame : DataFrame
        Result of `timeline.over_time`.

    Returns
    -------
    Figure
        x: time since the start; y: threads, stacked by what they were doing on average. Waiting for events is left out where it
        would hide the rest: sleeping threads cost nothing.
    """
    with figure_with_axes("What threads were doing, over time", "threads that sleep, or wait for events, a child or a terminal, are not drawn") as (
        figure,
        axes,
    ):
        begins = np.sort(frame["begin"].unique().to_numpy())
        if not len(begins):
            say_nothing(axes, "no thread was on a CPU")
            return figure
        width = frame.select((pl.col("end") - pl.col("begin")).max()).item()
        scale, unit = time_unit(float(begins[-1] + width - begins[0]))
        edges = (np.append(begins, begins[-1] + width) - begins[0]) / scale
        base = np.zeros(len(begins))
        hidden = ("blocked: sleep", "blocked: poll", "blocked: child", "blocked: terminal")
        for place, colour in PLACES.items():
            rows = frame.filter(pl.col("what") == place)
            if place in hidden or not len(rows):
                continue
            heights = np.zeros(len(begins))
            heights[np.searchsorted(begins, rows["begin"].to_numpy())] = rows["time"].to_numpy() / (rows["end"] - rows["begin"]).to_numpy()
            axes.stairs(base + heights, edges, baseline=base, fill=True, color=colour, label=place)
            base += heights
        axes.set(xlabel=f"time since the start ({unit})", ylabel="threads", xlim=(edges[0], edges[-1]), ylim=(0, None))
        legend_beside(axes, 2)
        return figure


def gantt(shares: pl.DataFrame, names: pl.DataFrame, edges: Sequence[int], *, note: str = "") -> Figure:
    """Draw a line for each thread, coloured by what it was doing.

    Parameters
    ----------
    shares : DataFrame
        ``thread``, ``bin``, ``kind`` (index into `KINDS`), ``time`` (ns).
    names : DataFrame
        ``number`` (thread), ``thread``, ``command``: the lines, from top to bottom.
    edges : sequence of int
        Where the bins begin and end, ns of CLOCK_MONOTONIC.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: time since the first edge; where a thread did several things within one column of pixels their colours are mixed.
    """
    with figure_with_axes("Threads over time", note, (SIZE[0] + 1.5, max(2.4, 1.2 + 0.22 * len(names)))) as (figure, axes):
        if not len(names):
            say_nothing(axes, "no thread was on a CPU")
            return figure
        image = np.ones((len(names), len(edges) - 1, 3))
        weight = np.zeros((len(names), len(edges) - 1, len(KINDS)))
        line = {number: at for at, number in enumerate(names["number"].to_list())}
        for thread, column, kind, time in shares.select("thread", "bin", "kind", "time").iter_rows():
            weight[line[thread], column, kind] = time
        total = weight.sum(axis=2)
        lived = total > 0
        colours = np.array([to_rgb(colour) for _, colour in KINDS])
        image[lived] = (weight[lived] / total[lived][:, None]) @ colours
        scale, unit = time_unit(float(edges[-1] - edges[0]))
        axes.imshow(image, aspect="auto", interpolation="nearest", extent=(0, (edges[-1] - edges[0]) / scale, len(names) - 0.5, -0.5))
        texts = [f"{command} {thread}" for command, thread in names.select("command", "thread").iter_rows()]
        axes.set_yticks(np.arange(len(names)), texts, parse_math=False, fontsize=7)
        axes.grid(visible=False)
        axes.set(xlabel=f"time since the start ({unit})")
        seen = [at for at in range(len(KINDS)) if weight[:, :, at].any()]
        axes.legend(
            handles=[Patch(color=KINDS[at][1], label=KINDS[at][0]) for at in seen], loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.2
        )
        return figure
