"""What goes to bpf(2), as bytes: instructions with their maps put in, attributes as the kernel's header lays them out."""

import errno
import os
import struct
import sys

import pytest

from ringtape.recorder import bpf
from ringtape.recorder.bpf import Command, Map, MapType
from ringtape.schemas.errors import PrivilegeError, RecordingError

MOV, EXIT = struct.pack("=BBhi", 0xB7, 0, 0, 7), struct.pack("=BBhi", 0x95, 0, 0, 0)


def load_imm64(register, source, low, high=0):
    """The two-slot instruction: in its first slot the source says what kind of value the immediate is."""
    return struct.pack("=BBhi", 0x18, source << 4 | register, 0, low) + struct.pack("=BBhi", 0, 0, 0, high)


def test_map_numbers_become_descriptors_and_nothing_else_changes():
    code = MOV + load_imm64(1, 1, 0) + load_imm64(2, 2, 3, 64) + EXIT
    assert bpf.relocate(code, {0: 17, 3: 42}) == MOV + load_imm64(1, 1, 17) + load_imm64(2, 2, 42, 64) + EXIT


def test_plain_64_bit_constants_are_left_alone():
    code = load_imm64(1, 0, 5, 6) + EXIT
    assert bpf.relocate(code, {}) == code


def test_the_second_half_of_a_64_bit_constant_is_not_taken_for_an_instruction():
    # The upper half holds bits that look like another load of map 1.
    code = load_imm64(1, 0, 1)[:8] + struct.pack("=BBhi", 0x18, 0x10, 0, 1) + EXIT
    assert bpf.relocate(code, {}) == code


def test_a_map_that_the_program_names_and_nobody_made_is_noticed():
    with pytest.raises(KeyError):
        bpf.relocate(load_imm64(1, 1, 9), {0: 3})


class Kernel:
    """Takes the place of bpf(2): keeps what it is given, and answers."""

    def __init__(self, monkeypatch, *answers):
        self.calls = []
        self.answers = list(answers)
        monkeypatch.setattr(bpf, "bpf", self)

    def __call__(self, command, attributes):
        self.calls.append((command, attributes))
        answer = self.answers.pop(0) if self.answers else 3
        if isinstance(answer, OSError):
            raise answer
        return answer


def test_a_map_is_described_as_union_bpf_attr_has_it(monkeypatch):
    kernel = Kernel(monkeypatch, 5)
    made = bpf.create_map("a_name_longer_than_15_bytes", MapType.ARRAY, 4, 24, 100, bpf.MAP_MMAPABLE)
    ((command, attributes),) = kernel.calls
    assert command is Command.MAP_CREATE
    # map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node at 0..27; map_name[16] at 28;
    # map_ifindex 44, btf_fd 48, btf_key_type_id 52, btf_value_type_id 56.
    assert len(attributes) == 60
    assert struct.unpack_from("=7I", attributes) == (2, 4, 24, 100, 1 << 10, 0, 0)
    assert attributes[28:44] == b"a_name_longer_t\0"
    assert struct.unpack_from("=4I", attributes, 44) == (0, 0, 0, 0)
    assert (made.fd, made.max_entries) == (5, 100)


def test_a_map_of_maps_is_given_a_map_to_know_its_inner_ones_by(monkeypatch):
    kernel = Kernel(monkeypatch)
    bpf.create_map("rings", MapType.ARRAY_OF_MAPS, 4, 4, 2, inner=Map("ring", 9, MapType.RINGBUF, 0, 0, 4096))
    assert struct.unpack_from("=I", kernel.calls[0][1], 20) == (9,)


def test_task_storage_is_made_with_types_of_an_int_key_and_a_value_of_its_size(monkeypatch):
    read, write = os.pipe()  # a descriptor that create_map may close
    os.close(write)
    kernel = Kernel(monkeypatch, read, 6)
    bpf.create_map("state", MapType.TASK_STORAGE, 4, 96, 0)
    assert [command for command, _ in kernel.calls] == [Command.BTF_LOAD, Command.MAP_CREATE]
    attributes = kernel.calls[1][1]
    assert struct.unpack_from("=I", attributes, 16) == (bpf.MAP_NO_PREALLOC,)
    assert struct.unpack_from("=3I", attributes, 48) == (read, 1, 3)
    with pytest.raises(OSError):
        os.fstat(read)  # the types live on in the map; the descriptor is not kept


def test_elements_are_addressed_at_the_offsets_of_the_kernel_s_header(monkeypatch):
    kernel = Kernel(monkeypatch, 0, 0, 0, OSError(errno.ENOENT, "none"), 0)
    one = Map("m", 7, MapType.HASH, 4, 8, 2)
    one.update(b"\1\0\0\0", bytes(8))
    assert len(one.lookup(bytes(4))) == 8
    assert one.keys() == [bytes(4)]
    one.freeze()
    commands = [command for command, _ in kernel.calls]
    assert commands == [Command.MAP_UPDATE_ELEM, Command.MAP_LOOKUP_ELEM, Command.MAP_GET_NEXT_KEY, Command.MAP_GET_NEXT_KEY, Command.MAP_FREEZE]
    # map_fd at 0, key at 8, value or next_key at 16, flags at 24.
    for _, attributes in kernel.calls[:2]:
        fd, key, value, flags = struct.unpack("=IxxxxQQQ", attributes)
        assert (fd, flags) == (7, 0)
        assert key
        assert value
    first, following = (struct.unpack("=IxxxxQQ", attributes) for _, attributes in kernel.calls[2:4])
    assert first[:2] == (7, 0)  # no key: the first one is asked for
    assert following[1] != 0


