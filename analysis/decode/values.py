"""Single argument values as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ringtape.schemas.abi.constants import flags, one
from ringtape.schemas.abi.errors import signal_name
from ringtape.schemas.escape import escape

AT_FDCWD: Final = -100
"""include/uapi/linux/fcntl.h"""
MEMO_LIMIT: Final = 1 << 16
ARGV_LIMIT: Final = 64
"""Arguments of a command that are shown in text; the table holds all of them."""


class Memo(dict[int, str]):
    """A function whose results are kept; forgotten all at once when there are too many, so that memory stays bounded."""

    def __init__(self, function: Callable[[int], str]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, value: int) -> str:
        if len(self) >= MEMO_LIMIT:
            self.clear()
        text = self[value] = self._function(value)
        return text


def signed(value: int, bits: int = 32) -> int:
    """Return the low bits of a value as a signed number.

    >>> signed(0xFFFFFF9C)
    -100
    """
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def quoted(value: bytes, cut: bool = False) -> str:
    r"""Return a string in quotes, escaped without loss; three dots say that it was cut.

    >>> quoted(b'a"b')
    '"a\\"b"'
    """
    text = escape(value).replace('"', '\\"')
    return f'"{text}"...' if cut else f'"{text}"'


def argv(value: bytes, cut: bool = False) -> str:
    r"""Return a command's arguments, each ended by NUL, as a list.

    >>> argv(b"ls\0-l\0")
    '["ls", "-l"]'
    """
    words = value.removesuffix(b"\0").split(b"\0") if value else []
    shown = [quoted(word) for word in words[:ARGV_LIMIT]]
    return f"[{', '.join(shown + ['...'] * (cut or len(words) > ARGV_LIMIT))}]"


def pointer(value: int) -> str:
    """Return an address.

    >>> pointer(0), pointer(-1)
    ('NULL', '0xffffffffffffffff')
    """
    return f"{value & 0xFFFFFFFFFFFFFFFF:#x}" if value else "NULL"


def octal(value: int) -> str:
    """Return permission bits.

    >>> octal(0o644), octal(0)
    ('0644', '000')
    """
    return f"0{value & 0xFFFFFFFF:02o}"


def file_mode(value: int) -> str:
    """Return a file's type and permissions.

    >>> file_mode(0o020666)
    'S_IFCHR|0666'
    """
    kind = flags("filemode", value & 0o170000) if value & 0o170000 else ""
    special = flags("filemode", value & 0o7000) if value & 0o7000 else ""
    return "|".join(part for part in (kind, special, octal(value & 0xFFFF0FFF & ~0o7000)) if part)


def device(value: int) -> str:
    """Return a device number, taken apart as new_decode_dev() of include/linux/kdev_t.h does.

    >>> device(0x501)
    'makedev(0x5, 0x1)'
    """
    return f"makedev({(value & 0xFFF00) >> 8:#x}, {(value & 0xFF) | ((value >> 12) & 0xFFF00):#x})"


def formatter(kind: str, abi: str) -> Callable[[int], str]:
    """Return the function that shows an argument of a type of ``signatures.tsv``, as an ABI passes it.

    Pointers to recorded strings are shown as plain pointers: what they point at is put in their place by the caller.
    """
    bits = 32 if abi in ("i386", "arm") else 64
    mask = (1 << bits) - 1
    family, _, name = kind.partition(":")
    if family == "flags":
        return lambda value: flags(name, value, abi)
    if family == "enum":
        return lambda value: one(name, value, abi)
    plain: dict[str, Callable[[int], str]] = {
        "int": lambda value: str(signed(value)),
        "uint": lambda value: str(value & 0xFFFFFFFF),
        "long": lambda value: str(signed(value, bits)),
        "off": lambda value: str(signed(value, bits)),
        "size": lambda value: str(value & mask),
        "hex": lambda value: f"{value & mask:#x}" if value & mask else "0",
        "mode": octal,
        "filemode": file_mode,
        "dev": device,
        "dirfd": lambda value: "AT_FDCWD" if signed(value) == AT_FDCWD else str(signed(value)),
        "signal": lambda value: signal_name(signed(value)),
    }
    plain |= dict.fromkeys(("fd", "pid", "uid", "gid", "addrlen"), plain["int"])
    return plain.get(kind, lambda value: pointer(value & mask))
