"""Chooses rows of a trace, joins calls with their strings and process events, and hands them on as lines in time order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ringtape.analysis.decode.calls import RETURNED, Text
from ringtape.analysis.decode.events import EXEC, exec_text
from ringtape.analysis.decode.lines import ABIS, Calls, Lines
from ringtape.analysis.decode.ordered import Ordered
from ringtape.analysis.decode.tracepoints import occurrences
from ringtape.analysis.events import matching
from ringtape.analysis.in_force import CommandsInForce
from ringtape.schemas.abi import syscalls as abis
from ringtape.schemas.abi.errors import MAX_ERRNO
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.errors import UsageError
from ringtape.schemas.events import Event, parse_events
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.table import table as declared

Mask = npt.NDArray[np.bool_]
_AFTER = 10**10
"""How far beyond the window exec events are looked for whose call began within it, in ns."""
_NEVER = -(1 << 63)
_EXECS = {"execve": 1, "execveat": 2}


@dataclass(frozen=True)
class Selection:
    """Which rows are wanted; an empty filter lets all pass. Times and durations in ns."""

    calls: frozenset[tuple[int, int]]
    pids: frozenset[int]
    comms: frozenset[str]
    tids: frozenset[int]
    since: int
    until: int
    min_duration: int
    failed: bool
    events: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls,
        native: str,
        *,
        syscalls: Sequence[str],
        processes: Sequence[str],
        threads: Sequence[str],
        since: int,
        until: int,
        min_duration: int,
        failed: bool,
        events: Sequence[str] = (),
        recorded: Mapping[str, Event] = MappingProxyType({}),
    ) -> Selection:
        """Read the filters as they stand on the command line.

        Raises
        ------
        UsageError
            If there is no such call, a thread is no number, or an event was not recorded.
        """
        bad = [word for word in threads if not word.isdigit()]
        if bad:
            raise UsageError(f"--thread {bad[0]!r} is not a thread number", "use --process to name a command")
        return cls(
            frozenset(pair for name in syscalls for pair in _numbers(native, name)),
            frozenset(int(word) for word in processes if word.isdigit()),
            frozenset(word for word in processes if not word.isdigit()),
            frozenset(map(int, threads)),
            since,
            until,
            min_duration,
            failed,
            frozenset(recorded[name].id for pattern in events for name in _events(recorded, pattern)),
        )

    @property
    def of_calls(self) -> bool:
        """Whether calls were selected by what they are, so that process events are not wanted."""
        return bool(self.calls or self.min_duration or self.failed)

    @property
    def of_events(self) -> bool:
        """Whether tracepoints were selected by their names, so that nothing else is wanted unless it was selected too."""
        return bool(self.events)


def _events(recorded: Mapping[str, Event], pattern: str) -> list[str]:
    found = matching(list(recorded), pattern)
    if not found:
        raise UsageError(f"event {pattern!r} was not recorded", f"the trace holds {', '.join(recorded) or 'no events'}")
    return found


def _numbers(native: str, name: str) -> list[tuple[int, int]]:
    """Return (ABI code, number) of a call in every ABI that the recorded machine's programs may use."""
    candidates = [native, abis.compat_abi(native), "x32" if native == "x86_64" else None]
    found = [(abis.ABI_IDS[abi], nr) for abi in candidates if abi for nr, known in abis.names(abi).items() if known == name]
    return found or [(abis.ABI_IDS[native], abis.number(native, name))]


def select(folder: TraceFolder, selection: Selection, lines: Lines) -> Iterator[list[str]]:
    """Yield the lines of the wanted rows, block by block in time order.

    Raises
    ------
    TraceError
        If a part is missing or damaged.
    """
    return (block for _, block in timed(folder, selection, lines))


def timed(folder: TraceFolder, selection: Selection, lines: Lines) -> Iterator[tuple[list[int], list[str]]]:
    """Yield the lines as `select` does, with the time in ns at which each call was entered or each event happened."""
    return _Printer(folder, selection, lines).blocks()