def test_an_element_that_is_not_there_is_none_and_any_other_failure_is_not(monkeypatch):
    Kernel(monkeypatch, OSError(errno.ENOENT, "none"), OSError(errno.EBADF, "bad"))
    one = Map("m", 7, MapType.HASH, 4, 8, 2)
    assert one.lookup(bytes(4)) is None
    with pytest.raises(OSError, match="bad"):
        one.lookup(bytes(4))


def test_room_that_is_too_small_for_a_value_is_refused_before_the_kernel_writes_beyond_it(monkeypatch):
    kernel = Kernel(monkeypatch)
    with pytest.raises(ValueError, match="16 bytes for a value of 24 in map status"):
        Map("status", 7, MapType.ARRAY, 4, 24, 1).lookup(bytes(4), 16)
    assert kernel.calls == []


def test_keys_end_after_as_many_as_a_map_can_hold_even_if_it_changes_all_the_while(monkeypatch):
    Kernel(monkeypatch, *[0] * 100)
    assert len(Map("m", 7, MapType.HASH, 4, 8, 5).keys()) <= 6


def test_a_program_is_loaded_with_its_attach_type_and_its_tracepoint_at_their_places(monkeypatch):
    kernel = Kernel(monkeypatch, 8)
    assert bpf.load_program("syscalls__sys_enter", MOV + EXIT, bpf.PROG_TYPE_TRACING, bpf.ATTACH_TRACE_RAW_TP, 4711) == 8
    ((command, attributes),) = kernel.calls
    assert command is Command.PROG_LOAD
    # prog_type 0, insn_cnt 4, insns 8, license 16, log_level 24, log_size 28, log_buf 32, kern_version 40, prog_flags 44,
    # prog_name 48, prog_ifindex 64, expected_attach_type 68, ..., attach_btf_id 108.
    assert struct.unpack_from("=II", attributes) == (26, 2)
    assert struct.unpack_from("=II", attributes, 24) == (0, 0)  # without a log: it is faster
    assert attributes[48:64] == b"syscalls__sys_e\0"
    assert struct.unpack_from("=I", attributes, 68) == (23,)
    assert struct.unpack_from("=I", attributes, 108) == (4711,)


def test_a_refused_probe_is_loaded_again_for_the_verifier_s_reason(monkeypatch):
    kernel = Kernel(monkeypatch, OSError(errno.EACCES, "no"), OSError(errno.EACCES, "no"))
    with pytest.raises(RecordingError, match="this kernel refused the probe sys_enter: Permission denied"):
        bpf.load_program("sys_enter", MOV + EXIT, bpf.PROG_TYPE_TRACING)
    assert struct.unpack_from("=II", kernel.calls[1][1], 24) == (1, 1 << 20)


@pytest.mark.parametrize("call", [lambda: bpf.load_program("p", EXIT, 26), lambda: bpf.create_map("m", MapType.ARRAY, 4, 4, 1)])
def test_a_lack_of_privilege_is_an_error_of_its_own_that_names_sudo(monkeypatch, call):
    Kernel(monkeypatch, OSError(errno.EPERM, "no"))
    with pytest.raises(PrivilegeError) as caught:
        call()
    assert "sudo" in caught.value.hint


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.E2BIG, errno.EINVAL])
def test_a_map_that_the_kernel_refuses_is_named(monkeypatch, code):
    Kernel(monkeypatch, OSError(code, "no"))
    with pytest.raises(RecordingError, match="m123"):
        bpf.create_map("m123", MapType.ARRAY, 4, 4, 1)


def test_a_machine_without_a_number_for_bpf_is_told_that_recording_is_not_supported(monkeypatch):
    monkeypatch.setattr(bpf.platform, "machine", lambda: "riscv64")
    with pytest.raises(RecordingError, match="recording on riscv64 is not supported"):
        bpf.bpf(Command.MAP_CREATE, b"")


def test_system_call_numbers_are_those_of_the_tables():
    from ringtape.schemas.abi import syscalls

    assert {machine: syscalls.number(name, "bpf") for machine, name in (("x86_64", "x86_64"), ("aarch64", "arm64"))} == bpf.SYSCALL_BPF


def test_the_wrapper_imports_no_large_library():
    import subprocess

    script = "import sys, ringtape.recorder.bpf; sys.exit('numpy' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_kernel_never_reads_more_than_it_is_given():
    one = Map("m", 7, MapType.ARRAY, 4, 24, 1)
    with pytest.raises(ValueError, match="8 bytes for a value of 24 in map m"):
        one.update(bytes(4), bytes(8))
