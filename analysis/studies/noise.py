"""How much of the machine went to others while a run was going on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ringtape.analysis.studies.declaration import Noise

LEAST = 0.05
"""Seconds of CPU time of others below which nothing counts as disturbed: the kernel counts in ticks of up to 10 ms for each process."""
_STEAL, _GUEST = 7, 8
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD, include/linux/sched.h


@dataclass(frozen=True)
class Times:
    """CPU seconds of the machine since it was started: all, and taken by its host; and those of every process, by pid and start.

    Those of a process include those of the children that it has waited for. Kernel threads are left out: most of what they do
    while a run is going on is done for it.
    """

    whole: float
    steal: float
    processes: Mapping[tuple[int, int], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Disturbance:
    """Shares of the CPU time of the machine that went to processes of others, and to other guests of its host."""

    outside: float
    steal: float
    seconds: float

    def above(self, noise: Noise) -> bool:
        """Tell whether a run counts as disturbed."""
        return (self.outside > noise.outside and self.seconds > LEAST) or self.steal > noise.steal


def times() -> Times:
    """Read the CPU times of the machine (proc(5), /proc/stat and /proc/PID/stat)."""
    tick = os.sysconf("SC_CLK_TCK")
    # Guest time is in user time already.
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1 : 1 + _GUEST]]
    processes: dict[tuple[int, int], float] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                # The name, in parentheses, may hold anything.
                words = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            if not int(words[6]) & _KERNEL_THREAD:
                processes[int(entry.name), int(words[19])] = sum(int(word) for word in words[11:15]) / tick
    return Times(sum(ticks) / tick, ticks[_STEAL] / tick, processes)


def disturbance(before: Times, after: Times) -> Disturbance:
    """Return what processes of others had between two instants at which the run's own are not there: before its start, after its end.

    This process is not counted; it waits. What ended in between counts if its parent has waited for it: it has its times then.

    >>> disturbance(Times(0, 0, {(8, 1): 1.0}), Times(10, 1, {(8, 1): 2.5, (9, 1): 0.5}))
    Disturbance(outside=0.2, steal=0.1, seconds=2.0)
    """
    whole = after.whole - before.whole
    if whole <= 0:
        return Disturbance(0.0, 0.0, 0.0)
    was, now = (sum(used for (pid, _), used in at.processes.items() if pid != os.getpid()) for at in (before, after))
    seconds = max(0.0, now - was)
    # Processes are read one after the other, after the times of the whole: on a busy machine that may make a little more than all of it.
    return Disturbance(min(1.0, seconds / whole), (after.steal - before.steal) / whole, seconds)
