"""Who woke whom, how long the woken had slept and then waited, and the chains behind the longest waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from ringtape.analysis.analyses.latency import QUANTILES
from ringtape.analysis.order_statistics import bounded_quantiles
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.schedule import BLOCKED, RUNNING_AT_ATTACH, lives, stays
from ringtape.analysis.threads import By, named
from ringtape.analysis.trace import Trace

SOFT, HARD = 1, 2
DEEPEST = 8
"""Wake-ups that a chain goes back."""
_QUANTILES = {name: QUANTILES[name] for name in ("p50", "p99", "max")}


@analysis(
    tables=("sched",),
    narrows=("time",),
    columns=(
        Result(
            "waker", pl.String, "who woke; interrupt: a timer or a device; softirq: the same, or work of the thread named before it, such as a send"
        ),
        Result("woken", pl.String, "who was woken"),
        Result("wakeups", pl.Int64, "wake-ups", "count"),
        Result("slept", pl.Int64, "time that the woken had been blocked, in all", "ns"),
        Result("longest", pl.Int64, "longest time that the woken had been blocked", "ns"),
        Result("waited", pl.Int64, "time that the woken then waited for a CPU, in all", "ns"),
        *(
            Result(f"{name}{end}", pl.Int64, f"{doc} {name} of the waits for a CPU", "ns")
            for name in _QUANTILES
            for end, doc in (("", "exact"), ("_low", "least possible"), ("_high", "greatest possible"))
        ),
        Result("chain", pl.String, "who had woken the waker, and so on back, at the longest sleep: each had slept when the sleep began", wide=True),
    ),
)
def wakeups(trace: Trace, *, by: By = "process") -> pl.DataFrame:
    """Count wake-ups by waker and woken.

    Parameters
    ----------
    trace : Trace
        The recording.
    by : {"process", "thread", "command"}
        What to tell apart.

    Returns
    -------
    DataFrame
        One row per pair, most sleep first: ``waker``, ``woken``, ``wakeups``, ``slept``, ``longest``, ``waited`` (ns), ``p50``, ``p99``, ``max``
        (ns, of the wait for a CPU; each with ``_low`` and ``_high``), ``chain``.

    Raises
    ------
    RingtapeError
        If the table ``sched`` was not recorded.

    Notes
    -----
    The chain of a sleep goes back from its waker: if the waker had itself been woken while the sleep lasted, then by whom, and so on;
    it ends at a thread that was awake all the time, that is not recorded, or at an interrupt. A soft interrupt for the network or a
    block device counts as the doing of the thread that alone had asked for it: who sends over loopback wakes who receives.
    ``(softirq)`` stands behind the thread in whose place one ran of which that is not known.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.wakeups import wakeups
    >>> trace = ringtape.open("datasets/families.trace")
    >>> wakeups(trace, by="command").select("waker", "woken", "wakeups").rows()[:2]
    [('python3', 'sh', 2), ('python3', 'python3', 659)]
    """
    rows = stays(trace)
    threads = lives(trace, rows)
    asleep = (~pl.col("kind").is_in([BLOCKED, RUNNING_AT_ATTACH])) & (pl.col("left") != 0) & pl.col("left").is_not_null() & (pl.col("gap") == 0)
    names = _names(trace, threads, by)
    told = rows.with_columns((pl.col("ts") - pl.col("wait") - pl.col("before")).alias("slept")).filter(asleep, trace.narrowing.holds(pl.col("ts")))
    told = told.join(names, left_on="tid", right_on="tid", how="left").rename({"name": "woken"})
    told = told.join(names, left_on="waker", right_on="tid", how="left")
    foreign = pl.concat_str(pl.lit("not recorded: "), pl.col("waker_pid"))
    softly = pl.when(pl.col("name").is_null()).then(pl.lit("softirq")).otherwise(pl.concat_str("name", pl.lit(" (softirq)")))
    source = pl.when(pl.col("context") == HARD).then(pl.lit("interrupt")).when(pl.col("context") == SOFT).then(softly)
    told = told.with_columns(source.otherwise(pl.coalesce("name", foreign)).alias("from"))
    keys = ["from", "woken"]
    sums = told.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("wakeups"),
        pl.col("slept").sum(),
        pl.col("slept").max().alias("longest"),
        pl.col("wait").sum().alias("waited"),
        pl.struct("thread", "before", "ts", "wait", "waker", "context").sort_by("slept").last().alias("at"),
    )
    found = sums.join(bounded_quantiles(told, keys, "wait", _QUANTILES, None, trace.lost().get("sched", 0)), on=keys, how="left")
    chains = _Chains(rows, dict(names.iter_rows()))
    found = found.with_columns(pl.Series("chain", [chains.of(at) for at in found["at"].to_list()], pl.String)).rename({"from": "waker"})
    return found.sort("slept", "waker", "woken", descending=[True, False, False])


def _names(trace: Trace, threads: pl.DataFrame, by: By) -> pl.DataFrame:
    """Return ``tid`` and ``name``: of numbers used twice, that of the last."""
    known = named(trace, threads, by).join(threads.select(pl.col("thread").alias("number"), "tid"), on="number")
    number = {"process": "process", "thread": "thread"}.get(by)
    text = pl.concat_str(pl.col("command"), pl.lit(" "), pl.col(number)) if number else pl.col("command")
    return known.sort("number").select("tid", text.alias("name")).unique("tid", keep="last", maintain_order=True)


class _Chains:
    """Goes back from a sleep to who woke the waker while it lasted."""

    def __init__(self, rows: pl.DataFrame, names: dict[int, str]) -> None:
        self._names = names
        ordered = rows.sort("tid", "ts")
        self._columns = {name: ordered[name].to_numpy() for name in ("tid", "ts", "wait", "waker", "context")}
        numbers, begins = np.unique(self._columns["tid"], return_index=True)
        ends = np.append(begins[1:], len(ordered))[: len(begins)]
        self._span = {int(number): (int(begin), int(end)) for number, begin, end in zip(numbers, begins, ends, strict=True)}

    def _told(self, waker: int, context: int) -> str:
        name = self._names.get(waker)
        if context == HARD:
            return "interrupt"
        if context == SOFT:
            return f"{name} (softirq)" if name else "softirq"
        return name or f"not recorded: {waker}"

    def of(self, at: dict[str, Any]) -> str:
        """Return the chain behind one sleep as text, nearest first."""
        chain: list[str] = []
        waker, when, since, context = at["waker"], at["ts"] - at["wait"], at["before"], at["context"]
        while len(chain) < DEEPEST:
            chain.append(self._told(waker, context))
            span = self._span.get(waker)
            if span is None or context:
                break
            begin, end = span
            place = begin + int(np.searchsorted(self._columns["ts"][begin:end], when, "right")) - 1
            # The waker was on a CPU then; by whom was it woken, if it slept at some time since the sleep began?
            while place >= begin and not self._columns["waker"][place] and not self._columns["context"][place]:
                place -= 1
            if place < begin:
                break
            woken_at = int(self._columns["ts"][place] - self._columns["wait"][place])
            if woken_at <= since or woken_at >= when:
                break
            waker, when, context = int(self._columns["waker"][place]), woken_at, int(self._columns["context"][place])
        return " ← ".join(chain)
