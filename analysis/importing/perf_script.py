"""Text of `perf script` with raw_syscalls:sys_enter and raw_syscalls:sys_exit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ringtape.analysis.importing.rows import Rows
from ringtape.schemas.abi import syscalls as abis

SUMMARY = "text of `perf script` on events raw_syscalls:sys_enter and raw_syscalls:sys_exit (add --ns for times in ns)"
_HEAD = r"\s*(?P<comm>.*?)\s+(?:(?P<pid>-?\d{1,7})/)?(?P<tid>-?\d{1,7})\s+(?:\[(?P<cpu>\d{1,4})\]\s+)?(?P<s>\d{1,9})\.(?P<fraction>\d{6}|\d{9}):\s+"
_ENTER = r"enter: NR (?P<nr>-?\d{1,9}) \((?P<args>[0-9a-f, ]*)\)"
_EXIT = r"exit: NR (?P<nr2>-?\d{1,9}) = (?P<ret>-?\d{1,18})"
_EVENT = re.compile(_HEAD + r"raw_syscalls:sys_(?:(?P<enter>" + _ENTER + r")|" + _EXIT + r")\s*")
_LOST = re.compile(_HEAD + r"PERF_RECORD_LOST\D+(?P<lost>\d{1,15})\s*")
_ANY = re.compile(_HEAD + r"\S+:")
_ENDLESS = ("exit", "exit_group")
RETURNED, NO_RETURN, AT_ATTACH, UNFINISHED = range(4)
_COMM = 15


def fits(lines: Sequence[str]) -> bool:
    """Tell whether these lines may be of this source."""
    return any("raw_syscalls:sys_e" in line for line in lines)


def read(lines: Iterable[str], rows: Rows, abi: str) -> None:
    """Read the text: pair the events of each thread, note those whose other half is missing."""
    _Reader(rows, abi).read(lines)


class _Reader:
    def __init__(self, rows: Rows, abi: str) -> None:
        self._rows, self._abi = rows, abis.ABI_IDS[abi]
        self._mask = (1 << 64) - 1
        self._endless = {nr for nr, name in abis.names(abi).items() if name in _ENDLESS}
        self._arity = {nr: abis.arity(abi, nr) for nr in abis.names(abi)}
        self._open: dict[int, tuple[int, int, list[int], int, int]] = {}
        self._pids: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self._ended: set[int] = set()
        self._other = self._lost = 0
        self._digits = 9
        self._latest = 0

    def read(self, lines: Iterable[str]) -> None:
        rows = self._rows
        for number, line in enumerate(lines, 1):
            rows.lines = number
            if found := _EVENT.fullmatch(line):
                self._event(found)
            elif line.strip() and not line.startswith("#"):
                if lost := _LOST.fullmatch(line):
                    self._lost += int(lost["lost"])
                elif _ANY.match(line):
                    self._other += 1
                else:
                    rows.strangers.add(number, line)
        for tid, (ts, nr, args, cpu, pid) in self._open.items():
            kind = NO_RETURN if nr in self._endless else UNFINISHED
            self._call(tid, pid, ts, max(0, self._latest - ts) if kind == UNFINISHED else 0, nr, 0, args, cpu, kind)
        rows.facts["time resolution"] = "1 ns" if self._digits == 9 else "1 µs"
        rows.facts["numbering"] = "assumed to be that of the machine's own programs"
        if self._lost:
            rows.facts["events that perf lost"] = self._lost
        if self._other:
            rows.facts["lines of other events"] = self._other

    def _event(self, found: re.Match[str]) -> None:
        self._digits = min(self._digits, len(found["fraction"]))
        ts = int(found["s"]) * 10**9 + int(found["fraction"].ljust(9, "0"))
        self._latest = max(self._latest, ts)
        tid = int(found["tid"])
        pid = int(found["pid"]) if found["pid"] is not None else tid
        cpu = int(found["cpu"]) if found["cpu"] is not None else -1
        self._name(tid, pid, ts, found["comm"])
        before = self._open.pop(tid, None)
        if found["enter"]:
            if before is not None:
                self._half(tid, before)
            words = [int(word, 16) for word in found["args"].replace(" ", "").split(",") if 0 < len(word) <= 16][:6]
            self._open[tid] = (ts, int(found["nr"]), words, cpu, pid)
            return
        nr = int(found["nr2"])
        if before is not None and before[1] == nr:
            start, _, args, _, _ = before
            self._call(tid, pid, start, ts - start, nr, int(found["ret"]), args, cpu, RETURNED)
            return
        if before is not None:
            self._half(tid, before)
        if tid in self._ended or before is not None:
            self._rows.lose(ts, nr, self._abi, cpu)
        else:
            # The first that is seen of a thread: the call was entered before perf was there, or its parent's clone returned in it.
            self._call(tid, pid, ts, 0, nr, int(found["ret"]), [], cpu, AT_ATTACH)
        self._ended.add(tid)

    def _half(self, tid: int, before: tuple[int, int, list[int], int, int]) -> None:
        ts, nr, args, cpu, pid = before
        if nr in self._endless:
            self._call(tid, pid, ts, 0, nr, 0, args, cpu, NO_RETURN)
        else:
            self._rows.lose(ts, nr, self._abi, cpu)

    def _call(self, tid: int, pid: int, ts: int, dur: int, nr: int, ret: int, args: list[int], cpu: int, kind: int) -> None:
        self._ended.add(tid)
        row: dict[str, int] = {"ts": ts, "dur": max(0, dur), "ret": ret, "pid": pid, "tid": tid, "nr": nr, "cpu": cpu, "abi": self._abi, "kind": kind}
        for index, value in enumerate(args[: self._arity.get(nr, 6)]):
            row[f"arg{index}"] = value - (1 << 64) if value >> 63 else value
        self._rows.add("syscalls", row)

    def _name(self, tid: int, pid: int, ts: int, comm: str) -> None:
        name = comm[:_COMM]
        if self._names.get(tid) != name:
            kind = 4 if tid in self._names else 0
            self._names[tid] = name
            self._rows.add("processes", {"ts": ts, "comm": name.encode(errors="surrogateescape"), "pid": pid, "tid": tid, "kind": kind})
