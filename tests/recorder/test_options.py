"""What a recording was asked to do, checked before anything is touched."""

import os
import threading
from pathlib import Path

import pytest

from ringtape.recorder import options
from ringtape.recorder.bpf import PAGE
from ringtape.recorder.options import (
    Options,
    Select,
    Target,
    check_cgroup,
    check_comms,
    check_pids,
    check_uids,
    choose_calls,
    choose_tables,
    parse_ring_sizes,
    possible_cpus,
)
from ringtape.schemas.errors import UsageError
from ringtape.schemas.table import table, tables


def refusal(call, *arguments, **named):
    with pytest.raises(UsageError) as caught:
        call(*arguments, **named)
    assert caught.value.hint
    return caught.value


class TestTarget:
    def test_nothing_named_is_refused_with_all_that_can_be_named(self):
        error = refusal(Target)
        assert "nothing to record" in error.what
        for way in ("-- COMMAND", "--pid", "--comm", "--uid", "--cgroup", "--all"):
            assert way in error.hint

    def test_two_ways_at_once_are_refused_by_name(self):
        assert refusal(Target, command=("true",), pids=(1,)).what == "a command and --pid were named together"
        assert refusal(Target, everything=True, uids=(0,)).what == "--uid and --all were named together"

    @pytest.mark.parametrize(
        ("named", "select"),
        [
            ({"command": ("true",)}, Select.MARKED),
            ({"pids": (1, 2)}, Select.MARKED),
            ({"comms": ("sh",)}, Select.COMM),
            ({"uids": (0,)}, Select.UID),  # root's number is a choice, not an absence
            ({"cgroup": Path("/sys/fs/cgroup")}, Select.CGROUP),
            ({"everything": True}, Select.ALL),
        ],
    )
    def test_each_way_has_its_test_in_the_probes(self, named, select):
        assert Target(**named).select is select

    def test_the_ways_have_the_numbers_that_the_probes_know_them_by(self):
        from ringtape.recorder.program import PROBES

        text = (PROBES / "common.bpf.h").read_text()
        for select in Select:
            assert f"#define SELECT_{select.name} {select.value}\n" in text
        assert f"#define CHOICES {options.CHOICES}\n" in text

    def test_the_header_holds_what_was_named_and_nothing_else(self):
        assert Target(pids=(7, 8)).describe() == {"pid": [7, 8]}
        assert Target(cgroup=Path("/sys/fs/cgroup/a")).describe() == {"cgroup": "/sys/fs/cgroup/a"}
        assert Target(everything=True).describe() == {"all": True}
        assert Target(command=("true",)).describe() == {}


def test_options_are_described_with_the_ring_size_of_each_ring_table():
    asked = Options(Target(command=("true",)), choose_tables(None), ring_sizes={"paths": 4096}, call_names=("read",), min_duration=5)
    described = asked.describe()
    assert described["ring_size"] == {"paths": 4096, "processes": 8 << 20, "syscalls": 256 << 20}
    assert (described["syscall"], described["min_duration"], described["duration"]) == (["read"], 5, None)


class TestTables:
    def test_tables_bring_those_that_they_need_and_the_recorder_s_own(self):
        assert choose_tables("paths") == ("descriptors", "losses", "paths", "recorder", "syscalls")
        assert choose_tables("processes") == ("descriptors", "losses", "processes", "recorder")
        assert choose_tables(" syscalls , processes ,") == ("descriptors", "losses", "processes", "recorder", "syscalls")

    def test_all_is_every_table_with_a_ring_and_the_default_those_that_say_so(self):
        assert set(choose_tables(None)) <= set(choose_tables("all"))
        assert all(table(name).origin == "recorder" or table(name).default for name in choose_tables(None))

    @pytest.mark.parametrize("text", ["nosuch", "syscalls,nosuch", "losses", ",", ""])
    def test_what_cannot_be_chosen_is_refused_with_the_choice(self, text):
        rings = ", ".join(name for name, one in tables().items() if one.origin == "ring")
        assert f"{rings}, or all" in refusal(choose_tables, text).hint


class TestCalls:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch):
        monkeypatch.setattr(options.abi, "native_abi", lambda: "x86_64")

    def test_a_call_is_meant_in_both_numberings(self):
        assert choose_calls(["read"]) == {("x86_64", 0), ("i386", 3)}

    def test_a_call_of_32_bit_programs_alone_may_be_named(self):
        assert choose_calls(["socketcall"]) == {("i386", 102)}

    def test_several_are_united_and_none_is_none(self):
        assert choose_calls(["fsync", "fdatasync"]) == {("x86_64", 74), ("i386", 118), ("x86_64", 75), ("i386", 148)}
        assert choose_calls([]) == frozenset()

    def test_a_misspelt_call_is_refused_with_what_may_have_been_meant(self):
        error = refusal(choose_calls, ["read", "opennat"])
        assert "opennat" in error.what
        assert "openat" in error.hint


class TestPids:
    def test_a_process_that_does_not_exist_is_named(self):
        assert refusal(check_pids, [1, 4_194_304 + 5]).what == "no process 4194309"

    def test_the_recorder_itself_is_refused(self):
        assert "this recorder itself" in refusal(check_pids, [os.getpid()]).what

    def test_a_thread_stands_for_its_process_and_twice_is_once(self):
        assert check_pids([os.getppid(), os.getppid()]) == (os.getppid(),)
        gate = threading.Event()
        thread = threading.Thread(target=gate.wait)
        thread.start()
        try:
            assert thread.native_id != os.getpid()
            assert "this recorder itself" in refusal(check_pids, [thread.native_id]).what
        finally:
            gate.set()
            thread.join()


