"""Any tracepoint, here that of all system calls: calls that do nothing, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.families import Family
from tests.bench.workshop import Workshop


def _null_calls(shop: Workshop, size: int) -> Sequence[str | Path]:
    return ["perf", "bench", "syscall", "basic", "--loop", str(size)]


FAMILY = Family(
    name="events (raw_syscalls:sys_enter, null calls)",
    table="events",
    record=("--tables", "processes", "--event", "raw_syscalls:sys_enter"),
    tracepoints=("sys_enter",),
    perf=("raw_syscalls:sys_enter",),
    workload=_null_calls,
    size=1_000_000,
)
