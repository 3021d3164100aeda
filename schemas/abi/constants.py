"""Flags and constants by name, for arguments that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

from ringtape.schemas.abi.data import rows
from ringtape.schemas.errors import UsageError

WORD: Final = 0xFFFFFFFF
"""Flags and enumerations are read from the low 32 bits of an argument, as the kernel's prototypes have them."""


class Constant(NamedTuple):
    """One name of a set: it fits a value whose bits under ``mask`` equal ``value``."""

    value: int
    name: str
    mask: int


@cache
def _sets() -> Mapping[str, tuple[Constant, ...]]:
    found: dict[str, list[Constant]] = {}
    for key, text, name, *mask in rows("constants"):
        value = int(text, 0) & WORD
        found.setdefault(key, []).append(Constant(value, name, int(mask[0], 0) if mask else value))
    return {key: tuple(items) for key, items in found.items()}


def constants(name: str, abi: str = "") -> tuple[Constant, ...]:
    """Return a set of constants as an ABI has them.

    Raises
    ------
    UsageError
        If there is no set of that name.
    """
    try:
        return _sets().get(f"{name}@{abi}") or _sets()[name]
    except KeyError:
        raise UsageError(f"unknown set of constants {name!r}", f"the sets are {', '.join(sorted(_sets()))}") from None


@cache
def _values(name: str, abi: str) -> Mapping[int, str]:
    values: dict[int, str] = {}
    for constant in constants(name, abi):
        values.setdefault(constant.value, constant.name)
    return values


def one(name: str, value: int, abi: str = "") -> str:
    """Return the name that a value has in a set, or the value in hexadecimal.

    >>> one("whence", 2), one("whence", 77)
    ('SEEK_END', '0x4d')
    """
    found = _values(name, abi).get(value & WORD)
    return hex(value & WORD) if found is None else found


def flags(name: str, value: int, abi: str = "") -> str:
    """Return the names of the bits that are set, joined as C would; what has no name stands last, in hexadecimal.

    >>> flags("open", 0o2000101, "x86_64"), flags("prot", 0), flags("msg", 0)
    ('O_WRONLY|O_CREAT|O_CLOEXEC', 'PROT_NONE', '0')
    """
    rest = value & WORD
    names = []
    done = 0  # fields under a mask are decided once: O_RDONLY is 0 under the mask 3
    for constant in constants(name, abi):
        if constant.mask & done or (constant.mask == 0 and value & WORD) or rest & constant.mask != constant.value:
            continue
        names.append(constant.name)
        rest &= ~constant.mask
        done |= constant.mask
    if rest or not names:
        names.append(hex(rest) if rest else "0")
    return "|".join(names)
