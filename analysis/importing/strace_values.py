"""Arguments and results as strace prints them, as the numbers and bytes that they stand for."""

from __future__ import annotations

import re
from functools import cache

from ringtape.schemas.abi.constants import constants
from ringtape.schemas.abi.errors import errno_number
from ringtape.schemas.errors import UsageError

_ERRNO = re.compile(r"-1 (?:(E[A-Z0-9]+)|\(errno (\d{1,4})\))(?: .*)?")
_RESTART = re.compile(r"\? (E[A-Z_0-9]+)(?: .*)?")
_NUMBER = re.compile(r"(-?(?:0x[0-9a-fA-F]{1,16}|\d{1,20}))(?:<.*>)?(?: .*)?")
_MARK = re.compile(r'"(?:[^"\\]|\\.)*(?:"|$)|[,()\[\]{}]', re.DOTALL)
"""A string as a whole, or one of what stands between and around arguments."""
_SIMPLE = re.compile(r"-?(?:0|[1-9]\d{0,18})")
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([0-7]{1,3})|(.))", re.DOTALL)
_PLAIN = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"v": b"\v", b"f": b"\f", b"a": b"\a", b"b": b"\b"}
_WORDS = {"NULL": 0, "AT_FDCWD": -100}


def returned(text: str) -> int | None:
    """Return what a call returned, errors as negative numbers; 0 for ``?``; None for text that is no result.

    >>> returned("-1 ENOENT (No such file or directory)"), returned("3</etc/passwd>"), returned("0x7f00"), returned("?")
    (-2, 3, 32512, 0)
    """
    if text == "?":
        return 0
    if found := _ERRNO.fullmatch(text):
        try:
            return -int(found[2]) if found[2] else -errno_number(found[1])
        except UsageError:
            return None
    if found := _RESTART.fullmatch(text):
        try:
            return -errno_number(found[1])
        except UsageError:
            return None
    if found := _NUMBER.fullmatch(text):
        return _signed(int(found[1], 0) if "x" in found[1] else int(found[1]))
    return None


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def arguments(text: str) -> list[str]:
    """Cut the text between the brackets of a call at its commas; those in strings, lists and structures do not count.

    >>> arguments('3, "a, b", {x=1, y=[2, 3]}, O_RDONLY')
    ['3', '"a, b"', '{x=1, y=[2, 3]}', 'O_RDONLY']
    """
    found: list[str] = []
    depth = start = 0
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark == ",":
            if depth <= 0:
                found.append(text[start : match.start()].strip())
                start = match.end()
        elif mark in "([{":
            depth += 1
        elif mark in ")]}":
            depth -= 1
    rest = text[start:].strip()
    return [*found, rest] if rest or found else []


def value_of(text: str, kind: str, abi: str) -> int:
    """Return the number that an argument stands for; 0 where strace shows what it points at, or a name that is not known.

    Parameters
    ----------
    text : str
        The argument.
    kind : str
        Its type in ``signatures.tsv``.
    abi : str
        Where constants have the values of that ABI.
    """
    if _SIMPLE.fullmatch(text):
        return _signed(int(text))
    if text[:1] in ('"', "[", "{", "~"):
        return 0
    named = text.partition("=")[2] if re.match(r"[a-z_]+=", text) else text
    plain = re.sub(r"(?<=[0-9A-Z_])<.*>$", "", named)
    if plain in _WORDS:
        return _WORDS[plain]
    group, _, name = kind.partition(":")
    values = _names(name, abi) if group in ("flags", "enum") and name else {}
    total = 0
    for word in plain.replace(" ", "").split("|"):
        if word in values:
            total |= values[word]
        elif re.fullmatch(r"-?\d{1,20}", word):
            total |= int(word, 8) if re.fullmatch(r"0[0-7]+", word) else int(word)
        elif re.fullmatch(r"-?0x[0-9a-fA-F]{1,16}", word):
            total |= int(word, 16)
        else:
            return 0
    return _signed(total)


@cache
def _names(name: str, abi: str) -> dict[str, int]:
    try:
        return {constant.name: constant.value for constant in constants(name, abi)}
    except UsageError:
        return {}


def path_of(text: str) -> tuple[bytes, int] | None:
    """Return the bytes of a string and whether strace cut it (``...``); None if the argument is no string."""
    if not text.startswith('"'):
        return None
    cut = text.endswith('"...')
    body = text[1 : -4 if cut else -1] if cut or text.endswith('"') else text[1:]
    return unescape(body), int(cut)


def unescape(text: str) -> bytes:
    r"""Return the bytes that a C string stands for.

    >>> unescape(r"a\n\0\377\x41\"")
    b'a\n\x00\xffA"'
    """

    def one(found: re.Match[bytes]) -> bytes:
        if found[1]:
            return bytes([int(found[1], 16)])
        if found[2]:
            return bytes([int(found[2], 8) & 0xFF])
        return _PLAIN.get(found[3], found[3])

    return _ESCAPE.sub(one, text.encode("utf-8", "surrogateescape"))


def exec_words(text: str) -> tuple[bytes, int]:
    """Return an argument list as the kernel lays it out, each ended by a NUL, and whether strace cut a part of it."""
    if not (text.startswith("[") and text.endswith("]")):
        return b"", 1
    words, cut = b"", 0
    for word in arguments(text[1:-1]):
        found = path_of(word)
        if found is None:
            return words, 1
        words += found[0] + b"\0"
        cut |= found[1]
    return words, cut
