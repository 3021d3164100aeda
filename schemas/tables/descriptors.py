"""Descriptors that were open before the recording."""

from ringtape.schemas.columns import PID, Column, ts
from ringtape.schemas.table import Table

TABLE = Table(
    name="descriptors",
    version="1.0",
    doc="One row per descriptor that a recorded process had at the start, and per working folder (descriptor -100, AT_FDCWD).",
    origin="recorder",
    lasting=True,
    columns=(
        ts("just before the process was looked at: what its calls did later holds", "CLOCK_MONOTONIC"),
        Column("pos", "i64", "file position; -1 where it could not be read", "bytes", "/proc/PID/fdinfo/FD: pos"),
        PID,
        Column("fd", "i32", "number of the descriptor; -100 stands for the working folder", "", "/proc/PID/fd"),
        Column("flags", "i32", "flags as of open(2), O_CLOEXEC among them; -1 where they could not be read", "", "/proc/PID/fdinfo/FD: flags"),
        Column(
            "target", "bytes", "what it refers to, as the kernel writes it: a path, socket:[inode], pipe:[inode], anon_inode:[kind]", "", "readlink"
        ),
    ),
)
