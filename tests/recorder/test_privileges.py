"""Who asked for the recording, and what of his the command is given."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from ringtape.recorder import privileges
from ringtape.recorder.privileges import User, acting_as, capabilities

NOBODY = pwd.getpwnam("nobody")
SUDO = ("SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND")


@pytest.fixture(autouse=True)
def without_sudo(monkeypatch):
    for name in SUDO:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)


class TestInvoking:
    def test_the_one_who_called_sudo_is_meant_with_all_his_groups(self, root, monkeypatch):
        monkeypatch.setenv("SUDO_UID", str(NOBODY.pw_uid))
        monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 27, 100])
        assert User.invoking() == User(NOBODY.pw_uid, NOBODY.pw_gid, (NOBODY.pw_gid, 27, 100), True)

    def test_an_account_that_no_longer_exists_is_known_by_its_numbers(self, root, monkeypatch):
        monkeypatch.setenv("SUDO_UID", "54321")
        monkeypatch.setenv("SUDO_GID", "999")
        assert User.invoking() == User(54321, 999, (999,), True)
        monkeypatch.delenv("SUDO_GID")
        assert User.invoking() == User(54321, 54321, (54321,), True)

    @pytest.mark.parametrize("value", ["", "0", "-1", "root", "1000x", " 1000"])
    def test_what_is_no_other_user_s_number_means_whoever_runs_this(self, root, monkeypatch, value):
        monkeypatch.setenv("SUDO_UID", value)
        assert User.invoking() == User(os.getuid(), os.getgid(), tuple(os.getgroups()), False)

    def test_an_ordinary_user_cannot_pass_for_another(self, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setenv("SUDO_UID", str(NOBODY.pw_uid))
        assert not User.invoking().through_sudo


class TestEnvironment:
    def test_without_sudo_it_is_our_own(self, monkeypatch):
        monkeypatch.setenv("RINGTAPE_MARK", "here")
        assert User(0, 0, (), False).environment() == dict(os.environ)

    def test_under_sudo_it_is_what_the_user_gave_sudo(self, monkeypatch):
        monkeypatch.setattr(privileges, "_environment_of_sudo", lambda: {"PATH": "/home/me/bin", "HOME": "/home/me"})
        assert User(1000, 1000, (), True).environment() == {"PATH": "/home/me/bin", "HOME": "/home/me"}

    def test_where_sudo_cannot_be_seen_the_account_fills_in_and_nothing_of_sudo_s_is_left(self, monkeypatch):
        monkeypatch.setattr(privileges, "_environment_of_sudo", lambda: None)
        for name in SUDO:
            monkeypatch.setenv(name, "1")
        monkeypatch.setenv("LANG", "C.UTF-8")
        found = User(NOBODY.pw_uid, NOBODY.pw_gid, (), True).environment()
        assert not [name for name in found if name.startswith("SUDO_")]
        assert (found["HOME"], found["USER"], found["LOGNAME"], found["SHELL"]) == (NOBODY.pw_dir, "nobody", "nobody", NOBODY.pw_shell)
        assert found["LANG"] == "C.UTF-8"

    def test_an_account_that_no_longer_exists_keeps_what_there_is(self, monkeypatch):
        monkeypatch.setattr(privileges, "_environment_of_sudo", lambda: None)
        monkeypatch.setenv("HOME", "/root")
        assert User(54321, 54321, (), True).environment()["HOME"] == "/root"


class TestSudoProcess:
    """The processes above ours, as /proc shows them: (parent, program, environment)."""

    @pytest.fixture
    def above(self, tmp_path, monkeypatch):
        def put(chain):
            for pid, (parent, program, environment) in chain.items():
                folder = tmp_path / str(pid)
                folder.mkdir()
                (folder / "status").write_text(f"Name:\tx\nPid:\t{pid}\nPPid:\t{parent}\n")
                (folder / "exe").symlink_to(f"/usr/bin/{program}")
                (folder / "environ").write_bytes(environment)

        monkeypatch.setattr(os, "getppid", lambda: 100)
        monkeypatch.setattr(privileges, "Path", lambda text: Path(str(text).replace("/proc", str(tmp_path), 1)))
        return put

    def test_the_user_s_sudo_is_found_above_its_monitor_and_a_shell(self, above):
        above(
            {
                100: (90, "bash", b"HOME=/root\0SUDO_UID=1000\0"),
                90: (80, "sudo", b"HOME=/root\0SUDO_UID=1000\0"),
                80: (70, "sudo", b"HOME=/home/me\0PATH=/a:/b\0EMPTY=\0EQUALS=a=b\0"),
            }
        )
        assert privileges._environment_of_sudo() == {"HOME": "/home/me", "PATH": "/a:/b", "EMPTY": "", "EQUALS": "a=b"}

    def test_bytes_that_are_no_text_come_through(self, above):
        above({100: (1, "sudo", b"BIN=\xff\xfe\0broken\0")})
        assert os.fsencode(privileges._environment_of_sudo()["BIN"]) == b"\xff\xfe"

    def test_no_sudo_above_is_no_environment(self, above):
        above({100: (90, "bash", b"A=1\0"), 90: (1, "sshd", b"A=1\0")})
        assert privileges._environment_of_sudo() is None

    def test_a_process_that_may_not_be_looked_at_is_no_failure(self, above):
        above({100: (90, "bash", b"A=1\0")})
        assert privileges._environment_of_sudo() is None

    def test_a_long_chain_is_given_up(self, above):
        above({100 - step: (99 - step, "bash", b"A=1\0") for step in range(20)})
        assert privileges._environment_of_sudo() is None


def test_masks_of_all_threads_are_united():
    masks = capabilities()
    assert set(masks) == {"CapInh", "CapPrm", "CapEff", "CapAmb"}
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff"))
    assert masks["CapEff"] & int(effective.split()[1], 16) == int(effective.split()[1], 16)


def test_acting_as_whoever_runs_this_changes_nothing():
    with acting_as(User(os.getuid(), os.getgid(), (), False)):
        assert os.geteuid() == os.getuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_root_acts_as_the_user_and_is_root_again_even_after_a_failure(tmp_path):
    user = User(NOBODY.pw_uid, NOBODY.pw_gid, (NOBODY.pw_gid,), True)
    before = os.getgroups()
    tmp_path.chmod(0o700)
    seen = []

    def touch():
        with acting_as(user):
            seen.append((os.geteuid(), os.getegid(), os.getgroups()))
            (tmp_path / "x").touch()

    with pytest.raises(PermissionError):
        touch()
    assert seen == [(NOBODY.pw_uid, NOBODY.pw_gid, [NOBODY.pw_gid])]
    assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, 0, before)


DROP = """
import os, sys
from ringtape.recorder.privileges import User, capabilities, drop
drop(User(int(sys.argv[1]), int(sys.argv[2]), (int(sys.argv[2]),), True))
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
assert not any(capabilities().values()), capabilities()
assert status["NoNewPrivs"].strip() == "1"
print(status["Uid"].split(), int(status["CapBnd"], 16))
"""


def test_after_the_drop_no_capability_is_left_and_none_can_come_back():
    user = (NOBODY.pw_uid, NOBODY.pw_gid) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    done = subprocess.run([sys.executable, "-c", DROP, *map(str, user)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str([str(user[0])] * 4))
    if os.geteuid() == 0:
        assert done.stdout.split()[-1] == "0"


LINGERING = """
import sys, threading, time
from ringtape.recorder import privileges
seconds, privileges.PATIENCE = float(sys.argv[1]), float(sys.argv[2])
threading.Thread(target=time.sleep, args=(seconds,), daemon=True).start()
privileges.drop(privileges.User.invoking())
assert not any(privileges.capabilities().values())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="whoever has no capability has none to lose")
@pytest.mark.parametrize(("seconds", "patience", "said"), [(0.3, 60, ""), (60, 0.2, "capabilities could not be given up: CapPrm, CapEff")])
def test_a_thread_on_its_way_out_is_waited_for_and_one_that_stays_is_refused(seconds, patience, said):
    done = subprocess.run([sys.executable, "-c", LINGERING, str(seconds), str(patience)], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not said), done.stderr
    assert said in done.stderr
