"""Stacks of programs whose functions are known to take known time."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import polars as pl
import pytest

import ringtape
from ringtape.analysis.address_spaces import File
from ringtape.analysis.analyses.hot import hot
from ringtape.analysis.stacks import stacks
from ringtape.schemas.elf import build_id_of
from tests.kernel.recording import ringtape as run_verb
from tests.kernel.recording import wait_for
from tests.kernel.test_killed import recovered

LEAN = ("--tables", "processes")
MS = 1_000_000


def functions(trace, **options):
    return {row["function"]: row for row in hot(trace, **options).iter_rows(named=True)}


def test_samples_are_shared_out_as_the_work_was(record, programs):
    done = record(*LEAN, "--profile", "499", "--", programs("stacks"), "hot", "1500")
    done.trace.check()
    trace = ringtape.open(done.path)
    found = functions(trace)
    taken = found["work"]["count"]
    # Sampling counts: five standard deviations of a binomial of these many draws, and as much again for the machine.
    assert found["hot_a"]["self_count"] / (found["hot_a"]["self_count"] + found["hot_b"]["self_count"]) == pytest.approx(2 / 3, abs=0.1)
    assert found["hot_a"]["self_count"] + found["hot_b"]["self_count"] > 0.8 * taken
    # The timer does not fire while the hypervisor has taken the CPU away.
    assert 0.4 <= taken / (499 * int(done.stdout) / 1e9) <= 1.3
    for name in ("hot_a", "hot_b"):
        assert found[name]["module"] == "stacks"
    assert found["main"]["count"] == pytest.approx(taken, abs=2)
    assert found["work"]["total"] == pytest.approx(taken * 1e9 / 499, rel=1e-6)
    assert trace.samples.filter(pl.col("kind") != 0).collect().height == 0


def test_time_off_the_cpu_is_in_the_functions_that_slept(record, programs):
    done = record(*LEAN, "--offcpu-stacks", "1ms", "--", programs("stacks"), "nap", "8")
    done.trace.check()
    trace = ringtape.open(done.path)
    longs, shorts = map(int, done.stdout.split())
    found = functions(trace, of="offcpu")
    for name, told, least in (("nap_long", longs, 8 * 30 * MS), ("nap_short", shorts, 8 * 5 * MS)):
        # Who is preempted on the way to sleep, on a busy machine, until the time is over does not block: no row.
        assert 5 <= found[name]["count"] <= 8
        # Off the CPU from the sleep's beginning to the return to the CPU: within what the program saw around it.
        assert 0.5 * least <= found[name]["total"] <= told
    kernel = {name for name in found if name.endswith("_[k]")}
    assert any(name.startswith("schedule") for name in kernel)
    assert any("nanosleep" in name for name in kernel)
    assert any(name.startswith(("do_syscall_64", "el0_svc")) for name in kernel)
    # Nothing of the recorder's own machinery is in a stack.
    assert not [name for name in kernel if "bpf" in name]
    assert (trace.samples.collect()["dur"] >= MS).all()


def test_shorter_times_off_the_cpu_are_left_out(record, programs):
    trace = ringtape.open(record(*LEAN, "--offcpu-stacks", "20ms", "--", programs("stacks"), "nap", "4").path)
    found = functions(trace, of="offcpu")
    assert 2 <= found["nap_long"]["count"] <= 4
    assert "nap_short" not in found or found["nap_short"]["total"] >= 20 * MS * found["nap_short"]["count"]


def test_a_stripped_program_is_named_by_its_file_and_place_and_a_debug_file_brings_the_names_back(record, programs, open_folder, tmp_path):
    stripped = open_folder / "bare"
    subprocess.run(["strip", "-o", stripped, programs("stacks")], check=True)
    path = record(*LEAN, "--profile", "499", "--", stripped, "hot", "300").path
    trace = ringtape.open(path)
    found = functions(trace)
    assert not {"hot_a", "hot_b", "work"} & set(found)
    assert sum(row["self_count"] for name, row in found.items() if name.startswith("bare+0x")) > 50
    # The program itself with its symbols has the same build id.
    folder = tmp_path / "symbols"
    folder.mkdir()
    identity = build_id_of(stripped).hex()
    assert identity
    debug = folder / ".build-id" / identity[:2] / f"{identity[2:]}.debug"
    debug.parent.mkdir(parents=True)
    shutil.copy(programs("stacks"), debug)
    with_names = stacks(trace, symbols=folder)
    assert {"hot_a", "hot_b", "work", "main"} <= set(with_names.names)


def test_a_program_that_was_replaced_since_is_not_taken_for_the_one_that_ran(record, programs, open_folder):
    program = open_folder / "replaced"
    shutil.copy(programs("stacks"), program)
    path = record(*LEAN, "--profile", "499", "--", program, "hot", "300").path
    program.unlink()
    shutil.copy("/bin/true", program)
    found = functions(ringtape.open(path))
    assert "hot_a" not in found
    assert sum(row["self_count"] for name, row in found.items() if name.startswith("replaced+0x")) > 50
    assert File(build_id_of(programs("stacks")), os.fsencode(program)) in [
        File(row["build_id"], row["path"]) for row in ringtape.open(path).mappings.collect().iter_rows(named=True)
    ]


def test_a_fork_without_an_exec_keeps_its_parent_s_names(record, programs):
    done = record(*LEAN, "--profile", "499", "--", programs("stacks"), "fork", "400")
    trace = ringtape.open(done.path)
    found = functions(trace.process(int(done.stdout)))
    assert found["in_child"]["count"] > 50
    assert found["in_child"]["count"] == pytest.approx(found["work"]["count"], abs=2)


def test_a_process_that_already_ran_is_named_from_its_maps_and_its_sleep_is_told_at_the_end(start, programs):
    with subprocess.Popen([programs("stacks"), "hot", "60000"], stdout=subprocess.DEVNULL) as busy:
        recorder = start(*LEAN, "--profile", "499", "--offcpu-stacks", "0", "--pid", str(busy.pid)).wait_until_recording()
        wait_for(lambda: any(line.get("table") == "samples" for line in recorder.manifest()), "samples are sealed")
        done = recorder.stop()
        busy.kill()
    done.trace.check()
    found = functions(ringtape.open(done.path))
    assert found["hot_a"]["self_count"] > 20
    assert found["main"]["count"] >= 0.9 * found["work"]["count"]


def test_a_sleep_that_goes_on_when_recording_ends_has_its_stack(start, programs):
    # A shell waits for it, so that the recording begins before it sleeps.
    recorder = start(*LEAN, "--offcpu-stacks", "--", programs("stacks"), "wait", "0")
    recorder.wait_until_recording()
    wait_for(lambda: recorder.said("stdout"), "the program sleeps")
    wait_for(lambda: any(line.get("table") == "processes" for line in recorder.manifest()), "rows are sealed")
    os.kill(recorder.process.pid, signal.SIGINT)
    done = recorder.wait()
    trace = ringtape.open(done.path)
    last = trace.samples.filter(pl.col("kind") == 2).collect()
    assert last.height == 1
    assert last["seq"].to_list() == [-1]
    assert functions(trace, of="offcpu")["nap_for_ever"]["count"] == 1
    done.trace.check_books()


def asleep(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("target", ["pid", "all"])
def test_a_sleep_that_began_before_the_recording_has_its_stack(start, programs, target):
    with subprocess.Popen([programs("stacks"), "wait", "0"], stdout=subprocess.PIPE) as sleeper:
        wait_for(lambda: asleep(sleeper.pid), "it sleeps")
        recorder = start(*LEAN, "--offcpu-stacks", *(["--pid", str(sleeper.pid)] if target == "pid" else ["--all"])).wait_until_recording()
        done = recorder.stop()
        sleeper.kill()
    trace = ringtape.open(done.path)
    mine = trace.samples.filter(pl.col("pid") == sleeper.pid).collect()
    assert mine.select("kind", pl.col("state") & 0xFF, "seq").rows() == [(2, 1, -1)]  # above these the kernel has flags
    assert mine["ts"][0] + mine["dur"][0] >= trace.span[1] - 1 * MS
    assert mine["dur"][0] > 0
    found = functions(trace.process(sleeper.pid), of="offcpu")
    assert found["nap_for_ever"]["count"] == found["main"]["count"] == 1
    assert "do_syscall_64_[k]" in found
    done.trace.check_books()


def test_a_sleep_that_began_before_the_recording_is_told_when_it_ends(start, programs):
    with subprocess.Popen([programs("stacks"), "wait", "0"], stdout=subprocess.PIPE) as sleeper:
        wait_for(lambda: asleep(sleeper.pid), "it sleeps")
        recorder = start(*LEAN, "--offcpu-stacks", "--pid", str(sleeper.pid)).wait_until_recording()
        sleeper.send_signal(signal.SIGSTOP)  # wakes it into another sleep
        wait_for(lambda: not asleep(sleeper.pid), "it is stopped")
        done = recorder.stop()
        sleeper.kill()
    rows = ringtape.open(done.path).samples.sort("ts").select("kind", pl.col("state") & 0xFF).collect().rows()
    assert rows[0] == (1, 1)
    assert rows[-1][0] == 2
    done.trace.check_books()


def test_lost_samples_are_counted(start, programs):
    recorder = start(*LEAN, "--profile", "10000", "--ring-size", "samples=8K,processes=1M", "--", programs("stacks"), "hot", "400")
    done = recorder.wait()
    done.trace.check_books()
    trace = ringtape.open(done.path)
    assert trace.lost()["samples"] > 0
    assert run_verb("flame", "--format", "folded", done.path).stderr.startswith("ringtape: note: ")
    assert run_verb("verify", done.path).status == 0


def test_a_killed_recorder_s_samples_are_recovered_with_their_names(start, programs):
    with subprocess.Popen([programs("stacks"), "hot", "60000"], stdout=subprocess.DEVNULL) as busy:
        recorder = start(*LEAN, "--profile", "499", "--pid", str(busy.pid)).wait_until_recording()
        wait_for(lambda: any(line.get("table") == "samples" for line in recorder.manifest()), "samples are sealed")
        recorder.process.kill()
        recorder.process.wait()
        busy.kill()
    assert recovered(recorder.path).table("samples").num_rows > 0
    assert functions(ringtape.open(recorder.path))["hot_a"]["self_count"] > 20


def test_the_three_forms_are_what_other_programs_read(record, programs, tmp_path):
    path = record(*LEAN, "--profile", "499", "--offcpu-stacks", "--", programs("stacks"), "hot", "300").path
    trace = ringtape.open(path)
    whole = int(stacks(trace).groups["time"].sum())
    lines = run_verb("flame", "--format", "folded", path).stdout.decode().splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == whole
    assert any(";main;work;hot_a" in line for line in lines)
    content = json.loads(run_verb("flame", "--format", "speedscope", path).stdout)
    assert content["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert sum(one["endValue"] for one in content["profiles"]) == whole
    for one in content["profiles"]:
        assert one["type"] == "sampled"
        assert len(one["samples"]) == len(one["weights"])
        assert sum(one["weights"]) == one["endValue"]
        assert all(0 <= frame < len(content["shared"]["frames"]) for sample in one["samples"] for frame in sample)
    target = tmp_path / "a.svg"
    assert run_verb("flame", path, "--output", target).status == 0
    root = ET.parse(target).getroot()
    named = [one.get("data-name") for one in root.iter("{http://www.w3.org/2000/svg}g")]
    assert {"hot_a", "hot_b", "work", "main"} <= set(named)
    assert run_verb("flame", path, "--offcpu", "--output", target).status == 0


def test_everything_of_the_machine_is_sampled(start, programs):
    recorder = start(*LEAN, "--all", "--profile", "499").wait_until_recording()
    subprocess.run([programs("stacks"), "hot", "300"], check=True, stdout=subprocess.DEVNULL)
    done = recorder.stop()
    done.trace.check()
    found = functions(ringtape.open(done.path))
    assert found["hot_a"]["self_count"] > 20


def test_stacks_that_were_not_asked_for_say_how_to_record_them(record, programs):
    path = record(*LEAN, "--profile", "99", "--", "true").path
    assert "--offcpu-stacks" in run_verb("flame", "--offcpu", path).stderr
    path = record("--tables", "processes", "--", "true").path
    for verb in ("flame", "hot"):
        assert "--tables samples" in run_verb(verb, path).stderr
