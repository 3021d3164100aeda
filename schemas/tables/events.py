"""Any tracepoint."""

from ringtape.schemas.columns import CPU, PID, TID, Column, seq, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="events",
    version="1.0",
    doc="One row per occurrence of a tracepoint chosen with --event; the manifest's header says what the bytes of each event mean.",
    default=False,
    ring_size=64 << 20,
    needs=("processes",),
    interrupts=True,
    cost="0.2 to 0.4 µs for each occurrence in a recorded thread, half of what `perf record` of it costs",
    columns=(
        ts("when it happened"),
        seq(),
        PID,
        TID,
        Column("event", "i32", "number of the tracepoint; `events` of the manifest's header names it", "", "ID of its format file"),
        CPU,
        Column(
            "context",
            "i8",
            "what was running: outside of a task's own context, pid and tid are of whatever thread was interrupted",
            "",
            "__preempt_count",
            {-1: "unknown", 0: "task", 1: "softirq", 2: "hardirq", 3: "nmi"},
        ),
        Column("cut", "i8", "1 if the kernel's record claimed to be longer than any can be, and its end is missing"),
        Column("raw", "bytes", "the kernel's record from its ninth byte on: fixed fields, then what dynamic arrays hold", "", "the tracepoint"),
        Column(
            "strings", "bytes", "each string that a pointer led to, behind a byte with its length (255: it could not be read)", "", "the tracepoint"
        ),
    ),
)
