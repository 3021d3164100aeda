"""From text to bytecode: which BCC is taken, what the cache is trusted with, and what the compiler makes of each set of tables."""

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from ringtape.recorder import compile as compiling
from ringtape.recorder import program
from ringtape.recorder.btf import VMLINUX, KernelTypes
from ringtape.recorder.compile import CHILD, PYTHONS, bytecode, find_bcc
from ringtape.recorder.options import choose_tables
from ringtape.schemas.errors import RecordingError
from ringtape.schemas.layout import record_dtype
from ringtape.schemas.table import table, tables

RINGS = [name for name, one in tables().items() if one.origin == "ring"]
EVERY = [(name,) for name in RINGS] + [tuple(name for name in RINGS if name != left_out) for left_out in RINGS] + [tuple(RINGS)]
CHOICES = sorted({choose_tables(",".join(names), [name for name in names if name == "events"]) for names in EVERY} | {choose_tables(None)})
"""Each table with what it needs, all but one, all, and the default: every pair is together in one and apart in another."""
needs_bcc = pytest.mark.skipif(find_bcc() is None, reason="the distribution's BCC is not installed")
needs_btf = pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel offers no BTF")
needs_python = pytest.mark.skipif(not Path(PYTHONS[0]).exists(), reason="the distribution's python3 is not installed")


def place(folder, version='__version__ = "0.31.0"\n', libbcc=True):
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "version.py").write_text(version)
    if libbcc:
        (folder / "libbcc.py").touch()


def look_in(monkeypatch, *patterns):
    monkeypatch.setattr(compiling, "PACKAGES", tuple(map(str, patterns)))


def test_the_distribution_s_bcc_is_found_with_its_version_by_its_files_alone(tmp_path, monkeypatch):
    place(tmp_path / "python3.13" / "site-packages" / "bcc")
    look_in(monkeypatch, tmp_path / "nowhere", tmp_path / "python3*" / "site-packages" / "bcc")
    found = find_bcc()
    assert (found.folder, found.version) == (tmp_path / "python3.13" / "site-packages" / "bcc", "0.31.0")


def test_pypi_s_package_of_the_same_name_is_passed_over(tmp_path, monkeypatch):
    place(tmp_path / "first" / "bcc", libbcc=False)
    place(tmp_path / "second" / "bcc", version="__version__ = '0.26.0'\n")
    look_in(monkeypatch, tmp_path / "first" / "bcc", tmp_path / "second" / "bcc")
    assert find_bcc().version == "0.26.0"
    look_in(monkeypatch, tmp_path / "first" / "bcc")
    assert find_bcc() is None


def test_a_bcc_that_does_not_tell_its_version_is_still_found(tmp_path, monkeypatch):
    place(tmp_path / "bcc", version="")
    look_in(monkeypatch, tmp_path / "bcc")
    assert find_bcc().version == "unknown"


@dataclass
class Compiler:
    """Takes the compiler's place: every size is 4, every program one exit."""

    runs: int = 0
    version: str = "0.29.0"

    def __call__(self, text, functions):
        self.runs += 1
        four = "b700000004000000" + "9500000000000000"
        return {"version": self.version, "functions": {name: four if name.startswith("map_") else "9500000000000000" for name in functions}}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder for the cache, and this kernel's types without this kernel."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(compiling, "cache_folder", lambda: folder)
    monkeypatch.setattr(compiling, "find_bcc", lambda: compiling.BccPackage(Path("/bcc"), "0.29.0"))
    monkeypatch.setattr(compiling, "read_kernel_types", lambda members, **_: KernelTypes(dict.fromkeys(members, 8), {"sys_enter": (5, 2)}, 6))
    return folder


@pytest.fixture
def compiler(cache, monkeypatch):
    made = Compiler()
    monkeypatch.setattr(compiling, "_compile", made)
    return made


