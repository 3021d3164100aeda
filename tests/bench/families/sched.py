"""Scheduler: hackbench, as perf brings it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.families import Family
from tests.bench.workshop import Workshop


def _hackbench(shop: Workshop, size: int) -> Sequence[str | Path]:
    return ["perf", "bench", "sched", "messaging", "--group", "2", "--nr_loops", str(size)]


FAMILY = Family(
    name="sched (hackbench)",
    table="sched",
    record=("--tables", "sched"),
    tracepoints=("sched_switch", "sched_waking", "sched_wakeup_new", "sched_migrate_task"),
    perf=("sched:sched_switch", "sched:sched_waking", "sched:sched_wakeup_new", "sched:sched_migrate_task"),
    workload=_hackbench,
    size=400,
)
