"""Threads and processes as tracks of a Perfetto trace, and their system calls as slices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.ledger import CHILD, UNFINISHED
from ringtape.analysis.naming import comm_text, syscall_label
from ringtape.analysis.perfetto_packets import Packets, track
from ringtape.analysis.pieces import batches
from ringtape.analysis.trace import Trace
from ringtape.analysis.wire import message, number, where
from ringtape.schemas.abi import syscalls as abi_calls
from ringtape.schemas.columns import ABI
from ringtape.schemas.escape import escape
from ringtape.schemas.table import table as declared

Ints = npt.NDArray[np.int64]
LATEST = (1 << 63) - 1
ARGS = tuple(f"arg{number}" for number in range(6))
FIRST_TRACK = 16
"""Smaller numbers are those of tracks that belong to no process."""
_CMDLINE = 64
"""Words of a command line that are told at most."""


class Threads:
    """Every thread that a table names, each with the number of its track."""

    def __init__(self, trace: Trace) -> None:
        pairs = []
        for name, pid, tid in (
            ("syscalls", "pid", "tid"),
            ("sched", "pid", "tid"),
            ("sched", "waker_pid", "waker"),
            ("processes", "pid", "tid"),
            ("memory", "pid", "pid"),
            ("transfers", "pid", "tid"),
        ):
            if name in trace.tables:
                found = trace.scan(name).select(pl.col(pid).cast(pl.Int64).alias("pid"), pl.col(tid).cast(pl.Int64).alias("tid"))
                pairs.append(trace.collect(found.unique()))
        empty = pl.DataFrame(schema={"pid": pl.Int64, "tid": pl.Int64})
        known = pl.concat([empty, *pairs]).filter(pl.col("tid") > 0, pl.col("pid") > 0).unique()
        self._pids = np.unique(known["pid"].to_numpy())
        self._keys = np.unique(known["pid"].to_numpy() << 32 | known["tid"].to_numpy())
        self._trace = trace

    def of(self, pid: npt.NDArray[Any], tid: npt.NDArray[Any]) -> Ints:
        """Return the tracks of threads."""
        found = np.searchsorted(self._keys, pid.astype(np.int64) << 32 | tid.astype(np.int64))
        return FIRST_TRACK + len(self._pids) + found

    def process(self, pid: npt.NDArray[Any]) -> Ints:
        """Return the tracks of processes."""
        return FIRST_TRACK + np.searchsorted(self._pids, pid.astype(np.int64))

    @property
    def beyond(self) -> int:
        """The first number that no process or thread has."""
        return FIRST_TRACK + len(self._pids) + len(self._keys)

    def described(self) -> Iterator[bytes]:
        """Yield the packets that describe processes and threads, under the names that they had last."""
        known = self._trace.commands()

        def last(numbers: Ints) -> list[str]:
            codes = known.codes(numbers, np.full(len(numbers), LATEST))
            return [known.names[code] if code >= 0 else "" for code in codes.tolist()]

        lines: dict[int, list[str]] = {}
        if "processes" in self._trace.tables:
            execs = self._trace.collect(self._trace.scan("processes").filter(pl.col("kind") == 2).sort("ts").select("pid", "argv"))
            for pid, argv in execs.iter_rows():
                lines[pid] = [escape(word) for word in argv.removesuffix(b"\0").split(b"\0", _CMDLINE)[:_CMDLINE]]
        for at, (pid, name) in enumerate(zip(self._pids.tolist(), last(self._pids), strict=True)):
            yield track(FIRST_TRACK + at, process={"pid": pid, "process_name": name, "cmdline": lines.get(pid, [])})
        tids = self._keys & 0xFFFFFFFF
        for at, (key, name) in enumerate(zip(self._keys.tolist(), last(tids), strict=True)):
            thread = {"pid": key >> 32, "tid": key & 0xFFFFFFFF, "thread_name": name}
            yield track(FIRST_TRACK + len(self._pids) + at, thread=thread, parent_uuid=int(self.process(np.array([key >> 32]))[0]))


class _Names:
    """What calls and their arguments are called, as numbers of interned strings."""

    def __init__(self, packets: Packets, native: str) -> None:
        self._packets, self._native = packets, native
        self._known: dict[int, list[int]] = {}

    def of(self, abi: npt.NDArray[Any], nr: npt.NDArray[Any]) -> Ints:
        """Return for each call a row: its name, how many arguments it has, their names."""
        distinct, back = np.unique(abi.astype(np.int64) << 32 | nr.astype(np.int64) & 0xFFFFFFFF, return_inverse=True)
        for key in distinct.tolist():
            if key not in self._known:
                self._known[key] = self._row(key >> 32, (key & 0xFFFFFFFF) - (1 << 32 if key & 1 << 31 else 0))
        return np.array([self._known[key] for key in distinct.tolist()], np.int64).reshape(-1, 2 + len(ARGS))[back]

    def _row(self, abi: int, nr: int) -> list[int]:
        frame = pl.DataFrame({"abi": [abi], "nr": [nr]}, schema={"abi": pl.Int8, "nr": pl.Int32})
        name = frame.select(syscall_label(self._native)).item() or f"syscall_{nr}"
        known = abi_calls.signature(ABI.values[abi], nr) if abi in ABI.values else None
        names = list(ARGS) if known is None else [argument.name for argument in known][: len(ARGS)]
        iids = [self._packets.iid("debug_annotation_names", one) for one in names]
        return [self._packets.iid("event_names", name), len(iids), *iids, *([0] * (len(ARGS) - len(iids)))]


def calls(trace: Trace, packets: Packets, threads: Threads) -> Iterator[bytes]:
    """Yield the calls: slices named as the call, with return value, error and arguments; the return in a new thread is an instant."""
    names = _Names(packets, trace.header.abi)
    kinds = declared("syscalls").column("kind").values

    def wanted(piece: Trace) -> pl.LazyFrame:
        return piece.frame("syscalls").select("ts", "dur", "ret", *ARGS, "pid", "tid", "nr", "abi", "kind", "cpu", "errno")

    for batch in batches(trace, "syscalls", wanted):
        ts, dur, ret, kind = (batch[name].to_numpy().astype(np.int64) for name in ("ts", "dur", "ret", "kind"))
        told = names.of(batch["abi"].to_numpy(), batch["nr"].to_numpy())
        categories = (
            [packets.iid("event_categories", "syscall" if code == 0 else f"syscall, {kinds.get(code, code)}") for code in range(128)]
            if (kind < 128).all() and (kind >= 0).all()
            else []
        )
        errors = batch["errno"].unique(maintain_order=True).drop_nulls().to_list()
        numbers = dict(zip(errors, packets.passing(errors).tolist(), strict=True))
        errno = (
            batch["errno"].replace_strict(list(numbers), list(numbers.values()), default=0, return_dtype=pl.Int64).fill_null(0).to_numpy()
            if numbers
            else np.zeros(len(batch), np.int64)
        )
        paths, has_path = _paths(trace, packets, batch)
        annotations = [packets.noted("ret", ret), where(errno > 0, packets.named("errno", errno)), where(has_path, packets.named("path", paths))]
        for at, name in enumerate(ARGS):
            values = batch[name].to_numpy()
            annotations.append(where(told[:, 1] > at, message(4, [number(1, told[:, 2 + at]), number(4, values)])))
        annotations.append(packets.noted("cpu", batch["cpu"].to_numpy()))
        data = packets.slices(
            ts,
            ts + dur,
            kind == UNFINISHED,
            kind == CHILD,
            threads.of(batch["pid"].to_numpy(), batch["tid"].to_numpy()),
            packets.title(told[:, 0], np.array(categories, np.int64)[kind]),
            *annotations,
        )
        yield packets.interned()
        yield data


def _paths(trace: Trace, packets: Packets, batch: pl.DataFrame) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return the first path that each call was given, and whether it was given one."""
    nothing = np.zeros(len(batch), np.int64)
    if "paths" not in trace.tables:
        return nothing, nothing > 0
    edges = batch.select(since=pl.col("ts").min(), until=pl.col("ts").max() + 1).row(0)
    wanted = trace.scan("paths", *edges).filter(pl.col("kind") == 0).select("tid", "ts", "arg", "value")
    given = trace.collect(wanted).sort("arg").unique(["tid", "ts"], keep="first", maintain_order=True)
    distinct = given["value"].unique(maintain_order=True)
    texts = pl.DataFrame({"value": distinct, "path": packets.passing([comm_text(value) for value in distinct])})
    found = batch.select("tid", "ts").join(given.join(texts, on="value"), on=["tid", "ts"], how="left", maintain_order="left")["path"]
    return found.fill_null(0).to_numpy(), found.is_not_null().to_numpy()