def compiled_again(compiler):
    before = compiler.runs
    made = bytecode(("syscalls",), 2)
    assert made.code["syscalls__sys_enter"] == bytes.fromhex("9500000000000000")
    assert made.sizes["config"] == (4, 4)
    assert made.tracepoints == {"sys_enter": (5, 2)}
    assert made.cached == (compiler.runs == before)
    return compiler.runs > before


def test_what_was_compiled_is_taken_from_the_cache_the_next_time(cache, compiler):
    assert compiled_again(compiler)
    assert not compiled_again(compiler)
    (entry,) = cache.iterdir()
    assert entry.stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700


def test_other_tables_or_another_number_of_cpus_are_another_entry(cache, compiler):
    bytecode(("syscalls",), 2)
    bytecode(("syscalls",), 4)
    bytecode(("processes", "syscalls"), 2)
    assert compiler.runs == 3
    assert len(list(cache.iterdir())) == 3


def test_another_version_of_bcc_compiles_anew(cache, compiler, monkeypatch):
    bytecode(("syscalls",), 2)
    monkeypatch.setattr(compiling, "find_bcc", lambda: compiling.BccPackage(Path("/bcc"), "0.31.0"))
    assert compiled_again(compiler)


def test_a_changed_probe_compiles_anew(cache, compiler, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(program.PROBES, tmp_path / "probes")
    monkeypatch.setattr(program, "PROBES", tmp_path / "probes")
    assert compiled_again(compiler)
    with open(tmp_path / "probes" / "syscalls.bpf.c", "a") as file:
        file.write("/* changed */\n")
    assert compiled_again(compiler)


def test_an_entry_that_others_may_write_is_refused(cache, compiler):
    compiled_again(compiler)
    (entry,) = cache.iterdir()
    for mode in (0o620, 0o602):
        entry.chmod(mode)
        assert compiled_again(compiler)
        assert entry.stat().st_mode & 0o777 == 0o600  # and replaced by one of our own


def test_a_folder_that_others_may_write_is_neither_read_nor_written(cache, compiler):
    compiled_again(compiler)
    (entry,) = cache.iterdir()
    before = entry.stat()
    cache.chmod(0o777)
    assert compiled_again(compiler)
    assert (entry.stat().st_ino, entry.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_link_in_the_place_of_entry_or_folder_is_refused(cache, compiler, tmp_path):
    compiled_again(compiler)
    (entry,) = cache.iterdir()
    elsewhere = tmp_path / "elsewhere.json"
    entry.rename(elsewhere)
    entry.symlink_to(elsewhere)
    assert compiled_again(compiler)
    assert not entry.is_symlink()
    cache.rename(tmp_path / "moved")
    cache.symlink_to(tmp_path / "moved")
    assert compiled_again(compiler)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_an_entry_or_folder_of_another_user_is_refused(cache, compiler):
    compiled_again(compiler)
    (entry,) = cache.iterdir()
    os.chown(entry, 65534, 65534)
    assert compiled_again(compiler)
    os.chown(cache, 65534, 65534)
    assert compiled_again(compiler)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"'])
def test_a_damaged_entry_is_ignored_and_replaced(cache, compiler, content):
    compiled_again(compiler)
    (entry,) = cache.iterdir()
    entry.write_bytes(content)
    assert compiled_again(compiler)
    assert not compiled_again(compiler)


def test_an_entry_that_lacks_something_is_ignored(cache, compiler):
    compiled_again(compiler)
    (entry,) = cache.iterdir()
    entry.write_text("{}")
    assert compiled_again(compiler)


def test_an_entry_of_another_text_is_compiled_anew(cache, compiler):
    compiled_again(compiler)
    (entry,) = cache.iterdir()
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "text": hashlib.sha256(b"another").hexdigest()}))
    assert compiled_again(compiler)


def test_recording_works_without_a_cache_that_can_be_written(compiler, monkeypatch):
    monkeypatch.setattr(compiling, "cache_folder", lambda: Path("/proc/no/such/folder"))
    assert compiled_again(compiler)
    assert compiled_again(compiler)


