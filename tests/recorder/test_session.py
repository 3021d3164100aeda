"""Ring sizes and names of traces as the command line gives them, and what is in the header."""

import os
import time
from pathlib import Path

import pytest

from ringtape.recorder.bpf import PAGE
from ringtape.recorder.kernel import MAX_RINGS, ring_bytes, slots_of
from ringtape.recorder.options import Options, Target, choose_tables
from ringtape.recorder.session import default_output, describe_host, parse_ring_sizes, read_clock
from ringtape.schemas.errors import UsageError
from ringtape.schemas.table import table

NAMES = choose_tables(None)


def refusal(text, names=NAMES):
    with pytest.raises(UsageError) as caught:
        parse_ring_sizes(text, names)
    return caught.value


class TestRingSizes:
    def test_one_size_is_that_of_each_table_with_a_ring(self):
        assert parse_ring_sizes("64M", NAMES) == {"paths": 64 << 20, "processes": 64 << 20, "syscalls": 64 << 20}

    def test_sizes_may_be_given_table_by_table_and_the_rest_keeps_its_own(self):
        assert parse_ring_sizes("syscalls=1G,paths=8k", NAMES) == {"syscalls": 1 << 30, "paths": 8192}

    def test_nothing_asked_is_nothing_changed(self):
        assert parse_ring_sizes(None, NAMES) == {}

    @pytest.mark.parametrize("text", ["losses=1M", "nosuch=1M", "paths=1M,,", "=1M", "syscalls=1M,64M"])
    def test_what_is_no_recorded_table_with_a_ring_is_refused_with_those_that_are(self, text):
        assert "paths, processes" in refusal(text).hint

    def test_a_table_that_is_not_recorded_is_refused(self):
        assert "'paths', which is not recorded" in refusal("paths=1M", choose_tables("syscalls")).what

    @pytest.mark.parametrize("text", ["", "much", "syscalls=", "syscalls=-1M", "64X"])
    def test_what_is_no_size_is_refused(self, text):
        assert "is not a size" in refusal(text).what

    @pytest.mark.parametrize("text", ["0", "4095", "65G", "syscalls=1T"])
    def test_a_size_beyond_reason_is_refused_with_the_limits(self, text):
        assert "64 GiB" in refusal(text).hint

    @pytest.mark.parametrize("text", [str(PAGE), "64G"])
    def test_the_limits_themselves_are_allowed(self, text):
        assert parse_ring_sizes(text, ("paths",))


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


def test_the_clocks_are_read_at_one_instant():
    clock = read_clock()
    assert abs(time.clock_gettime_ns(time.CLOCK_MONOTONIC) - clock.mono) < 60e9
    assert abs(time.time_ns() - clock.wall) < 60e9
    assert clock.boot >= clock.mono - 1e9


def test_the_host_is_described_by_what_figures_depend_on():
    host = describe_host()
    assert host["kernel"] == os.uname().release
    assert host["machine"] == os.uname().machine
    assert host["page_size"] == PAGE
    assert all(host[name] for name in ("name", "cpu", "cpus", "memory", "boot_id", "clocksource"))
