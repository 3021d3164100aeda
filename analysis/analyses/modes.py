"""The modes of latency: how many there are for certain, where, how much each holds, the valleys between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from ringtape.analysis.grouping import GROUPS, By, Grouping
from ringtape.analysis.ledger import timed_losses
from ringtape.analysis.pictures import Picture
from ringtape.analysis.quantiles import histogram
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.taut_string import modes as taut_modes
from ringtape.analysis.taut_string import radius
from ringtape.analysis.trace import Trace

GRAIN = 32
"""Bins are at least so many ns wide: a clock that ticks every 10 ns is no mode."""
LEAST = 0.01
"""A mode that could be smoothed away by moving less than this share of the calls is not told."""


@analysis(
    section="page",
    tables=("syscalls",),
    groups=GROUPS,
    columns=(
        Result("calls", pl.Int64, "calls that returned and were recorded", "count"),
        Result("lost", pl.Int64, "calls that were lost and belong, or may belong, to the group", "count", quiet=True),
        Result("modes", pl.Int64, "modes that the distribution has at least, on a logarithmic axis", "count"),
        Result("mode", pl.Int64, "number of this mode, from the shortest latency on"),
        Result("peak", pl.Int64, "median of the calls where the mode is densest, to 1.6 %", "ns"),
        Result("begin", pl.Int64, "where the mode begins: the shortest call of it", "ns"),
        Result("end", pl.Int64, "where it ends: the longest call of it", "ns"),
        Result("weight", pl.Float64, "share of the group's recorded calls between these", "share"),
        Result("valley", pl.Int64, "where the valley to the next mode lies, to 9 %; null for the last", "ns"),
        Result("depth", pl.Float64, "density in the valley relative to the lower of the two peaks beside it: 0 for modes that do not touch", "share"),
    ),
)
def modes(trace: Trace, *, by: By | Sequence[By] = "syscall", syscall: str | None = None) -> pl.DataFrame:
    """Tell which modes latency has.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"syscall", "process", "thread", "command"} or several of them
        What to tell apart.
    syscall : str, optional
        Only calls of this name.

    Returns
    -------
    DataFrame
        One row per group and mode, groups with most calls first: ``peak``, ``begin``, ``end``, ``valley`` (ns), ``weight``, ``depth``.

    Raises
    ------
    UsageError
        If ``by`` is not one of these, or no ABI has a call of that name.

    Notes
    -----
    The modes are those of the taut string (Davies and Kovac 2001, Annals of Statistics 29:1; 2004, 32:1093): of all distributions of
    log latency whose distribution function is nowhere farther from that of the calls than d, the one with fewest modes. With d of Dvoretzky,
    Kiefer, Wolfowitz and Massart for 95 %, a distribution with fewer modes has fewer in at least 95 of 100 recordings of independent calls:
    no mode is noise, and there may be more. d is at least 0.005, so that with many calls no mode is told that 1 % of them make.

    Bins are an eighth of a power of two, and at least 32 ns, so that the steps of the clock are no modes. Lost calls may lie anywhere: d grows
    by their share.

    Examples
    --------
    >>> from ringtape.analysis.analyses.modes import modes
    >>> modes(getfixture("example_trace")).select("syscall", "modes", "begin", "end", "weight").rows()
    [('read', 1, 100, 300, 1.0), ('openat', 1, 1000, 2000, 1.0)]
    """
    grouping = Grouping.of(trace, by)
    keys = grouping.keys
    everything, lost = trace.scan("syscalls").filter(pl.col("kind") == 0), timed_losses(trace)
    if syscall is not None:
        everything = everything.filter(grouping.is_call(syscall))
        lost = lost.filter(pl.col("nr").is_in([-1]) | grouping.is_call(syscall))
    located = grouping.located and not len(lost.filter(pl.col("nr") < 0))
    counted = histogram(trace, grouping.rows(everything), keys)
    rows = []
    for key, group in counted.partition_by(keys, as_dict=True, maintain_order=True).items():
        own = lost.filter(pl.col(name) == value for name, value in zip(keys, key, strict=True)) if located and len(lost) else lost
        missing = int(own["lost"].sum())
        head = dict(zip(keys, key, strict=True)) | {"calls": int(group["count"].sum()), "lost": missing}
        rows += [head | row for row in _modes(group, missing)]
    schema = {**counted.select(keys).schema, **{column.name: column.dtype for column in _declared()}}
    order = [*grouping.by, "mode"]
    return grouping.named(pl.DataFrame(rows, schema=schema)).sort("calls", *order, descending=[True, *(False for _ in order)], nulls_last=True)


def _declared() -> Sequence[Result]:
    from ringtape.analysis.registry import get

    return get("modes").columns


def bins(group: pl.DataFrame) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the edges of the bins that reach from below the shortest to above the longest call, the calls in each, and the bin of each row."""
    low, high = int(group["smallest"].min()), int(group["largest"].max())  # type: ignore[arg-type]
    # Eight linear steps to a power of two, as eight buckets of `quantiles.bucket` together have; below 256 ns steps of 32 ns.
    fine = [GRAIN * at for at in range(1, 8)]
    coarse = [(8 + step) << (power - 3) for power in range(8, 63) for step in range(8)]
    edges = np.asarray([1, *fine, *coarse], np.float64)
    first = max(0, int(np.searchsorted(edges, low, "right")) - 2)
    last = min(len(edges) - 1, int(np.searchsorted(edges, high, "right")) + 1)
    edges = edges[first : last + 1]
    place = np.clip(np.searchsorted(edges, group["smallest"].to_numpy(), "right") - 1, 0, len(edges) - 2)
    counts = np.bincount(place, group["count"].to_numpy(), len(edges) - 1).astype(np.int64)
    return edges, counts, place


