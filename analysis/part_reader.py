"""The process in which `verify` decodes parts: whatever a foreign file does to a Parquet reader ends this process alone.

It is started with the trace folder, and reads names of parts from standard input, one a line. For each it writes one line of JSON:
the name before the part is opened, then what was found.
"""

from __future__ import annotations

import json
import resource
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.folder import TraceFolder, is_newer
from ringtape.schemas.manifest import Footer, Header, Part
from ringtape.schemas.part_file import open_part
from ringtape.schemas.table import Table, table

Ints = npt.NDArray[np.int64]
MEMORY = 4 << 30
"""Address space of the process: what a row group of the largest size needs. A part that expands beyond it ends in one line."""
EARLIEST = 24 * 3600 * 10**9
"""How long before the recording is complete its first rows may be: while probe after probe is attached, rows come in already,
and whoever stopped the recorder with Ctrl-Z then made that long."""
LATEST = 10**9
"""How long a probe that had begun when the probes were detached may take to read the clock: a virtual CPU may be held up."""
_NOT_NEGATIVE = {
    "dur": "duration", "pid": "process", "tid": "thread", "count": "count", "sum": "sum", "interval": "interval", "utime": "CPU time",
    "stime": "CPU time",
}  # fmt: skip
_ALSO = {("losses", "abi"): (0,), ("block", "operation"): range(-128, 128), ("block", "status"): range(-128, 128)}
"""Codes that mean that there is none (losses of tables without system calls have no ABI), and those that kernels give as they like."""


