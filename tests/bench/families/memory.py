"""Resident memory: the same touching of pages, each of which moves a counter; samples are few, so cost is told per page fault."""

from __future__ import annotations

from tests.bench.families import Family
from tests.bench.families.faults import touch

FAMILY = Family(
    name="memory and faults (page touching)",
    table="faults",
    record=("--tables", "memory,faults"),
    tracepoints=("page_fault_user", "page_fault_kernel", "rss_stat"),
    perf=("exceptions:page_fault_user", "exceptions:page_fault_kernel", "kmem:rss_stat"),
    workload=touch,
    size=60,
)
