"""Where code lies in the memory of processes."""

from ringtape.schemas.columns import Column, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="mappings",
    version="1.0",
    doc="One row per executable mapping of a file, and per event after which others are in force; from them addresses are told apart into files.",
    origin="recorder",
    default=False,
    lasting=True,
    columns=(
        ts("when it was mapped, or read (kind 0)", "perf event: time, CLOCK_MONOTONIC"),
        Column("start", "i64", "first address", "", "PERF_RECORD_MMAP2"),
        Column("length", "i64", "bytes; kind 4: mappings that were lost", "bytes", "PERF_RECORD_MMAP2"),
        Column("offset", "i64", "place in the file", "bytes", "PERF_RECORD_MMAP2"),
        Column("pid", "i32", "process", "", "PERF_RECORD_MMAP2"),
        Column("parent", "i32", "kind 3: the process whose mappings it began with", "", "PERF_RECORD_FORK"),
        Column(
            "kind",
            "i8",
            "what happened",
            "",
            "perf event",
            {0: "existing", 1: "mapped", 2: "exec: none before it count", 3: "fork", 4: "lost"},
        ),
        Column("build_id", "bytes", "build id of the file; empty where it has none", "", "PERF_RECORD_MMAP2, /proc/PID/map_files"),
        Column("path", "bytes", "file as the process named it, or [vdso], //anon", "", "PERF_RECORD_MMAP2, /proc/PID/maps"),
    ),
)
