"""Block I/O."""

from ringtape.schemas.columns import CPU, Column, seq, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="block",
    version="1.0",
    doc="One row per block I/O request that a recorded thread made, written when it ends.",
    default=False,
    ring_size=16 << 20,
    needs=("processes",),
    interrupts=True,
    cost="about 1.3 µs of CPU time per request",
    columns=(
        ts(
            "when the request was made, before it was merged, plugged or scheduled"
            " (Linux before 6.5: when it was inserted, or issued without that; kind 1: the kernel's own time)",
            "block_io_start",
        ),
        Column("dur", "i64", "time from ts to the end of the request, or to the end of the recording", "ns", "block_rq_complete, block_rq_merge"),
        Column("insert", "i64", "time from ts until it was first handed to the I/O scheduler or the queue; -1: never", "ns", "block_rq_insert"),
        Column(
            "issue",
            "i64",
            "time from ts until it was last given to the driver: the queue time; -1: never"
            " (merged; a flush that was asked for, for which the kernel issues one of its own)",
            "ns",
            "block_rq_issue",
        ),
        Column("service", "i64", "time from that issue until the driver completed it: the device time; -1: it did not", "ns", "block_rq_complete"),
        Column("sector", "i64", "first sector (512 bytes) on the whole disk; -1: none", "", "request.__sector"),
        Column("bytes", "i64", "bytes completed, merged requests included (kinds 2 to 4: bytes asked for)", "bytes", "block_rq_complete: nr_bytes"),
        seq(),
        Column("disk", "comm", "name of the disk (at most 16 bytes)", "", "gendisk.disk_name"),
        Column("dev", "i32", "number of the disk as the kernel has it: major << 20 | minor", "", "gendisk.major, first_minor"),
        Column(
            "flags",
            "i32",
            "flags of the request: the kernel's cmd_flags >> 8 (8 sync, 16 meta, 512 FUA, 1024 preflush, 2048 read-ahead)",
            "",
            "request.cmd_flags",
        ),
        Column("pid", "i32", "process of the thread that made the request; 0: unknown", "", "block_io_start: current"),
        Column(
            "tid", "i32", "thread that made the request: a kworker for what the page cache writes back; 0: unknown", "", "block_io_start: current"
        ),
        Column("issuer", "i32", "thread that gave it to the driver last; 0: none, or unknown", "", "block_rq_issue: current"),
        CPU,
        Column("partition", "i16", "number of the partition that it was for; 0: the whole disk", "", "block_device"),
        Column("requeues", "i16", "times that the driver gave it back to be issued again", "count", "block_rq_requeue"),
        Column(
            "operation",
            "i8",
            "what was asked for",
            "",
            "request.cmd_flags & 255",
            {0: "READ", 1: "WRITE", 2: "FLUSH", 3: "DISCARD", 5: "SECURE_ERASE", 7: "ZONE_APPEND", 9: "WRITE_ZEROES", 34: "DRV_IN", 35: "DRV_OUT"},
        ),
        Column(
            "status",
            "i8",
            "how it ended, as the kernel's blk_status_t",
            "",
            "block_rq_complete: error",
            {
                0: "ok",
                1: "not supported",
                2: "timeout",
                3: "no space",
                4: "transport",
                5: "target",
                6: "reservation conflict",
                7: "medium",
                8: "protection",
                9: "resource",
                10: "I/O error",
                12: "again",
                13: "device resource",
            },
        ),
        Column(
            "kind",
            "i8",
            "what became of it; merged: into another request, which carries its bytes; end not seen: dur reaches until its memory was used again",
            "",
            "probe",
            {0: "complete", 1: "begun before attach", 2: "merged", 3: "unfinished at detach", 4: "end not seen"},
        ),
    ),
)
