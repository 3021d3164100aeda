"""The text of strace with absolute times and durations: `strace -f -ttt -T`, one file, or one per thread (-ff)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ringtape.analysis.importing import strace_values as values
from ringtape.analysis.importing.findings import Findings
from ringtape.analysis.importing.lines import read_lines
from ringtape.analysis.importing.strace_calls import arguments, joined, number_of, text_of
from ringtape.analysis.importing.threads import UNKNOWN_CPU, Thread, Threads
from ringtape.analysis.importing.writer import ImportWriter
from ringtape.schemas.abi.errors import errno_number, signal_number
from ringtape.schemas.abi.syscalls import ABI_IDS, compat_abi, strings
from ringtape.schemas.errors import RingtapeError, UsageError

SUMMARY = "strace -f -ttt -T, in one file (-o) or one per thread (-ff)"
TABLES = ("syscalls", "paths", "processes", "losses")
RETURNED, NO_RETURN, AT_ATTACH, UNFINISHED = 0, 1, 2, 3
ORIGIN = 10**9
"""Where the axis begins, ns: the first line."""
LAST = (1 << 62) // 10**9
_WHO = r"(?:\[pid +(?P<p1>\d+)(?:<(?P<c1>[^>]*)>)?\] |(?P<p2>\d+)(?:<(?P<c2>[^>]*)>)? +)?"
_LINE = re.compile(_WHO + r"(?P<sec>\d{9,11})\.(?P<frac>\d{3,9}) (?:\[ *\d+\] )?(?:\[[0-9a-f]{8,16}\] )?(?P<text>.*)", re.DOTALL)
_CALL = re.compile(r"([A-Za-z_]\w*)\((.*)", re.DOTALL)
_RESULT = re.compile(r"(?P<ret>\?|-?\d+|0x[0-9a-f]+)(?P<deco><.*>)?(?: (?P<error>E[A-Z0-9_?]+))?(?P<rest>(?: [(<].*)?)", re.DOTALL)
_TIMED = re.compile(r" <(\d{1,9})\.(\d{3,9})>$")
_END = re.compile(r"\) += ")
_RESUMED = re.compile(r"<\.\.\. ([A-Za-z_]\w*) resumed>(.*)", re.DOTALL)
_EXITED = re.compile(r"\+\+\+ (?:exited with (\d+)|killed by (SIG\w+)(?: \(core dumped\))?) \+\+\+")
_SUPERSEDED = re.compile(r"\+\+\+ superseded by execve in pid (\d+) \+\+\+")
_SIGNAL = re.compile(r"--- (?:SIG\w+ (?:\{.*\}|\(.*\))|stopped by SIG\w+) ---|--- SIG\w+ ---", re.DOTALL)
_ATTACHED = re.compile(r"(?:strace: )?Process (\d+) (attached|detached)(?:.*)")
_MODE = re.compile(r"(?:strace: )?\[ Process PID=(\d+) runs in (32 bit|64 bit|x32) mode\. \]")
_ERRNO = re.compile(r"\(errno (\d+)\)")
_CLONES = ("clone", "clone3", "fork", "vfork")
_CLONE_FLAGS = re.compile(r"\bflags=([A-Z0-9_|x]+)")
_OTHER_TIMES = (
    (re.compile(_WHO + r"\d\d:\d\d:\d\d(?:\.\d+)? "), "it has times of day (-t or -tt), which tell no date"),
    (re.compile(_WHO + r" *\d{1,8}\.\d{3,9} "), "it has times since the line before (-r), which are no instants"),
)
_TEXT = re.compile(_WHO + r"(?:\d\S* +)?[a-z_]\w*\(.*\) += (?:\?|-?\d|0x)", re.DOTALL)
_RERECORD = "record with: strace -f -ttt -T -o FILE COMMAND"


def recognises(lines: Sequence[str]) -> bool:
    """Whether the first lines of a file look like strace's."""
    return any(_TEXT.match(line) or ((match := _LINE.match(line)) and _CALL.match(match["text"])) for line in lines)


@dataclass
class _Begun:
    """A call of which only the beginning was seen; ``name`` is None for one that the end alone will name."""

    ts: int
    name: str
    args: str


