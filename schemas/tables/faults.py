"""Page faults."""

from ringtape.schemas.columns import CPU, PID, TID, Column, seq, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="faults",
    version="1.0",
    doc="One row per page fault on a user address that a recorded thread took, and per recorded thread at the start and at the end.",
    default=False,
    ring_size=64 << 20,
    needs=("processes",),
    cost="0.1 to 0.2 µs and 6 to 13 bytes per page fault; x86-64 only",
    columns=(
        ts("when the processor took the fault"),
        Column("address", "i64", "address that was not mapped, or not so; 0 for kinds 2 and 3", "", "page_fault_user, page_fault_kernel: address"),
        Column("ip", "i64", "instruction that took the fault, of the program or of the kernel", "", "pt_regs.ip"),
        Column(
            "min_flt",
            "i64",
            "minor faults of the thread before this row; the next row of the thread tells what became of this one",
            "count",
            "task_struct.min_flt",
        ),
        Column("maj_flt", "i64", "major faults of the thread before this row", "count", "task_struct.maj_flt"),
        seq(),
        PID,
        TID,
        Column(
            "error",
            "i32",
            "the processor's error code: bits 1 page was present, 2 write, 4 from user mode, 16 instruction fetch",
            "",
            "page_fault_user, page_fault_kernel: error_code",
        ),
        CPU,
        Column(
            "kind",
            "i8",
            "where the fault was taken (in the kernel: where it reads or writes the program's memory and may wait); kinds 2 and 3 are no faults, "
            "they give the counters of a thread alone",
            "",
            "tracepoint",
            {0: "user mode", 1: "kernel mode", 2: "thread at attach", 3: "thread at detach"},
        ),
        Column(
            "region",
            "i8",
            "what lies around the address: program is the executable's own text, data and bss, mapping everything else that is mapped",
            "",
            "mm_struct.start_code, start_brk, brk, mmap_base, start_stack",
            {0: "mapping", 1: "program", 2: "heap", 3: "stack"},
        ),
    ),
)
