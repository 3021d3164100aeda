"""Loading, attaching and giving back again leaves nothing: no descriptor, no memory, no program, no pin."""

import os
from pathlib import Path

import pytest

from ringtape.recorder import bpf
from ringtape.recorder.events import choose_events
from ringtape.recorder.kernel import load
from ringtape.recorder.options import Options, Target, choose_tables
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.table import tables

ROUNDS = 100
WITH_EVENTS = 20
"""A classic tracepoint takes the kernel 60 ms to detach: every twentieth round has one."""


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * bpf.PAGE


def test_a_hundred_recordings_of_all_families_in_one_process_leave_nothing(tmp_path):
    chosen = choose_tables("all", ("events", "samples"))
    sizes = {name: 64 << 10 for name in chosen if tables()[name].origin == "ring"}
    event = choose_events(["sched:sched_process_wait"])
    plain = choose_tables("all", ("samples",))
    descriptors, memory = [], []
    for number in range(ROUNDS):
        with_event = number % WITH_EVENTS == 0
        given = {"events": event} if with_event else {}
        options = Options(Target(everything=True), chosen if with_event else plain, ring_sizes=sizes, profile=99, offcpu=1_000_000, **given)
        try:
            kernel = load(options)
        except RingtapeError as error:
            pytest.skip(error.what)
        kernel.attach()
        assert [probe.name for probe in kernel.probes if not probe.attached] == []
        kernel.close()
        descriptors.append(len(os.listdir("/proc/self/fd")))
        memory.append(resident())
    assert set(descriptors[1:]) == {descriptors[1]}
    # What Python itself keeps settles in the first rounds; a map or a program that was left would be 64 KiB each time at least.
    assert memory[-1] - memory[ROUNDS // 2] < (ROUNDS // 2) * (32 << 10)
