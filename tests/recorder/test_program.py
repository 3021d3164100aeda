"""The text of the probe program: what is put together from declarations and probe files, and what is asked of the kernel."""

import re
import shutil
from dataclasses import replace

import pytest

from ringtape.recorder import program
from ringtape.recorder.bpf import MapType
from ringtape.recorder.btf import KernelTypes
from ringtape.recorder.program import assemble, loss_tables, members, needed, ring_tables
from ringtape.schemas import table as declarations
from ringtape.schemas.columns import CPU, Column, seq, ts
from ringtape.schemas.errors import RecordingError
from ringtape.schemas.table import Table, tables

ALL = ("descriptors", "losses", "paths", "processes", "recorder", "syscalls")
TRACEPOINTS = {"sys_enter": (11, 2), "sys_exit": (12, 2), "sched_process_exit": (13, 2), "task_newtask": (14, 2)}


@pytest.fixture(autouse=True)
def forget_probe_files():
    """Each text is read once and kept: a test that moves the folder must not leave its own behind."""
    program._read.cache_clear()
    yield
    program._read.cache_clear()


def types_for(names, without=()):
    """Types of a kernel that has everything, members one byte and one bit apart."""
    offsets = {pair: 9 * index for index, pair in enumerate(sorted(members(names))) if pair not in without}
    return KernelTypes(offsets, TRACEPOINTS, 15)


@pytest.mark.parametrize("names", [ALL, ("syscalls",), ("processes",), ("paths", "syscalls")])
def test_the_text_has_one_struct_for_each_recorded_table_and_none_for_others(names):
    text = assemble(names, types_for(names), 2).text
    ringed = [name for name in names if name not in ("descriptors", "losses", "recorder")]
    assert re.findall(r"^struct (\w+)_record \{$", text, re.MULTILINE) == ringed
    for name in ringed:
        assert tables()[name].c_struct() in text


def test_tables_keep_their_numbers_whichever_are_recorded():
    # In the order of their names, of all that are declared.
    number = sorted(tables()).index("syscalls")
    assert f"#define TABLE_syscalls {number}\n" in assemble(ALL, types_for(ALL), 2).text
    alone = assemble(("syscalls",), types_for(("syscalls",)), 2).text
    assert f"#define TABLE_syscalls {number}\n" in alone
    assert f"TABLE_COUNT {len(tables())}\n" in alone
    assert "#define TABLE_paths" not in alone
    assert loss_tables() == sorted(tables())


def test_maps_are_numbered_in_the_order_in_which_the_loader_is_given_them():
    source = assemble(ALL, types_for(ALL), 2)
    for number, spec in enumerate(source.maps):
        assert f"#define MAP_NUMBER_{spec.name} {number}\n" in source.text
        assert f"#define MAP_{spec.name} ((void *)bpf_pseudo_fd(1, {number}))\n" in source.text
    names = [spec.name for spec in source.maps]
    assert len(set(names)) == len(names)
    assert names[:4] == ["config", "status", "state", "losses"]  # in the order of common.bpf.h


def test_maps_have_the_kind_and_the_entries_that_their_declarations_compute():
    by_name = {spec.name: spec for spec in assemble(ALL, types_for(ALL), 6).maps}
    assert (by_name["calls"].type, by_name["calls"].entries) == (MapType.ARRAY, 2048)  # 2 * CALLS, CALLS is 1024
    assert (by_name["losses"].type, by_name["losses"].entries) == (MapType.PERCPU_HASH, 4096)
    assert (by_name["state"].type, by_name["state"].entries) == (MapType.TASK_STORAGE, 0)
    assert (by_name["targets"].type, by_name["targets"].entries) == (MapType.HASH, 1024)
    # One ring and one row of counters for each CPU; records of one size lie in one array that is made later.
    assert (by_name["rings_paths"].type, by_name["rings_paths"].entries) == (MapType.ARRAY_OF_MAPS, 6)
    assert by_name["counters_syscalls"].entries == 6
    assert (by_name["ring_syscalls"].type, by_name["ring_syscalls"].entries) == (MapType.ARRAY, 0)
    assert "ring_paths" not in by_name
    assert "rings_syscalls" not in by_name


def test_every_map_and_probe_that_is_asked_for_stands_in_the_text():
    source = assemble(ALL, types_for(ALL), 2)
    for spec in source.maps:
        assert len(re.findall(rf"^MAP\({spec.name},", source.text, re.MULTILINE)) == 1
    assert source.probes["syscalls__sys_enter"] == "sys_enter"
    assert {name for name, tracepoint in source.probes.items() if tracepoint == "sched_process_exit"} == {
        "syscalls__sched_process_exit",
        "processes__sched_process_exit",
        "target__sched_process_exit",
    }
    assert set(source.iterators) == {"attach", "syscalls_detach"}
    assert {"map_key__config", "map_value__config", "iterator__attach", "syscalls__sys_exit"} <= set(source.functions)


def test_an_offset_is_given_as_byte_and_bit():
    types = types_for(ALL)
    types.offsets["task_struct", "in_execve"] = 8 * 1001 + 3
    text = assemble(ALL, types, 2).text
    assert "#define OFFSET_task_struct__in_execve 1001\n" in text
    assert "#define BIT_task_struct__in_execve 3\n" in text


