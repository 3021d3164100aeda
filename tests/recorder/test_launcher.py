"""Finding the command as the user's shell would, holding it until the probes are attached, and ending as it ended."""

import os
import subprocess
import sys

import pytest

from ringtape.recorder.launcher import Launcher, resolve
from ringtape.recorder.privileges import User
from ringtape.schemas.errors import UsageError

ME = User(os.getuid(), os.getgid(), tuple(os.getgroups()), False)


@pytest.fixture
def tool(tmp_path):
    path = tmp_path / "bin" / "tool"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\nexit 3\n")
    path.chmod(0o755)
    return path


def refusal(call, *arguments):
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    assert caught.value.hint
    return caught.value


class TestResolve:
    def test_a_name_is_looked_up_in_the_user_s_path_and_not_in_ours(self, tool):
        assert resolve(["tool"], {"PATH": f"/nowhere:{tool.parent}"}) == str(tool)
        assert refusal(resolve, ["tool"], {"PATH": "/nowhere"}).what == "command not found: tool"

    def test_a_path_is_taken_as_it_is(self, tool, monkeypatch):
        assert resolve([str(tool)], {"PATH": ""}) == str(tool)
        monkeypatch.chdir(tool.parent)
        assert resolve(["./tool"], {}) == "./tool"

    def test_what_is_no_program_is_said(self, tool):
        assert refusal(resolve, [str(tool.parent)], {}).what == f"{tool.parent}: a folder"
        tool.chmod(0o644)
        assert refusal(resolve, [str(tool)], {}).what == f"{tool}: not executable"
        assert refusal(resolve, [f"{tool}x"], {}).what == f"command not found: {tool}x"

    def test_an_environment_without_a_path_has_the_system_s(self):
        assert resolve(["sh"], {}).endswith("/sh")


class TestLauncher:
    def wait(self, launcher):
        os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOWAIT)
        assert launcher.poll()
        return launcher.exit_status()

    def test_the_command_runs_once_it_is_released_and_not_before(self, tmp_path):
        launcher = Launcher(["sh", "-c", f"echo ran > {tmp_path}/mark; exit 7"], ME)
        assert not launcher.poll()
        assert launcher.exit_status() is None
        assert not (tmp_path / "mark").exists()
        launcher.release()
        assert self.wait(launcher) == 7
        assert (tmp_path / "mark").exists()

    def test_an_abandoned_command_never_runs_and_leaves_no_process(self, tmp_path):
        launcher = Launcher(["sh", "-c", f"echo ran > {tmp_path}/mark"], ME)
        launcher.abandon()
        assert not (tmp_path / "mark").exists()
        with pytest.raises(ChildProcessError):
            os.waitpid(launcher.pid, 0)

    def test_a_signal_shows_as_a_shell_shows_it(self):
        launcher = Launcher(["sh", "-c", "kill -TERM $$"], ME)
        launcher.release()
        assert self.wait(launcher) == 128 + 15

    def test_the_command_is_given_signals_as_the_shell_gave_them(self):
        # Python ignores SIGPIPE (13) and SIGXFSZ (25) for itself.
        launcher = Launcher(["sh", "-c", "grep -q 'SigIgn:.*0000000000000000' /proc/self/status"], ME)
        launcher.release()
        assert self.wait(launcher) == 0

    @pytest.mark.parametrize(
        ("content", "hint"),
        [(b"echo no interpreter named\n", "#!/bin/sh"), (b"#!/no/such/interpreter\n", "the interpreter that it names does not exist")],
    )
    def test_a_file_that_the_kernel_refuses_to_execute_is_said_with_what_mends_it(self, tool, content, hint):
        tool.write_bytes(content)
        launcher = Launcher([str(tool)], ME)
        error = refusal(launcher.release)
        assert str(tool) in error.what
        assert hint in error.hint
        launcher.abandon()

    def test_a_command_that_is_not_found_leaves_no_process(self):
        before = os.listdir("/proc/self/fd")
        refusal(Launcher, ["no-such-command-at-all"], ME)
        assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", -15), ("kill -KILL $$", -9), ("kill -USR1 $$", 128 + 10)]
)
def test_the_recorder_ends_as_the_command_ended(script, status):
    code = "import os, sys; from ringtape.recorder.launcher import exit_as; sys.exit(exit_as(os.system(sys.argv[1])))"
    # sh replaces itself, so that the wait status is the script's own.
    done = subprocess.run([sys.executable, "-c", code, f"exec sh -c '{script}'"], check=False)
    assert done.returncode == status
