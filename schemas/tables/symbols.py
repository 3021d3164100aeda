"""Names of code that is in no file of its own: the kernel's functions, and what was compiled at run time."""

from ringtape.schemas.columns import Column, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="symbols",
    version="1.0",
    doc=(
        "One row per function of the running kernel and its modules, of the vDSO that it gives to every process, and of code that was compiled at "
        "run time, as far as its compiler tells of it (`/tmp/perf-PID.map`). Functions of programs are in their files."
    ),
    origin="recorder",
    default=False,
    lasting=True,
    columns=(
        ts("when the list was read", "CLOCK_MONOTONIC"),
        Column(
            "address",
            "i64",
            "first address, as a signed number: the kernel's are negative; of the vDSO the place in it",
            "",
            "/proc/kallsyms, vDSO, perf-PID.map",
            encoding="delta",
        ),
        Column("length", "i64", "bytes; 0: up to the next", "bytes", "vDSO, perf-PID.map"),
        Column("pid", "i32", "process that holds it; 0: the kernel, or all", "", "perf-PID.map"),
        Column("name", "bytes", "name", "", "/proc/kallsyms, vDSO, perf-PID.map"),
        Column("module", "bytes", "module of the kernel, [vdso], [jit], or empty", "", "/proc/kallsyms"),
    ),
)
