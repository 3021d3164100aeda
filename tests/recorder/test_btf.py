"""Offsets and tracepoints read from type information that is built by hand, and from this kernel's where it has any."""

import shutil
import struct
import subprocess

import pytest

from ringtape.recorder.btf import VMLINUX, read_kernel_types
from ringtape.schemas.errors import RecordingError
from tests.recorder import btf_blob
from tests.recorder.btf_blob import STRUCT, UNION, Blob


def test_a_member_is_found_at_its_bit_offset(tmp_path):
    blob = Blob()
    word = blob.integer("unsigned int", 4)
    blob.members(STRUCT, "task_struct", 16, [("flags", word, 0), ("tgid", word, 32), ("pid", word, 96)])
    found = read_kernel_types([("task_struct", "pid"), ("task_struct", "tgid")], blob.write(tmp_path / "btf"))
    assert found.offsets == {("task_struct", "pid"): 96, ("task_struct", "tgid"): 32}


def test_members_of_anonymous_structs_and_unions_are_found_as_c_finds_them(tmp_path):
    # struct outer { long a; union { long b; struct { int c; int d; }; }; } through a const typedef of the inner struct.
    blob = Blob()
    word, long = blob.integer("int", 4), blob.integer("long", 8)
    inner = blob.members(STRUCT, "", 8, [("c", word, 0), ("d", word, 32)])
    alias = blob.add("inner_t", btf_blob.TYPEDEF, blob.add("", btf_blob.CONST, inner))
    either = blob.members(UNION, "", 8, [("b", long, 0), ("", alias, 0)])
    blob.members(STRUCT, "outer", 16, [("a", long, 0), ("", either, 64)])
    found = read_kernel_types([("outer", name) for name in "abcd"], blob.write(tmp_path / "btf"))
    assert found.offsets == {("outer", "a"): 0, ("outer", "b"): 64, ("outer", "c"): 64, ("outer", "d"): 96}


def test_a_bit_field_is_found_at_its_own_bit_and_its_width_is_no_part_of_the_offset(tmp_path):
    blob = Blob()
    word = blob.integer("unsigned int", 4)
    blob.members(STRUCT, "task_struct", 8, [("plain", word, 0, 0), ("in_execve", word, 32, 1), ("in_iowait", word, 33, 1)], bit_fields=True)
    found = read_kernel_types([("task_struct", "in_iowait"), ("task_struct", "in_execve")], blob.write(tmp_path / "btf"))
    assert found.offsets == {("task_struct", "in_iowait"): 33, ("task_struct", "in_execve"): 32}


def test_members_of_a_named_member_belong_to_that_member_alone(tmp_path):
    blob = Blob()
    word = blob.integer("int", 4)
    inner = blob.members(STRUCT, "", 4, [("hidden", word, 0)])
    blob.members(STRUCT, "outer", 4, [("named", inner, 0)])
    assert read_kernel_types([("outer", "hidden")], blob.write(tmp_path / "btf")).offsets == {}


def test_a_member_or_struct_that_the_kernel_does_not_have_is_absent_from_the_result(tmp_path):
    blob = Blob()
    word = blob.integer("int", 4)
    blob.members(STRUCT, "cred", 4, [("euid", word, 0)])
    found = read_kernel_types([("cred", "egid"), ("task_struct", "pid"), ("cred", "euid")], blob.write(tmp_path / "btf"))
    assert found.offsets == {("cred", "euid"): 0}


def test_every_kind_of_type_is_stepped_over_at_its_right_length(tmp_path):
    blob = Blob()
    word = blob.integer("int", 4)
    blob.add("", btf_blob.ARRAY, 0, extra=struct.pack("=III", word, word, 7))
    blob.add("colour", btf_blob.ENUM, 4, 2, extra=struct.pack("=IiIi", blob.name("RED"), 0, blob.name("BLUE"), 1))
    blob.add("ahead", btf_blob.FORWARD)
    for kind in (btf_blob.VOLATILE, btf_blob.RESTRICT, btf_blob.POINTER):
        blob.add("", kind, word)
    function = blob.add("work", btf_blob.FUNCTION, blob.prototype([word, word, word]))
    variable = blob.add("state", btf_blob.VARIABLE, word, extra=struct.pack("=I", 1))
    blob.add(".data", btf_blob.SECTION, 4, 1, extra=struct.pack("=III", variable, 0, 4))
    blob.add("double", btf_blob.FLOAT, 8)
    blob.add("tagged", btf_blob.DECL_TAG, function, extra=struct.pack("=i", -1))
    blob.add("rcu", btf_blob.TYPE_TAG, word)
    blob.add("wide", btf_blob.ENUM64, 8, 1, extra=struct.pack("=III", blob.name("HUGE"), 0, 1))
    blob.members(STRUCT, "last", 8, [("first", word, 0), ("second", word, 32)])
    assert read_kernel_types([("last", "second")], blob.write(tmp_path / "btf")).offsets == {("last", "second"): 32}


def test_a_tracepoint_has_the_number_of_its_typedef_and_its_arguments_without_the_leading_data_pointer(tmp_path):
    blob = Blob()
    blob.integer("int", 4)
    enter = blob.tracepoint("sys_enter", 2)
    blob.add("btf_trace_", btf_blob.TYPEDEF, 1)  # no pointer to a function: no tracepoint
    exited = blob.tracepoint("sched_process_exit", 1)
    found = read_kernel_types([], blob.write(tmp_path / "btf"))
    assert found.tracepoints == {"sys_enter": (enter, 2), "sched_process_exit": (exited, 1)}


def test_the_task_iterator_is_the_function_of_exactly_that_name(tmp_path):
    blob = Blob()
    word = blob.integer("int", 4)
    over_files = blob.add("bpf_iter_task_file", btf_blob.FUNCTION, blob.prototype([word]))
    iterator = blob.add("bpf_iter_task", btf_blob.FUNCTION, blob.prototype([word]))
    blob.add("bpf_iter_task_vma", btf_blob.FUNCTION, blob.prototype([word]))
    types = read_kernel_types([], blob.write(tmp_path / "btf"))
    assert (types.iterator, types.file_iterator) == (iterator, over_files)


def test_a_kernel_without_type_information_is_told_what_it_was_built_without(tmp_path):
    with pytest.raises(RecordingError) as caught:
        read_kernel_types([], tmp_path / "vmlinux")
    assert str(tmp_path / "vmlinux") in caught.value.what
    assert "CONFIG_DEBUG_INFO_BTF" in caught.value.hint


def test_a_file_of_another_format_is_refused_by_name(tmp_path):
    path = tmp_path / "vmlinux"
    path.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(RecordingError, match="vmlinux: not BTF"):
        read_kernel_types([], path)


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel offers no BTF")
@pytest.mark.skipif(not shutil.which("bpftool"), reason="bpftool, which reads BTF independently, is not installed")
def test_offsets_of_this_kernel_are_those_that_bpftool_reads():
    done = subprocess.run(["bpftool", "btf", "dump", "file", str(VMLINUX)], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"bpftool cannot read the kernel's types: {done.stderr.strip()}")
    lines = iter(done.stdout.splitlines())
    next(line for line in lines if " STRUCT 'linux_binprm' " in line)
    expected = {}
    for line in lines:
        if not line.startswith("\t"):
            break
        name, _, rest = line.strip().partition(" ")
        expected["linux_binprm", name.strip("'")] = int(rest.partition("bits_offset=")[2].split()[0])
    expected.pop(("linux_binprm", "(anon)"), None)
    assert len(expected) > 5
    assert read_kernel_types(expected).offsets == expected
