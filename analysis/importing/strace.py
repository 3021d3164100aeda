"""Logs of `strace -f -ttt -T`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from ringtape.analysis.importing.rows import Rows
from ringtape.analysis.importing.strace_values import arguments, exec_words, path_of, returned, value_of
from ringtape.schemas.abi import syscalls as abis
from ringtape.schemas.abi.errors import signals
from ringtape.schemas.errors import RingtapeError

SUMMARY = "log of `strace -f -ttt -T` (-tt as well; -y and -Y may be on)"
_WHO = r"(?:\[pid +(?P<bracket>\d{1,7})\] |(?P<pid>\d{1,7})(?:<(?P<comm>(?:[^>\\]|\\.)*)>)? +)?"
_LINE = re.compile(_WHO + r"(?P<time>\d{1,10}\.\d{1,9}|\d\d:\d\d:\d\d(?:\.\d{1,9})?) (?P<rest>.*)")
_LIKE = re.compile(r"(?:\[pid +\d+\] |\d+(?:<[^>]*>)? +)?[\d:.]* ?(?:\[ Process PID|[a-z_][a-z0-9_]*\(|<\.\.\. |\+\+\+ |--- |strace: )")
_CALL = re.compile(r"(?P<name>[a-z_][a-z0-9_]*)\((?P<args>.*)\)\s+= (?P<ret>.+?)(?: <(?P<dur>\d{1,9}\.\d+)>)?")
_BEGUN = re.compile(r"(?P<name>[a-z_][a-z0-9_]*)\((?P<args>.*)")
_BREAK = "<unfinished ...>"
_RESUMED = re.compile(r"<\.\.\. (?P<name>[a-z_][a-z0-9_]*) resumed> ?,? ?(?P<args>.*)\)\s+= (?P<ret>.+?)(?: <(?P<dur>\d{1,9}\.\d+)>)?")
_EXIT = re.compile(
    r"\+\+\+ (?:exited with (?P<code>\d{1,3})|killed by (?P<signal>\w+)(?: \(core dumped\))?|superseded by execve in pid (?P<by>\d+)) \+\+\+"
)
_SIGNAL = re.compile(r"--- (?:SIG\w+|stopped by SIG\w+)\b.*---")
_MODE = re.compile(r"\[ Process PID=(?P<pid>\d{1,7}) runs in (?P<mode>32 bit|x32|64 bit) mode\. \]|strace: \[ Process PID=.*")
_NOISE = re.compile(r"(?:strace: )?Process \d+ (?:attached|detached)(?: with \d+ threads)?|strace: Process \d+ .*")
_MADE = {"clone", "clone3", "fork", "vfork"}
_ENDLESS = {"exit", "exit_group"}
RETURNED, NO_RETURN, AT_ATTACH, UNFINISHED = range(4)
EXISTING, FORK, EXEC, EXIT = range(4)
DAY = 86_400 * 10**9
SAMPLE = 2000
LONGEST_ARGV = 1 << 16
_ARGS = [f"arg{index}" for index in range(6)]


def fits(lines: Sequence[str]) -> bool:
    """Tell whether these lines may be of this source."""
    return sum(1 for line in lines if _shape(line)) * 2 > len([line for line in lines if line.strip()])


def _shape(line: str) -> bool:
    return bool(_LIKE.match(line.lstrip()))


def read(lines: Iterable[str], rows: Rows, abi: str) -> None:
    """Read the log.

    Raises
    ------
    RingtapeError
        If it has no times or no durations, without which nothing can be studied.
    """
    _Reader(rows, abi).read(lines)


@dataclass
class _Thread:
    """What is known of a thread: its process, its name, the numbering of its calls, and the call that it is in."""

    pid: int
    comm: str = ""
    abi: str = ""
    start: int = 0
    open: tuple[int, str, str] | None = None
    ending: tuple[int, int] | None = None
    made: bool = False


@dataclass
class _Reader:
    rows: Rows
    native: str
    threads: dict[int, _Thread] = field(default_factory=dict)
    alive: dict[int, int] = field(default_factory=dict)
    births: dict[int, tuple[int, int, bool]] = field(default_factory=dict)
    day: int = 0
    latest: int = 0
    seen: int = 0
    without: int = 0
    digits: int = 9
    timeless: int = 0

    def read(self, lines: Iterable[str]) -> None:
        for number, line in enumerate(lines, 1):
            self.rows.lines = number
            text = line.rstrip("\n")
            if not self._line(text):
                self.timeless += _shape(text)
                self.rows.strangers.add(number, line)
            if number == SAMPLE:
                self._refuse()
        self._refuse()
        for tid, thread in self.threads.items():
            if thread.ending is not None:
                self._endless(tid, thread, self.latest)
            elif thread.open is not None:
                ts, name, args = thread.open
                self._call(tid, thread, ts, name, args, None, self.latest - ts, UNFINISHED)
        self.rows.facts["time resolution"] = {6: "1 µs", 9: "1 ns"}.get(self.digits, f"1e-{self.digits} s")
        self.rows.facts["durations"] = "as strace measured them, its own work among them"
        if self.without:
            self.rows.facts["calls without a duration"] = self.without

    def _refuse(self) -> None:
        how = "record with `strace -f -ttt -T -o FILE COMMAND`"
        if not self.seen and self.timeless:
            raise RingtapeError("the lines have no times", how)
        if self.seen and self.without == self.seen:
            raise RingtapeError("the calls have no durations", how)

    def _line(self, text: str) -> bool:
        if mode := _MODE.fullmatch(text.strip()):
            if mode["pid"]:
                self._thread(int(mode["pid"]), self.latest).abi = {"32 bit": "i386", "x32": "x32"}.get(mode["mode"], self.native)
            return True
        if not text.strip() or _NOISE.fullmatch(text.strip()):
            return True
        found = _LINE.fullmatch(text.lstrip(" "))
        if found is None:
            return False
        ts = self._time(found["time"])
        tid = int(found["bracket"] or found["pid"] or 1)
        if found["bracket"] is None and found["pid"] is None:
            self.rows.facts["process numbers"] = "not in the log: shown as 1"
        thread = self._thread(tid, ts)
        if found["comm"] and not thread.comm:
            thread.comm = found["comm"]
        return self._rest(tid, thread, ts, found["rest"])

    def _time(self, text: str) -> int:
        clock, _, fraction = text.partition(".")
        self.digits = min(self.digits, len(fraction)) if fraction else 0
        if ":" not in clock:
            whole = int(clock)
            if whole < 10**8:
                raise RingtapeError(f"time {text} is no time since 1970 (was it written with -r?)", "record with `strace -f -ttt -T`")
        else:
            hours, minutes, seconds = map(int, clock.split(":"))
            whole = hours * 3600 + minutes * 60 + seconds
            self.rows.facts["dates"] = "not in the log (-tt): shown as from 1970-01-01"
        ts = whole * 10**9 + int(fraction.ljust(9, "0") or 0)
        if ":" in clock:
            # Past midnight the clock begins again.
            if ts + self.day < self.latest - DAY // 2:
                self.day += DAY
            ts += self.day
        self.latest = max(self.latest, ts)
        return ts

    def _thread(self, tid: int, ts: int) -> _Thread:
        thread = self.threads.get(tid)
        if thread is None:
            made, creator, same = self.births.pop(tid) if tid in self.births else self._maker()
            parent = self.threads.get(creator)
            pid = parent.pid if parent is not None and same else tid
            thread = _Thread(pid, parent.comm if parent else "", parent.abi if parent else self.native, made or ts, made=bool(made))
            self.threads[tid] = thread
            self.alive[pid] = self.alive.get(pid, 0) + 1
            kind = FORK if made else EXISTING
            self._event(tid, thread, made or ts, kind, ppid=parent.pid if parent else 0, creator=creator)
        return thread

    def _event(self, tid: int, thread: _Thread, ts: int, kind: int, **more: object) -> None:
        name = thread.comm.encode(errors="surrogateescape")[:15]
        self.rows.add("processes", {"ts": ts, "start": thread.start, "comm": name, "pid": thread.pid, "tid": tid, "kind": kind, **more})

    def _rest(self, tid: int, thread: _Thread, ts: int, rest: str) -> bool:
        if found := _CALL.fullmatch(rest):
            if found["name"] in _ENDLESS and found["ret"] == "?":
                self.seen += 1
                thread.open, thread.ending = (ts, found["name"], found["args"]), (ts, 0)
                return True
            return self._finished(tid, thread, ts, found["name"], found["args"], found["ret"], found["dur"])
        head, broken, tail = rest.rpartition(_BREAK)
        if broken and tail.strip(" )=?") == "":
            # A call that is broken off twice (resumed> ... <unfinished) goes on as it began.
            if found := _BEGUN.fullmatch(head):
                thread.open = (ts, found["name"], found["args"].rstrip(" ,"))
                if found["name"] in _ENDLESS:
                    thread.ending = (ts, 0)
                return True
            return head.startswith("<... ")
        if found := _RESUMED.fullmatch(rest):
            if thread.open is None or thread.open[1] != found["name"]:
                # Entered before strace was attached.
                start = ts - _duration(found["dur"])
                self._call(tid, thread, start, found["name"], found["args"], found["ret"], ts - start, AT_ATTACH)
                return True
            start, name, args = thread.open
            thread.open = None
            args = f"{args}, {found['args']}" if args and found["args"] else args + found["args"]
            return self._finished(tid, thread, start, name, args, found["ret"], found["dur"])
        if found := _EXIT.fullmatch(rest):
            self._ended(tid, thread, ts, found)
            return True
        return bool(_SIGNAL.fullmatch(rest))

    def _finished(self, tid: int, thread: _Thread, ts: int, name: str, args: str, ret: str, duration: str | None) -> bool:
        self.seen += 1
        self.without += duration is None
        return self._call(tid, thread, ts, name, args, ret, _duration(duration), RETURNED)

    def _call(self, tid: int, thread: _Thread, ts: int, name: str, args: str, ret: str | None, dur: int, kind: int) -> bool:
        abi = thread.abi or self.native
        nr = _number(abi, name)
        value = 0 if ret is None else returned(ret)
        if nr is None or value is None:
            return False
        words = arguments(args)
        row: dict[str, int] = {"ts": ts, "dur": max(0, dur), "ret": value, "pid": thread.pid, "tid": tid, "nr": nr}
        row |= {"abi": abis.ABI_IDS[abi], "kind": kind}
        types, paths = _shape_of(abi, nr)
        for index, (word, kind_of_word) in enumerate(zip(words, types, strict=False)):
            row[_ARGS[index]] = value_of(word, kind_of_word, abi)
        self.rows.add("syscalls", row)
        for place in paths:
            if place < len(words) and (text := path_of(words[place])) is not None:
                self.rows.add(
                    "paths", {**{key: row[key] for key in ("ts", "pid", "tid", "nr", "abi")}, "arg": place, "value": text[0], "cut": text[1]}
                )
        if kind == RETURNED and value > 0 and name in _MADE:
            self._made(value, ts, tid, args)
        if kind == RETURNED and value == 0 and name in ("execve", "execveat"):
            self._executed(tid, thread, ts + dur, words[name == "execveat" :])
        return True

    def _made(self, child: int, ts: int, tid: int, args: str) -> None:
        # A child that ran before its parent's call was written down has its parent already.
        if child not in self.threads:
            self.births[child] = (ts, tid, "CLONE_THREAD" in args)

    def _maker(self) -> tuple[int, int, bool]:
        """Return when and by which thread a new one was made, if one is in such a call, and whether it shares its process."""
        within = [(thread.open, tid) for tid, thread in self.threads.items() if thread.open and thread.open[1] in _MADE]
        return max(((begun, tid, "CLONE_THREAD" in args) for (begun, _, args), tid in within), default=(0, 0, False))

    def _executed(self, tid: int, thread: _Thread, ts: int, words: Sequence[str]) -> None:
        path = path_of(words[0]) if words else None
        file = path[0] if path else b""
        thread.comm = file.rsplit(b"/", 1)[-1][:15].decode(errors="surrogateescape")
        argv, cut = exec_words(words[1]) if len(words) > 1 else (b"", 1)
        self._event(tid, thread, ts, EXEC, creator=tid, file=file, argv=argv[:LONGEST_ARGV], cut=int(cut or len(argv) > LONGEST_ARGV))

    def _ended(self, tid: int, thread: _Thread, ts: int, found: re.Match[str]) -> None:
        if thread.ending is not None or thread.open is not None:
            self._endless(tid, thread, ts)
        left = self.alive[thread.pid] = self.alive.get(thread.pid, 1) - 1
        code, signal = int(found["code"] or 0), _signal(found["signal"]) if found["signal"] else 0
        self._event(tid, thread, ts, EXIT, exit_code=code, exit_signal=signal, group_dead=int(left <= 0))
        self.threads.pop(tid, None)

    def _endless(self, tid: int, thread: _Thread, ts: int) -> None:
        """Write the call that the thread ended in."""
        if thread.open is not None:
            start, name, args = thread.open
            self._call(tid, thread, start, name, args, None, ts - start, NO_RETURN)
        thread.open = thread.ending = None


def _duration(text: str | None) -> int:
    if text is None:
        return 0
    whole, _, fraction = text.partition(".")
    return int(whole) * 10**9 + int(fraction[:9].ljust(9, "0") or 0)


def _number(abi: str, name: str) -> int | None:
    known = _names(abi)
    if name in known:
        return known[name]
    # strace's names where they differ from the kernel's, and its word for calls that it has no name for.
    if name in _OTHERS:
        return known.get(_OTHERS[name])
    if name.startswith("syscall_0x"):
        found = re.fullmatch(r"[0-9a-f]{1,8}", name[10:])
        return int(found[0], 16) if found and int(found[0], 16) < 1 << 31 else None
    return None


@cache
def _names(abi: str) -> dict[str, int]:
    return {name: nr for nr, name in abis.names(abi).items()}


@cache
def _shape_of(abi: str, nr: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the types of the arguments of a call (as many as it reads), and which of them are paths."""
    signature = abis.signature(abi, nr) or ()
    types = tuple(signature[index].type if index < len(signature) else "" for index in range(min(6, abis.arity(abi, nr))))
    return types, tuple(string.arg for string in abis.strings(abi, nr) if string.kind == "path")


_OTHERS = {
    "newfstatat": "fstatat64", "fstatat64": "newfstatat", "umount2": "umount", "_newselect": "select", "pread": "pread64", "pwrite": "pwrite64",
}  # fmt: skip


def _signal(name: str) -> int:
    numbers = {text: number for number, text in signals().items()}
    return numbers.get(name, 0)
