"""Functions of ELF files, real ones and broken ones."""

import os
import random
import shutil
import struct
import subprocess

import numpy as np
import pytest

from ringtape.analysis.address_spaces import File
from ringtape.analysis.symbols import Functions, Symbols, functions_of, kernel_functions
from ringtape.schemas.elf import Elf, NotElfError, build_id_of


def elf64(functions, build_id=b"\x01\x02\x03\x04"):
    """An ELF file of 0x1000 bytes of code at 0x401000 and these functions: (name, value, size, info)."""
    strings = b"\0" + b"".join(name + b"\0" for name, *_ in functions)
    symbols, at = bytes(24), 1
    for name, value, size, info in functions:
        symbols += struct.pack("<IBBHQQ", at, info, 0, 1, value, size)
        at += len(name) + 1
    note = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id
    note_at = 64 + 2 * 56
    code_at = 0x1000
    symbols_at = 0x2000
    strings_at = symbols_at + len(symbols)
    sections_at = strings_at + len(strings)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x401000, 64, sections_at, 0, 64, 56, 2, 64, 3, 0)
    segments = struct.pack("<IIQQQQQQ", 1, 5, code_at, 0x401000, 0, 0x1000, 0x1000, 0x1000)
    segments += struct.pack("<IIQQQQQQ", 4, 4, note_at, 0, 0, len(note), len(note), 4)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, symbols_at, len(symbols), 2, 0, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, strings_at, len(strings), 0, 0, 1, 0)
    front = (head + segments + note).ljust(symbols_at, b"\0")
    return front + symbols + strings + sections


FUNCTIONS = [(b"first", 0x401000, 0x10, 0x12), (b"second", 0x401020, 0x10, 0x12), (b"alias", 0x401020, 4, 2), (b"data", 0x401030, 8, 0x11)]


def places(*values):
    return np.array(values, np.uint64)


def test_names_of_places_in_a_file(tmp_path):
    path = tmp_path / "tool"
    path.write_bytes(elf64(FUNCTIONS))
    assert build_id_of(path) == b"\x01\x02\x03\x04"
    file = File(b"\x01\x02\x03\x04", os.fsencode(path))
    # Between functions that say how long they are there is none; outside of the code there is nothing.
    assert Symbols().names(file, places(0x1000, 0x100F, 0x1010, 0x1020, 0x1030, 0x9000)) == [
        "first",
        "first",
        "tool+0x1010",
        "second",
        "tool+0x1030",
        "tool+0x9000",
    ]


def test_another_build_id_is_another_program(tmp_path):
    path = tmp_path / "tool"
    path.write_bytes(elf64(FUNCTIONS))
    assert Symbols().names(File(b"\x09" * 20, os.fsencode(path)), places(0x1000)) == ["tool+0x1000"]
    (tmp_path / "dir").mkdir()
    shutil.copy(path, tmp_path / "dir" / "tool")
    path.write_bytes(b"replaced")
    file = File(b"\x01\x02\x03\x04", os.fsencode(path))
    assert Symbols().names(file, places(0x1000)) == ["tool+0x1000"]
    assert Symbols(tmp_path / "dir").names(file, places(0x1000)) == ["first"]


@pytest.mark.parametrize("path", [b"//anon", b"[vdso]", b"", b"/dev/zero", b"relative", b"/proc/self/mem", b"/a\xff\n\x1b[31m"])
def test_what_is_no_file_keeps_its_place(path):
    (name,) = Symbols().names(File(b"", path), places(0x10))
    assert name.endswith("+0x10")
    assert name.isprintable()


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert Symbols().names(File(b"", os.fsencode(tmp_path / "pipe")), places(1)) == ["pipe+0x1"]


def test_paths_do_not_leave_the_folder(tmp_path):
    (tmp_path / "tool").write_bytes(elf64(FUNCTIONS))
    (tmp_path / "dir").mkdir()
    file = File(b"\x01\x02\x03\x04", b"/../tool")
    candidates = list(Symbols(tmp_path / "dir")._candidates(file))
    assert all(".." not in path.parts for path in candidates[:2])


def test_broken_files_are_refused_or_read_and_never_harm(tmp_path):
    whole = elf64(FUNCTIONS)
    path = tmp_path / "tool"
    draw = random.Random(7)
    for _ in range(1500):
        broken = bytearray(whole[: draw.choice((len(whole), draw.randrange(len(whole))))])
        for _ in range(draw.randrange(1, 6)):
            if broken:
                # Mostly in the headers, where offsets and sizes are.
                area = draw.choice((min(200, len(broken)), len(broken)))
                at = draw.randrange(area) if draw.random() < 0.6 else draw.randrange(max(0, len(broken) - 260), len(broken))
                broken[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        path.write_bytes(broken)
        try:
            with Elf(path) as elf:
                elf.build_id  # noqa: B018
                elf.address_of(0x1000)
                functions_of(elf).at(places(0x401000, 2**64 - 1))
        except NotElfError:
            pass
        Symbols().names(File(b"\x01\x02\x03\x04", os.fsencode(path)), places(0x1000))


def test_the_kernel_s_functions():
    addresses = np.array([-256, -4096, -4096], np.int64)
    known = kernel_functions(addresses, [b"last", b"first", b"again"])
    assert known.at(places(2**64 - 4096, 2**64 - 257, 2**64 - 2, 5)) == [b"first", b"first", b"last", None]
    assert kernel_functions(np.empty(0, np.int64), []).at(places(1)) == [None]


def test_an_unknown_length_ends_at_the_next_function_or_after_a_while():
    known = Functions.of(places(0x1000, 0x2000), places(0, 0), [b"a", b"b"])
    assert known.at(places(0x1FFF, 0x2000 + (1 << 20) - 1, 0x2000 + (1 << 20))) == [b"a", b"b", None]


def test_a_real_library_against_nm(tmp_path):
    if shutil.which("nm") is None or shutil.which("gcc") is None:
        pytest.skip("binutils and gcc are not installed")
    source = tmp_path / "a.c"
    source.write_text(
        "int one(int x) { return x * 3; }\nstatic int two(int x) { return x + 5; }\nint main(int n, char **v) { return one(n) + two(n); }\n"
    )
    for flags in (["-O0"], ["-O0", "-m32"], ["-O0", "-static"]):
        path = tmp_path / "out"
        if subprocess.run(["gcc", *flags, "-o", path, source], capture_output=True, check=False).returncode:
            continue
        listed = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
        wanted = {name: int(value, 16) for value, kind, name in (line.split() for line in listed.splitlines() if len(line.split()) == 3)}
        with Elf(path) as elf:
            known = functions_of(elf)
            for name in ("one", "two", "main"):
                assert known.at(places(wanted[name] + 4)) == [name.encode()]
            assert build_id_of(path) == elf.build_id
