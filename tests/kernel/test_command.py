"""The command runs as it would without the recorder: its surroundings, its user, its privileges, its exit status."""

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ringtape.recorder.privileges import capabilities
from tests.kernel.load import Load
from tests.kernel.recording import ENVIRONMENT, RINGTAPE, check_quiet, wait_for

NOBODY = 65534
SUDO = {"SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY), "SUDO_USER": "nobody", "SUDO_COMMAND": "ringtape"}


@pytest.fixture
def nobodys(open_folder, tmp_path):
    """A folder of the user who called sudo."""
    if subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", "--clear-groups", sys.executable, "-c", "import ringtape"], env=ENVIRONMENT, check=False
    ).returncode:
        pytest.skip("an ordinary user cannot read this checkout or its Python")
    folder = open_folder / tmp_path.name
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    return folder


def surroundings(words, **options):
    """Start a program with everything unusual that a shell can arrange, and return what it says."""
    read, write = os.pipe()
    os.write(write, b"hello")
    os.close(write)

    def arrange():
        os.dup2(read, 7)
        os.umask(0o027)
        os.nice(3)
        resource.setrlimit(resource.RLIMIT_NOFILE, (321, 654))
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})

    try:
        return subprocess.run(
            words, input=b"typed", capture_output=True, preexec_fn=arrange, pass_fds=[7], timeout=60, check=False, start_new_session=True, **options
        )
    finally:
        os.close(read)


def test_it_finds_what_it_would_find_without_us(programs, tmp_path):
    command = [str(programs("surroundings")), "a word", "", "*"]
    environment = {**ENVIRONMENT, "ODD": "\udcff\n\x1b[31m", "EMPTY": ""}
    options = {"env": environment, "cwd": "/usr/lib"}
    plain = surroundings(command, **options)
    recorded = surroundings([*RINGTAPE, "record", "-q", "-o", tmp_path / "x.trace", "--ring-size", "1M", "--", *command], **options)
    assert recorded.returncode == plain.returncode == 0
    assert recorded.stdout.splitlines() == plain.stdout.splitlines()
    assert recorded.stderr == plain.stderr == b"on stderr\n"
    assert b"fd 7 says hello" in plain.stdout
    assert b"stdin says typed" in plain.stdout


@pytest.mark.parametrize("status", [0, 1, 3, 127, 255])
def test_its_exit_status_is_passed_on(record, status):
    done = record("--", "sh", "-c", f"exit {status}")
    assert done.status == status
    assert done.trace.check().footer.exit_status == status


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGABRT, signal.SIGUSR1])
def test_its_death_by_a_signal_is_passed_on_as_a_shell_shows_it(record, tmp_path, number):
    done = record("--", "sh", "-c", f"kill -{number.value} $$", cwd=tmp_path)
    assert done.status in (-number, 128 + number)
    assert done.trace.check().footer.exit_status == 128 + number
    assert not list(tmp_path.glob("core*")), "the recorder itself dumped core"


def test_the_status_of_a_process_that_takes_long_to_give_back_its_memory_is_passed_on(record):
    done = record("--", sys.executable, "-c", "import os; memory = bytearray(b'x') * (1 << 29); os._exit(8)")
    assert done.status == 8
    assert done.trace.check().footer.exit_status == 8


def test_the_recorder_has_no_capability_left_in_any_thread(start, programs, tmp_path, nobodys):
    for env, path, uid in (({}, tmp_path / "root.trace", 0), (SUDO, nobodys / "sudo.trace", NOBODY)):
        with Load(programs("load"), nobodys / f"{uid}.control", pause=3000) as load:
            recorder = start("--", *load.words, path=path, env=env).wait_until_recording()
            load.wait_until_running()
            tasks = Path(f"/proc/{recorder.pid}/task")
            wait_for(lambda tasks=tasks: len(list(tasks.iterdir())) > 1, "the thread of the upkeep runs")
            for task in tasks.iterdir():
                fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
                for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                    assert int(fields[name], 16) == 0, (task, name)
                assert fields["NoNewPrivs"] == "1"
                assert fields["Uid"].split() == [str(uid)] * 4
                assert fields["Gid"].split() == [str(uid)] * 4
            assert not any(capabilities(recorder.pid).values())
            load.stop()
        assert recorder.wait().status == 42


def test_under_sudo_command_and_trace_belong_to_who_called_it(start, programs, nobodys):
    recorder = start("--", programs("surroundings"), path=nobodys / "x.trace", env=SUDO, cwd=nobodys)
    done = recorder.wait()
    check_quiet(done)
    assert done.status == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert f"uid {NOBODY} {NOBODY} {NOBODY} gid {NOBODY} {NOBODY} {NOBODY} groups {NOBODY}" in lines
    assert [line for line in lines if line.startswith(("CapPrm", "CapEff", "CapAmb"))] == [
        f"{name}:\t{0:016x}" for name in ("CapPrm", "CapEff", "CapAmb")
    ]
    assert "NoNewPrivs:\t0" in lines
    assert f"cwd {nobodys}" in lines
    assert not [line for line in lines if line.startswith("env SUDO_")]
    found = [nobodys / "x.trace", *(nobodys / "x.trace").rglob("*")]
    assert len(found) > 5
    for path in found:
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (NOBODY, NOBODY), path
        assert stat.S_IMODE(status.st_mode) == (0o700 if path.is_dir() else 0o600), path
    done.trace.check()


def test_under_sudo_nothing_is_written_where_the_caller_may_not_write(start, open_folder):
    roots = open_folder / "of root"
    roots.mkdir(exist_ok=True)
    done = start("--", "true", path=roots / "x.trace", env=SUDO).wait()
    assert done.status == 1
    assert "permission denied" in done.stderr
    assert list(roots.iterdir()) == []


def test_without_sudo_folder_and_files_are_private_even_with_a_lax_umask(record):
    done = record("--", "true", preexec_fn=lambda: os.umask(0))
    for path in [done.path, *done.path.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_setuid_programs_behave_as_without_us(start, programs, nobodys):
    program = nobodys.parent / f"setuid-{nobodys.name}"
    shutil.copy(programs("euid"), program)
    os.chown(program, 0, 0)
    program.chmod(0o4755)
    unrecorded = subprocess.run(["setpriv", f"--reuid={NOBODY}", "--clear-groups", program], capture_output=True, check=True)
    if unrecorded.stdout != f"real {NOBODY} effective 0\n".encode():
        pytest.skip("the temporary folder does not honour setuid")
    done = start("--", "sh", "-c", f"{program}; exec {program}", path=nobodys / "x.trace", env=SUDO).wait()
    assert done.stdout == unrecorded.stdout * 2
    execs = [row for row in done.trace.check().rows("processes") if row["kind"] == 2]
    assert [row["uid"] for row in execs if row["file"] == bytes(program)] == [0, 0]


def test_a_script_a_relative_path_and_a_name_in_path_are_found_as_a_shell_finds_them(record, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 12\n")
    script.chmod(0o755)
    assert record("--", "./script", cwd=tmp_path).status == 12
    assert record("--", "script", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}).status == 12
