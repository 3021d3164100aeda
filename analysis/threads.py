"""By what threads can be told apart: process, thread, command."""

from __future__ import annotations

from typing import Literal

import polars as pl

from ringtape.analysis.registry import Result
from ringtape.analysis.residency import process_lives
from ringtape.analysis.trace import Trace

By = Literal["process", "thread", "command"]

GROUPS = (
    Result("process", pl.Int32, "process number"),
    Result("thread", pl.Int32, "thread number"),
    Result("command", pl.String, "command name that the thread (the first thread of the process) had last"),
)
KEYS: dict[By, list[str]] = {"process": ["process", "command"], "thread": ["process", "thread", "command"], "command": ["command"]}


def named(trace: Trace, threads: pl.DataFrame, by: By) -> pl.DataFrame:
    """Return ``number`` (the ``thread`` of `schedule.lives`) and the group columns of each thread.

    Parameters
    ----------
    trace : Trace
        The recording.
    threads : DataFrame
        ``thread``, ``tid``, ``pid``, ``end``.
    by : {"process", "thread", "command"}
        What to tell apart.
    """
    known = trace.commands()
    texts = pl.Series([*known.names, "?"], dtype=pl.String)

    def command(number: str) -> pl.Series:
        codes = known.codes(threads[number].to_numpy(), threads["end"].to_numpy())
        return texts.gather(pl.Series(codes).replace(-1, len(known.names)))

    names = command("pid" if by == "process" else "tid").alias("command")
    frame = threads.select(pl.col("thread").alias("number"), pl.col("pid").alias("process"), pl.col("tid").alias("thread")).with_columns(names)
    if by == "process":
        # A process has one name, that of its first thread at its end, whenever its other threads ended; another one under its
        # number has its own.
        life = pl.Series("life", process_lives(trace)[0].codes(threads["pid"].to_numpy(), threads["end"].to_numpy())).cast(pl.Int64)
        known_by = threads.select("pid", "end").with_columns(names, life)
        last = known_by.sort("end").group_by("pid", "life", maintain_order=True).agg(pl.col("command").last())
        frame = frame.drop("command").with_columns(life)
        frame = frame.join(last, left_on=["process", "life"], right_on=["pid", "life"], how="left", maintain_order="left", nulls_equal=True)
    return frame.select("number", *KEYS[by])
