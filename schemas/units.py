"""Durations and sizes as people write and read them."""

from __future__ import annotations

import re

from ringtape.schemas.errors import UsageError

_DURATIONS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Zµ]*)\s*")


def parse_duration(text: str) -> int:
    """Return a duration such as ``10ms``, ``1.5s`` or ``2h`` in ns; a number without a unit is seconds.

    >>> parse_duration("1.5ms")
    1500000
    """
    match = _NUMBER.fullmatch(text)
    unit = match and (match[2].lower() or "s")
    if match is None or unit not in _DURATIONS:
        raise UsageError(f"{text!r} is not a duration", f"write a number and one of {', '.join(_DURATIONS)}, such as 10ms")
    return round(float(match[1]) * _DURATIONS[str(unit)])


def parse_size(text: str) -> int:
    """Return a size such as ``64M`` or ``2GiB`` in bytes; units are powers of 1024.

    >>> parse_size("64K")
    65536
    """
    match = _NUMBER.fullmatch(text)
    unit = match and match[2].lower().removesuffix("ib").removesuffix("b")
    if match is None or unit not in _SIZES:
        raise UsageError(f"{text!r} is not a size", "write a number and one of K, M, G, such as 64M")
    return round(float(match[1]) * _SIZES[str(unit)])


def format_duration(ns: float | None) -> str:
    """Return ns with three significant digits and a fitting unit.

    >>> format_duration(1234567)
    '1.23 ms'
    """
    if ns is None:
        return ""
    size = abs(ns)
    for limit, unit, scale in ((1e3, "ns", 1.0), (1e6, "µs", 1e3), (1e9, "ms", 1e6), (120e9, "s", 1e9), (7200e9, "min", 60e9)):
        if size < limit * 0.9995 or (unit == "ns" and size < 1e3):
            return f"{ns:.0f} ns" if unit == "ns" else f"{_three(ns / scale)} {unit}"
    return f"{_three(ns / 3600e9)} h"


def format_size(size: float) -> str:
    """Return bytes with three significant digits and a binary unit.

    >>> format_size(1536)
    '1.50 KiB'
    """
    if abs(size) < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if abs(size) < 1000:
            return f"{_three(size)} {unit}"
    return f"{_three(size / 1024)} TiB"


def _three(value: float) -> str:
    digits = len(str(int(abs(value))))
    return f"{value:.{max(0, 3 - digits)}f}"
