"""Checks a trace folder down to the last bit, and its numbers against each other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ringtape.analysis.part_reader import Ints, lines, merged
from ringtape.schemas.errors import TraceError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.manifest import FILE, Part
from ringtape.schemas.table import table as declared


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the file or the table, and the reason."""

    where: str
    reason: str


@dataclass
class Verification:
    """What was checked and what is wrong.

    ``notes`` say what is worth knowing without being wrong, such as that a recording was cut off.
    """

    parts: int = 0
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(path: str | os.PathLike[str]) -> Verification:
    """Check everything that can be checked of a trace.

    The manifest's chain of checksums; size and SHA-256 of every part; then, in a process of its own, every page with its
    checksum, the exact schema, the order by ``ts``, rows and times against the manifest, codes against their meanings; then
    the sequence numbers: each of those attempted on a CPU was recorded once or stands in the loss ledger; the footer's
    totals; files that do not belong.

    Parameters
    ----------
    path : path
        The trace folder.

    Returns
    -------
    Verification
        Problems, none if the trace is what it claims to be.

    Examples
    --------
    >>> from ringtape.analysis.verification import verify
    >>> found = verify(getfixture("example_trace").path)
    >>> found.problems, found.rows
    ([], 9)
    """
    result = Verification()
    try:
        folder = TraceFolder.open(path)
    except TraceError as error:
        result.problems.append(Problem(str(path), error.what.removeprefix(f"{path}: ")))
        return result
    if folder.footer is None:
        result.notes.append(f"{folder.state}: there is no footer, so totals and unread rings cannot be checked")
    if folder.manifest.cut:
        result.notes.append(f"{FILE}: the last line was cut off and counts as absent")
    if (source := folder.header.options.get("source")) is not None:
        result.notes.append(f"imported from {str(source)[:40]}: nothing numbered its calls, so that only known losses can be checked")
    if not folder.manifest.parts:
        result.notes.append("there is no part: nothing but the manifest was checked")
    result.problems += _strangers(folder)
    sound = []
    for part in folder.manifest.parts:
        result.parts += 1
        if part.table not in folder.tables:
            result.notes.append(f"{part.file}: this version does not know its table, so only its hash was checked")
        try:
            folder.check(part)
        except TraceError as error:
            result.problems.append(Problem(part.file, error.what.removeprefix(f"{folder.path_of(part)}: ")))
            continue
        if part.table in folder.tables:
            sound.append(part)
    readings = {reading["file"]: reading for reading in _decode(folder, sound)}
    if folder.state == "recording":
        standing = {part.file for part in TraceFolder.open(path).manifest.parts}
        gone = {part.file for part in folder.manifest.parts} - standing
        result.problems = [problem for problem in result.problems if problem.where not in gone]
        readings = {name: reading for name, reading in readings.items() if name not in gone}
        result.parts -= len(gone)
        result.notes += [f"{name}: merged into another part, or dropped, in the meantime" for name in sorted(gone)]
    for name, reading in readings.items():
        result.rows += reading["rows"]
        result.problems += [Problem(name, reason) for reason in reading["problems"]]
        result.notes += [f"{name}: {note}" for note in reading["notes"]]
    # Numbers of a table are compared only if all of its rows could be read: else every comparison would only repeat that.
    whole = {name for name in folder.tables if all(part.file in readings and not readings[part.file]["problems"] for part in folder.parts(name))}
    result.problems += _order(folder)
    result.problems += _totals(folder)
    result.problems += _sequences(folder, whole, readings)
    return result


def _strangers(folder: TraceFolder) -> Iterator[Problem]:
    """Yield files that the manifest does not name; not while a recorder is at work, which writes a part before its line."""
    if folder.state == "recording":
        return
    known = {FILE, *(part.file for part in folder.manifest.parts)}
    folders = {name.partition("/")[0] for name in known if "/" in name} | set(folder.header.tables)

    def complain(error: OSError) -> None:
        found.append(Problem(str(error.filename), os.strerror(error.errno or 0).lower()))

    found: list[Problem] = []
    for place, inside, files in os.walk(folder.path, onerror=complain):
        below = Path(place).relative_to(folder.path)
        for name in [*files, *inside]:
            full = str(below / name) if str(below) != "." else name
            if full in folder.manifest.replaced:
                found.append(Problem(full, "left over: a merged part has replaced it, or it was dropped"))
            elif (Path(place) / name).is_symlink():
                found.append(Problem(full, "a symbolic link"))
            elif full not in known and not (name in inside and full in folders):
                found.append(Problem(full, "not named by the manifest"))
    yield from sorted(found, key=lambda problem: problem.where)


