"""Stacks off the CPU: hackbench, as perf brings it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.families import Family
from tests.bench.workshop import Workshop


def _hackbench(shop: Workshop, size: int) -> Sequence[str | Path]:
    return ["perf", "bench", "sched", "messaging", "--group", "2", "--nr_loops", str(size)]


FAMILY = Family(
    name="samples (hackbench, each blocking)",
    table="samples",
    record=("--tables", "processes", "--offcpu-stacks", "0"),
    tracepoints=("sched_switch",),
    perf=("sched:sched_switch",),
    workload=_hackbench,
    size=400,
    perf_options=("-g",),
)
