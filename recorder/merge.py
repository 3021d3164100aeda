"""Merging: many small parts become few large ones, sorted by time throughout, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ringtape.recorder.writer import TraceWriter
from ringtape.schemas.arrow import ROW_GROUP, arrow_schema
from ringtape.schemas.manifest import Part
from ringtape.schemas.table import Table

TIERS = (ROW_GROUP, 32 * ROW_GROUP)
"""Rows below which a part counts as small, and as middling."""
GATHER = 32
"""Parts of one tier that are merged into one while the recording goes on."""
STRETCH = 2 * ROW_GROUP
"""Rows that a merge holds in memory at a time, about."""


def due(parts: Sequence[Part]) -> list[Part]:
    """Return parts that should be merged now: ``GATHER`` of one tier, or none."""
    for low, high in zip((0, *TIERS), TIERS, strict=False):
        tier = [part for part in parts if low <= part.rows < high]
        if len(tier) >= GATHER:
            return tier[:GATHER]
    return []


def merge_parts(writer: TraceWriter, table: Table, parts: Sequence[Part]) -> None:
    """Replace parts by one that holds their rows, sorted; the old files are deleted after the new line is written."""
    writer.seal(table, _sorted_pieces(writer, table, parts), {}, max(part.lost for part in parts), parts)
    writer.remove(parts)


def close_table(writer: TraceWriter, table: Table) -> None:
    """Sort all parts of a table into parts that follow each other in time.

    A table that is one part already, or whose parts are large and do not overlap, is left as it is.
    """
    parts = sorted((part for part in writer.standing(table.name) if part.rows), key=lambda part: part.min_ts)
    if len(parts) < 2 or _in_order(parts):
        return
    for group in _groups(parts):
        if len(group) > 1:
            merge_parts(writer, table, group)


def _in_order(parts: Sequence[Part]) -> bool:
    apart = all(left.max_ts <= right.min_ts for left, right in pairwise(parts))
    return apart and all(part.rows >= ROW_GROUP for part in parts[:-1])


def _groups(parts: Sequence[Part]) -> list[list[Part]]:
    """Cut the parts, in order of time, where none overlaps the next and enough rows have come together."""
    groups: list[list[Part]] = []
    high, rows = 0, 0
    for part in parts:
        if groups and (part.min_ts < high or rows < ROW_GROUP):
            groups[-1].append(part)
            rows += part.rows
        else:
            groups.append([part])
            rows = part.rows
        high = max(high, part.max_ts)
    return groups


def _sorted_pieces(writer: TraceWriter, table: Table, parts: Sequence[Part]) -> Iterator[pa.Table]:
    """Yield the rows of parts in order of time, about ``STRETCH`` at a time.

    The cuts are the ends of the parts, thinned out; for each stretch between two cuts the row groups that reach into it
    are read. Long calls lie in row groups of their own (drain.pieces), so they do not make whole parts be read again.
    """
    sources = [_Source(writer, part) for part in parts if part.rows]
    # One stretch ahead: reading and sorting the next goes on while this one is written. One thread reads, as a ParquetFile
    # bears no two; Arrow works without the interpreter's lock.
    with ThreadPoolExecutor(1) as reader:
        pending = None
        for low, high in pairwise(_cuts(sources)):
            following = reader.submit(_stretch, sources, table, low, high)
            if pending is not None and (piece := pending.result()).num_rows:
                yield piece
            pending = following
        if pending is not None and (piece := pending.result()).num_rows:
            yield piece


class _Source:
    """A part being merged, and the times that each of its row groups spans. It is open only while it is read: parts may be many."""

    def __init__(self, writer: TraceWriter, part: Part) -> None:
        self._writer = writer
        self._part = part
        self.spans: list[tuple[int, int, int]] = []
        with self._open() as parquet:
            for group in range(parquet.num_row_groups):
                ts = parquet.read_row_group(group, columns=["ts"]).column("ts")
                self.spans.append((ts[0].as_py(), ts[-1].as_py(), len(ts)))

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        with (
            open(self._writer.open_part(self._part), "rb") as file,
            pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False) as parquet,
        ):
            yield parquet

    def read(self, low: int, high: int) -> list[pa.Table]:
        """Return the rows with low <= ts < high."""
        groups = [group for group, (first, last, _) in enumerate(self.spans) if first < high and last >= low]
        if not groups:
            return []
        found = []
        with self._open() as parquet:
            for group in groups:
                rows = parquet.read_row_group(group, use_threads=False)
                begin, end = np.searchsorted(rows.column("ts").to_numpy(), [low, high])
                found.append(rows.slice(begin, end - begin))
        return found


def _cuts(sources: Sequence[_Source]) -> list[int]:
    """Return times between which about ``STRETCH`` rows lie."""
    spans = sorted((last, count) for source in sources for _, last, count in source.spans)
    if not spans:
        return []
    low = min(first for source in sources for first, _, _ in source.spans)
    cuts, gathered = [low], 0
    for last, count in spans:
        gathered += count
        if gathered >= STRETCH and last + 1 > cuts[-1]:
            cuts.append(last + 1)
            gathered = 0
    if cuts[-1] <= spans[-1][0]:
        cuts.append(spans[-1][0] + 1)
    return cuts


def _stretch(sources: Sequence[_Source], table: Table, low: int, high: int) -> pa.Table:
    pieces = [rows for source in sources for rows in source.read(low, high)]
    whole = pa.concat_tables(pieces).cast(arrow_schema(table)) if pieces else arrow_schema(table).empty_table()
    ts: NDArray[np.int64] = whole.column("ts").to_numpy()
    if bool(np.all(ts[1:] >= ts[:-1])):
        return whole.combine_chunks()
    return pc.take(whole.combine_chunks(), pa.array(np.argsort(ts, kind="stable")))
