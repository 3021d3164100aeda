"""How much of the machine went to others while a run was going on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ringtape.analysis.studies.declaration import Noise

LEAST = 0.05
"""Seconds of CPU time of others below which nothing counts as disturbed: the kernel counts in ticks of up to 10 ms on each CPU."""
_IDLE, _IOWAIT, _STEAL, _GUEST = 3, 4, 7, 8


@dataclass(frozen=True)
class Times:
    """CPU seconds of the machine since it was started: all, in use, and taken by its host."""

    whole: float
    busy: float
    steal: float


@dataclass(frozen=True)
class Disturbance:
    """Shares of the CPU time of the machine that went to processes of others, and to other guests of its host."""

    outside: float
    steal: float
    seconds: float

    def above(self, noise: Noise) -> bool:
        """Tell whether a run counts as disturbed."""
        return (self.outside > noise.outside and self.seconds > LEAST) or self.steal > noise.steal


def times(stat: str | None = None) -> Times:
    """Read the CPU times of the machine (proc(5), /proc/stat).

    >>> times("cpu  100 0 100 700 50 0 0 50 0 0").steal / os.sysconf("SC_CLK_TCK") ** -1
    50.0
    """
    text = Path("/proc/stat").read_text() if stat is None else stat
    # Guest time is in user time already.
    ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in text.splitlines()[0].split()[1 : 1 + _GUEST]]
    whole = sum(ticks)
    return Times(whole, whole - ticks[_IDLE] - ticks[_IOWAIT] - ticks[_STEAL], ticks[_STEAL])


def disturbance(before: Times, after: Times, own: float) -> Disturbance:
    """Return what others had between two instants, of which ``own`` CPU seconds were the run's.

    >>> disturbance(Times(0, 0, 0), Times(10, 6, 1), own=4.0)
    Disturbance(outside=0.2, steal=0.1, seconds=2.0)
    """
    whole = after.whole - before.whole
    if whole <= 0:
        return Disturbance(0.0, 0.0, 0.0)
    seconds = max(0.0, after.busy - before.busy - own)
    return Disturbance(seconds / whole, (after.steal - before.steal) / whole, seconds)
