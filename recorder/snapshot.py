"""A snapshot: the last minutes of a recording, which may go on, as a trace of their own.

Sealed parts are never changed, so a snapshot has them by hard link, and takes no room until the recording drops them; across file
systems they are copied. Its books are those of the recording, whose earlier parts count as dropped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ringtape.recorder.carried import CONTEXT
from ringtape.recorder.folder import create_folder
from ringtape.recorder.writer import TraceWriter
from ringtape.schemas import part_file  # noqa: F401 - `TraceFolder.read` needs it when our files may be out of reach
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.errors import RecordingError, TraceError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import Clock, Footer, Part
from ringtape.schemas.retirement import Counts, Retired, added
from ringtape.schemas.table import table, tables

PATIENCE = 5.0
"""Seconds in which a recorder that lives has sealed its next parts."""
_ATTEMPTS = 50
_LOST = (0, 4)

Numbered = Callable[[str], Mapping[int, int] | None]
"""Returns, by CPU, how many rows of a part have a sequence number; None if that is not known."""


@dataclass(frozen=True)
class Taken:
    """A snapshot: where it is, its rows, the time that it spans in ns, and whether parts had to be copied."""

    path: Path
    rows: int
    span: int
    copied: bool


def wait_for_seal(trace: Path) -> None:
    """Wait until the recorder of a growing trace has sealed what was in its rings when this was called."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    deadline = time.monotonic() + PATIENCE
    while (folder := TraceFolder.open(trace)).state == "recording" and time.monotonic() < deadline:
        # The row of the recorder's own cost is what each second ends with.
        if any(part.clock.mono > now for part in folder.parts("recorder")):
            return
        time.sleep(0.02)


def take(trace: Path, output: Path, last: int, trigger: Mapping[str, object], numbered: Numbered | None = None) -> Taken:
    """Save the last minutes of a trace.

    Parameters
    ----------
    trace : path
        The trace; its recorder may be at work.
    output : path
        Folder to make.
    last : int
        How far to reach back, in ns.
    trigger : mapping
        What asked for it; stands in the header.
    numbered : callable, optional
        Knows what else would have to be read.

    Raises
    ------
    RecordingError
        If the folder cannot be made.
    TraceError
        If the trace is damaged.
    OSError
        If the disk is full.
    """
    if output.exists() or output.is_symlink():
        raise RecordingError(f"{output} exists already", "a trace is never overwritten: name another, or remove it")
    building = output.with_name(f".{output.name}.partial")
    shutil.rmtree(building, ignore_errors=True)  # of a recorder that was killed here
    descriptor = create_folder(building)
    try:
        taken = _Snapshot(trace, building, descriptor, numbered or _unknown).take(last, trigger)
        building.rename(output)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return replace(taken, path=output)


def _unknown(file: str) -> None:
    """Know nothing of a part: it has to be read."""