class _Reader:
    """The state of one import."""

    def __init__(self, writer: ImportWriter, threads: Threads, findings: Findings, abi: str) -> None:
        self.writer = writer
        self.threads = threads
        self.findings = findings
        self.abi = abi
        self.modes: dict[int, str] = {}
        self.pending: dict[int, _Begun] = {}
        self.seen: set[int] = set()
        self.last_wall = 0
        self.base: int | None = None
        self.end = ORIGIN
        self.steps = 0
        self.timed = self.untimed = 0
        self.digits = 0
        self.unknown: Counter[str] = Counter()
        self.command: list[str] = []
        self.root: int | None = None
        self.exit_status: int | None = None
        self.where = ""
        self.line = ""
        self.default = 0
        self.sole: int | None = None

    def time(self, sec: str, frac: str) -> int:
        """Return the place of a wall time on the axis, which never goes back: where the wall clock did, the axis stands still."""
        wall = int(sec) * 10**9 + int(frac.ljust(9, "0"))
        self.digits = max(self.digits, len(frac))
        if self.base is None:
            self.base = wall - ORIGIN
            self.writer.offset = self.base
        if wall < self.last_wall:
            self.steps += 1
            self.findings.doubt("the wall clock went back; the axis of time goes on from there", self.where, self.line)
            self.base -= self.last_wall - wall
            self.writer.offset = self.base
        self.last_wall = wall
        ts = wall - self.base
        self.end = max(self.end, ts)
        return ts

    def take(self, line: str) -> None:
        """Take one line."""
        self.line = line
        match = _LINE.match(line)
        if match is None:
            self._untimed(line)
            return
        text = match["text"]
        if int(match["sec"]) >= LAST:
            self.findings.refuse("a time that no clock shows", self.where, line)
            return
        ts = self.time(match["sec"], match["frac"])
        who = match["p1"] or match["p2"]
        tid = int(who) if who else self.default or self.sole or 0
        if tid >= 1 << 31:
            self.findings.refuse("no process has such a number", self.where, line)
            return
        comm = match["c1"] or match["c2"]
        thread = self.threads.alive.get(tid) or self._appears(tid, ts, comm)
        if text.endswith(" <unfinished ...>") and (call := _CALL.fullmatch(text[:-17].rstrip(" "))) is not None:
            self.pending[tid] = _Begun(ts, call[1], call[2])
        elif (call := _CALL.fullmatch(text)) is not None:
            self._call(thread, ts, call[1], call[2])
        elif (resumed := _RESUMED.fullmatch(text)) is not None:
            self._resumed(thread, ts, resumed[1], resumed[2])
        elif (ended := _EXITED.fullmatch(text)) is not None:
            self._ended(thread, ts, ended[1], ended[2])
        elif (superseded := _SUPERSEDED.fullmatch(text)) is not None:
            self._superseded(thread, ts, int(superseded[1]))
        elif _SIGNAL.fullmatch(text) is None and not self._about(text):
            self.findings.refuse("not understood", self.where, line)

    def _untimed(self, line: str) -> None:
        """Take a line without a time: remarks of strace, and what the traced program itself wrote into the same stream."""
        if not line.strip() or self._about(line):
            return
        if line.startswith(" > "):
            self.findings.refuse("stack frames (-k), for which a trace of calls has no place", self.where, line)
            return
        for pattern, why in _OTHER_TIMES:
            if pattern.match(line):
                self.findings.refuse(why, self.where, line)
                return
        self.findings.refuse("not a line of strace with a time (-ttt)", self.where, line)

    def _about(self, text: str) -> bool:
        if (match := _ATTACHED.fullmatch(text)) is not None:
            tid = int(match[1])
            if match[2] == "attached" and tid < 1 << 31:
                self._appears(tid, self.end)
            elif match[2] == "detached" and tid in self.pending:
                self._cut_short(tid, self.end, UNFINISHED)
            return True
        if (match := _MODE.fullmatch(text)) is not None:
            abi = {"32 bit": compat_abi(self.abi) or "arm", "64 bit": self.abi, "x32": "x32"}[match[2]]
            self.modes[int(match[1])] = abi
            return True
        return text.startswith("strace: ")

    def _appears(self, tid: int, ts: int, comm: str | None = None) -> Thread:
        creators = [(other, begun) for other, begun in self.pending.items() if begun.name in _CLONES and other in self.threads.alive]
        creator, flags = None, 0
        if len(creators) == 1 and tid not in self.threads.alive:
            creator, flags = self.threads.alive[creators[0][0]], self._flags(creators[0][1].args)
            if creator.tid in self.modes:
                self.modes[tid] = self.modes[creator.tid]
        if self.root is None:
            self.root = tid
        thread = self.threads.at(tid, ts, creator, flags, None, values.unescape(comm)[:15] if comm else b"")
        self._count_alive()
        return thread

    def _count_alive(self) -> None:
        # Without -o, strace leaves [pid N] out while there is only one.
        self.sole = next(iter(self.threads.alive)) if len(self.threads.alive) == 1 else None

    @staticmethod
    def _flags(args: str) -> int:
        match = _CLONE_FLAGS.search(args)
        return (values.number(match[1], "flags:clone") or 0) if match else 0

    def _call(self, thread: Thread, ts: int, name: str, rest: str) -> None:
        if rest.endswith(" <detached ...>"):
            self.pending[thread.tid] = _Begun(ts, name, rest[:-15])
            self._cut_short(thread.tid, self.end, UNFINISHED)
            return
        self._complete(thread, ts, ts, name, rest)

    def _resumed(self, thread: Thread, ts: int, name: str, rest: str) -> None:
        begun = self.pending.pop(thread.tid, None)
        if begun is None:
            if not self._complete(thread, ORIGIN, ts, name, rest.removeprefix(" "), AT_ATTACH):
                return
        elif begun.name != name:
            self.findings.refuse("the end of another call than the one that began", self.where, self.line)
        elif rest.endswith(" <detached ...>"):
            self.pending[thread.tid] = begun
            self._cut_short(thread.tid, ts, UNFINISHED)
        else:
            self._complete(thread, begun.ts, ts, name, joined(begun.args, rest))

    def _ended(self, thread: Thread, ts: int, code: str | None, signal: str | None) -> None:
        if thread.tid in self.pending:
            self._cut_short(thread.tid, ts, NO_RETURN)
        number = self._signal(signal) if signal else 0
        if thread.tid == self.root:
            self.exit_status = int(code) if code is not None else 128 + number
        self.threads.exit(thread, ts, int(code or 0) & 255, number)
        self.modes.pop(thread.tid, None)
        self._count_alive()

    def _signal(self, name: str) -> int:
        try:
            return signal_number(name)
        except UsageError:
            self.findings.doubt("a signal without a number here", self.where, self.line)
            return 0

    def _superseded(self, thread: Thread, ts: int, by: int) -> None:
        """Take the end of a thread whose place another one takes, as execve does with the leader of the process."""
        begun = self.pending.pop(by, None)
        if thread.tid in self.pending:
            self._cut_short(thread.tid, ts, NO_RETURN)
        if begun is not None:
            self.pending[thread.tid] = begun
        if by in self.threads.alive:
            self.threads.exit(self.threads.alive[by], ts, 0, 0)

    def _cut_short(self, tid: int, ts: int, kind: int) -> None:
        begun = self.pending.pop(tid)
        thread = self.threads.alive.get(tid) or self._appears(tid, ts)
        args = values.split(begun.args.rstrip(", ")) or []
        self._row(thread, begun.ts, max(0, ts - begun.ts), 0, begun.name, args, kind)

    def _complete(self, thread: Thread, ts: int, now: int, name: str, rest: str, kind: int = RETURNED) -> bool:
        """Take a call with its result; False if there is none in the text."""
        timed = _TIMED.search(rest)
        body = rest[: timed.start()] if timed else rest
        for end in reversed(list(_END.finditer(body))):
            args = values.split(body[: end.start()].rstrip(" ")) if kind == RETURNED else []
            result = _RESULT.fullmatch(body[end.end() :])
            if args is not None and result is not None:
                break
        else:
            self.findings.refuse("a call whose result cannot be found", self.where, self.line)
            return False
        ret, known = self._result(result)
        if ret is None:
            self.findings.refuse("a result that cannot be understood", self.where, self.line)
            return False
        dur = int(timed[1]) * 10**9 + int(timed[2].ljust(9, "0")) if timed else 0
        if known:
            kind = kind if kind == AT_ATTACH else RETURNED
            if timed is None and kind == RETURNED:
                self.untimed += 1
                if now == ts:
                    self.findings.refuse("a call without its duration (-T)", self.where, self.line)
                    return False
                dur = now - ts
                self.findings.doubt("a duration is that between two lines: there is none of -T", self.where, self.line)
            elif kind == AT_ATTACH:
                dur = now - ts
        else:
            kind, dur = NO_RETURN, max(dur, now - ts)
        self.timed += timed is not None
        self.end = max(self.end, ts + dur)
        self._row(thread, ts, dur, ret, name, args, kind)
        if known:
            self._lives(thread, ts, ts + dur, name, args, ret)
        return True

    def _result(self, result: re.Match[str]) -> tuple[int | None, bool]:
        """Return the value that the kernel returned, and whether there was any; None for an error of unknown number."""
        error = result["error"]
        if error is not None:
            try:
                return -errno_number(error), True
            except UsageError:
                match = _ERRNO.search(result["rest"]) or re.fullmatch(r"E(?:RRNO_)?(\d+)", error)
                return (-int(match[1]) if match and int(match[1]) <= 4095 else None), True
        if result["ret"] == "?":
            return 0, False
        if (match := _ERRNO.search(result["rest"])) and result["ret"] == "-1":
            return -int(match[1]), True
        return values.number(result["ret"]), True

    def _row(self, thread: Thread, ts: int, dur: int, ret: int, name: str, args: list[str], kind: int) -> None:
        abi = self.modes.get(thread.tid, self.abi)
        nr = number_of(abi, name)
        if nr is None:
            self.unknown[name] += 1
            self.findings.doubt(f"a call that {abi} does not have here: its number is -1", self.where, self.line)
            nr = -1
        numbers, texts = [0] * 6, list(strings(abi, nr)) if nr >= 0 else []
        for place, argument, kind_of in arguments(abi, nr, args):
            value = values.number(argument, kind_of, abi)
            if value is not None:
                numbers[place] = value
        code = ABI_IDS[abi]
        self.writer.calls.append((ts, dur, ret, *numbers, thread.number, nr, UNKNOWN_CPU, code, kind))
        self.findings.calls += 1
        for text in texts:
            if text.arg < len(args) and (found := text_of(text, args[text.arg], ret)) is not None:
                code_of, cut, value_of = found
                self.writer.paths.append((ts, thread.number, nr, UNKNOWN_CPU, code, text.arg, code_of, cut, value_of))
        self.writer.seal_full()

    def _lives(self, thread: Thread, begin: int, ts: int, name: str, args: list[str], ret: int) -> None:
        """Take what a returned call did to processes."""
        if name in _CLONES and 0 < ret < 1 << 31:
            self.threads.born(ret, begin, thread, self._flags(", ".join(args)))
            if thread.tid in self.modes:
                self.modes.setdefault(ret, self.modes[thread.tid])
            self._count_alive()
        elif name in ("execve", "execveat") and ret == 0:
            first = name == "execveat"
            path = values.string(args[first]) if len(args) > first else None
            argv = values.strings(args[1 + first]) if len(args) > 1 + first else None
            file = path[0] if path else b""
            self.threads.exec(thread, ts, file.rpartition(b"/")[2], file, argv[0] if argv else b"", argv is None or argv[1])
            if not self.command and argv is not None and thread.tid == self.root:
                self.command = [item.decode("utf-8", "surrogateescape") for item in argv[0].split(b"\0")[:-1]]
        elif name == "prctl" and args[:1] == ["PR_SET_NAME"] and ret == 0 and len(args) > 1 and (new := values.string(args[1])):
            self.threads.rename(thread, ts, new[0])


