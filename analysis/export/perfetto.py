"""Perfetto's own form, for https://ui.perfetto.dev: calls per thread, CPUs, wake-ups as flows, counters, losses."""

from __future__ import annotations

from typing import IO

from ringtape.analysis import perfetto_counters, perfetto_sched, perfetto_threads
from ringtape.analysis.exporting import Choices
from ringtape.analysis.perfetto_packets import Packets, preamble
from ringtape.analysis.trace import Trace


def write(trace: Trace, file: IO[bytes], choices: Choices) -> list[str]:  # noqa: ARG001 - one signature for all forms
    """Write the trace; times are those of CLOCK_BOOTTIME, which Perfetto shows, taken from CLOCK_MONOTONIC by the clocks of the header."""
    clock = trace.header.clock
    packets = Packets(clock.boot - clock.mono)
    file.write(preamble((clock.mono, clock.wall, clock.boot), trace.header.host))
    threads = perfetto_threads.Threads(trace)
    for packet in threads.described():
        file.write(packet)
    file.write(perfetto_counters.about(trace, packets))
    for piece in (
        *((perfetto_threads.calls(trace, packets, threads),) if "syscalls" in trace.tables else ()),
        *((perfetto_sched.cpus(trace, packets, threads),) if "sched" in trace.tables else ()),
        perfetto_counters.counters(trace, packets, threads),
        perfetto_counters.losses(trace, packets),
    ):
        for data in piece:
            file.write(data)
    return []
