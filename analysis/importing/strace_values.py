"""Arguments as strace writes them, back to numbers and bytes.

What strace shows as a structure, a text or a name that is in no table here is an unknown number: None.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping
from functools import cache, lru_cache

from ringtape.schemas.abi.constants import constants
from ringtape.schemas.abi.errors import signal_number
from ringtape.schemas.errors import UsageError

AT_FDCWD = -100
_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"(?:\.\.\.)?|/\*.*?\*/|<<|(?<=[0-9D])<(?:->|"(?:[^"\\]|\\.)*"|[^<>"])*>|[\[{(]|[\])}]|, |[^"/<\[{(\])},]+|.', re.DOTALL
)
_PLAIN = re.compile(r'[^"<\[{(\])}]*')
_NUMBER = re.compile(r"(-?[0-9]+|0x[0-9a-fA-F]+)(?:<.*>)?(?: ?/\*.*\*/)?", re.DOTALL)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"(\.\.\.)?', re.DOTALL)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)", re.DOTALL)
_LETTERS = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"v": b"\v", b"f": b"\f", b"a": b"\a", b"b": b"\b", b"e": b"\x1b"}
_NAMED = re.compile(r"(?:=> )?([a-z_0-9]+)=(?!=)")
_SHIFT = re.compile(r"([0-9]+)<<([0-9]+)")
_WORD = 1 << 64


def split(text: str) -> list[str] | None:
    """Return the arguments between the parentheses; None if brackets and quotes do not close.

    >>> split('3</tmp/a, b>, [{fd=4, events=POLLIN}], "x, y", 1<<3')
    ['3</tmp/a, b>', '[{fd=4, events=POLLIN}]', '"x, y"', '1<<3']
    """
    if not text:
        return []
    if _PLAIN.fullmatch(text):
        return text.split(", ")
    found: list[str] = []
    begin = depth = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in ("[", "{", "("):
            depth += 1
        elif token in ("]", "}", ")"):
            depth -= 1
            if depth < 0:
                return None
        elif token == ", " and not depth:
            found.append(text[begin : match.start()])
            begin = match.end()
        elif token == '"':
            return None  # a quote that is never closed
    if depth:
        return None
    found.append(text[begin:])
    return found


def named(text: str) -> tuple[str, str]:
    """Return the name that stands before an argument (``flags=``), or nothing, and the argument."""
    match = _NAMED.match(text)
    return (match[1], text[match.end() :]) if match else ("", text)


@lru_cache(1 << 16)
def number(text: str, kind: str = "", abi: str = "") -> int | None:
    """Return the number that an argument stands for, as 64 signed bits; None if it is not known.

    Parameters
    ----------
    text : str
        As strace has it.
    kind : str
        Type of the argument, in the vocabulary of ``signatures.tsv``.
    abi : str
        For constants that differ between machines.

    >>> number("0x7f8e"), number("0644"), number("-1"), number("AT_FDCWD</root>"), number("NULL"), number("[3, 4]")
    (32654, 420, -1, -100, 0, None)
    >>> number("O_RDONLY|O_CLOEXEC", "flags:open", "x86_64"), number("SIGCHLD", "signal"), number("0xffffffffffffffff")
    (524288, 17, -1)
    """
    match = _NUMBER.fullmatch(text)
    if match:
        digits = match[1]
        value = int(digits, 16 if digits.startswith("0x") else 8 if _is_octal(digits) else 10) if len(digits) <= 24 else _WORD
        if -(_WORD >> 1) <= value < _WORD:
            return value - _WORD if value >= _WORD >> 1 else value
        return None
    if text == "NULL":
        return 0
    if text.startswith("AT_FDCWD"):
        return AT_FDCWD
    what, _, name = kind.partition(":")
    if what == "signal":
        return _signal(text)
    if what == "filemode":
        return _joined(text, "filemode", abi)
    return _joined(text, name, abi) if what in ("flags", "enum") and name else None


def _is_octal(digits: str) -> bool:
    return len(digits) > 1 and digits[0] == "0" and all(digit in "01234567" for digit in digits)


def _signal(text: str) -> int | None:
    if not text.startswith("SIG"):
        return None
    try:
        return signal_number(text)
    except UsageError:
        return None


@cache
def _values(name: str, abi: str) -> Mapping[str, int]:
    try:
        return {constant.name: constant.value for constant in constants(name, abi)}
    except UsageError:
        return {}


def _joined(text: str, name: str, abi: str) -> int | None:
    total = 0
    for piece in text.split("|"):
        value = _values(name, abi).get(piece)
        if value is None and piece.startswith("SIG") and name == "clone":
            value = _signal(piece)
        if value is None and (shift := _SHIFT.fullmatch(piece)) and int(shift[2]) < 63:
            value = int(shift[1]) << int(shift[2])
        if value is None and (match := _NUMBER.fullmatch(piece)):
            value = number(match[1])
        if value is None:
            return None
        total |= value
    return total if total < _WORD >> 1 else None


def string(text: str) -> tuple[bytes, bool] | None:
    r"""Return the bytes of a quoted string, and whether strace cut it short; None if it is none.

    >>> string('"a\\n\\0b\\303\\251\\x41"...')
    (b'a\n\x00b\xc3\xa9A', True)
    """
    match = _STRING.fullmatch(text)
    if match is None:
        return None
    return unescape(match[1]), match[2] is not None


def unescape(text: str) -> bytes:
    """Return the bytes for which an escaped text stands."""
    data = text.encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(_escaped, data) if b"\\" in data else data


def _escaped(match: re.Match[bytes]) -> bytes:
    body = match[1]
    if body[:1] == b"x" and len(body) == 3:
        return bytes([int(body[1:], 16)])
    if body[:1].isdigit():
        return bytes([int(body, 8) & 255]) if body[:1] in b"01234567" else body
    return _LETTERS.get(body, body)


def strings(text: str) -> tuple[bytes, bool] | None:
    """Return a list of strings (argv) as bytes, each ended by a NUL, and whether anything of it is missing."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    values, cut = [], False
    for item in split(text[1:-1]) or []:
        value = string(item)
        if value is None:
            cut = True  # "..." for more than strace shows, or an address that it could not read
        else:
            values.append(value[0] + b"\0")
            cut |= value[1]
    return b"".join(values), cut


