"""Block I/O: percentiles by stage, queue depth, sizes, addresses."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ringtape.analysis.plots.style import COLOURS, SIZE, STYLE, figure_with_axes, legend_beside, say_nothing, time_axis, time_unit
from ringtape.schemas.units import format_size

NOTHING = "no completed block I/O request was recorded"
GAPS = 20
"""Unused parts of a disk that are marked in a picture, unless there are more."""
_PERCENTILES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


def stages(frame: pl.DataFrame, *, most: int = 6, note: str = "") -> Figure:
    """Draw queue and device time by percentile, the axis stretched towards the tail.

    Parameters
    ----------
    frame : DataFrame
        Result of `block_latency.request_percentiles`.
    most : int
        How many groups are drawn, those with most requests.
    note : str
        What is to be said below the picture, such as how many requests are missing.

    Returns
    -------
    Figure
        x: 1 / (1 - p), logarithmic, labelled with p; y: time, logarithmic; a dashed line for the queue and a full one for the device.
    """
    keys = frame.columns[: frame.columns.index("stage")]
    with figure_with_axes("Block I/O: time in the queue and at the device", note) as (figure, axes):
        groups = frame.group_by(keys).agg(pl.col("at_most").max()).sort("at_most", *keys, descending=[True, *(False for _ in keys)]).head(most)
        if not len(groups):
            say_nothing(axes, NOTHING)
            return figure
        furthest, values = 10.0, []
        for colour, group in zip(COLOURS, groups.select(keys).iter_rows(named=True), strict=False):
            same = frame.filter(pl.all_horizontal(pl.col(key).eq_missing(pl.lit(value)) for key, value in group.items()))
            name = " ".join("?" if value is None else str(value) for value in group.values())
            for stage, line in (("device", "-"), ("queue", "--")):
                rows = same.filter(stage=stage)
                if not len(rows):
                    continue
                times = np.maximum(rows["dur"].to_numpy(), 1).astype(float)
                # The longest of n stands for every p above (n - 1) / n: its line ends at half a request.
                x = np.append(1.0, 1 / np.maximum(1 - rows["share"].to_numpy(), 0.5 / int(rows["at_most"].max() or 1)))  # type: ignore[arg-type]
                axes.step(x, np.append(times[0], times), where="pre", color=colour, linestyle=line, label=name if line == "-" else None)
                furthest = max(furthest, float(x[-1]))
                values.append(times)
        axes.plot([], [], color="#444444", linestyle="--", label="(dashed: in the queue)")
        everything = np.concatenate(values)
        time_axis(axes, float(everything.min()), float(everything.max()), vertical=True)
        axes.set_xscale("log")
        axes.set_xlim(1, furthest * 1.1)
        ticks = [p for p in _PERCENTILES if 1 / (1 - p) <= furthest * 1.05]
        axes.xaxis.set_major_locator(FixedLocator([1 / (1 - p) for p in ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{p * 100:.10g}" for p in ticks])
        axes.set(xlabel="percentile", ylabel="time")
        legend_beside(axes, len(groups))
        return figure


def queue_depth(frame: pl.DataFrame, *, most: int = 4, note: str = "") -> Figure:
    """Draw how many requests were at each device, and waiting, over time.

    Parameters
    ----------
    frame : DataFrame
        Result of `block_pattern.depth_over_time`.
    most : int
        How many devices are drawn, those with most requests at once on average.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        One pair of axes per device; x: time since the start; y: requests. Areas are means of a window, lines the most in it.
    """
    mean = pl.col("device_mean") + pl.col("queue_mean")
    devices = frame.group_by("device").agg(mean.sum().alias("mean")).sort("mean", "device", descending=[True, False]).head(most)["device"].to_list()
    if not devices:
        with figure_with_axes("Queue depth over time", note) as (figure, axes):
            say_nothing(axes, NOTHING)
            return figure
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], 1.4 + 2.2 * len(devices)), layout="constrained", dpi=120)
        scale, unit = time_unit(float(frame["end"].max()))  # type: ignore[arg-type]
        for axes, device in zip(figure.subplots(len(devices), 1, sharex=True, squeeze=False)[:, 0], devices, strict=True):
            rows = frame.filter(device=device)
            edges = np.append(rows["begin"].to_numpy(), rows["end"][-1]) / scale
            device_mean, queue_mean = rows["device_mean"].to_numpy(), rows["queue_mean"].to_numpy()
            axes.stairs(device_mean, edges, fill=True, color=COLOURS[0], alpha=0.65, label="at the device, mean")
            axes.stairs(device_mean + queue_mean, edges, baseline=device_mean, fill=True, color=COLOURS[1], alpha=0.65, label="waiting, mean")
            axes.stairs(rows["device_highest"].to_numpy(), edges, color="#223355", linewidth=0.9, label="at the device, most")
            axes.set_title(f"{device}: requests at once", parse_math=False)
            axes.set(ylabel="requests", ylim=(0, None), xlim=(edges[0], edges[-1]))
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            legend_beside(axes, 3)
        axes.set_xlabel(f"time since the start ({unit})")
        if note:
            figure.text(0.995, 0.002, note, ha="right", va="bottom", fontsize=8, color="#666666", parse_math=False)
        return figure


def size_bars(frame: pl.DataFrame, *, most: int = 6, note: str = "") -> Figure:
    """Draw how many requests had which size.

    Parameters
    ----------
    frame : DataFrame
        Result of `block_pattern.request_sizes`.
    most : int
        How many pairs of device and operation are drawn, those with most requests.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: size in powers of two; y: requests, logarithmic; one bar beside the other.
    """
    with figure_with_axes("Block I/O: sizes of requests", note) as (figure, axes):
        groups = frame.group_by("device", "operation").agg(pl.col("count").sum())
        groups = groups.sort("count", "device", "operation", descending=[True, False, False])
        if not len(groups):
            say_nothing(axes, NOTHING)
            return figure
        shown = groups.head(most)
        drawn = frame.join(shown.select("device", "operation"), on=["device", "operation"], how="semi")
        low, high = int(drawn["power"].min()), int(drawn["power"].max())  # type: ignore[arg-type]
        width = 0.84 / len(shown)
        for number, (device, operation, _) in enumerate(shown.iter_rows()):
            rows = drawn.filter(device=device, operation=operation)
            places = rows["power"].to_numpy() - low - 0.42 + (number + 0.5) * width
            axes.bar(places, rows["count"].to_numpy(), width * 0.94, label=f"{device} {operation}", color=COLOURS[number])
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xticks(range(high - low + 1), [_plain_size(1 << power) for power in range(low, high + 1)], rotation=45 if high - low > 8 else 0)
        axes.grid(axis="x", visible=False)
        axes.set(xlabel="size (down to a power of two)", ylabel="requests", xlim=(-0.6, high - low + 0.6))
        if len(groups) > len(shown):
            axes.set_title(f"Block I/O: sizes of requests ({len(groups) - len(shown)} rarer kinds are not drawn)", parse_math=False)
        legend_beside(axes, len(shown))
        return figure


def _plain_size(size: int) -> str:
    number, _, unit = format_size(size).partition(" ")
    return f"{float(number):g} {unit}"


def _exact_size(size: int) -> str:
    factor, unit = next(unit for unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")) if size >= unit[0] or unit[0] == 1)
    return f"{size / factor:,.2f} {unit}" if factor > 1 else f"{size} {unit}"


def address_map(frame: pl.DataFrame, device: str, *, most: int = 6, note: str = "") -> Figure:
    """Draw where on a disk requests went, over time.

    Parameters
    ----------
    frame : DataFrame
        Result of `block_pattern.addresses`.
    device : str
        Name of the disk.
    most : int
        How many operations are drawn, those with most requests.
    note : str
        What is to be said below the picture.

    Returns
    -------
    Figure
        x: time since the start; y: stretches of the disk in which there were requests, in order, a dotted line where others lie between;
        a point for each cell with a request, larger where there were more.
    """
    with figure_with_axes(f"{device}: addresses of requests over time" if device else "Addresses of requests over time", note) as (figure, axes):
        if not len(frame):
            say_nothing(axes, NOTHING)
            return figure
        seconds, span = time_unit(float(frame["time"].max()))  # type: ignore[arg-type]
        operations = frame.group_by("operation").agg(pl.col("count").sum()).sort("count", "operation", descending=[True, False]).head(most)
        for number, (operation, count) in enumerate(operations.iter_rows()):
            rows = frame.filter(operation=operation)
            sizes = 3 + 3 * np.log2(rows["count"].to_numpy())
            axes.scatter(
                rows["time"].to_numpy() / seconds, rows["row"].to_numpy() + 0.5, s=sizes, color=COLOURS[number], alpha=0.75, linewidths=0,
                label=f"{operation} ({count:,})", rasterized=True,
            )  # fmt: skip
        stretches = frame.select("row", "address").unique().sort("row")["address"].to_numpy()
        length = int(frame["length"][0])
        gaps = np.flatnonzero(np.diff(stretches) > length) + 1
        for gap in gaps if len(gaps) <= GAPS else ():
            axes.axhline(float(gap), color="#999999", linewidth=0.7, linestyle=(0, (2, 2)))
        ticks = np.unique(np.linspace(0, len(stretches) - 1, min(9, len(stretches))).astype(int))
        axes.set_yticks(ticks, [_exact_size(int(stretches[tick])) for tick in ticks])
        axes.set(xlabel=f"time since the start ({span})", ylabel=f"address, unused parts left out (rows of {_plain_size(length)})")
        axes.set_ylim(0, len(stretches))
        legend_beside(axes, len(operations))
        for handle in axes.get_legend().legend_handles:  # type: ignore[union-attr]
            handle.set_sizes([30])  # type: ignore[union-attr]
        return figure
