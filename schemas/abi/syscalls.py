"""System calls by number and name, their arguments, and which of these point at strings, for every recorded ABI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from ringtape.schemas.abi.data import rows
from ringtape.schemas.columns import ABI
from ringtape.schemas.errors import RingtapeError, UsageError

ABI_IDS: Final[Mapping[str, int]] = MappingProxyType({name: number for number, name in ABI.values.items()})
"""Code in the ``abi`` columns of each ABI."""
X32_BIT: Final = 0x40000000
"""Set in every system call number of x32 (__X32_SYSCALL_BIT in arch/x86/include/uapi/asm/unistd.h)."""
UNKNOWN_ARITY: Final = 6
STRINGS_LIMIT: Final = 3
"""String arguments of one call that are recorded at most."""

_MACHINES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_COMPAT: Final = {"x86_64": "i386"}  # arm64 can run arm programs, but there is no table of arm's calls here


class Argument(NamedTuple):
    """One argument of a system call.

    ``type`` is a word of the vocabulary that the head of ``signatures.tsv`` explains, such as ``fd`` or ``flags:open``.
    """

    name: str
    type: str


class StringArgument(NamedTuple):
    """An argument that points at a string worth recording.

    ``arg`` is its index. A ``path`` ends with NUL; a ``sockaddr_in`` is given with its length in argument ``length_arg``;
    a ``sockaddr_out`` is filled in by the kernel, which writes the length to where argument ``length_arg`` points; a
    ``fds_out`` is filled in with two descriptors. A ``msg_in`` or ``msg_out`` is a struct msghdr whose address is given or filled
    in, ``msgs_in`` and ``msgs_out`` are many, as many as argument ``length_arg`` says.
    """

    arg: int
    kind: Literal["path", "sockaddr_in", "sockaddr_out", "fds_out", "msg_in", "msg_out", "msgs_in", "msgs_out"]
    length_arg: int | None


def native_abi(machine: str | None = None) -> str:
    """Return the ABI of a machine's own programs.

    Parameters
    ----------
    machine : str, optional
        Machine as ``uname -m`` names it; this one by default.

    Raises
    ------
    RingtapeError
        If ringtape has no tables for that machine.
    """
    name = os.uname().machine if machine is None else machine
    try:
        return _MACHINES[name]
    except KeyError:
        raise RingtapeError(f"machine {name!r} is not supported", "ringtape knows the system calls of x86_64 and aarch64") from None


def compat_abi(abi: str) -> str | None:
    """Return the ABI of 32-bit programs on a kernel of that ABI; None where there is no table for it."""
    _check(abi)
    return _COMPAT.get(abi)


@cache
def names(abi: str) -> Mapping[int, str]:
    """Return the name of every system call of an ABI by number; numbers of x32 include its bit 0x40000000."""
    _check(abi)
    if abi == "arm":
        return MappingProxyType({})
    if abi in ("x86_64", "x32"):
        bit = X32_BIT if abi == "x32" else 0
        wanted = ("64",) if abi == "x86_64" else ("x32",)
        return MappingProxyType({int(row[0]) | bit: row[1] for row in rows("x86_64") if len(row) == 2 or row[2] in wanted})
    return MappingProxyType({int(nr): name for nr, name in rows(abi)})


@cache
def _numbers(abi: str) -> Mapping[str, int]:
    return {name: nr for nr, name in names(abi).items()}


def number(abi: str, name: str) -> int:
    """Return the number of a system call.

    Raises
    ------
    UsageError
        If the ABI has no call of that name.
    """
    try:
        return _numbers(abi)[name]
    except KeyError:
        raise UsageError(f"unknown system call {name!r}", _closest(abi, name)) from None


def _closest(abi: str, name: str) -> str:
    for other in ("x86_64", "i386", "arm64"):
        if name in _numbers(other):
            return f"{other} has it, {abi} has not"
    from difflib import get_close_matches

    close = get_close_matches(name, _numbers(abi), 3)
    return f"did you mean {' or '.join(close)}?" if close else "names are those of section 2 of the manual, such as openat"


def signature(abi: str, nr: int) -> tuple[Argument, ...] | None:
    """Return the arguments of a system call; None if the call or its arguments are unknown."""
    return _signature(abi, names(abi).get(nr))


@cache
def _signature(abi: str, name: str | None) -> tuple[Argument, ...] | None:
    # x32 passes its arguments as x86_64 does.
    text = _signatures().get(f"{name}@{abi}", _signatures().get(name or ""))
    if text is None:
        return None
    return tuple(Argument(*part.split(":", 1)) for part in text.split(", ")) if text else ()


@cache
def _signatures() -> Mapping[str, str]:
    return dict(rows("signatures"))


def arity(abi: str, nr: int) -> int:
    """Return the number of arguments that a system call reads; 6 for a call that is not known."""
    found = signature(abi, nr)
    return UNKNOWN_ARITY if found is None else len(found)


def strings(abi: str, nr: int) -> tuple[StringArgument, ...]:
    """Return the arguments of a system call that point at file names, socket addresses, messages and pairs of descriptors, at most 3."""
    found = []
    types = [argument.type for argument in signature(abi, nr) or ()]
    for index, kind in enumerate(types):
        if kind == "path":
            found.append(StringArgument(index, "path", None))
        elif kind == "sockaddr_in":
            found.append(StringArgument(index, "sockaddr_in", types.index("addrlen")))
        elif kind == "sockaddr_out":
            found.append(StringArgument(index, "sockaddr_out", types.index("addrlen_ptr")))
        elif kind in ("fds_out", "msg_in", "msg_out"):
            found.append(StringArgument(index, kind, None))  # type: ignore[arg-type]
        elif kind in ("msgs_in", "msgs_out"):
            found.append(StringArgument(index, kind, index + 1))  # type: ignore[arg-type]
    return tuple(found[:STRINGS_LIMIT])


def _check(abi: str) -> None:
    if abi not in ABI_IDS:
        raise UsageError(f"unknown ABI {abi!r}", f"the ABIs are {', '.join(ABI_IDS)}")