def descriptors(text: str) -> bytes | None:
    """Return a pair of descriptors as the kernel hands it out."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    found = [number(item) for item in split(text[1:-1]) or []]
    if len(found) != 2 or any(item is None or not -(1 << 31) <= item < 1 << 31 for item in found):
        return None
    return struct.pack("<ii", *found)


_FIELD = re.compile(r'(?:^|, )([a-z0-9_]+)=((?:[a-z_0-9]+\()?@?"(?:[^"\\]|\\.)*"\)?|[^,]+)|inet_pton\(AF_INET6, "([^"]*)"')


def address(text: str) -> bytes | None:
    r"""Return a socket address as it lies in memory, for the families that a person can read; None for others.

    >>> address('{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}')
    b'\x02\x00\x00P\x7f\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00'
    """
    if not (text.startswith("{sa_family=") and text.endswith("}")):
        return None
    fields: dict[str, str] = {}
    for match in _FIELD.finditer(text[1:-1]):
        fields[match[1] or "inet_pton"] = match[2] or match[3] or ""
    family = fields.get("sa_family")
    try:
        if family == "AF_INET":
            host = socket.inet_pton(socket.AF_INET, fields["sin_addr"].removeprefix("inet_addr").strip('()"'))
            return struct.pack("<H", socket.AF_INET) + _port(fields["sin_port"]) + host + bytes(8)
        if family == "AF_INET6":
            host = socket.inet_pton(socket.AF_INET6, fields["inet_pton"])
            flow, scope = fields.get("sin6_flowinfo", "htonl(0)"), fields.get("sin6_scope_id", "0")
            info = struct.pack("!I", int(flow.removeprefix("htonl").strip("()"), 0) & 0xFFFFFFFF)
            zone = struct.pack("<I", int(scope, 0) if scope.isdigit() else 0)  # the index of a name on another machine is not known
            return struct.pack("<H", socket.AF_INET6) + _port(fields["sin6_port"]) + info + host + zone
        if family == "AF_UNIX":
            path = fields.get("sun_path", '""')
            value = string(path.removeprefix("@"))
            if value is None or value[1]:
                return None
            return struct.pack("<H", socket.AF_UNIX) + (b"\0" + value[0] if path.startswith("@") else value[0] + b"\0")
    except (KeyError, ValueError, OSError, struct.error):
        return None
    return None


def _port(text: str) -> bytes:
    return struct.pack("!H", int(text.removeprefix("htons").strip("()")))
