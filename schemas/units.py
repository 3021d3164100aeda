"""Durations and sizes as people write and read them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from ringtape.schemas.errors import UsageError

# Both letters that are read as micro: the sign that keyboards have, and the Greek letter that Unicode prefers.
_DURATIONS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NUMBER = re.compile("\\s*([0-9]{1,20}(?:\\.[0-9]{0,20})?|\\.[0-9]{1,20})\\s*([a-zA-Z\u00b5\u03bc]*)\\s*")
_LIMIT = 1 << 63


def parse_duration(text: str) -> int:
    """Return a duration such as ``10ms``, ``1.5s`` or ``2h`` in ns; a number without a unit is seconds.

    >>> parse_duration("1.5ms")
    1500000
    """
    match = _NUMBER.fullmatch(text)
    unit = match and (match[2].lower() or "s")
    if match is None or unit not in _DURATIONS:
        raise UsageError(f"{text!r} is not a duration", "write a number and one of ns, us, ms, s, min, h, such as 10ms")
    return _scaled(text, match[1], _DURATIONS, str(unit))


def parse_size(text: str) -> int:
    """Return a size such as ``64M`` or ``2GiB`` in bytes; units are powers of 1024.

    >>> parse_size("64K")
    65536
    """
    match = _NUMBER.fullmatch(text)
    unit = match and match[2].lower().removesuffix("ib").removesuffix("b")
    if match is None or unit not in _SIZES:
        raise UsageError(f"{text!r} is not a size", "write a number and one of K, M, G, such as 64M")
    return _scaled(text, match[1], _SIZES, str(unit))


def _scaled(text: str, number: str, scales: Mapping[str, int], unit: str) -> int:
    # Exact: a float would lose the last digits of a time stamp in ns.
    value = round(Fraction(number) * scales[unit])
    if value >= _LIMIT:
        raise UsageError(f"{text!r} is more than 64 bits hold")
    return value


def format_duration(ns: float | None) -> str:
    """Return ns with three significant digits and a fitting unit.

    >>> format_duration(1234567)
    '1.23 ms'
    """
    if ns is None:
        return ""
    if not math.isfinite(ns):
        return f"{ns} ns"
    size = abs(ns)
    if size < 999.5:
        return f"{ns:z.0f} ns"
    for limit, unit, scale in ((1e6, "µs", 1e3), (1e9, "ms", 1e6), (120e9, "s", 1e9), (7200e9, "min", 60e9)):
        if size < limit * 0.9995:
            return f"{_three(ns / scale)} {unit}"
    return f"{_three(ns / 3600e9)} h"


def format_size(size: float) -> str:
    """Return bytes with three significant digits and a binary unit.

    >>> format_size(1536)
    '1.50 KiB'
    """
    if abs(size) < 1023.5 or not math.isfinite(size):
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if abs(size) < 999.5:
            return f"{_three(size)} {unit}"
    return f"{_three(size / 1024)} TiB"


def _three(value: float) -> str:
    size = abs(value)
    return f"{value:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f}"
