"""Retention: a recording that keeps its last minutes, in a folder that never exceeds its size.

Whole sealed parts go, the oldest first. In this order: what later parts need of them is sealed anew (`carried`), a manifest line
names the parts that go and keeps the books, the disk holds the line, the files are deleted. A recorder that is killed between any
two of these leaves a trace that is true: at most with files that the manifest does not name any more, which `recover` deletes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ringtape.recorder import merge
from ringtape.recorder.carried import CONTEXT, Living, living_rows, summed_losses
from ringtape.recorder.flight import Limits
from ringtape.recorder.keeper import Keeper
from ringtape.recorder.writer import TraceWriter, on_disk
from ringtape.schemas.manifest import Part
from ringtape.schemas.retirement import NOTHING, after
from ringtape.schemas.table import table

SHARE = 8
"""A merged part holds at most this part of the time and of the bytes that are kept: else it could not go in time."""
MARGIN = 256 << 10
"""Bytes left for manifest lines, which are written under a lock under which nothing can be dropped."""
REWRITE = 1 << 20
"""Bytes of a manifest that is written anew, if it is also four times what it would be then."""
AGAIN = 64
"""Parts of the kept time after which is looked for what has become too old: each look that drops something is waited for by the disk."""


class Retention(Keeper):
    """Holds a trace folder within its limits. One per recording; called by the drain and by upkeep.

    Parameters
    ----------
    writer : TraceWriter
        Of the trace; it begins to ask here before it takes room.
    limits : Limits
        What is kept.
    """

    def __init__(self, writer: TraceWriter, limits: Limits) -> None:
        self._writer = writer
        self._limits = limits
        self._lock = threading.RLock()
        self._accounts = threading.Lock()
        """Around ``used`` alone: `took` is called under the writer's lock, which whoever has the other lock may wait for."""
        self._busy: set[str] = set()
        self._began: dict[str, int] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._looked = 0
        self._compact = REWRITE // 4
        self._before = 0
        self._most = 0
        self.used = on_disk(writer.manifest_size) + sum(on_disk(part.bytes) for part in writer.parts.values())
        writer.keeper = self
        for part in writer.parts.values():
            self._began[part.file] = part.clock.mono
            with pq.ParquetFile(os.fdopen(writer.open_part(part), "rb")) as parquet:
                self.rows(part.file, parquet.read())

    # What the writer tells.

    def took(self, size: int) -> None:
        """Account for what was taken."""
        with self._accounts:
            self.used += size

    def room(self, size: int) -> None:
        """Let the oldest parts go until a part can take so much.

        Raises
        ------
        OSError
            If what may go is not enough.
        """
        limit = self._limits.size
        with self._lock:
            if limit is not None and self.used + size > limit - MARGIN:
                self._shrink(limit - MARGIN - size, context=False)
                if self.used + size > limit - MARGIN:
                    raise OSError(errno.EDQUOT, "--max-size is less than what must be kept at once")
            self.took(size)

    def rows(self, file: str, rows: pa.Table) -> None:
        """Count the rows of a part by CPU that have a sequence number."""
        if "seq" in rows.column_names and table(file.partition("/")[0]).origin == "ring":
            cpu = rows["cpu"].to_numpy()[rows["seq"].to_numpy() >= 0]
            counts = np.bincount(cpu, minlength=len(self._counts.get(file, ())))
            counts[: len(self._counts.get(file, ()))] += self._counts.get(file, np.zeros(0, np.int64))
            self._counts[file] = counts

    def part(self, part: Part, replaces: Sequence[Part]) -> None:
        """Remember since when a part's rows are there."""
        self._began[part.file] = min([part.clock.mono, *(self._began.pop(old.file) for old in replaces if old.file in self._began)])
        for old in replaces:
            self._counts.pop(old.file, None)

    def numbered(self, file: str) -> dict[int, int] | None:
        """Return, by CPU, how many rows of a part have a sequence number; None if it does not stand."""
        counts = self._counts.get(file)
        return None if counts is None else {cpu: int(count) for cpu, count in enumerate(counts) if count}

    def failed(self, file: str) -> None:
        """Forget a part that did not come to stand."""
        self._counts.pop(file, None)

    # What upkeep does.

    @contextlib.contextmanager
    def holding(self, parts: Sequence[Part]) -> Iterator[None]:
        """Keep parts from going while they are merged."""
        with self._lock:
            if any(part.file not in self._writer.parts for part in parts):
                raise OSError(errno.ENOENT, "dropped in the meantime")
            self._busy |= {part.file for part in parts}
        try:
            yield
        finally:
            with self._lock:
                self._busy -= {part.file for part in parts}

    def due(self, parts: Sequence[Part]) -> list[Part]:
        """Return parts to merge now, as `merge.due`, of which the merged one is small enough to go in time."""
        span = self._limits.keep and self._limits.keep // SHARE
        size = self._limits.size and self._limits.size // SHARE
        open_ones = [part for part in parts if (not size or part.bytes < size // 2) and (not span or part.clock.mono - self._since(part) < span // 2)]
        found: list[Part] = []
        taken = 0
        for part in merge.due(open_ones):
            taken += part.bytes
            if found and ((size and taken > size) or (span and part.clock.mono - self._since(found[0]) > span)):
                break
            found.append(part)
        return found if len(found) > 1 else []

    def _since(self, part: Part) -> int:
        """Return when the oldest of what was merged into a part was sealed."""
        return self._began.get(part.file, part.clock.mono)

    def keep_house(self, now: int | None = None) -> None:
        """Let go what is too old, and so much that the next seconds find room; write the manifest anew when it has grown."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) if now is None else now
        keep, limit = self._limits.keep, self._limits.size
        with self._lock:
            self._most = max(self._writer.written - self._before, self._most * 15 // 16)
            self._before = self._writer.written
            if keep is not None and now - self._looked >= keep // AGAIN:
                self._looked = now
                old = [part for part in self._free(context=True) if now - part.clock.mono > keep]
                # Of context there is more to do for each part that goes: seldom, and then for many.
                late = any(part.table in CONTEXT and now - part.clock.mono > keep + keep // SHARE for part in old)
                self._drop([part for part in old if late or part.table not in CONTEXT])
            if limit is not None:
                spare = min(max(4 * self._most, limit // 16), limit // 2)
                if self.used > limit - spare:
                    self._shrink(limit - 2 * spare if 2 * spare < limit // 2 else limit - spare, context=True)
            size = self._writer.manifest_size
            if size > max(REWRITE, 4 * self._compact):
                if limit is not None:
                    self._shrink(limit - MARGIN - on_disk(size), context=False)
                self._writer.rewrite()
                self._compact = self._writer.manifest_size

    def _free(self, context: bool) -> list[Part]:
        """Return the parts that may go, the oldest first."""
        parts = [part for part in list(self._writer.parts.values()) if part.file not in self._busy and (context or part.table not in CONTEXT)]
        return sorted(parts, key=lambda part: part.clock.mono)

    def _shrink(self, target: int, context: bool) -> None:
        dropped, size = [], self.used
        for part in self._free(context):
            if size <= target:
                break
            dropped.append(part)
            size -= on_disk(part.bytes)
        self._drop(dropped)

    def _drop(self, parts: Sequence[Part]) -> None:
        with self.holding(parts):  # what is carried needs room, for which other parts may go
            self._retire(self._carry(parts))

    def _retire(self, parts: Sequence[Part]) -> None:
        if not parts:
            return
        numbered: dict[str, dict[str, int]] = {}
        for part in parts:
            for cpu, count in enumerate(self._counts.pop(part.file, ())):
                if count:
                    of = numbered.setdefault(part.table, {})
                    of[str(cpu)] = of.get(str(cpu), 0) + int(count)
            self._began.pop(part.file, None)
        line = after(self._writer.retired or NOTHING, parts, numbered, time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        self._writer.retire(line)

    def _carry(self, parts: Sequence[Part]) -> list[Part]:
        """Seal anew what later parts need of parts that go; return those that may go now."""
        by_table: dict[str, list[Part]] = {}
        for part in parts:
            by_table.setdefault(part.table, []).append(part)
        # The ledger is summed up, in one line: its numbers stand for ever, and never twice.
        losses = by_table.pop("losses", [])
        if len(losses) > 1:
            rows = summed_losses(self._read(losses))
            self._writer.seal(table("losses"), [rows], {}, max(part.lost for part in losses), losses)
            self._writer.remove(losses)
        living: Living | None = None
        for name in sorted({*by_table} & {*CONTEXT}, key=CONTEXT.index):
            old = by_table[name]
            low = min((part.min_ts for part in self._writer.standing(name) if part not in old), default=None)
            if living is None:
                living = Living.of(self._read(self._writer.standing("processes"), ["tid", "start", "pid", "kind"]))
            rows = living_rows(name, self._read(old), living, max(part.max_ts for part in old), low)
            if rows.num_rows:
                self._writer.seal(table(name), [rows], {}, max(part.lost for part in old))
        return [part for name in by_table for part in by_table[name]]

    def _read(self, parts: Sequence[Part], columns: list[str] | None = None) -> pa.Table:
        found = []
        for part in parts:
            with os.fdopen(self._writer.open_part(part), "rb") as file, pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                found.append(parquet.read(columns, use_threads=False))
        return pa.concat_tables(found).replace_schema_metadata(None) if found else pa.table({})