class _Snapshot:
    def __init__(self, trace: Path, building: Path, descriptor: int, numbered: Numbered) -> None:
        self._trace = trace
        self._building = building
        self._descriptor = descriptor
        self._numbered = numbered
        self._copied = False

    def take(self, last: int, trigger: Mapping[str, object]) -> Taken:
        folder = self._linked()
        parts = folder.manifest.parts
        ends = folder.footer.detached_at if folder.footer else max((part.clock.mono for part in parts), default=folder.header.attached_at)
        cut = max(ends - last, folder.header.attached_at)
        growing = folder.footer is None
        # A part of a growing recording may hold a long call that ended in the window; a finished one is sorted by time.
        chosen = [part for part in parts if part.table in CONTEXT[:3] or (part.clock.mono if growing else part.max_ts) >= cut]
        left = [part for part in parts if part not in chosen]
        base = self._base(folder, left)
        origin = {
            "of": folder.header.trace_id,
            "trace": str(self._trace.absolute()),
            "attached_at": folder.header.attached_at,
            "last": last,
            **trigger,
        }
        header = replace(
            folder.header,
            trace_id=uuid.uuid4().hex,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            options={**folder.header.options, "merge": False, "snapshot": origin},
            attached_at=max(folder.header.attached_at, base.until, folder.retired.until) if left or base.count else folder.header.attached_at,
            journal="",
        )
        writer = TraceWriter.create(self._building, self._descriptor)
        try:
            writer.begin(header)
            for part in chosen:
                writer.parts[part.file] = part
            for name in header.tables:
                writer._numbers[name] = max((int(part.file[len(name) + 1 : -8]) + 1 for part in parts if part.table == name), default=0)
            writer.retired = base
            writer.rewrite()
            writer._undurable = [part.file for part in chosen]
            for part in left:
                (self._building / part.file).unlink()
            writer.finish(self._footer(folder, writer, chosen, base, cut, ends))
        finally:
            writer.close()
        return Taken(self._building, sum(part.rows for part in writer.parts.values()), ends - header.attached_at, self._copied)

    def _linked(self) -> TraceFolder:
        """Give all parts that stand a name here: from then on nothing that the recorder does can take them away."""
        for attempt in range(_ATTEMPTS):
            folder = TraceFolder.open(self._trace)
            try:
                for part in folder.manifest.parts:
                    self._link(folder, part)
            except FileNotFoundError:
                if folder.footer is not None or attempt == _ATTEMPTS - 1:
                    raise TraceError(f"{self._trace}: a part that the manifest names is gone", "`ringtape verify` tells which") from None
                continue
            standing = {part.file for part in folder.manifest.parts}
            for file in self._building.glob("*/*.parquet"):
                if str(file.relative_to(self._building)) not in standing:
                    file.unlink()
            return folder
        raise AssertionError("unreachable")

    def _link(self, folder: TraceFolder, part: Part) -> None:
        to = self._building / part.file
        to.parent.mkdir(mode=0o700, exist_ok=True)
        if to.exists():
            return
        try:
            os.link(folder.path_of(part), to, follow_symlinks=False)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or somebody else's file
            with open(folder.open_part(part), "rb") as source, open(to, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as target:
                shutil.copyfileobj(source, target, 1 << 20)
            self._copied = True

    def _base(self, folder: TraceFolder, left: Sequence[Part]) -> Retired:
        """Return the totals of all that is not in the snapshot."""
        before = folder.retired
        rows = Counter(before.rows)
        counts: Counts = {}
        lost: Counts = {}
        for part in left:
            rows[part.table] += part.rows
            counts = added(counts, {part.table: {str(cpu): count for cpu, count in self._counts(part).items()}})
            if part.table == "losses":
                lost = added(lost, self._losses(part))
        return Retired(
            parts=[],
            rows=dict(rows),
            numbered={name: of for name, of in added(before.numbered, counts).items() if of},
            lost=added(before.lost, lost),
            bytes=before.bytes + sum(part.bytes for part in left),
            count=before.count + len(left),
            until=max([before.until, *(part.max_ts for part in left)]),
            at=Clock.now().mono,
        )

    def _counts(self, part: Part) -> Mapping[int, int]:
        if part.table not in tables() or table(part.table).origin != "ring":
            return {}
        if (known := self._numbered(part.file)) is not None:
            return known
        counts, _ = self._read(part)
        return counts

    def _read(self, part: Part) -> tuple[dict[int, int], dict[int, int]]:
        """Return, by CPU, how many rows have a sequence number, and one more than the highest of them."""
        counts: Counter[int] = Counter()
        reach: dict[int, int] = {}
        with pq.ParquetFile(self._building / part.file, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=["cpu", "seq"], use_threads=False)
                cpu, seq = rows["cpu"].to_numpy(), rows["seq"].to_numpy()
                for one in np.unique(cpu[seq >= 0]).tolist():
                    of = seq[(cpu == one) & (seq >= 0)]
                    counts[one] += len(of)
                    reach[one] = max(reach.get(one, 0), int(of.max()) + 1)
        return dict(counts), reach

    def _losses(self, part: Part) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        with pq.ParquetFile(self._building / part.file, page_checksum_verification=True) as file:
            for row in file.read(["table", "cpu", "cause", "count"]).to_pylist():
                if row["cause"] in _LOST:
                    of = found.setdefault(row["table"], {})
                    of[str(row["cpu"])] = of.get(str(row["cpu"]), 0) + row["count"]
        return found

    def _footer(self, folder: TraceFolder, writer: TraceWriter, chosen: Sequence[Part], base: Retired, cut: int, ends: int) -> Footer:
        """Close the books: what was attempted is what is here, what is not, and what is known to be lost; each gap gets its loss."""
        ledger: dict[str, dict[str, int]] = {}
        for part in chosen:
            if part.table == "losses":
                ledger = {name: dict(of) for name, of in added(ledger, self._losses(part)).items()}
        attempted: dict[str, dict[str, int]] = {}
        missing: list[dict[str, object]] = []
        for name in folder.tables:
            if table(name).origin != "ring":
                continue
            counts: Counter[int] = Counter()
            reach: dict[int, int] = {}
            for part in (part for part in chosen if part.table == name):
                here, far = self._read(part)
                counts.update(here)
                reach.update({cpu: max(end, reach.get(cpu, 0)) for cpu, end in far.items()})
            gone = added(base.numbered, base.lost).get(name, {})
            of = attempted.setdefault(name, {})
            for cpu in sorted({*counts, *map(int, gone), *map(int, ledger.get(name, {}))}):
                known = counts[cpu] + gone.get(str(cpu), 0) + ledger.get(name, {}).get(str(cpu), 0)
                if (short := reach.get(cpu, 0) - known) > 0:
                    # Lost, and not yet in the ledger, which the recorder brings in once a second.
                    missing.append({"ts": cut, "until": ends, "count": short, "nr": -1, "cpu": cpu, "table": name})
                    ledger.setdefault(name, {})[str(cpu)] = ledger.get(name, {}).get(str(cpu), 0) + short
                of[str(cpu)] = max(known, reach.get(cpu, 0))
        if missing:
            empty = {"sum": 0, "abi": 0, "bucket": 0, "cause": 0}
            writer.seal(table("losses"), [pa.Table.from_pylist([{**empty, **row} for row in missing], arrow_schema(table("losses")))], {}, 0)
        rows = {name: sum(part.rows for part in writer.standing(name)) + base.rows.get(name, 0) for name in folder.header.tables}
        return Footer(
            end="snapshot",
            reason="",
            exit_status=None,
            rows=rows,
            lost={name: sum(of.values()) for name, of in ledger.items()},
            attempted={name: of for name, of in attempted.items() if of},
            filtered=0,
            cost={},
            clock=Clock.now(),
            detached_at=ends,
        )


def snapshots_in(folder: Path) -> list[Path]:
    """Return the snapshots in a folder, the oldest first; other traces are none."""
    found = []
    for path in sorted(folder.glob("*.trace")):
        with contextlib.suppress(TraceError):
            trace = TraceFolder.open(path)
            if trace.state == "snapshot":
                found.append((trace.footer.clock.wall if trace.footer else 0, path))
    return [path for _, path in sorted(found)]
