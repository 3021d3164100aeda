"""The text of `perf script` of raw_syscalls:sys_enter and raw_syscalls:sys_exit, best with --ns and --show-lost-events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ringtape.analysis.importing.findings import Findings
from ringtape.analysis.importing.lines import read_lines
from ringtape.analysis.importing.threads import Thread, Threads
from ringtape.analysis.importing.writer import ImportWriter
from ringtape.schemas.abi.syscalls import ABI_IDS, arity, names
from ringtape.schemas.errors import RingtapeError

SUMMARY = "perf script --ns --show-lost-events, after perf record -e 'raw_syscalls:*'"
TABLES = ("syscalls", "processes", "losses")
RETURNED, NO_RETURN, AT_ATTACH, UNFINISHED, CHILD = 0, 1, 2, 3, 4
LOST_ELSEWHERE = 4
_HEAD = (
    r"\s*(?:(?P<comm>\S.*?)\s+)?(?:(?P<pid>-?\d+)/\s*)?(?P<tid>-?\d+)\s+(?:\[(?P<cpu>\d{1,5})\]\s+)?(?P<sec>\d{1,10})\.(?P<frac>\d{6}(?:\d{3})?):\s+"
)
_EVENT = re.compile(
    _HEAD + r"(?:\d+\s+)?raw_syscalls:sys_(?:enter: NR (?P<enter>-?\d{1,19}) \((?P<args>(?:[0-9a-f]{1,16}(?:, |(?=\))))*)\)"
    r"|exit: NR (?P<exit>-?\d{1,19}) = (?P<ret>-?\d{1,19}))\s*"
)
_RECORD = re.compile(_HEAD + r"PERF_RECORD_(?P<what>[A-Z_0-9]+)(?P<rest>.*)")
_OTHER = re.compile(_HEAD + r"\S")
_LOST = re.compile(r"\s*lost (\d+)")
_FORK = re.compile(r"\((\d+):(\d+)\):\((\d+):(\d+)\)")
_ARCH = {"x86_64": "x86_64", "aarch64": "arm64"}
_CHUNKS = re.compile(r"Processed (\d+) (?:events|samples) and lost (?:(\d+\.\d+)%)?")
_REMARK = re.compile(r"Warning:|Check IO/CPU overload!")
_FRAME = re.compile(r"\s+[0-9a-f]{6,16} ")
THREAD = 0x10000
_TIME = 1 << 62
_RERECORD = "record with: perf record -e 'raw_syscalls:*' -a COMMAND; perf script --ns --show-lost-events >FILE"


def recognises(lines: Sequence[str]) -> bool:
    """Whether the first lines of a file look like those of perf script."""
    return any(_EVENT.fullmatch(line) or _RECORD.match(line) or _OTHER.match(line) for line in lines if not line.startswith("#")) or any(
        line.startswith("# captured on") for line in lines
    )


@dataclass
class _Entered:
    """A call that has begun; ``sure`` until events are lost, after which its end may be that of another call."""

    ts: int
    nr: int
    args: tuple[int, ...]
    cpu: int
    sure: bool = True


class _Reader:
    """The state of one import."""

    def __init__(self, writer: ImportWriter, threads: Threads, findings: Findings, abi: str) -> None:
        self.writer = writer
        self.threads = threads
        self.findings = findings
        self.abi = abi
        self.host: dict[str, Any] = {}
        self.tools: dict[str, str] = {}
        self.command = ""
        self.pending: dict[int, _Entered] = {}
        self.of: dict[int, int] = {}
        self.began: int | None = None
        self.end = 0
        self.digits = 0
        self.holes: list[list[int]] = []
        self.lost: dict[int, int] = {}
        self.told = False
        self.halves = 0
        self.events = 0
        self.pids = False
        self.cpus = True
        self.where = ""
        self.abi_from = ""
        self.in_header = False
        self.heard: set[int] = set()
        self.dropped = 0
        self.use(abi)

    def use(self, abi: str) -> None:
        """Take the numbering of a machine."""
        self.abi, self.code = abi, ABI_IDS[abi]
        known = names(abi)
        self.exits = {nr for nr, name in known.items() if name in ("exit", "exit_group")}
        self.clones = {nr: name for nr, name in known.items() if name in ("clone", "clone3", "fork", "vfork")}
        self.execs = {nr for nr, name in known.items() if name in ("execve", "execveat")}
        self.returns = {nr for nr, name in known.items() if name == "rt_sigreturn"}

    def take(self, line: str) -> None:
        """Take one line."""
        match = _EVENT.fullmatch(line)
        if match is not None:
            self._event(match, line)
        elif line.startswith("#"):
            self.in_header = line.startswith("# captured on") or (self.in_header and not line.startswith("# ====="))
            self._head(line)
        elif self.in_header:
            return  # a command line of several lines
        elif (record := _RECORD.match(line)) is not None:
            self._record(record, line)
        elif _OTHER.match(line) is not None:
            self.findings.refuse("an event other than raw_syscalls", self.where, line)
        elif _FRAME.match(line) is not None:
            self.findings.refuse("stack frames, for which a trace of calls has no place", self.where, line)
        elif (dropped := _CHUNKS.match(line)) is not None:
            self.findings.doubt("perf says that it lost events, not where: ends of two calls may have been taken for one", self.where, line)
            if dropped[2]:  # of all, the lost ones included, rounded to 0.01 %
                self.dropped = min(int(float(dropped[1]) * (float(dropped[2]) + 0.005) / 100), 1 << 50)
        elif line.strip() and not _REMARK.match(line):
            self.findings.refuse("not understood", self.where, line)

    def _head(self, line: str) -> None:
        name, _, value = line[1:].partition(":")
        name, value = name.strip(), value.strip()
        if name == "hostname":
            self.host["name"] = value
        elif name == "os release":
            self.host["kernel"] = value
        elif name == "cpudesc":
            self.host["cpu"] = value
        elif name == "nrcpus online" and value.isdigit():
            self.host["cpus"] = int(value[:9])
        elif name == "perf version":
            self.tools["perf"] = value
        elif name == "cmdline":
            self.command = value
        elif name == "arch":
            self.host["machine"] = value
            if value in _ARCH and not self.events:
                self.use(_ARCH[value])
                self.abi_from = "the header of perf script"

    def _time(self, match: re.Match[str]) -> int:
        frac = match["frac"]
        self.digits = max(self.digits, len(frac))
        return int(match["sec"]) * 10**9 + int(frac) * (1000 if len(frac) == 6 else 1)

    def _event(self, match: re.Match[str], line: str) -> None:
        tid, ts = int(match["tid"]), self._time(match)
        if not 0 <= tid < 1 << 31:
            self.findings.refuse("no thread has such a number", self.where, line)
            return
        if ts >= _TIME or not -(1 << 63) <= int(match["ret"] or 0) < 1 << 63:
            self.findings.refuse("a number that no kernel gives", self.where, line)
            return
        self.began = ts if self.began is None else min(self.began, ts)
        self.end = max(self.end, ts)
        self.events += 1
        cpu = -1 if match["cpu"] is None else min(int(match["cpu"]), (1 << 15) - 1)
        self.cpus &= cpu >= 0
        self.pids |= match["pid"] is not None
        comm = (match["comm"] or "").encode("utf-8", "surrogateescape")[:15]
        new = tid not in self.heard
        self.heard.add(tid)
        pid = int(match["pid"]) if match["pid"] else self.of.get(tid)
        creator, flags = (None if tid in self.threads.alive else self._creator(tid)) or (None, 0)
        thread = self.threads.at(tid, ts, creator, flags, pid, comm)
        if match["enter"] is not None:
            self._named(thread, ts, comm)
            args = tuple(_signed(int(text, 16)) for text in match["args"].split(", ")) if match["args"] else ()
            self._enter(thread, ts, cpu, int(match["enter"]), args)
        else:
            self._exit(thread, ts, cpu, int(match["exit"]), int(match["ret"]), new)
            self._named(thread, ts, comm)
        self.writer.seal_full()

    def _named(self, thread: Thread, ts: int, comm: bytes) -> None:
        if comm and comm != thread.comm:
            self.threads.rename(thread, ts, comm)

    def _creator(self, tid: int) -> tuple[Thread, int] | None:
        """Return the thread that is just making another one, and its flags, if there is but one."""
        found = [(other, begun) for other, begun in self.pending.items() if begun.nr in self.clones and other in self.threads.alive]
        if len(found) != 1 or found[0][0] == tid:
            return None
        other, begun = found[0]
        return self.threads.alive[other], self._flags(begun)

    def _flags(self, begun: _Entered) -> int:
        return begun.args[0] if self.clones[begun.nr] == "clone" and begun.args else 0

    def _enter(self, thread: Thread, ts: int, cpu: int, nr: int, args: tuple[int, ...]) -> None:
        before = self.pending.pop(thread.tid, None)
        if before is not None:
            self._half(before.nr, before.ts, ts, before.cpu, 1)
        begun = _Entered(ts, nr, args[: arity(self.abi, nr)][:6], cpu)
        if nr in self.exits:
            self._row(thread, begun, 0, 0, NO_RETURN)
            self.threads.exit(thread, ts, (args[0] if args else 0) & 255, 0)
            self.heard.discard(thread.tid)
            return
        self.pending[thread.tid] = begun

    def _exit(self, thread: Thread, ts: int, cpu: int, nr: int, ret: int, new: bool) -> None:
        begun = self.pending.pop(thread.tid, None)
        # Having returned to what a signal interrupted, or begun another program, a thread may show another number.
        if begun is not None and (begun.nr == nr or (begun.nr in self.returns | self.execs and nr in (-1, *self.returns, *self.execs))):
            if begun.sure:
                self._row(thread, begun, ts - begun.ts, ret, RETURNED)
                if begun.nr in self.clones and 0 < ret < 1 << 31:
                    self.threads.born(ret, begun.ts, thread, self._flags(begun), self.of.get(ret))
            else:
                self._half(nr, begun.ts, ts, cpu, 0)
            return
        if begun is not None:
            self._half(begun.nr, begun.ts, ts, begun.cpu, 1)
            self._half(nr, begun.ts, ts, cpu, 1)
        elif new and nr in self.clones and ret == 0:
            self._row(thread, _Entered(ts, nr, (), cpu), 0, 0, CHILD)
        elif new:
            start = self.began or ts
            self._row(thread, _Entered(start, nr, (), cpu), ts - start, ret, AT_ATTACH)
        else:
            self._half(nr, ts, ts, cpu, 1)

    def _row(self, thread: Thread, begun: _Entered, dur: int, ret: int, kind: int) -> None:
        if not -(1 << 31) <= begun.nr < 1 << 31:
            begun.nr = -1
        args = begun.args + (0,) * (6 - len(begun.args))
        self.writer.calls.append((begun.ts, max(0, dur), ret, *args, thread.number, begun.nr, begun.cpu, self.code, kind))
        self.findings.calls += 1

    def _half(self, nr: int, since: int, until: int, cpu: int, events: int) -> None:
        """Count a call of which perf lost one end, or may have mixed up two."""
        self.halves += 1
        if self.holes and events:
            hole = next((hole for hole in reversed(self.holes) if hole[3] > 0), None)
            if hole is not None:
                hole[3] -= 1
        self._lose(since, until, cpu, nr, 1)

    def _lose(self, since: int, until: int, cpu: int, nr: int, count: int) -> None:
        place = max(cpu, 0)
        self.lost[place] = self.lost.get(place, 0) + count
        nr = nr if -(1 << 31) <= nr < 1 << 31 else -1
        row = {"ts": since, "until": until, "count": count, "sum": 0, "nr": nr, "cpu": place, "bucket": 0, "table": "syscalls"}
        self.writer.losses.append(row | {"abi": self.code if nr >= 0 else 0, "cause": LOST_ELSEWHERE})

    def _record(self, match: re.Match[str], line: str) -> None:
        what, rest = match["what"], match["rest"]
        if what in ("LOST", "LOST_SAMPLES"):
            count = _LOST.match(rest)
            if count is None:
                self.findings.refuse("not understood", self.where, line)
                return
            ts = self._time(match) or self.end
            self.told = True
            since = max(self.holes[-1][1] if self.holes else self.began or ts, min((begun.ts for begun in self.pending.values()), default=0))
            self.holes.append([min(since, ts), ts, int(match["cpu"] or 0) & 0x7FFF, min(int(count[1]), 1 << 50)])
            for begun in self.pending.values():
                begun.sure = False
        elif what in ("FORK", "EXIT") and (ids := _FORK.match(rest)) is not None:
            pid, tid, ppid, ptid = (int(number) for number in ids.groups())
            if what == "FORK":
                self.of[tid] = pid
                if self._time(match) and (creator := self.threads.alive.get(ptid)) is not None and tid not in self.threads.alive:
                    self.threads.born(tid, self._time(match), creator, THREAD if pid == ppid else 0, pid)
            else:
                self.of.pop(tid, None)
                if (thread := self.threads.alive.get(tid)) is not None:
                    ts = self._time(match)
                    if (open_call := self.pending.pop(tid, None)) is not None:
                        self._row(thread, open_call, ts - open_call.ts, 0, NO_RETURN)
                    self.threads.exit(thread, ts, 0, 0)
                    self.heard.discard(tid)
                    self.findings.doubt("a thread ended without exit(2): how is not known, its exit code reads 0", self.where, line)

    def finish(self) -> None:
        """Take what has not ended, and what was lost."""
        for tid, begun in self.pending.items():
            if begun.sure:
                self._row(self.threads.alive[tid], begun, self.end - begun.ts, 0, UNFINISHED)
            else:
                self._half(begun.nr, begun.ts, self.end, begun.cpu, 1)
        self.pending.clear()
        if self.dropped and not self.holes:
            rest = max(0, self.dropped - self.halves)
            self.holes.append([self.began or 0, self.end, 0, rest])
        for since, until, cpu, count in self.holes:
            if count:
                self._lose(since, until, cpu, -1, -(-count // 2))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def read(files: Sequence[str], writer: ImportWriter, threads: Threads, findings: Findings, *, abi: str) -> dict[str, Any]:
    """Take all lines of a file of perf script into a trace; parameters and result as those of strace's.

    Raises
    ------
    RingtapeError
        If there is no system call in it.
    """
    if len(files) > 1:
        raise RingtapeError(f"{len(files)} files of perf script are {len(files)} recordings", "import one after the other")
    reader = _Reader(writer, threads, findings, abi)
    for number, line in read_lines(files[0]):
        findings.lines += 1
        reader.where = f"{files[0]}:{number}"
        reader.take(line)
    if not reader.events:
        why = max(findings.refused.items(), key=lambda item: item[1].count) if findings.refused else None
        detail = f"; {why[1].count:,} lines: {why[0]}; first at {why[1].where}: {why[1].example}" if why else ""
        raise RingtapeError(f"{files[0]}: no event of raw_syscalls in {findings.lines:,} lines{detail}", _RERECORD)
    reader.finish()
    _remarks(reader, findings)
    return {
        "options": {"precision": "1 ns" if reader.digits == 9 else "1 µs", "files": list(files), "clock": "perf's own; its wall time is not known"},
        "tools": reader.tools,
        "host": reader.host,
        "command": [],
        "abi": reader.abi,
        "abi_from": reader.abi_from or "this machine",
        "begin": reader.began or 0,
        "end": reader.end,
        "exit_status": None,
        "lost": {"syscalls": reader.lost} if reader.lost else {},
    }


def _remarks(reader: _Reader, findings: Findings) -> None:
    if reader.digits == 6:
        findings.note("times are cut to 1 µs, so that durations may be wrong by as much: write the text with perf script --ns")
    if not reader.pids:
        findings.note("the text has no process numbers: threads whose creation is not seen count as processes (perf script -F +pid tells them)")
    if not reader.cpus:
        findings.note("the text has no CPU numbers: CPU -1")
    if reader.holes:
        findings.note("what perf lost are events, two to a call: of calls of which both are lost, the number is the most that it can be")
    elif not reader.told:
        findings.note(
            "no line tells of lost events: perf script writes some with --show-lost-events only, others as a warning (add 2>&1), below 5 % none"
        )
    if reader.halves:
        findings.note(f"{reader.halves:,} calls of which perf lost one end, or whose ends may belong to two calls, stand in the loss ledger")
    findings.note("calls of 32-bit programs cannot be told apart: their numbers are read as those of " + reader.abi)
    findings.note("user -1: not known; paths are not in raw_syscalls")
