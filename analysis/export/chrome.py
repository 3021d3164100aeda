"""Chrome's trace events as JSON, for chrome://tracing, Perfetto, speedscope and others: calls per thread."""

from __future__ import annotations

import json
from typing import IO

import polars as pl

from ringtape.analysis.exporting import Choices, origin
from ringtape.analysis.ledger import CHILD, UNFINISHED
from ringtape.analysis.naming import syscall_label
from ringtape.analysis.pieces import batches
from ringtape.analysis.summary import command_line
from ringtape.analysis.trace import Trace
from ringtape.analysis.verb import loss_sentence
from ringtape.schemas.escape import escape

LATEST = (1 << 63) - 1
ARGS = tuple(f"arg{number}" for number in range(6))


def _microseconds(ns: pl.Expr) -> pl.Expr:
    """Return times as decimal µs, exact to the ns."""
    below = (ns.abs() % 1000).cast(pl.String).str.zfill(3)
    return pl.concat_str(pl.when(ns < 0).then(pl.lit("-")).otherwise(pl.lit("")), (ns.abs() // 1000).cast(pl.String), pl.lit("."), below)


def write(trace: Trace, file: IO[bytes], choices: Choices) -> list[str]:  # noqa: ARG001 - one signature for all forms
    """Write the calls: ``X`` events, ``B`` for those that did not end, ``i`` for the return of a clone in the new thread.

    Times are µs since the recording began; the wall time of that is in ``otherData``, with what was lost.
    """
    trace.require("syscalls")
    clock, begin = trace.header.clock, origin(trace)
    about = {
        "command": command_line(trace.folder),
        "begins_at_ns_since_1970": clock.wall + begin - clock.mono,
        "state": trace.state,
        "lost": loss_sentence(trace) or "nothing",
    }
    file.write(f'{{"displayTimeUnit": "ns", "otherData": {json.dumps(about)}, "traceEvents": [\n'.encode())
    known = trace.commands()
    threads = trace.collect(trace.scan("syscalls").select("pid", "tid").unique()).sort("pid", "tid")
    first = True
    for what, name, rows in (("process_name", "pid", threads.unique("pid", maintain_order=True)), ("thread_name", "tid", threads)):
        codes = known.codes(rows[name].to_numpy(), pl.repeat(LATEST, len(rows), dtype=pl.Int64, eager=True).to_numpy())
        for (pid, tid), code in zip(rows.select("pid", "tid").iter_rows(), codes.tolist(), strict=True):
            event = {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": known.names[code] if code >= 0 else "?"}}
            file.write((("" if first else ",\n") + json.dumps(event)).encode())
            first = False
    lost = trace.scan("losses").filter(pl.col("cause").is_in([0, 1])) if "losses" in trace.tables else None
    gone = (
        pl.DataFrame()
        if lost is None
        else trace.collect(lost.group_by("table", "ts", "until").agg(pl.col("count").sum()).sort("until", "ts", "table"))
    )
    for row in gone.iter_rows(named=True):
        args = {"records": row["count"], "since_us": (row["ts"] - begin) / 1000}
        event = {"name": f"lost: {escape(row['table'])}", "ph": "i", "s": "g", "pid": 0, "tid": 0, "ts": (row["until"] - begin) / 1000, "args": args}
        file.write((("" if first else ",\n") + json.dumps(event)).encode())
        first = False
    kind = pl.col("kind")
    phase = pl.when(kind == UNFINISHED).then(pl.lit("B")).when(kind == CHILD).then(pl.lit("i")).otherwise(pl.lit("X"))
    more = (
        pl.when(kind == UNFINISHED)
        .then(pl.lit(""))
        .when(kind == CHILD)
        .then(pl.lit(', "s": "t"'))
        .otherwise(pl.concat_str(pl.lit(', "dur": '), _microseconds(pl.col("dur"))))
    )
    errno = pl.when(pl.col("errno").is_null()).then(pl.lit("")).otherwise(pl.concat_str(pl.lit(', "errno": "'), "errno", pl.lit('"')))
    # 64-bit arguments are pointers as often as not: as text no reader rounds them.
    arguments = [part for name in ARGS for part in (pl.lit(f', "{name}": "'), pl.col(name), pl.lit('"'))]
    line = pl.concat_str(
        pl.lit('{"name": "'), syscall_label(trace.header.abi), pl.lit('", "cat": "'), "kind_name", pl.lit('", "ph": "'), phase,
        pl.lit('", "ts": '), _microseconds(pl.col("ts") - begin), more, pl.lit(', "pid": '), "pid", pl.lit(', "tid": '), "tid",
        pl.lit(', "args": {"ret": "'), "ret", pl.lit('"'), errno, *arguments, pl.lit("}}"),
    )  # fmt: skip
    for batch in batches(trace, "syscalls", lambda piece: piece.frame("syscalls").select(line.alias("line"))):
        file.write((("" if first else ",\n") + ",\n".join(batch["line"])).encode())
        first = False
    file.write(b"\n]}\n")
    return [] if trace.tables == ("syscalls",) else ["Chrome's form holds the system calls and losses alone; --format perfetto has the other tables"]
