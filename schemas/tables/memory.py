"""Memory of processes: resident and mapped bytes over time, stalls in reclaim and compaction, OOM kills."""

from ringtape.schemas.columns import CPU, PID, TID, Column, seq, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="memory",
    version="1.0",
    doc="One row per sample of a recorded process's memory, per stall of a recorded thread in reclaim or compaction, and per OOM kill.",
    default=False,
    ring_size=16 << 20,
    needs=("processes",),
    cost="0.1 µs per page that a recorded process is given or gives back, 0.05 to 0.1 µs in other processes; 6 to 40 bytes per sample",
    columns=(
        ts("when the sample was taken, the stall began, or the victim was chosen"),
        Column("dur", "i64", "length of the stall (kinds 1 to 4)", "ns", "mm_vmscan_*_begin, _end; mm_compaction_begin, _end"),
        Column("anon", "i64", "resident anonymous memory of the process, at the end of a stall", "bytes", "mm_struct.rss_stat"),
        Column("file", "i64", "resident pages of files, the same", "bytes", "mm_struct.rss_stat"),
        Column("shmem", "i64", "resident shared memory, the same", "bytes", "mm_struct.rss_stat"),
        Column("swap", "i64", "memory in swap, the same", "bytes", "mm_struct.rss_stat"),
        Column("mapped", "i64", "size of the address space (VmSize)", "bytes", "mm_struct.total_vm"),
        Column("peak", "i64", "largest resident memory of this address space so far (VmHWM)", "bytes", "mm_struct.hiwater_rss"),
        Column("mapped_peak", "i64", "largest size of this address space so far (VmPeak)", "bytes", "mm_struct.hiwater_vm"),
        Column("reclaimed", "i64", "memory that a stall in reclaim gained", "bytes", "mm_vmscan_*_end: nr_reclaimed"),
        seq(),
        PID,
        TID,
        Column(
            "actor",
            "i32",
            "thread that ran: it touched or gave back memory of the process, had to wait, or asked for memory when the victim was chosen",
            "",
            "current task",
        ),
        Column("gfp", "i32", "flags of the allocation that had to wait, as this kernel numbers them", "", "mm_vmscan_*_begin: gfp_flags"),
        CPU,
        Column("order", "i8", "log2 of the pages that were to be in one piece; -1: all of memory was compacted", "", "mm_vmscan_*_begin: order"),
        Column(
            "kind",
            "i8",
            "what the row is",
            "",
            "tracepoint",
            {0: "sample", 1: "direct reclaim", 2: "cgroup reclaim", 3: "node reclaim", 4: "compaction", 5: "OOM kill"},
        ),
        Column("result", "i8", "how a compaction ended: the kernel's enum compact_result (8 success in Linux 6.18)", "", "mm_compaction_end: status"),
        Column("unfinished", "i8", "1 if the stall was going on when the recording ended"),
    ),
)
