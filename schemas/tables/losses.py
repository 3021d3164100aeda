"""The loss ledger."""

from ringtape.schemas.columns import ABI, CPU, Column, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="losses",
    version="1.2",
    doc="One row per table, CPU, cause, system call and duration bucket in which records were lost between two looks at the ledger.",
    origin="recorder",
    columns=(
        ts("start of the window in which the records were lost", "time of the first loss or of the look before, whichever is later"),
        Column("until", "i64", "when the last of them was lost", "ns", "loss ledger of the probe", encoding="delta"),
        Column("count", "i64", "records lost", "count", "loss ledger of the probe"),
        Column("sum", "i64", "sum of their durations", "ns", "loss ledger of the probe"),
        Column("nr", "i32", "system call number for syscalls and paths, -1 elsewhere"),
        CPU,
        ABI,
        Column("bucket", "i8", "floor(log2(duration in ns)), 0 for durations below 2 ns and for records without a duration"),
        Column(
            "cause",
            "i8",
            "why",
            "",
            "probe",
            {0: "ring full", 1: "no task storage", 2: "string unreadable", 3: "probe skipped", 4: "lost by the tool it was imported from"},
        ),
        Column("table", "text", "table whose records were lost"),
    ),
)
