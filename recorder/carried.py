"""What is carried forward when old parts go: which threads live, under which names, and where their code lies.

`processes`: a row per thread that lives, of kind existing, with what its last rows said; `mappings` and `symbols`: the rows of
processes that live and of the kernel. Open files are not carried: whether a number still means what it meant cannot be told without
the calls that have gone, so files that were opened before the kept time have no name in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.table import table

CONTEXT = ("processes", "mappings", "symbols", "losses")
"""Tables of which something is carried, in the order in which it is done."""
_EXISTING, _EXEC, _EXIT = 0, 2, 3
_CLEARED = ("creator", "clone_flags", "exit_code", "exit_signal", "utime", "stime", "maxrss", "min_flt", "maj_flt", "nvcsw", "nivcsw", "group_dead")


@dataclass(frozen=True)
class Living:
    """Threads that have no exit row (columns ``tid``, ``start``), and the processes that they belong to."""

    threads: pa.Table
    processes: pa.Array

    @classmethod
    def of(cls, rows: pa.Table) -> Living:
        """Find those that live in the rows of ``processes`` (columns ``tid``, ``start``, ``pid``, ``kind``)."""
        if not rows.num_rows:
            rows = arrow_schema(table("processes")).empty_table()
        rows = rows.select(["tid", "start", "pid", "kind"])
        gone = rows.filter(pc.equal(rows["kind"], _EXIT)).select(["tid", "start"])
        left = rows.join(gone, ["tid", "start"], join_type="left anti", use_threads=False)
        return cls(left.select(["tid", "start"]).group_by(["tid", "start"], use_threads=False).aggregate([]), pc.unique(left["pid"]))


def living_rows(name: str, rows: pa.Table, living: Living, last: int, first: int | None) -> pa.Table:
    """Return the rows to carry of parts that go.

    Parameters
    ----------
    name : str
        The table.
    rows : pyarrow.Table
        All rows of the parts.
    living : Living
        Who lives.
    last : int
        Last time in the parts.
    first : int or None
        First time in the parts that stay.

    Returns
    -------
    pyarrow.Table
        Rows sorted by ``ts``, which is that of the end of the parts, but never after what stays.
    """
    at = last if first is None else min(last, first)
    if name == "processes":
        rows = _threads(rows, living)
    else:
        rows = rows.filter(pc.is_in(rows["pid"], pa.concat_arrays([pa.array([0], pa.int32()), living.processes])))
        if name == "mappings":
            rows = _in_force(rows)
    ts = np.maximum(rows["ts"].to_numpy(), at)
    order = np.argsort(ts, kind="stable")
    rows = rows.set_column(rows.column_names.index("ts"), "ts", pa.array(ts)).take(pa.array(order))
    return rows.cast(arrow_schema(table(name)))


def _threads(rows: pa.Table, living: Living) -> pa.Table:
    """Return the last row of each thread that lives, as one of kind existing, with what its last exec said."""
    rows = rows.join(living.threads, ["tid", "start"], join_type="left semi", use_threads=False)
    last: dict[tuple[int, int], int] = {}
    executed: dict[tuple[int, int], int] = {}
    order = np.argsort(rows["ts"].to_numpy(), kind="stable").tolist()
    tids, starts, kinds = (rows[name].to_pylist() for name in ("tid", "start", "kind"))
    argvs = pc.binary_length(rows["file"]).to_pylist()
    for index in order:
        thread = tids[index], starts[index]
        last[thread] = index
        if kinds[index] == _EXEC or argvs[index]:
            executed[thread] = index
    chosen = rows.take(pa.array(list(last.values()), pa.int64()))
    program = rows.take(pa.array([executed.get(thread, index) for thread, index in last.items()], pa.int64()))
    for name in ("file", "argv", "cut"):
        chosen = chosen.set_column(chosen.column_names.index(name), name, program[name])
    size = chosen.num_rows
    fixed = {"kind": _EXISTING, "seq": -1, **dict.fromkeys(_CLEARED, 0)}
    for name, value in fixed.items():
        chosen = chosen.set_column(chosen.column_names.index(name), name, pa.array([value] * size, chosen.schema.field(name).type))
    return chosen


def _in_force(rows: pa.Table) -> pa.Table:
    """Leave out mappings from before an exec, and all but the last of equal ones."""
    kept: dict[tuple[object, ...], int] = {}
    by_process: dict[int, list[tuple[object, ...]]] = {}
    columns = [rows[name].to_pylist() for name in ("pid", "kind", "start", "length", "offset", "path")]
    for index in np.argsort(rows["ts"].to_numpy(), kind="stable").tolist():
        pid, kind, *what = (column[index] for column in columns)
        if kind == _EXEC:
            for key in by_process.pop(pid, []):
                kept.pop(key, None)
        key = (pid, kind == _EXEC, *what)
        kept.pop(key, None)
        kept[key] = index
        by_process.setdefault(pid, []).append(key)
    return rows.take(pa.array(sorted(kept.values()), pa.int64()))


def summed_losses(rows: pa.Table) -> pa.Table:
    """Return one row per table, CPU, cause, call and bucket, over all of its time; counts and sums stay exact."""
    keys = ["nr", "cpu", "abi", "bucket", "cause", "table"]
    summed = rows.group_by(keys).aggregate([("ts", "min"), ("until", "max"), ("count", "sum"), ("sum", "sum")])
    summed = summed.rename_columns([*keys, "ts", "until", "count", "sum"])
    schema = arrow_schema(table("losses"))
    return summed.select(schema.names).cast(schema).sort_by("ts")
