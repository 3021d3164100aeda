"""What the recording itself cost."""

from ringtape.schemas.columns import Column, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="recorder",
    version="1.0",
    doc="One row per second of recording (and one at its end): what the recorder process used and moved since the row before.",
    origin="recorder",
    columns=(
        ts("end of the interval", "CLOCK_MONOTONIC"),
        Column("interval", "i64", "length of the interval", "ns"),
        Column("utime", "i64", "user CPU time of the recorder process", "ns", "getrusage"),
        Column("stime", "i64", "system CPU time of the recorder process", "ns", "getrusage"),
        Column("rss", "i64", "resident memory at the end, mapped rings included", "bytes", "/proc/self/statm"),
        Column("ring_resident", "i64", "memory of all rings", "bytes"),
        Column("ring_peak", "i64", "fullest that any ring was found, in thousandths of its size", "1/1000"),
        Column("rows", "i64", "rows sealed into parts", "count"),
        Column("lost", "i64", "records lost", "count", "loss ledger of the probe"),
        Column("parts", "i64", "parts sealed or merged", "count"),
        Column("written", "i64", "bytes of parts written, merges included", "bytes"),
    ),
)
