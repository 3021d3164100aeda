"""Stays on CPUs as the kernel's own switches of a Perfetto trace, wake-ups as flows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ringtape.analysis.perfetto_packets import Packets
from ringtape.analysis.perfetto_threads import Threads
from ringtape.analysis.pieces import batches
from ringtape.analysis.schedule import BLOCKED, RUNNING, WAITING
from ringtape.analysis.trace import Trace

Ints = npt.NDArray[np.int64]
COLUMNS = ("ts", "dur", "wait", "pid", "tid", "waker", "waker_pid", "state", "cpu", "context", "preempt", "kind")
_REPORTED, _IDLE, _NO_LOAD, _UNINTERRUPTIBLE, _DEAD, _EXIT_DEAD, _PREEMPTED = 0x7F, 0x80, 0x400, 0x2, 0x80, 0x10, 0x100


def prev_state(state: Ints, preempt: Ints) -> Ints:
    """Return states as the tracepoint sched_switch has them: __trace_sched_switch_state in include/trace/events/sched.h, Linux 4.14 to 6.18.

    The bits up to parked as they are, dead threads as exited, idle ones (uninterruptible, no load) and preempted ones with bits of
    their own.
    """
    told = np.where(state & _DEAD != 0, _EXIT_DEAD, state & _REPORTED)
    idle = (state & _UNINTERRUPTIBLE != 0) & (state & _NO_LOAD != 0)
    return np.where(preempt != 0, _PREEMPTED, np.where(idle, _IDLE, told))


def cpus(trace: Trace, packets: Packets, threads: Threads) -> Iterator[bytes]:
    """Yield switches, wake-ups and flows. Where no recorded thread was on a CPU, it is shown as idle."""
    pending: dict[int, dict[str, Any]] = {}
    flows = 1
    for batch in batches(trace, "sched", lambda piece: piece.scan("sched").select(pl.col(COLUMNS).cast(pl.Int64))):
        columns = {name: batch[name].to_numpy() for name in COLUMNS}
        stays = ~np.isin(columns["kind"], (WAITING, BLOCKED))
        for cpu in np.unique(columns["cpu"]).tolist():
            mine = np.flatnonzero(stays & (columns["cpu"] == cpu))
            if len(mine):
                yield _switches(packets, cpu, {name: values[mine] for name, values in columns.items()}, pending)
            woken = np.flatnonzero((columns["wait"] >= 0) & (columns["cpu"] == cpu) & (columns["kind"] != BLOCKED))
            at = (columns["ts"] - columns["wait"])[woken]
            if len(woken):
                yield packets.wakings(cpu, at, columns["waker"][woken], columns["tid"][woken])
        chosen = np.flatnonzero((columns["wait"] >= 0) & (columns["waker"] > 0) & (columns["waker_pid"] > 0) & (columns["context"] == 0) & stays)
        if len(chosen):
            yield _flows(packets, threads, {name: values[chosen] for name, values in columns.items()}, flows)
            flows += len(chosen)
    for cpu, last in pending.items():
        if last["kind"] != RUNNING:
            one = {name: np.array([value]) for name, value in last.items()}
            yield packets.switches(cpu, one["ts"] + one["dur"], one["tid"], prev_state(one["state"], one["preempt"]), np.zeros(1, np.int64))


def _switches(packets: Packets, cpu: int, rows: dict[str, Ints], pending: dict[int, dict[str, Any]]) -> bytes:
    """Return the switches of one CPU; that from its last stay waits for what comes after."""
    before = pending.get(cpu)
    count = len(rows["ts"])
    with_last = {name: np.concatenate([[before[name]] if before else [], values]).astype(np.int64) for name, values in rows.items()}
    ends, states = with_last["ts"] + with_last["dur"], prev_state(with_last["state"], with_last["preempt"])
    begins = with_last["ts"]
    # A stay that begins as another ends is one switch; else the CPU was left to what is not recorded.
    left = np.flatnonzero(ends[:-1] != begins[1:])
    out_ts, out_tid, out_state = ends[left], with_last["tid"][left], states[left]
    source, state = np.zeros(count, np.int64), np.zeros(count, np.int64)
    follows = np.flatnonzero(ends[:-1] == begins[1:]) + 1
    target = follows - (1 if before else 0)
    source[target], state[target] = with_last["tid"][follows - 1], states[follows - 1]
    ts = np.concatenate([out_ts, rows["ts"]])
    order = np.argsort(ts, kind="stable")
    data = packets.switches(
        cpu,
        ts[order],
        np.concatenate([out_tid, source])[order],
        np.concatenate([out_state, state])[order],
        np.concatenate([np.zeros(len(left), np.int64), rows["tid"]])[order],
    )
    pending[cpu] = {name: int(values[-1]) for name, values in rows.items()}
    return data


def _flows(packets: Packets, threads: Threads, rows: dict[str, Ints], first: int) -> bytes:
    """Return two instants for each wake-up, in the waker when it woke and in the woken when it ran, and the flow between them."""
    ids = first + np.arange(len(rows["ts"]))
    source, target = threads.of(rows["waker_pid"], rows["waker"]), threads.of(rows["pid"], rows["tid"])
    at = rows["ts"] - rows["wait"]
    woke = packets.instants(at, source, packets.title("wakes", "wake-up"), packets.noted("tid", rows["tid"]), packets.flowing(ids, False))
    ran = packets.instants(
        rows["ts"],
        target,
        packets.title("woken", "wake-up"),
        packets.noted("waker", rows["waker"]),
        packets.noted("wait", rows["wait"]),
        packets.flowing(ids, True),
    )
    return packets.interned() + woke + ran
