"""Turns what a terminal sends into names of keys."""

from __future__ import annotations

import codecs
import re
from typing import Final

_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~])")
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_NAMES: Final = {
    **{b"\x1b" + form + letter: name for form in (b"[", b"O") for letter, name in {
        b"A": "up", b"B": "down", b"C": "right", b"D": "left", b"H": "home", b"F": "end",
    }.items()},
    b"\x1b[1~": "home", b"\x1b[7~": "home", b"\x1b[4~": "end", b"\x1b[8~": "end",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down", b"\x1b[Z": "back tab", b"\x1b[3~": "backspace", b"\x1bOM": "enter",
}  # fmt: skip
_CONTROLS: Final = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\b": "backspace", "\x15": "clear", "\x0c": "redraw"}
LONGEST = 64
"""A sequence that goes on for longer is no key's: what is pasted or a broken line must not be waited for."""


class Keys:
    r"""Names keys byte by byte as they arrive; a sequence may come in pieces.

    Printable characters are their own names; those of the others are words such as ``up``, ``enter`` and ``escape``. Keys without a
    name here are left out, so that no part of their sequences is taken for letters.

    >>> keys = Keys()
    >>> keys.feed(b"q\x1b[A\x1b[")
    ['q', 'up']
    >>> keys.feed(b"6~\x1b"), keys.pending, keys.flush()
    (['page down'], True, ['escape'])
    """

    def __init__(self) -> None:
        self._rest = b""
        self._text = codecs.getincrementaldecoder("utf-8")("ignore")

    @property
    def pending(self) -> bool:
        """Whether a sequence has begun whose end has not come: a lone Escape looks the same until nothing follows it."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """Return the keys that are complete."""
        data, self._rest = self._rest + data, b""
        found: list[str] = []
        while data:
            begin = data.find(b"\x1b")
            if begin:
                found += self._plain(data if begin < 0 else data[:begin])
                data = b"" if begin < 0 else data[begin:]
            elif match := _SEQUENCE.match(data):
                if name := _NAMES.get(match[0]):
                    found.append(name)
                data = data[match.end() :]
            elif _BEGUN.match(data) and len(data) < LONGEST:
                self._rest, data = data, b""
            else:
                found.append("escape")
                data = data[1:]
        return found

    def flush(self) -> list[str]:
        """Return what had begun as what it then was: nothing followed in time."""
        rest, self._rest = self._rest, b""
        return ["escape"] if rest else []

    def _plain(self, data: bytes) -> list[str]:
        text = self._text.decode(data)
        return [_CONTROLS.get(char, char) for char in text if char in _CONTROLS or char.isprintable()]
