"""The three forms in which rows are written: strace-like text, JSON lines and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from ringtape.analysis.decode import calls as decode
from ringtape.analysis.decode import tracepoints
from ringtape.analysis.decode.events import KINDS, event
from ringtape.analysis.decode.sockaddr import addresses
from ringtape.analysis.decode.tracepoints import Occurrences
from ringtape.schemas.abi.errors import errno_name
from ringtape.schemas.columns import ABI
from ringtape.schemas.escape import escape
from ringtape.schemas.table import table

COLUMN: Final = 40
"""Where the result stands at least, as in strace."""
CSV_COLUMNS: Final = (
    *("event", "ts", "time", "dur", "pid", "tid", "cpu", "seq", "abi", "nr", "syscall", "kind", "ret", "errno"),
    *(f"arg{index}" for index in range(6)),
    "text",
)
_KINDS: Final = dict(table("syscalls").column("kind").values)
_STRINGS: Final = ("path", "sockaddr", "descriptors", "addresses", "argv")
_to_json: Final[Callable[[str], str]] = json.encoder.encode_basestring_ascii


class Calls(NamedTuple):
    """Calls of one ABI and number, a list per column; ``args`` holds six lists, ``texts`` what pointers point at."""

    abi: str
    nr: int
    ts: list[int]
    dur: list[int]
    ret: list[int]
    kind: list[int]
    pid: list[int]
    tid: list[int]
    cpu: list[int]
    seq: list[int]
    args: Sequence[list[int]]
    texts: Sequence[decode.Texts | None] | None


class Clock:
    """Shows times of CLOCK_MONOTONIC in one of three ways.

    Parameters
    ----------
    style : {"relative", "wall", "mono"}
        Seconds since ``start``, date and time in UTC, or CLOCK_MONOTONIC as the tables hold it.
    start : int
        The zero of ``relative``, in ns of CLOCK_MONOTONIC.
    wall_offset : int
        Wall clock less CLOCK_MONOTONIC, in ns.
    """

    def __init__(self, style: str, start: int, wall_offset: int) -> None:
        self._style, self._start, self._wall = style, start, wall_offset
        self._second, self._text = -1, ""

    def __call__(self, ts: int) -> str:
        """Return one time as text."""
        return self.texts([ts])[0]

    def texts(self, times: list[int]) -> list[str]:
        """Return many times as text."""
        if self._style == "mono":
            return [f"{ts // 1_000_000_000}.{ts % 1_000_000_000:09d}" for ts in times]
        if self._style == "wall":
            return [self._utc(ts + self._wall) for ts in times]
        start = self._start
        if times and min(times) < start:
            return [f"{'-' if ts < start else ''}{abs(ts - start) // 1_000_000_000}.{abs(ts - start) // 1000 % 1_000_000:06d}" for ts in times]
        return [f"{(ts - start) // 1_000_000_000}.{(ts - start) // 1000 % 1_000_000:06d}" for ts in times]

    def _utc(self, wall: int) -> str:
        second, ns = divmod(wall, 1_000_000_000)
        if second != self._second:
            self._second, self._text = second, f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
        return f"{self._text}.{ns // 1000:06d}Z"


def texts_of(calls: Calls) -> tuple[list[str], list[str]]:
    """Return each call, and each result, as text."""
    shown = decode.calls(calls.abi, calls.nr, calls.args, calls.texts)
    if decode.plain_results(calls.abi, calls.nr):
        pairs = list(zip(calls.ret, calls.kind, strict=True))
        zeros = (0,) * 6
        known = {pair: decode.result(calls.abi, calls.nr, zeros, *pair) for pair in set(pairs)}
        return shown, list(map(known.__getitem__, pairs))
    rows = zip(zip(*calls.args, strict=True), calls.ret, calls.kind, strict=True)
    return shown, [decode.result(calls.abi, calls.nr, args, ret, kind) for args, ret, kind in rows]


def plain(call: str, result: str, kind: int, width: int = COLUMN - 1) -> str:
    """Return a call with its result as strace writes it, without the duration.

    >>> plain("getpid()", "7", 0)
    'getpid()                                = 7'
    """
    if kind == decode.UNFINISHED:
        return f"{call[:-1]} <unfinished ...>"
    if kind == decode.AT_ATTACH:
        call = f"{call[:-1]} <running at attach>)"
    if kind == decode.INTERCEPTED:
        call = f"{call[:-1]} <intercepted>)"
    if kind == decode.CHILD:  # the child enters no call: the arguments are in its parent's row
        return f"{call.partition('(')[0] + '(...)':<{width}} = {result} <child>"
    return f"{call:<{width}} = {result}"


class TextLines:
    """Lines such as ``1234  0.000123 close(3) = 0 <0.000004>``."""

    header = ""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def calls(self, calls: Calls) -> list[str]:
        """Return a line per call."""
        shown, results = texts_of(calls)
        rows = zip(calls.tid, self._clock.texts(calls.ts), shown, results, calls.kind, calls.dur, strict=True)
        return [
            f"{tid:<6} {time} {call:<39} = {result} <{dur // 1_000_000_000}.{dur % 1_000_000_000:09d}>"
            if kind == decode.RETURNED
            else f"{tid:<6} {time} {plain(call, result, kind)}{_lasted(kind, dur)}"
            for tid, time, call, result, kind, dur in rows
        ]

    def event(self, row: Mapping[str, Any]) -> str:
        """Return the line of a process event."""
        return f"{row['tid']:<6} {self._clock(row['ts'])} {event(row)}"

    def tracepoints(self, found: Occurrences) -> list[str]:
        """Return a line per occurrence."""
        rows = zip(found.columns["tid"], self._clock.texts(found.columns["ts"]), tracepoints.texts(found), strict=True)
        return [f"{tid:<6} {time} {text}" for tid, time, text in rows]


def _lasted(kind: int, dur: int) -> str:
    # A call that does not return has no duration that would mean anything; strace shows none either.
    return f" <{dur // 1_000_000_000}.{dur % 1_000_000_000:09d}>" if kind == decode.AT_ATTACH else ""


class JsonLines:
    r"""One JSON object per row, with every stored column.

    A string of the kernel is ``{"value": ...}``. If its bytes are UTF-8, ``value`` is exactly that string; otherwise
    ``value`` shows it with escapes (``\xNN``), and ``hex`` holds the exact bytes. ``cut`` marks one that was too long.
    """

    header = ""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def calls(self, calls: Calls) -> list[str]:
        """Return a line per call."""
        shown, results = texts_of(calls)
        name = decode.call_name(calls.abi, calls.nr)
        fixed = f'"abi":"{calls.abi}","nr":{calls.nr},"syscall":"{name}"'
        texts = calls.texts or [None] * len(calls.ts)
        lines = []
        for ts, time, dur, pid, tid, cpu, seq, kind, ret, args, call, result, found in zip(
            calls.ts, self._clock.texts(calls.ts), calls.dur, calls.pid, calls.tid, calls.cpu, calls.seq, calls.kind,
            calls.ret, zip(*calls.args, strict=True), shown, results,
            texts, strict=True,
        ):  # fmt: skip
            error = f',"errno":"{errno_name(ret)}"' if -4095 <= ret < 0 else ""
            strings = f',"strings":{json.dumps([_string(arg, text) for arg, text in sorted(found.items())])}' if found else ""
            lines.append(
                f'{{"event":"call","ts":{ts},"time":"{time}","dur":{dur},"pid":{pid},"tid":{tid},"cpu":{cpu},"seq":{seq},{fixed},'
                f'"kind":{_to_json(_KINDS.get(kind, str(kind)))},"args":[{",".join(map(str, args))}],"ret":{ret}{error}{strings},'
                f'"text":{_to_json(plain(call, result, kind, 0))}}}'
            )
        return lines

    def event(self, row: Mapping[str, Any]) -> str:
        """Return the line of a process event."""
        body: dict[str, Any] = {"event": KINDS[row["kind"]] if 0 <= row["kind"] < len(KINDS) else str(row["kind"])}
        body |= {"ts": row["ts"], "time": self._clock(row["ts"])}
        for name, value in row.items():
            if name != "kind":
                body[name] = json_string(value.split(b"\0", 1)[0] if name == "comm" else value) if isinstance(value, bytes) else value
        return json.dumps(body | {"text": event(row)}, separators=(",", ":"))

    def tracepoints(self, found: Occurrences) -> list[str]:
        """Return a line per occurrence of a tracepoint; bytes that are no characters are in hexadecimal."""
        lines = []
        texts = {field.name for field in found.event.fields if field.text or field.string >= 0}
        for body, time, text in zip(tracepoints.describe(found), self._clock.texts(found.columns["ts"]), tracepoints.texts(found), strict=True):
            for name, value in body["fields"].items():
                if isinstance(value, bytes):
                    body["fields"][name] = json_string(value) if name in texts else {"hex": value.hex()}
            lines.append(json.dumps(body | {"time": time, "text": text}, separators=(",", ":")))
        return lines


def json_string(value: bytes) -> dict[str, str]:
    r"""Return a string of the kernel as JSON can hold it without loss.

    >>> json_string(b"a\xff")
    {'value': 'a\\xff', 'hex': '61ff'}
    """
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value": escape(value), "hex": value.hex()}


def _string(arg: int, text: decode.Text) -> dict[str, Any]:
    body: dict[str, Any] = {"arg": arg, "kind": _STRINGS[text.kind] if 0 <= text.kind < len(_STRINGS) else str(text.kind)}
    if text.kind == decode.DESCRIPTORS:
        body["value"] = list(decode.descriptors(text))
    elif text.kind == decode.ADDRESSES:
        body["value"] = [json_string(address) for address in addresses(text.value)]
    else:
        body |= json_string(text.value)
    return body | {"cut": True} if text.cut else body


class CsvLines:
    """Comma-separated values with a header line; strings are those of the text form, escaped."""

    header = ",".join(CSV_COLUMNS)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def calls(self, calls: Calls) -> list[str]:
        """Return a line per call."""
        shown, results = texts_of(calls)
        name = decode.call_name(calls.abi, calls.nr)
        rows = zip(
            calls.ts, self._clock.texts(calls.ts), calls.dur, calls.pid, calls.tid, calls.cpu, calls.seq, calls.kind,
            calls.ret, zip(*calls.args, strict=True), shown, results,
            strict=True,
        )  # fmt: skip
        return [
            f"call,{ts},{time},{dur},{pid},{tid},{cpu},{seq},{calls.abi},{calls.nr},{name},{_KINDS.get(kind, kind)},{ret},"
            f"{errno_name(ret) or ''},{','.join(map(str, args))},{_csv(plain(call, result, kind, 0))}"
            for ts, time, dur, pid, tid, cpu, seq, kind, ret, args, call, result in rows
        ]

    def event(self, row: Mapping[str, Any]) -> str:
        """Return the line of a process event."""
        known: dict[str, Any] = {
            "event": KINDS[row["kind"]] if 0 <= row["kind"] < len(KINDS) else str(row["kind"]),
            "time": self._clock(row["ts"]),
            "text": event(row),
        }
        known |= {name: row[name] for name in ("ts", "pid", "tid", "cpu", "seq")}
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow(known.get(name, "") for name in CSV_COLUMNS)
        return out.getvalue()

    def tracepoints(self, found: Occurrences) -> list[str]:
        """Return a line per occurrence of a tracepoint."""
        own = [found.columns[name] for name in ("ts", "pid", "tid", "cpu", "seq")]
        rows = zip(*own, self._clock.texts(found.columns["ts"]), tracepoints.texts(found), strict=True)
        empty = "," * (len(CSV_COLUMNS) - CSV_COLUMNS.index("seq") - 1)
        return [f"{found.event.name},{ts},{time},,{pid},{tid},{cpu},{seq}{empty}{_csv(text)}" for ts, pid, tid, cpu, seq, time, text in rows]


def _csv(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


Lines = TextLines | JsonLines | CsvLines
FORMATS: Final[Mapping[str, type[Lines]]] = {"text": TextLines, "jsonl": JsonLines, "csv": CsvLines}
ABIS: Final[Mapping[int, str]] = dict(ABI.values)