def _decode(folder: TraceFolder, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Have every part decoded in other processes; one that ends early is started again behind the part that ended it."""
    waiting = [part.file for part in parts]
    readings: list[dict[str, Any]] = []
    while waiting:
        names = "".join(json.dumps(name) + "\n" for name in waiting)
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                # -P: what lies in the current folder, such as beside a trace of somebody else, is no module.
                [sys.executable, "-P", "-m", "ringtape.analysis.part_reader", str(folder.path.absolute())],
                input=names, text=True, stdout=output, stderr=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            output.seek(0)
            found = list(lines(output))
        finished = [reading for reading in found if "file" in reading]
        readings += finished
        waiting = waiting[len(finished) :]
        if waiting:
            culprit = waiting.pop(0)
            reason = f"the Parquet reader died of it ({_death(done.returncode)})"
            readings.append({"file": culprit, "rows": 0, "problems": [reason], "notes": [], "runs": {}, "ledger": []})
    return readings


def _death(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _order(folder: TraceFolder) -> Iterator[Problem]:
    """Yield parts of a merged table that reach into the one after them."""
    if folder.footer is None or folder.header.options.get("merge") is False:
        return
    for name in folder.tables:
        parts = sorted(folder.parts(name), key=lambda part: part.min_ts)
        if any(part.replaces for part in parts):
            for left, right in pairwise(parts):
                if right.min_ts < left.max_ts:
                    yield Problem(
                        left.file, f"reaches to {left.max_ts}, beyond the begin of {right.file} at {right.min_ts}, although the table was merged"
                    )


def _totals(folder: TraceFolder) -> Iterator[Problem]:
    footer = folder.footer
    if footer is None:
        return
    if footer.detached_at < folder.header.attached_at and footer.end != "recovered":
        yield Problem(FILE, f"the recording ends at {footer.detached_at}, before it begins at {folder.header.attached_at}")
    for name in folder.tables:
        rows, gone = sum(part.rows for part in folder.parts(name)), folder.retired.rows.get(name, 0)
        if rows + gone != footer.rows.get(name, 0):
            dropped = f" and {gone} dropped" if gone else ""
            yield Problem(name, f"{rows} rows in parts{dropped} where the footer says {footer.rows.get(name, 0)}")


def _sequences(folder: TraceFolder, whole: set[str], readings: dict[str, dict[str, Any]]) -> Iterator[Problem]:
    """Yield what does not add up: attempted = recorded + lost on every CPU, nothing twice, each gap in the ledger."""
    ledger: dict[tuple[str, int], int] = defaultdict(int)
    known = "losses" in whole
    for part in folder.parts("losses") if known else ():
        for name, cpu, count in readings[part.file]["ledger"]:
            ledger[name, cpu] += count
    for name in sorted(whole):
        if declared(name).origin != "ring":
            continue
        runs: dict[int, list[Ints]] = defaultdict(list)
        for part in folder.parts(name):
            for cpu, found in readings[part.file]["runs"].items():
                runs[int(cpu)].append(np.array(found, np.int64).reshape(-1, 2))
        footer = folder.footer
        # Of a recorder that was killed and whose rings are gone nobody knows how many records it attempted.
        counted = footer is not None and (name in footer.attempted or footer.end != "recovered")
        attempted = {int(cpu): count for cpu, count in footer.attempted.get(name, {}).items()} if footer is not None and counted else {}
        for cpu in sorted({*runs, *attempted, *(cpu for table, cpu in ledger if table == name)}):
            numbers = np.concatenate(runs[cpu]) if runs[cpu] else np.empty((0, 2), np.int64)
            lost = ledger[name, cpu] if known else None
            dropped = sum(counts.get(name, {}).get(str(cpu), 0) for counts in (folder.retired.numbered, folder.retired.lost))
            yield from _cpu(name, cpu, numbers, attempted.get(cpu, 0) if counted else None, lost, dropped)
        if footer is not None and known:
            total = sum(count for (table, _), count in ledger.items() if table == name)
            if total != footer.lost.get(name, 0):
                yield Problem(name, f"{total} records in the loss ledger where the footer says {footer.lost.get(name, 0)} were lost")


def _cpu(name: str, cpu: int, numbers: Ints, attempted: int | None, lost: int | None, dropped: int) -> Iterator[Problem]:
    where = f"{name}, CPU {cpu}"
    said: list[str] = []
    joined = merged(numbers, said.append) if len(numbers) else numbers
    if said:
        yield Problem(where, "a sequence number stands in two parts")
        return
    recorded = int((joined[:, 1] - joined[:, 0] + 1).sum())
    reach = int(joined[-1, 1]) + 1 if len(joined) else 0
    if attempted is None:
        # What the ring still held when the recorder died is in no part, and the ledger's last second may be missing: only gaps can be judged.
        return
    if reach > attempted:
        yield Problem(where, f"sequence numbers reach {reach - 1} where the footer says that {attempted} were attempted")
    elif lost is not None and recorded + lost + dropped != attempted:
        also = f" + {dropped} dropped" if dropped else ""
        yield Problem(where, f"{recorded} recorded + {lost} lost{also} = {recorded + lost + dropped}, but {attempted} were attempted")
    elif lost is None and recorded + dropped != attempted:
        yield Problem(where, f"{recorded} recorded of {attempted} attempted, and no readable loss ledger to tell why")
