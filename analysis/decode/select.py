"""Chooses rows of a trace, joins calls with their strings and process events, and hands them on as lines in time order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ringtape.analysis.decode.calls import RETURNED, Text
from ringtape.analysis.decode.events import EXEC, exec_text
from ringtape.analysis.decode.lines import ABIS, Calls, Lines
from ringtape.analysis.decode.ordered import Ordered
from ringtape.analysis.in_force import CommandsInForce
from ringtape.schemas.abi import syscalls as abis
from ringtape.schemas.abi.errors import MAX_ERRNO
from ringtape.schemas.arrow import arrow_schema
from ringtape.schemas.errors import UsageError
from ringtape.schemas.folder import TraceFolder
from ringtape.schemas.table import table as declared

Mask = npt.NDArray[np.bool_]
_AFTER = 10**10
"""How far beyond the window exec events are looked for whose call began within it, in ns."""
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
    ) -> Selection:
        """Read the filters as they stand on the command line.

        Raises
        ------
        UsageError
            If there is no such call, or a thread is no number.
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
        )

    @property
    def of_calls(self) -> bool:
        """Whether calls were selected by what they are, so that process events are not wanted."""
        return bool(self.calls or self.min_duration or self.failed)


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
    return _Printer(folder, selection, lines).blocks()


class _Printer:
    def __init__(self, folder: TraceFolder, selection: Selection, lines: Lines) -> None:
        self._folder, self._selection, self._lines = folder, selection, lines
        since, until = selection.since, selection.until
        self._calls = Ordered(folder, "syscalls", since, until)
        self._strings = Ordered(folder, "paths", since, until)
        self._events = Ordered(folder, "processes", since, min(until, (1 << 63) - 1 - _AFTER) + _AFTER)
        self._pending: list[dict[str, Any]] = []
        self._commands = self._read_commands() if selection.comms else None

    def _read_commands(self) -> CommandsInForce:
        wanted = ["ts", "tid", "comm"]
        parts = self._folder.parts("processes") if "processes" in self._folder.tables else ()
        empty = arrow_schema(declared("processes")).empty_table().select(wanted)
        return CommandsInForce.of(pa.concat_tables([empty, *(self._folder.read(part, wanted).cast(empty.schema) for part in parts)]))

    def blocks(self) -> Iterator[list[str]]:
        for batch in self._calls.batches():
            last = int(batch["ts"][-1].as_py())
            strings = self._strings.take(last)
            wanted = batch.filter(pa.array(self._wanted_calls(batch)))
            block = self._block(wanted, strings, last)
            if block:
                yield block
        block = self._block(self._calls.empty(), self._strings.empty(), self._selection.until - 1)
        if block:
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

    def _block(self, rows: pa.Table, strings: pa.Table, last: int) -> list[str]:
        """Return the lines of these calls, and of the process events up to a time."""
        columns = {name: rows[name].to_numpy() for name in rows.column_names}
        texts = _texts(strings) if rows.num_rows else {}
        self._look_up_execs(columns, texts, last)
        shown = self._call_lines(columns, texts)
        due = [row for row in self._pending if row["ts"] <= last]
        self._pending = self._pending[len(due) :]
        if self._selection.of_calls or not due:
            return shown.tolist()  # type: ignore[no-any-return]
        chosen = self._who(pa.Table.from_pylist(due, arrow_schema(declared("processes"))))
        due = [row for row, wanted in zip(due, chosen, strict=True) if wanted]
        announced = np.array([self._lines.event(row) for row in due], object)
        # What a call does happens after the call was entered: its line comes first.
        places = np.searchsorted(columns["ts"], [row["ts"] for row in due], "right")
        return np.insert(shown, places, announced).tolist()

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
