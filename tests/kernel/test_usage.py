"""What cannot be recorded is refused with one error and one hint, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.recording import ENVIRONMENT, RINGTAPE, Done, check_one_error, ringtape, wait_for

PRIVATE = (
    "unshare",
    "-m",
    "--propagation",
    "private",
    "sh",
    "-c",
    'mount -t bpf none /sys/fs/bpf || exit 99; "$@"; status=$?; find /sys/fs/bpf -mindepth 2 -type f >&2; exit $status',
    "sh",
)
POWERLESS = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")


def gone(session):
    """Return whether no process of a session is left."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[3]) == session:
                return False
        except (OSError, ValueError):
            continue
    return True


@pytest.fixture
def refused(tmp_path):
    """Run a recording that must not begin, with a bpffs of its own, and return error and hint."""

    def run(*arguments, status=2, prefix=PRIVATE, output="x.trace", env=None):
        where = [] if output is None else ["-o", tmp_path / output]
        before = sorted(tmp_path.iterdir())
        process = subprocess.Popen(
            [*prefix, *RINGTAPE, "record", *where, "--ring-size", "1M", *arguments],
            env={**ENVIRONMENT, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd=tmp_path,
        )
        stdout, stderr = process.communicate(timeout=60)
        done = Done(process.returncode, stdout, stderr.decode(), tmp_path / "x.trace")
        found = check_one_error(done)
        assert done.status == status
        assert stdout == b""
        assert sorted(tmp_path.iterdir()) == before, "a folder was left behind"
        wait_for(lambda: gone(process.pid), "no child is left behind", 5)
        return found

    return run


def test_an_unknown_system_call_is_answered_with_the_closest(refused):
    what, hint = refused("--syscall", "opneat", "--", "true")
    assert "'opneat'" in what
    assert "openat" in hint


def test_a_call_of_another_architecture_is_told_apart(refused):
    _, hint = refused("--syscall", "waitpid,arm_fadvise64_64", "--", "true")
    assert hint


def test_a_process_that_does_not_exist(refused):
    child = subprocess.Popen(["true"])
    child.wait()
    what, _ = refused("--pid", str(child.pid))
    assert str(child.pid) in what


@pytest.mark.parametrize("pid", ["abc", "-1", "1.5", "", "99999999999999999999"])
def test_what_is_no_process_number(refused, pid):
    refused(f"--pid={pid}")


def test_a_command_that_is_not_found(refused):
    what, _ = refused("--", "no-such-command-here")
    assert "no-such-command-here" in what
    what, _ = refused("--", "/nonexistent/command")
    assert "/nonexistent/command" in what


def test_a_command_that_cannot_be_executed(refused, tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("text")
    what, _ = refused("--", plain)
    assert "not executable" in what
    what, _ = refused("--", tmp_path)
    assert "folder" in what


def test_a_command_that_the_kernel_refuses_to_execute(refused, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"\x7fELF, but not really")
    foreign.chmod(0o755)
    what, _ = refused("--", foreign)
    assert "exec format error" in what
    script = tmp_path / "script"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    what, hint = refused("--", script)
    assert "no such file" in what
    assert "interpreter" in hint


def test_an_output_that_exists(refused, tmp_path):
    (tmp_path / "x.trace").mkdir()
    (tmp_path / "x.trace" / "kept").write_text("kept")
    what, hint = refused("--", "true", status=1)
    assert "exists already" in what
    assert "--output" in hint
    assert (tmp_path / "x.trace" / "kept").read_text() == "kept"


def test_an_output_that_is_a_link(refused, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "x.trace").symlink_to(elsewhere)
    what, _ = refused("--", "true", status=1)
    assert "symbolic link" in what
    assert list(elsewhere.iterdir()) == []
    (tmp_path / "x.trace").unlink()
    (tmp_path / "x.trace").symlink_to(tmp_path / "nowhere")
    refused("--", "true", status=1)
    assert not (tmp_path / "nowhere").exists()


def test_a_parent_in_which_anybody_may_rename(refused, tmp_path):
    parent = tmp_path / "open"
    parent.mkdir()
    parent.chmod(0o777)
    what, hint = refused("--", "true", status=1, output="open/x.trace")
    assert "others may rename" in what
    assert "chmod o-w" in hint
    assert list(parent.iterdir()) == []
    parent.chmod(0o1777)
    assert ringtape("record", "-o", parent / "x.trace", "--ring-size", "1M", "--", "true").status == 0


def test_a_parent_that_does_not_exist_or_is_no_folder(refused, tmp_path):
    (tmp_path / "file").write_text("")
    refused("--", "true", status=1, output="absent/x.trace")
    refused("--", "true", status=1, output="file/x.trace")


def test_without_privileges(refused, open_folder):
    if subprocess.run([*POWERLESS, sys.executable, "-c", "import ringtape"], env=ENVIRONMENT, check=False, capture_output=True).returncode:
        pytest.skip("an ordinary user cannot read this checkout or its Python")
    own = open_folder / "nobodys"
    own.mkdir(exist_ok=True)
    os.chown(own, 65534, 65534)
    what, hint = refused("--", "true", status=1, prefix=POWERLESS, output=own / "x.trace")
    assert "privilege" in what or "permitted" in what or "root" in what + hint
    assert "sudo" in hint
    assert list(own.iterdir()) == []


def test_root_without_capabilities(refused):
    _, hint = refused("--", "true", status=1, prefix=("setpriv", "--inh-caps=-all", "--bounding-set=-all"))
    assert hint


def test_two_recorders_at_once_on_one_folder(start, tmp_path):
    command = ("--", "sh", "-c", "read line")
    first = start(*command, stdin=subprocess.PIPE).wait_until_recording()
    second = start(*command, path=first.path).wait()
    what, _ = check_one_error(second)
    assert "exists already" in what
    assert second.status == 1
    assert first.process.poll() is None
    first.process.stdin.write(b"\n")
    first.process.stdin.flush()
    done = first.wait()
    assert done.status == 0
    done.trace.check()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--pid", str(os.getpid()), "--", "true"),
        ("--all", "--uid", "0"),
        (),
        ("--uid", "no-such-user", ""),
        ("--uid", "4294967296"),
        ("--comm", ""),
        ("--comm", *",--comm,".join("abcdefghi").split(",")),
        ("--cgroup", "/tmp"),
        ("--cgroup", "/nonexistent"),
        ("--duration", "10 parsecs", "--all"),
        ("--duration=-1s", "--all"),
        ("--min-duration", "soon", "--all"),
        ("--ring-size", "lots", "--all"),
        ("--ring-size", "1", "--all"),
        ("--ring-size", "nothing=1M", "--all"),
        ("--ring-size", "100T", "--all"),
        ("--tables", "nothing", "--", "true"),
        ("--tables", ",", "--", "true"),
        ("--tables", "processes", "--syscall", "read", "--", "true"),
        ("--", ""),
    ],
    ids=" ".join,
)
def test_options_that_do_not_fit(refused, arguments):
    refused(*arguments)


@pytest.mark.parametrize("arguments", [("--no-such-option", "--", "true"), ("--duration",), ("--duration", "-1s", "--all")], ids=" ".join)
def test_options_that_do_not_exist_or_lack_their_value(refused, arguments):
    refused(*arguments)


def test_the_rings_of_a_machine_with_too_little_memory(refused):
    what, hint = refused("--ring-size", "64G", "--", "true", status=1)
    assert "ring" in what + hint or "memory" in what


def test_a_terminal_escape_in_an_argument_is_shown_escaped(refused):
    what, hint = refused("--", "\x1b[31mred")
    assert "\x1b" not in what + hint
    assert "\\x1b[31mred" in what


def test_a_command_without_dashes_before_it_is_told_where_they_go():
    done = ringtape("record", "ls", "-l")
    what, hint = check_one_error(done)
    assert done.status == 2
    assert "-l" in what
    assert "`--`" in hint


def test_a_duration_of_zero_is_refused():
    done = ringtape("record", "--duration", "0s", "--", "true")
    what, _ = check_one_error(done)
    assert done.status == 2
    assert "--duration 0" in what