def read(files: Sequence[str], writer: ImportWriter, threads: Threads, findings: Findings, *, abi: str) -> dict[str, Any]:
    """Take all lines of strace's files into a trace.

    Parameters
    ----------
    files : sequence of str
        One file, or those that -ff wrote, whose names end in the number of the thread.
    writer, threads, findings
        Where rows, threads and remarks go.
    abi : str
        Numbering of the machine's own calls.

    Returns
    -------
    dict
        What the manifest is to say.
    """
    reader = _Reader(writer, threads, findings, abi)
    for path in sorted(files, key=_suffix):
        reader.default = _suffix(path)
        reader.last_wall = 0
        for number, line in read_lines(path):
            findings.lines += 1
            reader.where = f"{path}:{number}"
            reader.take(line)
    _check(reader, findings, files)
    for tid in list(reader.pending):
        reader._cut_short(tid, reader.end, UNFINISHED)
    _remarks(reader, findings)
    precision = {6: "1 µs", 9: "1 ns", 3: "1 ms"}.get(reader.digits, f"10^-{reader.digits} s")
    return {
        "options": {"precision": precision, "files": [str(path) for path in files], "clock": "wall time of strace, made to never go back"},
        "tools": {},
        "host": {"machine": {"arm64": "aarch64"}.get(abi, abi)},
        "command": reader.command,
        "begin": ORIGIN,
        "end": reader.end,
        "exit_status": reader.exit_status,
        "lost": {},
    }


