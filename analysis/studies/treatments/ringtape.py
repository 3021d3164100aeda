"""ringtape itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ringtape.analysis.file_calls import RETURN_BYTES
from ringtape.analysis.runs import open_trace
from ringtape.analysis.studies.treatments import Limit, Outcome, Tally, Tool
from ringtape.schemas.table import tables

# By the interpreter that runs this: the ringtape that is studied is the one that studies. -P: no module comes from the current folder.
_RINGTAPE = (sys.executable, "-P", "-c", "import sys; from ringtape.cli import main; sys.exit(main())")


def _wrap(options: Sequence[str], output: Path, command: Sequence[str]) -> list[str]:
    return [*_RINGTAPE, "record", "-q", "-o", str(output), *options, "--", *command]


def _outcome(output: Path, detailed: bool) -> Outcome:
    trace = open_trace(output)
    calls: dict[str, Tally] = {}
    if detailed and "syscalls" in trace.tables:
        failed = pl.col("ret").is_between(-4095, -1)
        moved = pl.when(pl.col("syscall").cast(pl.String).is_in(RETURN_BYTES)).then(pl.col("ret").clip(0))
        found = trace.collect(
            trace.syscalls.group_by(pl.col("syscall").cast(pl.String)).agg(
                count=pl.len(), errors=failed.sum(), time=pl.col("dur").clip(0).sum(), bytes=moved.sum()
            )
        )
        calls = {
            name: Tally(count, errors, time, moved if name in RETURN_BYTES else None)
            for name, count, errors, time, moved in found.select("syscall", "count", "errors", "time", "bytes").iter_rows()
        }
    events = sum(trace.rows(name) for name in trace.tables if name in tables() and tables()[name].origin == "ring")
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return Outcome(events, sum(trace.lost().values()), size, calls)


def _missing() -> str | None:
    said = subprocess.run([*_RINGTAPE, "doctor", "--quiet"], capture_output=True, text=True, check=False)
    return said.stdout.strip() or None if said.returncode else None


_LIMITS = (Limit("time", False, "it measures in the kernel, from entry to exit; the truth is measured around the call in the program", "calls"),)
TOOL = Tool("ringtape", "ringtape record, with any of its options.", _wrap, _outcome, _missing, limits=_LIMITS)
