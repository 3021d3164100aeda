"""The name of a trace that was given none, and the shares of the rings."""

import time
from pathlib import Path

import pytest

from ringtape.recorder.bpf import PAGE
from ringtape.recorder.kernel import MAX_RINGS, ring_bytes, slots_of
from ringtape.recorder.options import Options, Target, choose_tables
from ringtape.recorder.session import default_output
from ringtape.schemas.table import table

NAMES = choose_tables(None)


class TestShares:
    @pytest.mark.parametrize(("total", "cpus", "slots"), [(96 * 8, 1, 8), (96 * 15, 1, 8), (96 * 16, 1, 16), (96 * 8, 8, 1), (1, 64, 1)])
    def test_slots_of_a_cpu_are_the_largest_power_of_two_within_its_share(self, total, cpus, slots):
        assert slots_of(table("syscalls"), total, cpus) == slots

    @pytest.mark.parametrize(("pages", "rings", "each"), [(8, 2, 4), (7, 1, 4), (1, 64, 1), (64 * 3, 64, 2)])
    def test_rings_are_powers_of_two_of_pages_within_the_total_and_a_page_at_least(self, pages, rings, each):
        assert ring_bytes(pages * PAGE, rings) == each * PAGE

    @pytest.mark.parametrize("name", NAMES)
    def test_the_usual_sizes_are_enough_for_every_cpu_that_has_a_ring(self, name):
        if table(name).origin == "ring":
            assert table(name).ring_size >= MAX_RINGS * PAGE


class TestDefaultOutput:
    @pytest.fixture(autouse=True)
    def clock(self, monkeypatch):
        monkeypatch.setattr(time, "strftime", lambda form: "20240229-130501")

    def named(self, **target):
        return default_output(Options(Target(**target), NAMES))

    def test_a_trace_is_named_after_what_is_recorded_and_when_in_the_current_folder(self):
        assert self.named(command=("/usr/bin/tar", "cf")) == Path("tar-20240229-130501.trace")
        assert self.named(pids=(77, 78)) == Path("pid77-20240229-130501.trace")
        assert self.named(comms=("redis",)) == Path("comm-20240229-130501.trace")
        assert self.named(everything=True) == Path("all-20240229-130501.trace")

    @pytest.mark.parametrize(
        ("command", "name"),
        [("/bin/a b\n\x1b[31m", "a_b___31m"), ("./\u00fcber;rm -rf", "_ber_rm_-rf"), ("x" * 300, "x" * 40), ("\udcff", "_")],
    )
    def test_a_hostile_name_becomes_a_plain_one(self, command, name):
        assert self.named(command=(command,)) == Path(f"{name}-20240229-130501.trace")
