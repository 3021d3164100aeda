"""What a recording tells of the time around given calls, table by table, as one kind of line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl

from ringtape.analysis.decode import calls as decode
from ringtape.analysis.trace import Trace
from ringtape.schemas.columns import ABI
from ringtape.schemas.escape import escape
from ringtape.schemas.units import format_duration, format_size

_RUNNABLE = 0
_STATES = {0x1: "sleeps, can be interrupted", 0x2: "sleeps, cannot be interrupted", 0x4: "stopped", 0x8: "traced", 0x10: "ended", 0x20: "ended"}
_FAULTS = {0: "page fault of the program", 1: "page fault in the kernel"}


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened around the call ``key`` (tid, ts): from ``ts`` on for ``dur`` ns (0: at an instant), as a sentence."""

    key: tuple[int, int]
    table: str
    ts: int
    dur: int
    text: str


class Near:
    """Looks rows up that lie around calls (``ts``, ``dur``, ``tid``): ``limit`` of each table and phase, the others counted in ``left_out``."""

    def __init__(self, trace: Trace, calls: pl.DataFrame, around: int, limit: int) -> None:
        self.trace, self._limit = trace, limit
        self._calls = calls.select(
            pl.col("tid").alias("_tid"),
            pl.col("ts").alias("_ts"),
            (pl.col("ts") + pl.col("dur")).alias("_end"),
            (pl.col("ts") - around).alias("_low"),
            (pl.col("ts") + pl.col("dur") + around).alias("_high"),
        )
        self.left_out: dict[tuple[int, int], dict[str, int]] = {}

    def rows(self, table: str, frame: pl.LazyFrame, *, own: bool = True, lasts: bool = True) -> pl.DataFrame:
        """Return the rows of a frame around the calls, with the call's ``_tid`` and ``_ts``; those of the call's thread alone if ``own``."""
        end = pl.col("ts") + pl.col("dur") if lasts else pl.col("ts")
        # One pass over the table for all calls: the rows that one of them wants are few.
        mine = pl.any_horizontal(
            ((pl.col("tid") == tid) if own else pl.lit(True)) & (pl.col("ts") <= high) & (end >= low)
            for tid, low, high in self._calls.select("_tid", "_low", "_high").iter_rows()
        )
        wanted = frame.filter(pl.col("ts") <= int(self._calls["_high"].max()), mine)  # type: ignore[arg-type]
        pairs = (
            wanted.join(self._calls.lazy(), left_on="tid", right_on="_tid", coalesce=False) if own else wanted.join(self._calls.lazy(), how="cross")
        )
        pairs = pairs.filter(pl.col("ts") <= pl.col("_high"), end >= pl.col("_low"))
        if table == "syscalls":
            pairs = pairs.filter(pl.col("ts") != pl.col("_ts"))
        before = (pl.col("ts") < pl.col("_ts")) & (end <= pl.col("_ts"))
        phase = pl.when(before).then(0).when(pl.col("ts") < pl.col("_end")).then(1).otherwise(2)
        # The nearest: the last of what came before, the first of all else.
        distance = pl.when(phase == 0).then(-pl.col("ts")).otherwise(pl.col("ts"))
        keys = ["_tid", "_ts", "_phase"]
        found = self.trace.collect(pairs.with_columns(phase.alias("_phase"))).with_columns(distance.alias("_distance")).sort("_distance")
        for tid, ts, count in found.group_by(keys).len().filter(pl.col("len") > self._limit).select("_tid", "_ts", "len").iter_rows():
            counts = self.left_out.setdefault((tid, ts), {})
            counts[table] = counts.get(table, 0) + count - self._limit
        return found.group_by(keys, maintain_order=True).head(self._limit)


Source = Callable[[Near], Iterator[Happening]]


def call_texts(trace: Trace, calls: pl.DataFrame) -> dict[tuple[int, int], dict[int, decode.Text]]:
    """Return the recorded strings of calls (``tid``, ``ts``), by these and the argument."""
    if "paths" not in trace.tables or not len(calls):
        return {}
    low, high = int(calls["ts"].min()), int(calls["ts"].max())  # type: ignore[arg-type]
    wanted = trace.scan("paths", low, high + 1).join(calls.lazy().select("tid", "ts").unique(), on=["tid", "ts"], how="semi")
    found: dict[tuple[int, int], dict[int, decode.Text]] = {}
    for tid, ts, arg, kind, value, cut in trace.collect(wanted.select("tid", "ts", "arg", "kind", "value", "cut")).iter_rows():
        found.setdefault((tid, ts), {})[arg] = decode.Text(kind, value, bool(cut))
    return found


def _calls(near: Near) -> Iterator[Happening]:
    columns = ["ts", "dur", "nr", "abi", "ret", "kind", "tid", *(f"arg{index}" for index in range(6))]
    rows = near.rows("syscalls", near.trace.scan("syscalls").select(columns))
    texts = call_texts(near.trace, rows)
    for row in rows.iter_rows(named=True):
        abi = ABI.values.get(row["abi"], "x86_64")
        args = [row[f"arg{index}"] for index in range(6)]
        shown = decode.call(abi, row["nr"], args, texts.get((row["tid"], row["ts"])))
        result = decode.result(abi, row["nr"], args, row["ret"], row["kind"])
        yield Happening((row["_tid"], row["_ts"]), "syscalls", row["ts"], row["dur"], f"{shown} = {result}")


