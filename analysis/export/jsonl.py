"""A table as JSON lines, codes decoded; bytes as {"value": text} and, where they are no UTF-8, "hex"."""

from __future__ import annotations

from typing import IO

import polars as pl

from ringtape.analysis import tabular
from ringtape.analysis.exporting import Choices
from ringtape.analysis.trace import Trace


def write(trace: Trace, file: IO[bytes], choices: Choices) -> list[str]:
    """Write the rows, an object per line, with null for what is not there."""
    for frame in tabular.rows(trace, choices.table):
        if not len(frame):
            continue
        raw = [name for name, kind in frame.schema.items() if kind == pl.Binary]
        made = tabular.texts(frame, tabular.as_json)
        plain = frame.drop(raw)
        lines = pl.Series("line", plain.write_ndjson().splitlines() if plain.width else ["{}"] * len(frame), pl.String)
        if raw:
            pieces = [pl.concat_str(pl.lit(f', "{name}": '), pl.col(name).fill_null("null")) for name in raw]
            lines = made.select(pl.concat_str(lines.str.strip_suffix("}"), *pieces, pl.lit("}")).alias("line"))["line"]
        file.write(("\n".join(lines) + "\n").encode())
    return []