def test_the_number_of_arguments_of_a_tracepoint_is_told_for_those_that_are_used_alone():
    text = assemble(ALL, replace(types_for(ALL), tracepoints={**TRACEPOINTS, "sched_switch": (99, 4)}), 2).text
    assert "#define ARGS_sched_process_exit 2\n" in text
    assert "ARGS_sched_switch" not in text


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_members_of_the_other_architecture_are_not_needed(machine):
    wanted = needed(ALL, machine)
    assert (("thread_info", "status") in wanted) == (machine == "x86_64")
    assert (("pt_regs", "orig_ax") in wanted) == (machine == "x86_64")
    assert (("thread_info", "flags") in wanted) == (machine == "aarch64")
    assert (("pt_regs", "syscallno") in wanted) == (machine == "aarch64")
    assert {("task_struct", "tgid"), ("cred", "euid"), ("kernfs_node", "id"), ("task_struct", "in_execve")} <= wanted


def test_every_member_that_is_read_is_needed_somewhere_or_left_to_the_compiler():
    core = ("syscalls", "paths", "processes")
    everywhere = needed(core, "x86_64") | needed(core, "aarch64")
    # Read only where the tracepoint lacks an argument, where the kernel was built with seccomp, and since Linux 6.1.
    seldom = {("signal_struct", "live"), ("seccomp", "mode"), ("task_struct", "seccomp"), ("cgroup", "ancestors"), ("cgroup", "level")}
    assert members(core) - everywhere == seldom
    assert everywhere <= members(core)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_member_that_the_kernel_lacks_is_named_with_its_struct(monkeypatch, machine):
    monkeypatch.setattr(program.platform, "machine", lambda: machine)
    with pytest.raises(RecordingError) as caught:
        assemble(ALL, types_for(ALL, without={("task_struct", "tgid"), ("cred", "euid")}), 2)
    assert "euid in struct cred, tgid in struct task_struct" in caught.value.what
    assert "uname -r" in caught.value.hint


def test_a_kernel_of_one_architecture_lacks_nothing_for_want_of_the_other_s_members(monkeypatch):
    monkeypatch.setattr(program.platform, "machine", lambda: "x86_64")
    source = assemble(ALL, types_for(ALL, without=needed(ALL, "aarch64") - needed(ALL, "x86_64")), 2)
    assert "OFFSET_pt_regs__syscallno" not in re.findall(r"#define (\w+)", source.text)


def test_a_member_that_only_a_table_left_out_reads_is_not_needed():
    assert ("linux_binprm", "filename") in needed(ALL, "x86_64")
    assert ("linux_binprm", "filename") not in needed(("syscalls",), "x86_64")


def test_a_table_is_added_by_its_declaration_and_one_probe_file(tmp_path, monkeypatch):
    added = Table("ticks", "1.0", "One row per tick.", (ts("when"), seq(), Column("depth", "i32", "how deep"), CPU), ring_size=1 << 20)
    everything = {**tables(), "ticks": added}
    everything = {name: everything[name] for name in sorted(everything)}
    folder = tmp_path / "probes"
    shutil.copytree(program.PROBES, folder)
    (folder / "ticks.bpf.c").write_text(
        "MAP(depths, HASH, u32, u64, 4 * 16)\n"
        "/* PROBE(not_this_one) is only talked of */\n"
        "PROBE(tick_stop) {\n  u64 clock = READ(u64, ctx[0], tick_clock, base);\n  return 0;\n}\n"
    )
    monkeypatch.setattr(program, "PROBES", folder)
    monkeypatch.setattr(program, "tables", lambda: everything)
    monkeypatch.setattr(declarations, "tables", lambda: everything)
    assert [table.name for table in ring_tables(("ticks", "losses"))] == ["ticks"]
    assert ("tick_clock", "base") in members(("ticks",))
    source = assemble(("ticks", "losses"), types_for(("ticks",)), 2)
    assert source.probes["ticks__tick_stop"] == "tick_stop"
    assert "not_this_one" not in source.probes.values()
    assert "struct ticks_record {\n  s64 ts;\n  s64 seq;\n  s32 depth;\n  s16 cpu;" in source.text
    by_name = {spec.name: spec for spec in source.maps}
    assert (by_name["depths"].type, by_name["depths"].entries) == (MapType.HASH, 64)
    assert {"ring_ticks", "counters_ticks"} <= by_name.keys()


def test_a_table_of_which_the_kernel_has_no_tracepoint_is_unavailable_and_one_that_lacks_some_is_not():
    names = ("processes", "sockets", "transfers")
    types = replace(types_for(names), tracepoints={**TRACEPOINTS, "inet_sock_set_state": (99, 3)})
    source = assemble(names, types, 2)
    assert set(source.unavailable) == {"transfers"}
    assert source.unavailable["transfers"] == "this kernel has no tracepoint sock_send_length, no tracepoint sock_recv_length"
    assert "sockets__tcp_retransmit_skb" in source.probes
    assert "#define TABLE_transfers" not in source.text


def test_what_several_probe_files_include_stands_once_before_them():
    names = ("processes", "sockets", "transfers")
    text = assemble(
        names, replace(types_for(names), tracepoints={**TRACEPOINTS, "inet_sock_set_state": (99, 3), "sock_send_length": (98, 3)}), 2
    ).text
    assert text.count("INLINE u64 socket_cookie(") == 1
    assert text.index("INLINE u64 socket_cookie(") < text.index("PROBE(inet_sock_set_state)")
    assert "#include" not in text
    assert "socket_cookie" not in assemble(ALL, types_for(ALL), 2).text


def test_iterators_over_files_are_told_from_those_over_tasks():
    names = ("processes", "sockets")
    source = assemble(names, replace(types_for(names), tracepoints={**TRACEPOINTS, "inet_sock_set_state": (99, 3)}), 2)
    assert source.over_files == {"sockets_attach", "sockets_detach"}
    assert set(source.iterators) == {"attach", *source.over_files}
