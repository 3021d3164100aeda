"""fio's iolog of the file I/O, for `fio --name=replay --read_iolog=FILE`; with FILE.files, the files that it needs."""

from __future__ import annotations

import re
from typing import IO

import polars as pl

from ringtape.analysis.exporting import Choices, origin
from ringtape.analysis.file_accesses import Accesses
from ringtape.analysis.trace import Trace
from ringtape.schemas.escape import escape

_KEPT = 60
_STRANGE = re.compile(r"[^A-Za-z0-9._+-]")


def file_name(number: int, name: bytes) -> str:
    r"""Return under what name a file is replayed: fio's words hold no blanks and 256 letters, and nothing outside of the folder is touched.

    >>> file_name(7, b"/var/lib/my base\xff")
    'f7-my_base_'
    """
    last = name.rsplit(b"/", 1)[-1].decode("ascii", "replace").replace("\N{REPLACEMENT CHARACTER}", "_")
    return f"f{number}-{_STRANGE.sub('_', last)[:_KEPT]}"


def write(trace: Trace, file: IO[bytes], choices: Choices) -> list[str]:
    """Write reads and writes with the bytes that were moved; version 3 has times, in µs as fio 3.31 and later take them, version 2 none.

    Every file is opened before its first access of a stretch of the trace and closed after the last: what the program held open
    longer makes no difference to the bytes.
    """
    trace.require("syscalls")
    begin = origin(trace)
    timed = choices.iolog == 3
    file.write(f"fio version {choices.iolog} iolog\n".encode())
    accesses = Accesses(trace)
    extents: dict[int, int] = {}
    unplaced = 0
    for moved in accesses.frames():
        unplaced += int((moved["offset"] < 0).sum())
        frame = moved.with_columns(pl.col("offset").clip(0)).with_row_index("at")
        for number, extent in frame.group_by("name", maintain_order=True).agg((pl.col("offset") + pl.col("count")).max()).iter_rows():
            fresh = number not in extents
            extents[number] = max(extents.get(number, -1), extent)
            if fresh:
                file.write(f"{'0 ' if timed else ''}{file_name(number, accesses.known.values[number][0])} add\n".encode())
        numbers = frame["name"].unique(maintain_order=True)
        texts = pl.DataFrame({"name": numbers, "file": [file_name(one, accesses.known.values[one][0]) for one in numbers]})
        told = frame.join(texts, on="name", maintain_order="left")
        moves = pl.concat_str("file", pl.when("write").then(pl.lit(" write ")).otherwise(pl.lit(" read ")), "offset", pl.lit(" "), "count")
        edges = told.group_by("name", "file", maintain_order=True).agg(
            pl.col("ts", "at").first().name.suffix("_first"), pl.col("ts", "at").last().name.suffix("_last")
        )
        lines = pl.concat(
            [
                told.select("at", pl.lit(1, pl.Int8).alias("rank"), "ts", moves.alias("text")),
                *(
                    edges.select(
                        pl.col(f"at_{edge}").alias("at"),
                        pl.lit(rank, pl.Int8).alias("rank"),
                        pl.col(f"ts_{edge}").alias("ts"),
                        pl.concat_str("file", pl.lit(f" {action}")).alias("text"),
                    )
                    for edge, rank, action in (("first", 0, "open"), ("last", 2, "close"))
                ),
            ]
        ).sort("at", "rank", maintain_order=True)
        if timed:
            lines = lines.with_columns(pl.concat_str(((pl.col("ts") - begin) // 1000).clip(0), pl.lit(" "), "text").alias("text"))
        file.write(("\n".join(lines["text"]) + "\n").encode())
    notes = ["files are replayed in the folder in which fio runs, under names of their own; what was mapped into memory is not in the log"]
    if unplaced:
        notes.append(f"{unplaced:,} reads and writes at a position that is not known stand at offset 0")
    if choices.beside is not None:
        names = accesses.known
        listed = [f"{extent}\t{file_name(number, names.values[number][0])}\t{names.text(number)}\n" for number, extent in sorted(extents.items())]
        choices.beside.write_text("".join(listed), encoding="utf-8")
        place = escape(str(choices.beside))
        made = f"cut -f1,2 {place} | while read size name; do truncate -s $size $name; done"
        notes.append(f"{place} lists them (bytes, name, recorded path); make them with: {made}")
    return notes
