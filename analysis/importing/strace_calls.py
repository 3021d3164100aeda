"""Which call a line of strace is of, and where its arguments stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from ringtape.analysis.importing import strace_values as values
from ringtape.schemas.abi.syscalls import StringArgument, names, signature

_NAMES = {"umount": "umount2", "old_mmap": "mmap", "old_select": "select"}
_POSITIONS = {"child_stack": "stack", "child_tidptr": "child_tid", "parent_tid": "parent_tid", "tls": "tls", "flags": "flags"}


@cache
def _numbers(abi: str) -> Mapping[str, int]:
    return {name: nr for nr, name in names(abi).items()}


def number_of(abi: str, name: str) -> int | None:
    """Return the number of a call by the name that strace gives it; None if it has none here."""
    known = _numbers(abi)
    if name in known:
        return known[name]
    if name.startswith("syscall_"):
        value = values.number(name[8:])
        return value if value is not None and 0 <= value < 1 << 31 else None
    other = _NAMES.get(name)
    return known.get(other) if other else None


def arguments(abi: str, nr: int, args: list[str]) -> Iterator[tuple[int, str, str]]:
    """Yield place, text and type of the arguments that stand where the kernel takes them."""
    wanted = signature(abi, nr) if nr >= 0 else None
    places = {argument.name: place for place, argument in enumerate(wanted or ())}
    for index, text in enumerate(args[:6]):
        name, value = values.named(text) if "=" in text else ("", text)
        place = places.get(_POSITIONS.get(name, name), index if not name else -1)
        if wanted is None:
            yield index, value, ""
        elif 0 <= place < len(wanted):
            kind = wanted[place].type
            if kind == "off_lo":
                return  # strace shows both halves as one: what follows stands elsewhere
            yield place, value, kind


def text_of(argument: StringArgument, text: str, ret: int) -> tuple[int, int, bytes] | None:
    """Return kind, whether it was cut, and bytes of a string argument; None where strace shows none."""
    if argument.kind == "path":
        found = values.string(text)
        return None if found is None else (0, int(found[1]), found[0][:8191])
    if argument.kind == "fds_out":
        value = values.descriptors(text) if ret >= 0 else None
        return None if value is None else (2, 0, value)
    value = values.address(text)
    return None if value is None else (1, 0, value)


def joined(begun: str, rest: str) -> str:
    """Return the arguments of a call whose line was broken off, as if it had not been.

    >>> joined('AT_FDCWD, "a",', "0x7ffe, 0) = 0"), joined("3", " <unfinished ...>) = ?"), joined("4, ", " [5], 0) = 1")
    ('AT_FDCWD, "a", 0x7ffe, 0) = 0', '3 <unfinished ...>) = ?', '4, [5], 0) = 1')
    """
    begun = begun.rstrip(" ")
    return f"{begun} {rest.lstrip(' ')}" if begun.endswith(",") else begun + rest
