"""Page faults: fresh memory touched page by page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.families import Family
from tests.bench.workshop import Workshop


def touch(shop: Workshop, size: int) -> Sequence[str | Path]:
    """Return the command that touches 10,000 pages so many times."""
    return [shop.program("touch_pages"), str(size)]


FAMILY = Family(
    name="faults (page touching)",
    table="faults",
    record=("--tables", "faults"),
    tracepoints=("page_fault_user", "page_fault_kernel"),
    perf=("exceptions:page_fault_user", "exceptions:page_fault_kernel"),
    workload=touch,
    size=60,
)
