"""Tracepoints for tests, with records made by hand."""

from __future__ import annotations

import struct

from ringtape.schemas.events import Event, EventField, Symbols

WAIT = Event(
    "sched:sched_process_wait",
    369,
    (
        EventField("comm", "__data_loc char[]", 8, 4, 1, False, "loc", text=True),
        EventField("pid", "pid_t", 12, 4, 4, True, "scalar"),
        EventField("prio", "int", 16, 4, 4, True, "scalar"),
    ),
)
SOFTIRQ = Event(
    "irq:softirq_entry",
    223,
    (EventField("vec", "unsigned int", 8, 4, 4, False, "scalar", symbols=Symbols(False, 0, -1, "|", ((1, "TIMER"), (7, "SCHED")))),),
)


def wait(comm: bytes, pid: int, prio: int) -> bytes:
    """Return a record of `WAIT` as the kernel makes it: the string follows the fixed part, which ends at 20."""
    return struct.pack("<Iii", len(comm) + 1 << 16 | 20, pid, prio) + comm + b"\0"
