"""The vocabulary in which tables are declared: one column is a name, a type, a unit, a sentence and a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ColumnType = Literal["i8", "i16", "i32", "i64", "f64", "comm", "bytes", "text"]
"""Integers are signed everywhere: unsigned ones wrap in polars, raise in DuckDB and cannot be read by Spark.

``comm`` is the kernel's 16-byte command name, ``bytes`` a string of any length exactly as the kernel had it, ``text``
a string that ringtape itself wrote (UTF-8). ``f64`` is for figures that other programs print, in results of studies: no probe has any.
"""

C_TYPES: Mapping[ColumnType, str] = {"i8": "s8", "i16": "s16", "i32": "s32", "i64": "s64"}
SIZES: Mapping[ColumnType, int] = {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "comm": 16}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    name : str
        Name in the C record, the numpy record and the Parquet file alike.
    type : ColumnType
        Storage type.
    doc : str
        One sentence.
    unit : str
        ``ns``, ``bytes``, ``count``, or empty for identifiers and codes.
    source : str
        Where the value comes from: tracepoint and field, or the part of the recorder that writes it.
    values : mapping of int to str
        The meaning of each code, for columns that hold codes.
    encoding : {"dictionary", "delta"}
        Parquet encoding; ``delta`` is DELTA_BINARY_PACKED, which pays for columns that grow from row to row.
    optional : bool
        Whether a value may be missing (null). Never in a trace.
    """

    name: str
    type: ColumnType
    doc: str
    unit: str = ""
    source: str = ""
    values: Mapping[int, str] = field(default_factory=dict, hash=False)
    encoding: Literal["dictionary", "delta"] = "dictionary"
    optional: bool = False

    @property
    def in_tail(self) -> bool:
        """Whether the value lies behind the fixed part of a record, which then holds only its length."""
        return self.type == "bytes"


def ts(doc: str, source: str = "bpf_ktime_get_ns()") -> Column:
    """Declare the time column that every table is sorted by."""
    return Column("ts", "i64", doc, "ns", source, encoding="delta")


def seq() -> Column:
    """Declare the per-CPU number of the attempted record, from which every gap follows."""
    doc = "number of this record among all that were attempted on its CPU for this table; a gap is a loss; -1: not from a ring"
    return Column("seq", "i64", doc, "count", "per-CPU counter of the probe", encoding="delta")


CPU = Column("cpu", "i16", "CPU on which the record was made", "", "bpf_get_smp_processor_id()")
PID = Column("pid", "i32", "process (thread group) as the initial PID namespace numbers it", "", "task_struct.tgid")
TID = Column("tid", "i32", "thread as the initial PID namespace numbers it", "", "task_struct.pid")
ABI = Column(
    "abi",
    "i8",
    "system call numbering in which nr counts",
    "",
    "thread_info.status",
    {1: "x86_64", 2: "i386", 3: "x32", 4: "arm64", 5: "arm"},
)
