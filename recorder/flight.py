"""What a flight recording was asked to do: how much it keeps, and what makes it save its last minutes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from ringtape.schemas.abi import syscalls as abi
from ringtape.schemas.abi.errors import errno_name, errnos
from ringtape.schemas.errors import UsageError
from ringtape.schemas.units import parse_duration, parse_size

SMALLEST = 8 << 20
"""Bytes of --max-size at least: the parts of a busy second, their merge and the manifest have to fit."""
LAST = 5 * 60 * 10**9
"""Time in ns that a snapshot reaches back where nothing says how far."""
_GRAMMAR = 'write "SYSCALL > TIME", "SYSCALL fails [ERRNO]" or "lost > N", such as "fsync > 100ms"'
_LONGER = re.compile(r"\s*([a-z_0-9,]+)\s*(>=?)\s*([0-9.]+\s*[a-zA-Z\u00b5\u03bc]*)\s*")
_FAILS = re.compile(r"\s*([a-z_0-9,]+)\s+fails(?:\s+([A-Za-z0-9]+))?\s*")


@dataclass(frozen=True)
class Trigger:
    """One condition.

    ``calls`` are (ABI name, number); ``longer`` is the shortest duration in ns that counts, None where another thing does;
    ``fails`` says that failures count, of ``errno`` alone if that is not 0; ``lost`` is how many records must be lost, None
    where another thing counts.
    """

    text: str
    names: tuple[str, ...] = ()
    calls: frozenset[tuple[str, int]] = frozenset()
    longer: int | None = None
    fails: bool = False
    errno: int = 0
    lost: int | None = None


@dataclass(frozen=True)
class Limits:
    """How much is kept: ``keep`` in ns, ``size`` in bytes; None for no limit."""

    keep: int | None = None
    size: int | None = None

    def __bool__(self) -> bool:
        return self.keep is not None or self.size is not None


@dataclass(frozen=True)
class Flight:
    """A flight recording as asked for.

    ``snapshots`` is the folder that they go to (None: beside the trace); ``last`` is how far one reaches back and ``every`` the
    least time between two that triggers ask for, in ns; ``most`` is how many are kept.
    """

    limits: Limits = field(default_factory=Limits)
    triggers: tuple[Trigger, ...] = ()
    snapshots: Path | None = None
    last: int = LAST
    every: int = 60 * 10**9
    most: int = 8

    def describe(self) -> dict[str, object]:
        """Return it as the header of a trace holds it."""
        named = {"keep": self.limits.keep, "max_size": self.limits.size, "when": [trigger.text for trigger in self.triggers]}
        return {**{name: value for name, value in named.items() if value}, **({"merge": False} if self.limits else {})}


def parse_trigger(text: str) -> Trigger:
    """Return a condition from ``SYSCALL > TIME``, ``SYSCALL >= TIME``, ``SYSCALL fails [ERRNO]`` or ``lost > N``.

    Several calls may be named, with commas between them.

    Raises
    ------
    UsageError
        If it is none of these, or names a call or an error that there is not; close matches are in the hint.

    Examples
    --------
    >>> parse_trigger("fsync,fdatasync > 100ms").longer
    100000001
    """
    shown = " ".join(text.split())
    if match := _LONGER.fullmatch(text):
        name, sign, amount = match.groups()
        if name == "lost":
            if not amount.strip().isdecimal():
                raise UsageError(f"--when {shown!r}: {amount.strip()!r} is no number of records", 'such as "lost > 0"')
            return Trigger(shown, lost=int(amount) + (sign == ">"))
        return Trigger(shown, *_calls(name, shown), longer=parse_duration(amount) + (sign == ">"))
    if match := _FAILS.fullmatch(text):
        return Trigger(shown, *_calls(match[1], shown), fails=True, errno=_errno(match[2], shown) if match[2] else 0)
    raise UsageError(f"--when {shown!r} is no condition", _GRAMMAR)


def _calls(text: str, shown: str) -> tuple[tuple[str, ...], frozenset[tuple[str, int]]]:
    names = tuple(name for name in text.split(",") if name)
    if not names:
        raise UsageError(f"--when {shown!r} names no system call", _GRAMMAR)
    native = abi.native_abi()
    found = set()
    for name in names:
        numbers = {(one, number) for one in (native, abi.compat_abi(native)) if one for number, known in abi.names(one).items() if known == name}
        if not numbers:
            abi.number(native, name)  # raises with the close matches
        found |= numbers
    return names, frozenset(found)


def _errno(text: str, shown: str) -> int:
    known = {name: -number for number in range(-4095, 0) if (name := errno_name(number)) and -number in errnos()}
    known |= {"EWOULDBLOCK": known["EAGAIN"], "ENOTSUP": known["EOPNOTSUPP"]}
    if (number := known.get(text.upper())) is None:
        close = get_close_matches(text.upper(), known, 3)
        raise UsageError(f"--when {shown!r}: unknown error {text!r}", f"did you mean {' or '.join(close)}?" if close else "such as EMFILE")
    return number


def choose_flight(
    keep: str | None,
    max_size: str | None,
    when: Sequence[str],
    snapshots: Path | None,
    last: str | None,
    every: str | None,
    most: int | None,
) -> Flight | None:
    """Return what the flags ask for; None without any.

    Raises
    ------
    UsageError
        If a value cannot be, or there is nothing that it could hold for.
    """
    if keep is None and max_size is None and not when:
        for flag, value in (("--snapshots", snapshots), ("--snapshot-last", last), ("--every", every), ("--max-snapshots", most)):
            if value is not None:
                raise UsageError(f"{flag} without anything that takes snapshots", "add --keep, --max-size or --when")
        return None
    limits = Limits(parse_duration(keep) if keep is not None else None, parse_size(max_size) if max_size is not None else None)
    if limits.keep is not None and limits.keep < 10**9:
        raise UsageError(f"--keep {keep}", "parts are sealed once a second: keep 1s or more, such as 10m")
    if limits.size is not None and limits.size < SMALLEST:
        raise UsageError(f"--max-size {max_size}", "what comes in a second has to fit, and more than once: 8M or more, such as 2GB")
    if most is not None and most < 1:
        raise UsageError(f"--max-snapshots {most}", "1 or more")
    reach = parse_duration(last) if last is not None else limits.keep or LAST
    return Flight(limits, tuple(map(parse_trigger, when)), snapshots, reach, parse_duration(every or "1m"), 8 if most is None else most)


def check_flight(flight: Flight, tables: Sequence[str], calls: frozenset[tuple[str, int]], min_duration: int) -> None:
    """Refuse triggers for what the recording leaves out.

    Raises
    ------
    UsageError
        Naming the first that could never come true.
    """
    for trigger in flight.triggers:
        if trigger.lost is not None:
            continue
        if "syscalls" not in tables:
            raise UsageError(f"--when {trigger.text!r} without the table syscalls", "add syscalls to --tables")
        if calls and not trigger.calls & calls:
            raise UsageError(f"--when {trigger.text!r} names what --syscall leaves out", f"add it: --syscall {','.join(trigger.names)}")
        if trigger.fails and min_duration:
            raise UsageError(f"--when {trigger.text!r} with --min-duration, which leaves failed calls out that are shorter", "name one of them")
        if trigger.longer is not None and trigger.longer < min_duration:
            raise UsageError(f"--when {trigger.text!r} with a longer --min-duration, which leaves such calls out", "make it shorter")