def _sched(near: Near) -> Iterator[Happening]:
    columns = ["ts", "dur", "wait", "tid", "cpu", "state", "preempt", "kind", "waker", "waker_pid", "context", "migrations"]
    for row in near.rows("sched", near.trace.frame("sched").select(*columns, "context_name")).iter_rows(named=True):
        key, begin = (row["_tid"], row["_ts"]), row["ts"]
        if row["wait"] > 0:
            yield Happening(key, "sched", begin - row["wait"], row["wait"], f"can run and waits for a CPU{_woken(row)}")
        yield Happening(key, "sched", begin, row["dur"], f"runs on CPU {row['cpu']}, then {_leaving(row)}")


def _woken(row: dict[str, object]) -> str:
    if row["context"] != 0 and row["context"] is not None and row["waker"]:
        return f" (woken in a {row['context_name']} on top of thread {row['waker']})"
    return f" (woken by thread {row['waker']} of process {row['waker_pid']})" if row["waker"] else ""


def _leaving(row: dict[str, int]) -> str:
    if row["kind"] == 2:
        return "the recording ends"
    if row["preempt"] or row["state"] == _RUNNABLE:
        return "another takes the CPU"
    return next((name for bit, name in _STATES.items() if row["state"] & bit), f"leaves in state {row['state']:#x}")


def _block(near: Near) -> Iterator[Happening]:
    columns = ["ts", "dur", "issue", "service", "sector", "bytes", "disk", "tid", "operation_name", "kind_name"]
    for row in near.rows("block", near.trace.frame("block").select(columns), own=False).iter_rows(named=True):
        whose = "" if row["tid"] == row["_tid"] else f", of thread {row['tid']}" if row["tid"] else ", of an unknown thread"
        parts = [f"queue {format_duration(row['issue'])}"] if row["issue"] >= 0 else []
        parts += [f"device {format_duration(row['service'])}"] if row["service"] >= 0 else [row["kind_name"]]
        place = f" at sector {row['sector']}" if row["sector"] >= 0 else ""
        disk = escape(row["disk"].split(b"\0", 1)[0])
        text = f"{disk} {row['operation_name']} {format_size(row['bytes'])}{place}: {', '.join(parts)}{whose}"
        yield Happening((row["_tid"], row["_ts"]), "block", row["ts"], row["dur"], text)


def _sockets(near: Near) -> Iterator[Happening]:
    columns = ["ts", "tid", "kind", "kind_name", "old_name", "state_name", "protocol_name", "local", "peer"]
    for row in near.rows("sockets", near.trace.frame("sockets").select(columns), lasts=False).iter_rows(named=True):
        what = f"{row['old_name']} -> {row['state_name']}" if row["kind"] == 0 else row["kind_name"]
        text = f"{row['protocol_name']} {row['local'] or '?'} to {row['peer'] or '?'}: {what}"
        yield Happening((row["_tid"], row["_ts"]), "sockets", row["ts"], 0, text)


def _transfers(near: Near) -> Iterator[Happening]:
    columns = ["ts", "tid", "result", "direction_name", "protocol_name", "local", "peer"]
    for row in near.rows("transfers", near.trace.frame("transfers").select(columns), lasts=False).iter_rows(named=True):
        amount = format_size(row["result"]) if row["result"] >= 0 else f"error {-row['result']}"
        text = f"{row['direction_name']} {amount}, {row['protocol_name']} {row['local'] or '?'} with {row['peer'] or '?'}"
        yield Happening((row["_tid"], row["_ts"]), "transfers", row["ts"], 0, text)


def _memory(near: Near) -> Iterator[Happening]:
    stalls = near.trace.frame("memory").filter(pl.col("kind").is_between(1, 4)).drop("tid").rename({"actor": "tid"})
    for row in near.rows("memory", stalls.select("ts", "dur", "tid", "kind_name")).iter_rows(named=True):
        yield Happening((row["_tid"], row["_ts"]), "memory", row["ts"], row["dur"], f"stalls for memory: {row['kind_name']}")


def _faults(near: Near) -> Iterator[Happening]:
    taken = near.trace.scan("faults").filter(pl.col("kind").is_in(list(_FAULTS))).select("ts", "tid", "kind", "address")
    for row in near.rows("faults", taken, lasts=False).iter_rows(named=True):
        text = f"{_FAULTS[row['kind']]} at {row['address'] & 0xFFFFFFFFFFFFFFFF:#x}"
        yield Happening((row["_tid"], row["_ts"]), "faults", row["ts"], 0, text)


def _events(near: Near) -> Iterator[Happening]:
    names = {event.id: event.name for event in near.trace.events.values()}
    for row in near.rows("events", near.trace.scan("events").select("ts", "tid", "event"), lasts=False).iter_rows(named=True):
        text = f"tracepoint {names.get(row['event'], row['event'])}"
        yield Happening((row["_tid"], row["_ts"]), "events", row["ts"], 0, text)


SOURCES: dict[str, Source] = {
    "syscalls": _calls,
    "sched": _sched,
    "block": _block,
    "sockets": _sockets,
    "transfers": _transfers,
    "memory": _memory,
    "faults": _faults,
    "events": _events,
}
"""By table: what it tells."""
