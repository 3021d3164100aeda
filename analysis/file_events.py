"""What changes descriptors, in the order of time, out of the tables of a trace."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.descriptors import (
    CALL,
    EBADF,
    EXEC,
    EXISTING,
    EXIT,
    F_DUPFD,
    F_DUPFD_CLOEXEC,
    F_SETFD,
    FIOCLEX,
    FIONCLEX,
    FORK,
    PROCESS,
    SNAPSHOT,
)
from ringtape.analysis.file_calls import Op, among, shapes
from ringtape.analysis.trace import Trace
from ringtape.schemas.abi.syscalls import ABI_IDS

WINDOW = 1_000_000
"""Calls that are held in memory at a time, about."""
ARGS = [f"arg{index}" for index in range(6)]
RETURNED, NO_RETURN, AT_ATTACH, UNFINISHED = range(4)
_SUCCESS_ZERO = (Op.CLOSE_RANGE, Op.BIND, Op.CHDIR, Op.FCHDIR, Op.UNSHARE)
Window = tuple[int | None, int | None]


def windows(trace: Trace, rows: int = WINDOW) -> list[Window]:
    """Return bounds of ``ts``, half open, between which about as many calls with descriptors or paths lie as are wanted."""
    wanted = trace.scan("syscalls").filter(is_wanted(trace))
    if trace.rows("syscalls") <= rows or trace.collect(wanted.select(pl.len())).item() <= rows:
        return [(None, None)]
    step = max(1, rows // 64)
    sample = trace.collect(wanted.select(pl.col("ts").gather_every(step)))["ts"].sort()
    cuts = sample.gather_every(max(1, rows // step))[1:].unique(maintain_order=True).to_list()
    return list(zip([None, *cuts], [*cuts, None], strict=True))


def is_wanted(trace: Trace, changing: bool = False) -> pl.Expr:
    """Return the expression that is true for calls with descriptors or paths, or only for those that change descriptors."""
    own, others = shapes().numbers(trace.header.abi, changing)
    native = pl.col("abi") == ABI_IDS.get(trace.header.abi, 0)
    return (native & pl.col("nr").is_in(own)) | (~native & pl.col("nr").is_in(others))


def file_events(trace: Trace, cuts: list[Window]) -> Iterator[tuple[Any, ...]]:
    """Yield (time, source, number, ...) in order: what `descriptors.Follower` takes."""
    return heapq.merge(_snapshots(trace), _processes(trace), _calls(trace, cuts))


def _snapshots(trace: Trace) -> Iterator[tuple[Any, ...]]:
    if "descriptors" not in trace.tables:
        return
    frame = trace.collect(trace.scan("descriptors").select("ts", "pid", "fd", "flags", "pos", "target")).sort("ts", "pid", "fd")
    for number, (ts, *rest) in enumerate(frame.iter_rows()):
        yield (ts, SNAPSHOT, number, *rest)


def _processes(trace: Trace) -> Iterator[tuple[Any, ...]]:
    wanted = trace.scan("processes").filter(pl.col("kind").is_in([EXISTING, FORK, EXEC, EXIT]))
    frame = trace.collect(wanted.select("ts", "kind", "tid", "pid", "ppid", "creator", "clone_flags", "group_dead", "seq"))
    frame = frame.sort("ts", "seq", maintain_order=True).drop("seq")
    for number, (ts, *rest) in enumerate(frame.iter_rows()):
        yield (ts, PROCESS, number, *rest)


def _calls(trace: Trace, cuts: list[Window]) -> Iterator[tuple[Any, ...]]:
    """Yield calls by the time of their effect: closing at the beginning, everything else at the end."""
    number = 0
    waiting: pl.DataFrame | None = None
    for since, until in cuts:
        frame = _changing(trace, since, until)
        frame = (pl.concat([waiting, frame]) if waiting is not None else frame).sort("effect", "ts", maintain_order=True)
        if until is not None:
            waiting = frame.filter(pl.col("effect") >= until)
            frame = frame.filter(pl.col("effect") < until)
        for effect, shape, tid, pid, ret, *args, value in frame.drop("ts").iter_rows(buffer_size=8192):
            number += 1
            yield (effect, CALL, number, shape, tid, pid, effect, ret, args, value)


def _changing(trace: Trace, since: int | None, until: int | None) -> pl.DataFrame:
    """Return the calls of a window that changed descriptors, with the string that goes with each."""
    wanted = trace.scan("syscalls", since, until).filter(pl.col("kind") <= UNFINISHED, is_wanted(trace, changing=True))
    frame = trace.collect(wanted.select("ts", "dur", "tid", "pid", "ret", *ARGS, "nr", "abi", "kind"))
    index = shapes().index(frame["abi"].to_numpy(), frame["nr"].to_numpy())
    op = shapes().column("op", index)
    keep = _changes(op, *(frame[name].to_numpy() for name in ("ret", "kind", "arg1")))
    # A descriptor is gone as soon as its closing begins, and one that was made can be known to others only at the end.
    early = among(op, (Op.CLOSE, Op.CLOSE_RANGE))
    effect = frame["ts"].to_numpy() + np.where(early, 1, np.maximum(frame["dur"].to_numpy(), 1))
    found = frame.with_columns(pl.Series("effect", effect), pl.Series("shape", index, pl.Int16)).filter(pl.Series(keep))
    strings = pl.DataFrame(schema={"tid": pl.Int32, "ts": pl.Int64, "value": pl.Binary})
    if "paths" in trace.tables:
        strings = trace.collect(trace.scan("paths", since, until).filter(is_wanted(trace, changing=True)).select("tid", "ts", "value"))
        strings = strings.unique(["tid", "ts"], keep="first", maintain_order=True)
    return found.join(strings, on=["tid", "ts"], how="left").select("ts", "effect", "shape", "tid", "pid", "ret", *ARGS, "value")


def _changes(op: npt.NDArray[np.int8], ret: npt.NDArray[np.int64], kind: npt.NDArray[np.int8], arg1: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which calls did what they were made for."""
    done = among(kind, (RETURNED, AT_ATTACH))
    keep: npt.NDArray[np.bool_] = done & (ret >= 0) & (op != Op.NONE)
    keep &= ~among(op, _SUCCESS_ZERO) | (ret == 0)
    command = arg1 & 0xFFFFFFFF
    keep &= (op != Op.FCNTL) | np.isin(command, (F_DUPFD, F_DUPFD_CLOEXEC, F_SETFD))
    keep &= (op != Op.IOCTL) | np.isin(command, (FIOCLEX, FIONCLEX))
    # A socket is called after the peer that it was to reach, also if that failed; close gives the number back even when it fails.
    keep |= done & (op == Op.CONNECT)
    keep |= (op == Op.CLOSE) & (ret != -EBADF)
    return keep