class _Printer:
    def __init__(self, folder: TraceFolder, selection: Selection, lines: Lines) -> None:
        self._folder, self._selection, self._lines = folder, selection, lines
        since, until = selection.since, selection.until
        self._calls = Ordered(folder, "syscalls", since, until if selection.of_calls or not selection.of_events else _NEVER)
        self._occurrences = Ordered(folder, "events", since, until if selection.of_events or not selection.of_calls else _NEVER)
        self._described = {event.id: event for event in parse_events(folder.header.events).values()}
        self._strings = Ordered(folder, "paths", since, until)
        self._events = Ordered(folder, "processes", since, min(until, (1 << 63) - 1 - _AFTER) + _AFTER)
        self._pending: list[dict[str, Any]] = []
        self._commands = self._read_commands() if selection.comms else None

    def _read_commands(self) -> CommandsInForce:
        wanted = ["ts", "tid", "comm"]
        parts = self._folder.parts("processes") if "processes" in self._folder.tables else ()
        empty = arrow_schema(declared("processes")).empty_table().select(wanted)
        return CommandsInForce.of(pa.concat_tables([empty, *(self._folder.read(part, wanted).cast(empty.schema) for part in parts)]))

    def blocks(self) -> Iterator[tuple[list[int], list[str]]]:
        while ends := [end for end in (self._calls.end(), self._occurrences.end()) if end is not None]:
            last = min(ends)
            batch, strings = self._calls.take(last), self._strings.take(last)
            wanted = batch.filter(pa.array(self._wanted_calls(batch)))
            block = self._block(wanted, strings, self._occurrences.take(last), last)
            if block[0]:
                yield block
        block = self._block(self._calls.empty(), self._strings.empty(), self._occurrences.empty(), self._selection.until - 1)
        if block[0]:
            yield block

    def _who(self, rows: pa.Table) -> Mask:
        chosen = self._selection
        mask = np.ones(rows.num_rows, np.bool_)
        if chosen.tids:
            mask &= np.isin(rows["tid"].to_numpy(), list(chosen.tids))
        if chosen.pids or chosen.comms:
            process = np.isin(rows["pid"].to_numpy(), list(chosen.pids))
            if self._commands is not None:
                known = [index for index, name in enumerate(self._commands.names) if name in chosen.comms]
                process |= np.isin(self._commands.codes(rows["tid"].to_numpy(), rows["ts"].to_numpy()), known)
            mask &= process
        return mask

    def _wanted_calls(self, rows: pa.Table) -> Mask:
        chosen = self._selection
        mask = self._who(rows)
        if chosen.calls:
            key = rows["abi"].to_numpy().astype(np.int64) << 32 | rows["nr"].to_numpy()
            mask &= np.isin(key, [abi << 32 | nr for abi, nr in chosen.calls])
        if chosen.min_duration:
            mask &= rows["dur"].to_numpy() >= chosen.min_duration
        if chosen.failed:
            ret = rows["ret"].to_numpy()
            mask &= (ret >= -MAX_ERRNO) & (ret < 0)
        return mask

    def _block(self, rows: pa.Table, strings: pa.Table, events: pa.Table, last: int) -> tuple[list[int], list[str]]:
        """Return times and lines of these calls and tracepoints, and of the process events up to a time."""
        columns = {name: rows[name].to_numpy() for name in rows.column_names}
        texts = _texts(strings) if rows.num_rows else {}
        self._look_up_execs(columns, texts, last)
        shown = self._call_lines(columns, texts)
        due = [row for row in self._pending if row["ts"] <= last]
        self._pending = self._pending[len(due) :]
        times, lines = self._occurrence_lines(events)
        if due and not (self._selection.of_calls or self._selection.of_events):
            chosen = self._who(pa.Table.from_pylist(due, arrow_schema(declared("processes"))))
            due = [row for row, wanted in zip(due, chosen, strict=True) if wanted]
            times = np.concatenate([times, np.array([row["ts"] for row in due], np.int64)])
            lines = np.concatenate([lines, np.array([self._lines.event(row) for row in due], object)])
            order = np.argsort(times, kind="stable")
            times, lines = times[order], lines[order]
        entered = columns["ts"]
        if not len(lines):
            return entered.tolist(), shown.tolist()
        # What a call does happens after the call was entered: its line comes first.
        places = np.searchsorted(entered, times, "right")
        return np.insert(entered, places, times).tolist(), np.insert(shown, places, lines).tolist()

    def _occurrence_lines(self, rows: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_]]:
        """Return the times and lines of the wanted tracepoints, in time order as the rows are."""
        mask = self._who(rows)
        if self._selection.events:
            mask &= np.isin(rows["event"].to_numpy(), list(self._selection.events))
        rows = rows.filter(pa.array(mask))
        lines = np.empty(rows.num_rows, object)
        for found in occurrences(rows, self._described):
            lines[found.rows] = np.array(self._lines.tracepoints(found), object)
        return rows["ts"].to_numpy(), lines

    def _look_up_execs(self, columns: dict[str, npt.NDArray[Any]], texts: dict[tuple[int, int], dict[int, Text]], last: int) -> None:
        """Give successful execve calls the argument lists that their exec events recorded."""
        candidates: list[tuple[int, int]] = []
        done = (columns["ret"] == 0) & (columns["kind"] == RETURNED)
        for code in np.unique(columns["abi"]):
            for name, arg in _EXECS.items():
                abi = ABIS.get(int(code), "")
                nr = next((number for number, known in abis.names(abi).items() if known == name), None) if abi else None
                if nr is not None:
                    candidates += [(int(row), arg) for row in np.flatnonzero(done & (columns["nr"] == nr) & (columns["abi"] == code))]
        ends = columns["ts"] + columns["dur"]
        horizon = max([last, *(int(ends[row]) for row, _ in candidates)])
        self._pending += self._events.take(horizon).to_pylist()
        execs: dict[int, list[dict[str, Any]]] = {}
        for event in self._pending if candidates else ():
            if event["kind"] == EXEC:
                execs.setdefault(event["creator"] or event["tid"], []).append(event)
        for row, arg in candidates:
            tid, ts = int(columns["tid"][row]), int(columns["ts"][row])
            for event in execs.get(tid, ()):
                if ts <= event["ts"] <= int(ends[row]):
                    if (words := exec_text(event)) is not None:
                        texts.setdefault((tid, ts), {})[arg] = words
                    break

    def _call_lines(self, columns: dict[str, npt.NDArray[Any]], texts: dict[tuple[int, int], dict[int, Text]]) -> npt.NDArray[np.object_]:
        shown = np.empty(len(columns["ts"]), object)
        key = columns["abi"].astype(np.int64) << 32 | columns["nr"].astype(np.int64) & 0xFFFFFFFF
        order = np.argsort(key, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
            if len(group):
                shown[group] = np.array(self._lines.calls(_group(columns, group, texts)), object)
        return shown


def _group(columns: dict[str, npt.NDArray[Any]], rows: npt.NDArray[np.intp], texts: dict[tuple[int, int], dict[int, Text]]) -> Calls:
    values = {name: column[rows].tolist() for name, column in columns.items()}
    code, nr = values["abi"][0], values["nr"][0]
    abi = ABIS.get(code, "x86_64")
    found = None
    if texts and abis.strings(abi, nr):
        found = [texts.get(pair) for pair in zip(values["tid"], values["ts"], strict=True)]
    return Calls(
        abi=abi,
        nr=nr,
        args=[values[f"arg{index}"] for index in range(6)],
        texts=found,
        **{name: values[name] for name in ("ts", "dur", "ret", "kind", "pid", "tid", "cpu", "seq")},
    )


def _texts(strings: pa.Table) -> dict[tuple[int, int], dict[int, Text]]:
    found: dict[tuple[int, int], dict[int, Text]] = {}
    names = ("tid", "ts", "arg", "kind", "value", "cut")
    for tid, ts, arg, kind, value, cut in zip(*(strings[name].to_pylist() for name in names), strict=True):
        found.setdefault((tid, ts), {})[arg] = Text(kind, value, bool(cut))
    return found
