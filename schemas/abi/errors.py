"""Error numbers and signals by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final, NamedTuple

from ringtape.schemas.abi.data import rows
from ringtape.schemas.errors import UsageError

MAX_ERRNO: Final = 4095
"""Return values from -4095 to -1 are errors (include/linux/err.h: MAX_ERRNO)."""
FIRST_REALTIME: Final = 32
LAST_SIGNAL: Final = 64
RESTARTS: Final = frozenset((512, 513, 514, 516))
"""Codes by which the kernel says, between sys_exit and user space, that a signal interrupted the call (include/linux/errno.h)."""


class ErrorNumber(NamedTuple):
    """One error number with the text of strerror(3)."""

    number: int
    name: str
    message: str


@cache
def errnos() -> Mapping[int, ErrorNumber]:
    """Return every error number, those that stay inside the kernel (512 and above) included."""
    return MappingProxyType({int(number): ErrorNumber(int(number), name, message) for number, name, message in rows("errno")})


@cache
def _by_name() -> Mapping[str, int]:
    # Two names of one number: the header defines them as aliases.
    aliases = {"EWOULDBLOCK": "EAGAIN", "EDEADLOCK": "EDEADLK", "ENOTSUP": "EOPNOTSUPP"}
    found = {error.name: error.number for error in errnos().values()}
    return found | {alias: found[name] for alias, name in aliases.items()}


def errno_name(ret: int) -> str | None:
    """Return the name of the error that a return value stands for.

    Parameters
    ----------
    ret : int
        Return value as sys_exit shows it.

    Returns
    -------
    str or None
        Such as ``ENOENT``; ``ERESTARTSYS`` and its kind for calls that a signal interrupted; ``E4000`` for a number
        without a name; None if the value is no error (not within -4095 to -1).
    """
    if not -MAX_ERRNO <= ret <= -1:
        return None
    found = errnos().get(-ret)
    return found.name if found else f"E{-ret}"


def errno_message(ret: int) -> str | None:
    """Return what strerror(3) says of the error that a return value stands for; None if it is none or has no text."""
    found = errnos().get(-ret) if ret < 0 else None
    return found.message if found else None


def errno_number(name: str) -> int:
    """Return the number of an error name.

    Raises
    ------
    UsageError
        If no error has that name.
    """
    try:
        return _by_name()[name]
    except KeyError:
        raise UsageError(f"unknown error {name!r}", _closest(name, _by_name())) from None


@cache
def signals() -> Mapping[int, str]:
    """Return every signal's name by number, the real-time ones as strace writes them (``SIGRTMIN``, ``SIGRT_1`` ...)."""
    standard = {int(number): name for number, name in rows("signals")}
    realtime = {number: f"SIGRT_{number - FIRST_REALTIME}" for number in range(FIRST_REALTIME + 1, LAST_SIGNAL + 1)}
    return MappingProxyType(standard | {FIRST_REALTIME: "SIGRTMIN"} | realtime)


def signal_name(number: int) -> str:
    """Return the name of a signal, or the number itself where it has none."""
    return signals().get(number, str(number))


def signal_number(name: str) -> int:
    """Return the number of a signal, ``SIGTERM`` or ``TERM``.

    Raises
    ------
    UsageError
        If no signal has that name.
    """
    wanted = name if name.startswith("SIG") else f"SIG{name}"
    for number, known in signals().items():
        if known == wanted:
            return number
    raise UsageError(f"unknown signal {name!r}", _closest(wanted, {known: number for number, known in signals().items()}))


def _closest(name: str, known: Mapping[str, int]) -> str | None:
    from difflib import get_close_matches

    close = get_close_matches(name, known, 3)
    return f"did you mean {' or '.join(close)}?" if close else None
