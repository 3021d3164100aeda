"""Names of code wherever it lies: in every kind of program, in libraries loaded late, made at run time, in the kernel's own page."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import ringtape
from ringtape.analysis.analyses.hot import hot
from ringtape.analysis.stacks import stacks
from tests.kernel.conftest import PROGRAMS
from tests.kernel.recording import ringtape as run_verb

PROFILE = ("--tables", "processes", "--profile", "999")
LEAST = 10
"""Samples of 400 ms of CPU time, of which there should be 400: whatever the hypervisor takes away."""


@pytest.fixture(scope="module")
def build(open_folder):
    """Compile the program of places with flags."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")

    def compiled(name, *flags, compiler="gcc", source=PROGRAMS / "places.c"):
        path = open_folder / name
        done = subprocess.run(
            [compiler, "-O1", "-fno-omit-frame-pointer", "-Wno-format-truncation", *flags, "-o", path, source, "-ldl"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            pytest.skip(f"{compiler} {' '.join(flags)}: {done.stderr[-300:]}")
        return path

    return compiled


def functions(trace, **options):
    return {(row["function"], row["module"]): row["self_count"] for row in hot(trace, **options).iter_rows(named=True)}


KINDS = {
    "pie": ("-pie", "-fPIE"),
    "fixed": ("-no-pie",),
    "static": ("-static",),
    "static_pie": ("-static-pie", "-fPIE"),
    "one_segment": ("-Wl,-z,noseparate-code",),
    "huge_pages": ("-no-pie", "-Wl,-z,max-page-size=0x200000"),
    "long_build_id": (f"-Wl,--build-id=0x{'5a' * 32}",),
    "short_build_id": ("-Wl,--build-id=0x5a5b",),
    "no_build_id": ("-Wl,--build-id=none",),
}


@pytest.mark.parametrize("kind", KINDS)
def test_functions_of_every_kind_of_program_have_names(record, build, kind):
    program = build(f"places_{kind}", *KINDS[kind])
    done = record(*PROFILE, "--", program, "own")
    done.trace.check()
    found = functions(ringtape.open(done.path))
    assert found["own_turn", program.name] > LEAST
    assert not [name for name, module in found if module == program.name and "+0x" in name]


def test_a_program_without_a_build_id_that_was_changed_since_gives_no_names(record, build):
    program = build("changed", "-Wl,--build-id=none")
    trace = ringtape.open(record(*PROFILE, "--", program, "own").path)
    assert ("own_turn", "changed") in functions(trace)
    os.utime(program)
    assert sum(count for (name, _), count in functions(trace).items() if name.startswith("changed+0x")) > LEAST
    # Whoever names a folder says that the file there is the one.
    assert "own_turn" in stacks(trace, symbols=program.parent).names


def test_a_library_that_was_loaded_late_has_its_names(record, build):
    program = build("loads", "-rdynamic")
    library = build("plugin.so", "-DPLUGIN", "-shared", "-fPIC")
    found = functions(ringtape.open(record(*PROFILE, "--", program, "library", library).path))
    assert found["plugin_turn", "plugin.so"] > LEAST
    assert found["own_turn", "loads"] > 0


def test_a_process_has_the_names_of_each_program_that_it_executed(record, build):
    first, second = build("first", "-static"), build("second", "-pie", "-fPIE")
    trace = ringtape.open(record(*PROFILE, "--", first, "exec", second, "own").path)
    found = functions(trace)
    assert found["own_turn", "first"] > LEAST
    assert found["own_turn", "second"] > LEAST
    assert trace.samples.collect()["pid"].n_unique() == 1


def test_two_processes_of_one_program_at_different_addresses_share_its_names(record, build):
    trace = ringtape.open(record(*PROFILE, "--", build("twice", "-pie", "-fPIE"), "twice").path)
    # The launcher's own executing is a process too; only those two worked.
    found = stacks(trace)
    place = found.names.index("own_turn")
    workers = {pid for pid, frames in zip(found.groups["pid"], found.frames, strict=True) if place in frames}
    assert len(workers) == 2
    for pid in workers:
        assert functions(trace.process(pid))["own_turn", "twice"] > LEAST
    assert found.names.count("own_turn") == 1


def test_code_made_at_run_time_is_named_as_its_maker_says_even_after_its_map_is_gone(record, build):
    done = record(*PROFILE, "--", build("made", "-pie", "-fPIE"), "made")
    trace = ringtape.open(done.path)
    (pid,) = trace.samples.collect()["pid"].unique().to_list()
    Path(f"/tmp/perf-{pid}.map").unlink()
    done.trace.check()
    found = functions(trace)
    name = "py::<module> </script>\\x1b[31m;made.js:3"
    assert found[name, "[jit]"] > LEAST
    assert not [function for function, _ in found if function == "outdated"]
    assert run_verb("verify", done.path).status == 0
    assert "</script>\\x1b" not in run_verb("flame", done.path).stdout.decode()


def test_the_kernel_s_own_page_in_every_program_has_names(record, build):
    found = functions(ringtape.open(record(*PROFILE, "--", build("clock", "-pie", "-fPIE"), "clock").path))
    inside = {name: count for (name, module), count in found.items() if module == "[vdso]"}
    assert inside
    assert sum(count for name, count in inside.items() if "clock_gettime" in name) > 0.9 * sum(inside.values()) > LEAST


def test_names_of_c_plus_plus_are_as_they_were_written(record, build, tmp_path):
    if shutil.which("c++filt") is None and shutil.which("llvm-cxxfilt") is None:
        pytest.skip("c++filt is not installed")
    source = tmp_path / "a.cc"
    source.write_text(
        "#include <ctime>\nstatic volatile unsigned long sink;\nnamespace shop { template <class T> struct Till { __attribute__((noinline)) "
        "void count(T n) { for (T i = 0; i < n; i++) sink = sink * 6364136223846793005UL + 1; } }; }\n"
        "int main() { shop::Till<long> till; std::timespec t; do { till.count(20000); clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); } "
        "while (t.tv_nsec < 400000000 && !t.tv_sec); }\n"
    )
    program = build("cc", compiler="g++", source=source)
    path = record(*PROFILE, "--", program).path
    assert functions(ringtape.open(path))["shop::Till<long>::count(long)", "cc"] > LEAST
    lines = run_verb("flame", "--format", "folded", path).stdout.decode().splitlines()
    assert any(";shop::Till<long>::count(long) " in line for line in lines)
