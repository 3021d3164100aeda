"""Names of the kernel's functions."""

from ringtape.schemas.columns import Column, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="symbols",
    version="1.0",
    doc="One row per function of the running kernel and its modules, for the addresses of kernel stacks.",
    origin="recorder",
    default=False,
    columns=(
        ts("when the list was read", "CLOCK_MONOTONIC"),
        Column("address", "i64", "first address, as a signed number", "", "/proc/kallsyms", encoding="delta"),
        Column("name", "bytes", "name", "", "/proc/kallsyms"),
        Column("module", "bytes", "module, or empty", "", "/proc/kallsyms"),
    ),
)