def _suffix(path: str) -> int:
    number = path.rpartition(".")[2]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0


def _check(reader: _Reader, findings: Findings, files: Sequence[str]) -> None:
    """Refuse what has no call at all in it, by the reason that most of its lines give, and a log whose calls have no durations."""
    name = files[0] if len(files) == 1 else f"{len(files)} files"
    # Calls that do not return, such as the exit, need none: alone they are no recording of the program.
    if reader.untimed and not reader.timed:
        raise RingtapeError(f"{name}: no call has its duration: strace ran without -T", _RERECORD)
    if findings.calls or reader.pending:
        return
    if not findings.refused:
        raise RingtapeError(f"{name}: no system call in {findings.lines:,} lines", _RERECORD)
    why, kind = max(findings.refused.items(), key=lambda item: item[1].count)
    raise RingtapeError(f"{name}: no call in it could be understood; {kind.count:,} lines: {why}; first at {kind.where}: {kind.example}", _RERECORD)


def _remarks(reader: _Reader, findings: Findings) -> None:
    if reader.unknown:
        findings.note(f"calls without a number here: {', '.join(f'{name} ({count:,})' for name, count in reader.unknown.most_common(8))}")
    findings.note("strace stops the thread at each end of a call: every duration contains what strace itself took")
    findings.note("arguments that strace shows as a structure or a text are 0; CPU -1, user -1: not known")
