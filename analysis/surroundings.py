"""What surrounded the slowest calls: the thread's own calls, its scheduling, block requests, sockets, and where the time of the call went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from ringtape.analysis.decode import calls as decode
from ringtape.analysis.grouping import Grouping
from ringtape.analysis.happenings import SOURCES, Happening, Near, call_texts
from ringtape.analysis.schedule import LOST, OFF, ON, ON_LOSSY, SLEEP, STOPPED, UNINTERRUPTIBLE, WAIT, lives, segments, stays
from ringtape.analysis.trace import Trace
from ringtape.analysis.waiting import Waiting, reason
from ringtape.schemas.columns import ABI
from ringtape.schemas.errors import UsageError

MOST = 1000
"""Calls that are looked at in one go."""
_AT_ONCE = 50
_NO_RETURN, _AT_ATTACH, _UNFINISHED = 1, 2, 3
_COLUMNS = ("ts", "dur", "nr", "abi", "ret", "kind", "pid", "tid", "cpu", "comm", *(f"arg{index}" for index in range(6)))
Phase = Literal["before", "during", "after"]


@dataclass(frozen=True)
class Call:
    """A slow call as it was recorded; ``shown`` and ``result`` as `ringtape print` writes them."""

    ts: int
    dur: int
    pid: int
    tid: int
    cpu: int
    comm: str | None
    shown: str
    result: str
    kind: int
    whole: bool
    """Whether its beginning and its return were seen: else it took at least ``dur``."""


@dataclass(frozen=True)
class Slow:
    """A slow call with its surroundings.

    ``spent`` says how its time divides (ns, adds up to ``call.dur``), None where ``sched`` was not recorded or has no stay of its
    thread. ``around`` holds what happened, by time, with its phase; ``left_out`` counts by table what exceeded the limit.
    """

    call: Call
    spent: dict[str, int] | None
    around: list[tuple[Phase, Happening]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def slowest(trace: Trace, *, syscall: str | None = None, top: int = 10) -> pl.DataFrame:
    """Return the calls that took longest, those that did not return among them with the time that was seen.

    Parameters
    ----------
    trace : Trace
        The recording; needs ``syscalls``.
    syscall : str, optional
        Only calls of this name.
    top : int
        How many.

    Returns
    -------
    DataFrame
        Columns of ``syscalls`` and ``comm``, the longest first.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.surroundings import slowest
    >>> slowest(getfixture("example_trace"), top=2).select("nr", "dur").rows()
    [(257, 2000), (257, 1000)]
    """
    if not 0 < top <= MOST:
        raise UsageError(f"top is {top}", f"ask for 1 to {MOST} calls")
    frame = trace.syscalls.filter(pl.col("kind").is_in([0, _AT_ATTACH, _UNFINISHED]))
    if syscall is not None:
        frame = frame.filter(Grouping.of(trace, "syscall").is_call(syscall))
    chosen = trace.collect(frame.select("ts", "tid", "dur").top_k(top, by=[pl.col("dur"), -pl.col("ts"), -pl.col("tid")]))
    # The names and arguments of the few alone are looked up.
    if not len(chosen):
        return trace.collect(frame.select(_COLUMNS).head(0))
    low, high = int(chosen["ts"].min()), int(chosen["ts"].max())  # type: ignore[arg-type]
    wanted = trace.frame("syscalls", low, high + 1).join(chosen.lazy(), on=["ts", "tid", "dur"], how="semi")
    return trace.collect(wanted.select(_COLUMNS)).sort("dur", "ts", "tid", descending=[True, False, False])


def surroundings(trace: Trace, *, syscall: str | None = None, top: int = 10, around: int = 1_000_000, limit: int = 20) -> list[Slow]:
    """Tell what happened before, during and after the calls that took longest.

    Parameters
    ----------
    trace : Trace
        The recording; needs ``syscalls``, and uses whatever other tables it has.
    syscall : str, optional
        Only calls of this name.
    top : int
        How many calls.
    around : int
        How far before and after each call is looked, in ns.
    limit : int
        How many rows of each table are kept of each phase of a call: those nearest to it; of what happened during it, the first.

    Returns
    -------
    list of Slow
        The longest call first.

    Raises
    ------
    UsageError
        If ``top``, ``around`` or ``limit`` cannot be.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.surroundings import surroundings
    >>> slow = surroundings(ringtape.open("datasets/families.trace"), syscall="fsync", top=1)[0]
    >>> sum(slow.spent.values()) == slow.call.dur, {happening.table for _, happening in slow.around} >= {"syscalls", "sched", "block"}
    (True, True)
    """
    if around < 0 or limit < 1:
        raise UsageError(f"around is {around} ns and limit {limit}", "give a time from 0 on, and a limit from 1 on")
    rows = slowest(trace, syscall=syscall, top=top)
    # What surrounds a call need not lie in the window that the call was looked for in.
    whole = trace.whole
    spent = _spent(whole, rows) if "sched" in trace.tables else {}
    texts = call_texts(whole, rows)
    found = []
    for start in range(0, len(rows), _AT_ONCE):
        batch = rows[start : start + _AT_ONCE]
        near = Near(whole, batch, around, limit)
        happenings: dict[tuple[int, int], list[Happening]] = {}
        for name, source in SOURCES.items():
            for one in source(near) if name in trace.tables else ():
                happenings.setdefault(one.key, []).append(one)
        for row in batch.iter_rows(named=True):
            key = (row["tid"], row["ts"])
            found.append(_surround(_call(row, texts.get(key)), spent.get(key), happenings.get(key, []), near.left_out.get(key, {})))
    return found


def not_recorded(trace: Trace) -> list[str]:
    """Return the tables that would have told more and were not recorded."""
    return [name for name in SOURCES if name not in trace.tables]


def _call(row: dict[str, Any], texts: decode.Texts | None) -> Call:
    abi = ABI.values.get(row["abi"], "x86_64")
    args = [row[f"arg{index}"] for index in range(6)]
    shown, result = decode.call(abi, row["nr"], args, texts), decode.result(abi, row["nr"], args, row["ret"], row["kind"])
    keep = {name: row[name] for name in ("ts", "dur", "pid", "tid", "cpu", "comm", "kind")}
    return Call(shown=shown, result=result, whole=row["kind"] == 0, **keep)


def _surround(call: Call, spent: dict[str, int] | None, happenings: list[Happening], left_out: dict[str, int]) -> Slow:
    end = call.ts + call.dur
    phased: list[tuple[Phase, Happening]] = [
        ("before" if one.ts < call.ts and one.ts + one.dur <= call.ts else "during" if one.ts < end else "after", one)
        for one in sorted(happenings, key=lambda one: (one.ts, one.table))
    ]
    return Slow(call, spent, phased, left_out)


def _spent(trace: Trace, rows: pl.DataFrame) -> dict[tuple[int, int], dict[str, int]]:
    """Return how the time of each call divides; what no stay of its thread accounts for is ``unknown``."""
    chosen = trace if trace.narrowing.processes is not None or not len(rows) else trace.process(*map(int, rows["pid"].unique()))
    every = stays(chosen)
    parts = segments(every, lives(chosen, every)).join(every.select("thread", "tid").unique(), on="thread")
    told = rows.with_columns(Waiting(trace).told(rows)).lazy()
    calls = told.select("tid", pl.col("ts").alias("begin"), (pl.col("ts") + pl.col("dur")).alias("over"), "nr", "abi", "waited")
    inside = parts.lazy().join(calls, on="tid").filter(pl.col("start") < pl.col("over"), pl.col("stop") > pl.col("begin"))
    length = pl.min_horizontal("stop", "over") - pl.max_horizontal("start", "begin")
    uninterruptible = (pl.col("kind") == UNINTERRUPTIBLE).alias("uninterruptible")
    kind = pl.col("kind")
    what: list[tuple[Callable[[], pl.Expr], list[int]]] = [
        (lambda: pl.lit("on CPU"), [ON, ON_LOSSY]),
        (lambda: pl.lit("waiting for a CPU"), [WAIT]),
        (lambda: pl.lit("stopped"), [STOPPED]),
        (lambda: pl.concat_str(pl.lit("blocked: "), reason()), [SLEEP, UNINTERRUPTIBLE, OFF]),
        (lambda: pl.lit("unknown"), [LOST]),
    ]
    named = pl.coalesce(*(pl.when(kind.is_in(kinds)).then(make()) for make, kinds in what)).alias("what")
    sums = inside.with_columns(uninterruptible).group_by("tid", "begin", named).agg(length.sum().alias("time"))
    found: dict[tuple[int, int], dict[str, int]] = {}
    for tid, begin, name, time in trace.collect(sums).sort("time", descending=True).iter_rows():
        found.setdefault((tid, begin), {})[name] = time
    for tid, begin, dur in rows.select("tid", "ts", "dur").iter_rows():
        known = found.get((tid, begin))
        if known is not None and (rest := dur - sum(known.values())) > 0:
            known["unknown"] = known.get("unknown", 0) + rest
    return found
