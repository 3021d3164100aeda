"""Block I/O: direct writes, one after the other, as dd makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.families import Family
from tests.bench.workshop import Workshop

_TRACEPOINTS = ("block_io_start", "block_rq_insert", "block_rq_issue", "block_rq_complete", "block_rq_requeue", "block_rq_merge")


def _direct_writes(shop: Workshop, size: int) -> Sequence[str | Path]:
    return ["dd", "if=/dev/zero", f"of={shop.folder / 'direct-writes'}", "bs=4k", f"count={size}", "oflag=direct", "conv=notrunc", "status=none"]


FAMILY = Family(
    name="block (direct writes)",
    table="block",
    record=("--tables", "block"),
    tracepoints=_TRACEPOINTS,
    perf=tuple(f"block:{name}" for name in _TRACEPOINTS),
    workload=_direct_writes,
    size=40_000,
)
