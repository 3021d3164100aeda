"""Completing a trace whose recorder was killed: the sealed parts stay, the rest comes out of the pinned rings."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ringtape.recorder import bpf
from ringtape.recorder.drain import TableDrain, iterated_rows, still_open
from ringtape.recorder.journal import NUMBERS_PIN, numbered_tables
from ringtape.recorder.ledger import RING_FULL, Counters, Ledger
from ringtape.recorder.options import possible_cpus
from ringtape.recorder.program import loss_tables
from ringtape.recorder.pump import Pump
from ringtape.recorder.recover import Unfinished
from ringtape.recorder.ring import open_rings
from ringtape.recorder.writer import POSITIONS, TraceWriter
from ringtape.schemas import part_file  # noqa: F401 - `TraceFolder.read` needs it when our files may be out of reach
from ringtape.schemas.errors import TraceError
from ringtape.schemas.folder import PART_NAME, TraceFolder, check_schema
from ringtape.schemas.layout import record_dtype
from ringtape.schemas.manifest import FILE, Part
from ringtape.schemas.table import table, tables


@dataclass(frozen=True)
class Recovered:
    """What a recovery brought back.

    ``rows`` counts the rows that came out of the rings, ``adopted`` those of sealed parts whose manifest line was not
    written, ``gone`` those of parts that a manifest line names but the disk does not hold (after a power cut).
    """

    rows: int
    adopted: int
    gone: int
    journal: bool


def salvage(found: Unfinished) -> Recovered:
    """Seal what the rings hold, settle what the kill left half done, merge, and write the footer."""
    trace, journal = found.trace, found.journal
    os.ftruncate(found.manifest, trace.manifest.size)  # the half of a line that a full disk or a power cut left
    standing, gone = _standing(trace)
    writer = TraceWriter.resume(trace.path, found.folder, found.manifest, trace.manifest, standing)
    writer.give_up(gone)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f".{FILE}.partial", dir_fd=found.folder)  # of a manifest that was being written anew
    adopted = _settle_orphans(trace, writer, found.folder, journal is not None)
    pump = _pump(trace, writer, found.maps)
    known, before = set(writer.parts), pump.total_rows
    pump.drain_all(closing=True)
    rows = pump.total_rows - before
    gone_rows = sum(part.rows for part in gone)
    reason = _reason(found.maps)
    if journal is None:
        reason += ", and its rings are gone (the machine was restarted, or they were not pinned)"
    if gone:
        reason += f"; {gone_rows} rows that had not reached the disk are gone"
    sealed = max((part.clock.mono for part in trace.manifest.parts), default=trace.header.attached_at)
    last = max([sealed, *(_last_end(trace, part) for file, part in writer.parts.items() if file not in known)])
    last = _add_open(trace, pump, found.maps, last)
    merged = trace.header.options.get("merge") is not False
    pump.close_trace("recovered", reason, None, last, merged=merged, lost=_known_lost(trace, writer))
    pump.close()
    if journal:
        journal.remove()
    return Recovered(rows, adopted, gone_rows, journal is not None)


def _reason(maps: dict[str, bpf.Map]) -> str:
    value = maps["status"].lookup(bytes(4)) if "status" in maps else None
    errno = int.from_bytes(value[8:16], sys.byteorder) if value else 0
    return f"recording stopped before its end: {os.strerror(errno).lower()}" if errno else "the recorder was killed"


def _last_end(trace: TraceFolder, part: Part) -> int:
    """Return when the last thing that a part tells of was over: the recorder was there to see it."""
    rows = trace.read(part)
    if not rows.num_rows:
        return part.max_ts
    ends = pc.add(rows["ts"], rows["dur"]) if "dur" in rows.column_names else rows["ts"]
    return int(pc.max(ends).as_py())


def _add_open(trace: TraceFolder, pump: Pump, maps: dict[str, bpf.Map], last: int) -> int:
    """Make rows of what had begun and not ended when the probes went; return when that was at the earliest.

    A recorder, or a recovery, that was killed after it had sealed these rows has left the map as it was: they differ in
    nothing but the duration.
    """
    for name in trace.header.tables:
        if (opened := maps.get(f"{name}_open")) is None:
            continue
        one = table(name)
        # The record comes first, and begins with the cookie: 0 in what is followed and not recorded.
        values = [(opened.lookup(key) or b"")[: one.record_size] for key in opened.keys()]  # noqa: SIM118 - a method of ours
        records = np.frombuffer(b"".join(value for value in values if any(value[:8])), record_dtype(one))
        last = max([last, *(int(ts) for ts in records["ts"])])
        known = {row for part in pump.writer.standing(name) for row in _identities(trace.read(part).filter(pc.field("seq") == -1))}
        rows = iterated_rows(one, still_open(records, last))
        if rows is not None:
            pump.add(one, rows.filter(pa.array([row not in known for row in _identities(rows)])))
    return last


def _identities(rows: pa.Table) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in rows.drop_columns("dur").to_pylist()]


def _known_lost(trace: TraceFolder, writer: TraceWriter) -> dict[str, int]:
    """Return, by table, the records that the loss ledger and the parts say are lost: all there is if the counters are gone."""
    ledger: Counter[str] = Counter()
    for part in writer.standing("losses"):
        for row in trace.read(part).to_pylist():
            if row["cause"] == RING_FULL:
                ledger[row["table"]] += row["count"]
    stated = {name: max((part.lost for part in writer.standing(name)), default=0) for name in trace.header.tables}
    return {name: max(ledger[name], stated[name]) for name in trace.header.tables if name in tables() and table(name).origin == "ring"}


def _standing(trace: TraceFolder) -> tuple[list[Part], list[Part]]:
    """Return the parts that are whole, and those that are not.

    Every process that writes a part finishes it before the manifest names it, so a part that does not fit its line was
    cut off by a power failure in the second before.
    """
    whole, gone = [], []
    for part in trace.manifest.parts:
        try:
            trace.check(part)
            whole.append(part)
        except TraceError:
            gone.append(part)
    return whole, gone


def _settle_orphans(trace: TraceFolder, writer: TraceWriter, folder: int, journal: bool) -> int:
    """Deal with files that the manifest does not name; return the rows of those that were taken in.

    While the rings are there, a part without a line is still in them and is deleted. Without the rings it is the only
    copy: it is taken in if it continues where the manifest ends.
    """
    adopted = 0
    named = {part.file for part in writer.parts.values()}
    for name in trace.header.tables:
        sealed = dict(trace.manifest.sealed_rings.get(name, {}))
        with contextlib.suppress(FileNotFoundError):
            # In the order in which they were numbered, with seven digits after six: each may continue the one before.
            for file in sorted((path.name for path in Path(f"/proc/self/fd/{folder}/{name}").iterdir()), key=lambda file: (len(file), file)):
                relative = f"{name}/{file}"
                if relative in named:
                    continue
                if file.endswith(".partial") or PART_NAME.fullmatch(relative):
                    if not journal and not file.endswith(".partial") and relative not in trace.manifest.replaced:
                        adopted += _adopt(trace, writer, relative, sealed)
                        writer.make_durable()
                    os.unlink(f"{name}/{file}", dir_fd=folder)
    return adopted


def _adopt(trace: TraceFolder, writer: TraceWriter, file: str, sealed: dict[int, int]) -> int:
    """Seal the rows of a part without a line again if they begin where the rings were sealed to; the old file is left to the caller."""
    name = file.partition("/")[0]
    path = trace.path / file
    try:
        if not stat.S_ISREG(path.lstat().st_mode) or name not in tables():
            return 0
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            check_schema(parquet.schema_arrow, table(name), trace.header.tables[name], path)
            positions = (parquet.schema_arrow.metadata or {}).get(POSITIONS, b"").decode()
            spans = {int(ring): (int(low), int(high)) for ring, low, high in re.findall(r"(\d+):(\d+)-(\d+)", positions)}
            if not spans or any(low != sealed.get(ring, 0) for ring, (low, _) in spans.items()):
                return 0
            groups = [parquet.read_row_group(number).replace_schema_metadata(None) for number in range(parquet.num_row_groups)]
    except (OSError, ValueError, TraceError):
        return 0  # cut off by the power failure, as the caller reports by what is missing
    part = writer.seal(table(name), groups, spans, 0)
    sealed.update({ring: high for ring, (_, high) in spans.items()})
    return part.rows


def _pump(trace: TraceFolder, writer: TraceWriter, maps: dict[str, bpf.Map]) -> Pump:
    header = trace.header
    drains: list[TableDrain] = []
    counters: dict[str, Counters] = {}
    recorded = [table(name) for name in header.tables if name in tables()]
    ledger = None
    for one in recorded:
        if f"counters_{one.name}" not in maps:
            continue
        counters[one.name] = Counters(maps[f"counters_{one.name}"])
        pins = sorted((pin for pin in maps if pin.startswith(f"ring_{one.name}_")), key=lambda pin: int(pin.rpartition("_")[2]))
        rings = open_rings(one, [maps[pin] for pin in pins], counters[one.name].cells, None)
        for index, ring in enumerate(rings):
            # The manifest, not the ring, says what is in sealed parts: the kill may have come between the two.
            ring.read_to = trace.manifest.sealed_rings.get(one.name, {}).get(index, 0)
        drains.append(TableDrain(one, rings, writer))
    if "losses" in maps:
        # A journal of before there were pinned numbers is of the tables that are declared now.
        numbers = numbered_tables(maps[NUMBERS_PIN]) if NUMBERS_PIN in maps else loss_tables()
        ledger = Ledger(maps["losses"], counters, possible_cpus(), header.attached_at, numbers)
        for part in writer.standing("losses"):
            ledger.already_written(trace.read(part))
    return Pump(writer, drains, counters, ledger, recorded)