def test_an_ordinary_user_s_cache_lies_in_his_home_and_root_s_where_only_root_writes(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/somebody/.cache")
    assert compiling.cache_folder() == Path("/home/somebody/.cache/ringtape")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/other")
    assert compiling.cache_folder() == Path("/home/other/.cache/ringtape")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/somebody/.cache")
    assert compiling.cache_folder() == Path("/var/cache/ringtape")


def test_a_map_size_that_is_no_constant_is_refused(cache, compiler, monkeypatch):
    monkeypatch.setattr(compiling, "_compile", lambda text, functions: {"version": "1", "functions": dict.fromkeys(functions, "95" + "00" * 7)})
    with pytest.raises(RecordingError, match="something else than a constant"):
        bytecode(("syscalls",), 2)


def child(request, *options, python=PYTHONS[0]):
    done = subprocess.run([python, "-I", *options, str(CHILD)], input=request, capture_output=True, timeout=60, check=False)
    return json.loads(done.stdout)


@needs_python
def test_the_child_answers_that_bcc_cannot_be_imported_where_it_cannot():
    # -S: without the distribution's packages.
    answer = child(json.dumps({"text": "", "headers": "/", "functions": []}).encode(), "-S")
    assert answer["error"].startswith("BCC cannot be imported: ")


@needs_python
@needs_bcc
def test_the_child_answers_what_the_compiler_refuses_as_json():
    request = {"text": "int broken(void *ctx) { return missing; }\n", "headers": str(program.HEADERS), "functions": ["broken"]}
    answer = child(json.dumps(request).encode())
    assert set(answer) == {"error"}
    assert "Failed to compile" in answer["error"]


@needs_python
@needs_bcc
def test_a_refusal_of_the_compiler_becomes_one_error_with_its_words():
    with pytest.raises(RecordingError) as caught:
        compiling._compile("int broken(void *ctx) { return missing_name; }\n", ["broken"])
    assert "BCC could not compile the probes" in caught.value.what
    assert "missing_name" in caught.value.what
    assert "ringtape doctor" in caught.value.hint


@needs_python
def test_a_machine_without_bcc_is_told_which_packages_have_it(tmp_path, monkeypatch):
    stand_in = tmp_path / "child.py"
    stand_in.write_text('print(\'{"error": "BCC cannot be imported: No module named bcc"}\')\n')
    monkeypatch.setattr(compiling, "CHILD", stand_in)
    with pytest.raises(RecordingError) as caught:
        compiling._compile("", [])
    assert "python3-bpfcc" in caught.value.hint


@needs_python
def test_a_compiler_that_dies_is_an_error_with_its_status(tmp_path, monkeypatch):
    stand_in = tmp_path / "child.py"
    stand_in.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(compiling, "CHILD", stand_in)
    with pytest.raises(RecordingError, match="status -11"):
        compiling._compile("", [])


def test_a_machine_without_the_distribution_s_python_is_told_so(monkeypatch):
    monkeypatch.setattr(compiling, "PYTHONS", ("/nonexistent/python3",))
    with pytest.raises(RecordingError, match="no python3 of the distribution"):
        compiling._compile("", [])


@needs_python
@needs_bcc
@needs_btf
@pytest.mark.parametrize("names", CHOICES, ids=lambda names: "+".join(name for name in names if name in RINGS))
def test_every_choice_of_tables_compiles_and_its_records_are_as_large_as_numpy_takes_them(names, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "cache_folder", lambda: tmp_path)
    made = bytecode(names, 2)
    assert not made.cached
    for name in RINGS:
        if name in names and not table(name).in_ring_buffer:
            assert made.sizes[f"ring_{name}"] == (4, record_dtype(table(name)).itemsize)
    assert made.sizes["losses"] == (8, 32)
    assert all(len(made.code[name]) % 8 == 0 and made.code[name] for name in made.probes)
    assert {name for name in RINGS if f"counters_{name}" in made.sizes} == {name for name in RINGS if name in names}
