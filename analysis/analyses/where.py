"""The five things that the program spent its time on, each with its evidence."""

from __future__ import annotations

import polars as pl

from ringtape.analysis.analyses.ledger import ledger
from ringtape.analysis.analyses.offcpu import offcpu
from ringtape.analysis.registry import Result, analysis
from ringtape.analysis.render import number, share
from ringtape.analysis.trace import Trace
from ringtape.schemas.units import format_duration

FIVE = 5
IDLE = ("poll", "sleep", "child", "terminal")
"""What a thread waits for by intention: told of last, since it costs nothing."""


@analysis(
    tables=("sched", "syscalls"),
    columns=(
        Result("rank", pl.Int64, "1 for what took most"),
        Result("what", pl.String, "what the time went to, in words"),
        Result("time", pl.Int64, "thread time that it took", "ns"),
        Result("share", pl.Float64, "time / time that the threads did not wait by intention", "share"),
        Result("evidence", pl.String, "where it can be seen: analysis and row"),
    ),
)
def where(trace: Trace) -> pl.DataFrame:
    """Tell the five things that took most of the time that was not waited by intention.

    Parameters
    ----------
    trace : Trace
        The recording.

    Returns
    -------
    DataFrame
        Five rows at most, and behind them one (rank null) for what was waited by intention: ``rank``, ``what``, ``time`` (ns),
        ``share``, ``evidence``.

    Raises
    ------
    RingtapeError
        If the tables ``sched`` and ``syscalls`` were not recorded.

    Notes
    -----
    The rows are those of the analysis ``ledger`` by command, with most time first. Waiting for events, for a time, for a child or for
    somebody to type is what a server or a shell is made for: it is summed up apart.

    Examples
    --------
    >>> import ringtape
    >>> from ringtape.analysis.analyses.where import where
    >>> trace = ringtape.open("datasets/families.trace")
    >>> where(trace)["what"][0]
    'python3 was blocked in futex (lock, 650 times, the longest 493 ms)'
    """
    entries = ledger(trace, by="command")
    idle = (pl.col("where") == "blocked") & pl.col("reason").is_in(IDLE)
    busy = entries.filter(~idle.fill_null(False)).sort("time", descending=True)
    whole = int(busy["time"].sum())
    blocked = offcpu(trace, by="command")
    rows = []
    for rank, row in enumerate(busy.head(FIVE).iter_rows(named=True), 1):
        what, evidence = _told(row, blocked)
        rows.append({"rank": rank, "what": what, "time": row["time"], "share": row["time"] / whole, "evidence": evidence})
    waited = entries.filter(idle.fill_null(False))
    if len(waited):
        texts = [f"{row['command']} in {row['syscall']}" for row in waited.sort("time", descending=True).head(3).iter_rows(named=True)]
        what = f"waiting by intention for events, times, children or a terminal: {', '.join(texts)}"
        rows.append({"rank": None, "what": what, "time": int(waited["time"].sum()), "share": None, "evidence": f"ledger: reasons {', '.join(IDLE)}"})
    return pl.DataFrame(rows, schema={"rank": pl.Int64, "what": pl.String, "time": pl.Int64, "share": pl.Float64, "evidence": pl.String})


def _told(row: dict[str, object], blocked: pl.DataFrame) -> tuple[str, str]:
    """Return a ledger entry in words, and where it can be seen."""
    who, place, call = row["command"], row["where"], row["syscall"]
    entry = f"ledger --by command: {who}, {place}" + (f", {call}" if call else "")
    portion = share(row["share"]) if isinstance(row["share"], float) else ""
    if place == "user":
        return f"{who} computed: {portion} of its time on a CPU outside of system calls", entry
    if place == "syscall":
        return f"{who} was at work in the kernel, in {call} ({portion} of its time)", f"{entry}; syscall-mix, latency --syscall {call}"
    if place == "run queue":
        return f"{who} could run and had no CPU ({portion} of its time)", f"{entry}; runq-latency, cpu"
    if place == "fault":
        return f"{who} waited for memory in page faults ({portion} of its time)", entry
    if place == "blocked":
        same = blocked.filter(pl.col("command") == who, pl.col("syscall") == call, pl.col("reason") == row["reason"])
        count, longest = same.select(pl.col("count").sum(), pl.col("max").max()).row(0)
        often = "once" if count == 1 else f"{number(count)} times, the longest {format_duration(longest)}" if longest is not None else ""
        detail = f", {often}" if often else ""
        return f"{who} was blocked in {call} ({row['reason']}{detail})", f"{entry}; offcpu: {call}"
    return f"{who}: {place} ({portion} of its time)", f"{entry}; loss"