def _modes(group: pl.DataFrame, missing: int) -> Iterator[dict[str, Any]]:
    n = int(group["count"].sum())
    distance = min(1.0, max(radius(n), LEAST / 2) + missing / (n + missing))
    if distance >= 0.5:
        # Any distribution lies in such a band: the calls are too few to tell more than where they are.
        low, high, count = (group[name].to_numpy() for name in ("smallest", "largest", "count"))
        at = int(np.searchsorted(np.cumsum(count), -(-n // 2)))
        peak = (int(low[at]) + int(high[at])) // 2
        yield {"modes": 1, "mode": 1, "peak": peak, "begin": int(low[0]), "end": int(high[-1]), "weight": 1.0, "valley": None, "depth": None}
        return
    edges, counts, place = bins(group)
    widths = np.diff(np.log2(edges))
    found = taut_modes(counts, widths, distance)
    for number, mode in enumerate(found, 1):
        inside = group.filter(pl.Series((place >= mode.first) & (place < mode.end)))
        top = group.filter(pl.Series((place >= mode.top) & (place < mode.top_end)))
        top = top if len(top) else inside
        if not len(inside):
            continue
        running = top["count"].cum_sum().to_numpy()
        middle = top[int(np.searchsorted(running, -(-int(running[-1]) // 2)))]
        valley, depth = None, None
        if number < len(found):
            valley = int(np.sqrt(edges[mode.end] * edges[mode.end + 1]))
            depth = mode.valley / min(mode.density, found[number].density) if mode.valley is not None else None
        yield {
            "modes": len(found),
            "mode": number,
            "peak": (int(middle["smallest"][0]) + int(middle["largest"][0])) // 2,
            "begin": int(inside["smallest"].min()),  # type: ignore[arg-type]
            "end": int(inside["largest"].max()),  # type: ignore[arg-type]
            "weight": int(inside["count"].sum()) / n,
            "valley": valley,
            "depth": depth,
        }


def pictures(trace: Trace) -> Iterator[Picture]:
    """Draw the density of log latency with its modes."""
    from ringtape.analysis.distributions import latency_histogram
    from ringtape.analysis.plots.modes import modes as draw

    counted, found = latency_histogram(trace), modes(trace)
    names = found.filter(pl.col("mode") == 1)["syscall"].head(6).to_list()
    groups = {name: bins(counted.filter(pl.col("syscall") == name))[:2] for name in names}
    lost = trace.lost().get("syscalls", 0)
    note = f"{lost:,} calls were lost and are not in the picture" if lost else ""
    yield Picture("latency-modes", "The modes of latency: where calls crowd, on a logarithmic axis.", draw(groups, found, note=note))