def main(argv: list[str]) -> int:
    """Decode the parts that standard input names."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most), most))
    folder = TraceFolder.open(Path(argv[1]))
    parts = {part.file: part for part in folder.manifest.parts}
    for line in sys.stdin:
        name = json.loads(line)
        print(json.dumps({"began": name}), flush=True)
        print(json.dumps({"file": name, **_read(folder, parts[name])}), flush=True)
    return 0


def _read(folder: TraceFolder, part: Part) -> dict[str, Any]:
    found = _Findings(table(part.table), folder)
    try:
        with open_part(folder, part) as file:
            for rows in file.coded():
                found.add(rows)
    except RingtapeError as error:
        found.problems.append(error.what.removeprefix(f"{folder.path_of(part)}: "))
    else:
        found.close(part)
    return {"problems": found.problems, "notes": found.notes, "rows": found.rows, "runs": found.runs(), "ledger": found.ledger}


def _began(header: Header) -> int:
    """Return when the recording began; a snapshot is of one that may have begun long before."""
    origin = header.options.get("snapshot")
    began = origin.get("attached_at") if isinstance(origin, dict) else None
    return began if isinstance(began, int) else header.attached_at


class _Findings:
    """What one part shows, gathered row group by row group."""

    def __init__(self, of: Table, folder: TraceFolder) -> None:
        self.table = of
        self._header = folder.header
        self._newer = is_newer(folder.header.tables[of.name], of)
        self._detached, self._closed = _ends(folder.footer)
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.rows = 0
        self.first: int | None = None
        self.last: int | None = None
        self.ledger: list[list[Any]] = []
        self._runs: dict[int, list[Ints]] = defaultdict(list)
        self._said: set[str] = set()

    def _say(self, text: str, to: list[str] | None = None) -> None:
        if text not in self._said:
            self._said.add(text)
            (self.problems if to is None else to).append(text)

    def add(self, rows: pa.Table) -> None:
        """Take one row group."""
        if not rows.num_rows:
            return
        rows.validate(full=True)
        ts = _ints(rows, "ts")
        if (self.last is not None and ts[0] < self.last) or bool((np.diff(ts) < 0).any()):
            self._say("not sorted by ts")
        self.first = int(ts.min()) if self.first is None else min(self.first, int(ts.min()))
        self.last = int(ts.max()) if self.last is None else max(self.last, int(ts.max()))
        self.rows += rows.num_rows
        self._within(rows, ts)
        self._codes(rows)
        for name, what in _NOT_NEGATIVE.items():
            if name in rows.column_names and bool((_ints(rows, name) < 0).any()):
                self._say(f"a negative {what}")
        if "seq" in rows.column_names:
            self._number(_ints(rows, "seq"), _ints(rows, "cpu"))
        if self.table.name == "losses":
            for name in sorted(set(rows["table"].unique().to_pylist()) - {*self._header.tables}):
                self._say(f"losses of {name!r:.60}, a table that the header does not name")
            full = rows.filter(pc.is_in(rows["cause"], pa.array([0, 4], pa.int8()))).select(["table", "cpu", "count"])
            self.ledger += [[row["table"], row["cpu"], row["count"]] for row in full.to_pylist()]

    def _within(self, rows: pa.Table, ts: Ints) -> None:
        """Compare times with those of the recording. Rows from no ring are made after the probes are gone: ends, totals, the ledger."""
        from_ring = _ints(rows, "seq") >= 0 if "seq" in rows.column_names else np.zeros(len(ts), np.bool_)
        begin = _began(self._header) - EARLIEST
        if bool((ts < begin).any()):
            self._say(f"ts {int(ts.min())} is long before the recording, which began at {self._header.attached_at}")
        for chosen, end in ((from_ring, self._detached), (~from_ring, self._closed)):
            if end is not None and bool((late := ts[chosen & (ts > end + LATEST)]).any()):
                self._say(f"ts {int(late.max())} is after the recording, which ended at {end}")

    def _codes(self, rows: pa.Table) -> None:
        for column in self.table.columns:
            if not column.values:
                continue
            known = {*column.values, *_ALSO.get((self.table.name, column.name), ())}
            unknown = sorted(set(rows[column.name].unique().to_pylist()) - known)
            if unknown and self._newer:
                self._say(f"{column.name} holds {_some(unknown)}: codes of a newer version of the table", self.notes)
            elif unknown:
                self._say(f"{column.name} holds {_some(unknown)}, which {self.table.schema_id} does not have")

    def _number(self, seq: Ints, cpu: Ints) -> None:
        if bool((seq < -1).any()):
            self._say("a sequence number below -1")
        if bool((cpu < np.where(seq >= 0, 0, -1)).any()):
            self._say("a negative CPU")
        for one in np.unique(cpu[seq >= 0]):
            self._runs[int(one)].append(merged(_as_runs(np.sort(seq[(cpu == one) & (seq >= 0)])), self._say))

    def runs(self) -> dict[str, list[list[int]]]:
        """Return, by CPU, the ranges of sequence numbers that the part holds, ends included."""
        return {str(cpu): merged(np.concatenate(pieces), self._say).tolist() for cpu, pieces in self._runs.items()}

    def close(self, part: Part) -> None:
        """Compare with the manifest line, when all row groups were read."""
        if self.rows and (self.first, self.last) != (part.min_ts, part.max_ts):
            self.problems.append(f"ts goes from {self.first} to {self.last} where the manifest says {part.min_ts} to {part.max_ts}")
        self.runs()  # says so if a number stands twice


def _ends(footer: Footer | None) -> tuple[int | None, int | None]:
    """Return when the probes were gone and when the last row was written; None where nobody knows: after a crash."""
    if footer is None or footer.end == "recovered":
        return None, None
    return footer.detached_at, max(footer.detached_at, footer.clock.mono)


def _some(codes: list[int]) -> str:
    return ", ".join(map(str, codes[:3])) + (" and others" if len(codes) > 3 else "")


def _ints(rows: pa.Table, column: str) -> Ints:
    return np.asarray(rows[column].to_numpy(), np.int64)


def _as_runs(numbers: Ints) -> Ints:
    """Return the ranges of sorted numbers; one that stands twice begins a range that overlaps the one before."""
    breaks = np.flatnonzero(np.diff(numbers) != 1)
    return np.stack([numbers[np.append(0, breaks + 1)], numbers[np.append(breaks, len(numbers) - 1)]], axis=1)


def merged(runs: Ints, say: Any) -> Ints:
    """Return ranges joined where they touch, and say so if they overlap."""
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    reach = np.maximum.accumulate(runs[:, 1])
    if bool((runs[1:, 0] <= reach[:-1]).any()):
        say("a sequence number stands twice")
    begins = np.flatnonzero(np.append(True, runs[1:, 0] > reach[:-1] + 1))
    return np.stack([runs[begins, 0], reach[np.append(begins[1:] - 1, len(runs) - 1)]], axis=1)


def lines(text: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of the lines that the process wrote; a line that was cut off with it counts as absent."""
    for line in text:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


if __name__ == "__main__":
    sys.exit(main(sys.argv))