class TestComms:
    def test_names_are_cut_as_the_kernel_cuts_them(self):
        assert check_comms(["short", "0123456789abcdef"]) == ("short", "0123456789abcde")

    def test_a_name_cut_inside_a_character_still_is_its_first_15_bytes(self):
        (name,) = check_comms(["abcdefghijklmn\u00e9"])  # the accented letter has two bytes, of which one fits
        assert os.fsencode(name) == b"abcdefghijklmn\xc3"

    def test_too_many_and_empty_names_are_refused(self):
        assert "9 values of --comm" in refusal(check_comms, ["x"] * 9).what
        assert "empty" in refusal(check_comms, [""]).what
        assert len(check_comms(["x"] * 8)) == 8


class TestUids:
    def test_numbers_and_names_are_user_ids(self):
        assert check_uids(["0", "root", "4294967295"]) == (0, 0, 4294967295)

    def test_what_is_no_user_is_refused(self):
        assert refusal(check_uids, ["no-such-user"]).what == "no user 'no-such-user'"
        assert refusal(check_uids, [""]).what == "no user ''"
        assert "4294967296 is no user id" in refusal(check_uids, ["4294967296"]).what
        assert "9 values of --uid" in refusal(check_uids, ["0"] * 9).what


class TestCgroup:
    def test_a_folder_of_the_hierarchy_is_returned_without_links(self, tmp_path, monkeypatch):
        root = tmp_path / "cgroup"
        (root / "a" / "b").mkdir(parents=True)
        (tmp_path / "link").symlink_to(root / "a")
        monkeypatch.setattr(options, "cgroup_root", lambda: root)
        assert check_cgroup(tmp_path / "link" / "b") == root / "a" / "b"
        assert check_cgroup(root) == root

    def test_a_folder_elsewhere_and_one_that_is_not_there_are_refused_with_the_root(self, tmp_path, monkeypatch):
        root = tmp_path / "cgroup"
        root.mkdir()
        (tmp_path / "cgroup2").mkdir()
        monkeypatch.setattr(options, "cgroup_root", lambda: root)
        for wrong in (tmp_path, tmp_path / "cgroup2", root / "missing", root / ".." / "cgroup2"):
            assert str(root) in refusal(check_cgroup, wrong).hint

    def test_a_machine_without_the_hierarchy_is_told_how_to_mount_it(self, monkeypatch):
        monkeypatch.setattr(options, "cgroup_root", lambda: None)
        assert "mount -t cgroup2" in refusal(check_cgroup, Path("/")).hint

    @pytest.mark.parametrize(
        ("mounts", "root"),
        [
            ("proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", Path("/sys/fs/cgroup")),
            ("none /mnt/with\\040space cgroup2 rw 0 0\n", Path("/mnt/with space")),
            ("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n", None),
        ],
    )
    def test_the_root_is_where_the_mounts_say(self, mounts, root, monkeypatch):
        monkeypatch.setattr(Path, "read_text", lambda self: mounts)
        assert options.cgroup_root() == root


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-7\n", 8), ("0-3,8-11\n", 12), ("0,2\n", 3), ("0-1,4\n", 5)])
def test_possible_cpus_are_one_more_than_the_highest_number(text, count, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert possible_cpus() == count


NAMES = choose_tables(None)


class TestRingSizes:
    def test_one_size_is_that_of_each_table_with_a_ring(self):
        assert parse_ring_sizes("64M", NAMES) == {"paths": 64 << 20, "processes": 64 << 20, "syscalls": 64 << 20}

    def test_sizes_may_be_given_table_by_table_and_the_rest_keeps_its_own(self):
        assert parse_ring_sizes("syscalls=1G,paths=8k", NAMES) == {"syscalls": 1 << 30, "paths": 8192}

    def test_nothing_asked_is_nothing_changed(self):
        assert parse_ring_sizes(None, NAMES) == {}

    @pytest.mark.parametrize("text", ["losses=1M", "nosuch=1M", "paths=1M,,", "=1M", "syscalls=1M,64M"])
    def test_what_is_no_recorded_table_with_a_ring_is_refused_with_those_that_are(self, text):
        assert "paths, processes" in refusal(parse_ring_sizes, text, NAMES).hint

    def test_a_table_that_is_not_recorded_is_refused(self):
        assert "'paths', which is not recorded" in refusal(parse_ring_sizes, "paths=1M", choose_tables("syscalls")).what

    @pytest.mark.parametrize("text", ["", "much", "syscalls=", "syscalls=-1M", "64X"])
    def test_what_is_no_size_is_refused(self, text):
        assert "is not a size" in refusal(parse_ring_sizes, text, NAMES).what

    @pytest.mark.parametrize("text", ["0", "4095", "65G", "syscalls=1T"])
    def test_a_size_beyond_reason_is_refused_with_the_limits(self, text):
        assert "64 GiB" in refusal(parse_ring_sizes, text, NAMES).hint

    @pytest.mark.parametrize("text", [str(PAGE), "64G"])
    def test_the_limits_themselves_are_allowed(self, text):
        assert parse_ring_sizes(text, ("paths",))
