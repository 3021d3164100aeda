"""`ringtape doctor` on this machine, and on what this machine looks like from private mounts and without capabilities."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ringtape.recorder import doctor
from tests.conftest import why_no_bpf

ROOT = Path(__file__).parent.parent.parent
CODE = "import sys; from ringtape.cli import main; sys.exit(main())"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
RINGTAPE = f"{sys.executable} -c '{CODE}'"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
POWERLESS = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]


def run(*command, **options):
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False, **options)


def private(script):
    """Run a shell script as root with mounts of its own."""
    if os.geteuid() != 0 or run("unshare", "-m", "true").returncode != 0:
        pytest.skip("only root can have mounts of its own")
    return run("unshare", "-m", "--propagation", "private", "sh", "-ec", script)


def as_nobody(*arguments):
    if os.geteuid() != 0:
        return run(sys.executable, "-c", CODE, *arguments)
    if run(*NOBODY, sys.executable, "-c", "import ringtape").returncode != 0:
        pytest.skip("an ordinary user cannot read this checkout or its Python")
    return run(*NOBODY, sys.executable, "-c", CODE, *arguments)


def findings(done):
    report = json.loads(done.stdout)
    assert report["records"] == (done.returncode == 0), done.stderr
    return {one["name"]: one for one in report["findings"]}


@pytest.mark.kernel
def test_where_recording_works_it_says_so_line_by_line_and_in_quiet_nothing():
    done = run(sys.executable, "-c", CODE, "doctor")
    assert done.returncode == 0
    assert done.stdout.endswith("This machine can record.\n")
    for name in ("kernel", "btf", "privileges", "bcc", "tracefs", "bpffs", "memory lock limit", "ring memory"):
        assert f"ok    {name}" in done.stdout or f"note  {name}" in done.stdout
    quiet = run(sys.executable, "-c", CODE, "doctor", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_an_ordinary_user_is_told_in_one_sentence_what_is_missing():
    done = as_nobody("doctor", "--quiet")
    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert done.stdout.endswith(".\n")
    assert "the kernel does not let this process make a BPF map" in done.stdout


def test_an_ordinary_user_is_told_the_command_that_mends_it():
    found = findings(as_nobody("doctor", "--json"))
    assert found["privileges"]["state"] == "fail"
    assert "recording needs root, or CAP_BPF and CAP_PERFMON" in found["privileges"]["said"]
    assert found["privileges"]["mend"].startswith("sudo ")
    shown = as_nobody("doctor").stdout
    assert f"-> {found['privileges']['mend']}\n" in shown


def test_root_without_capabilities_as_in_a_container_is_told_apart():
    if os.geteuid() != 0:
        pytest.skip("only root can be root without capabilities")
    found = findings(run(*POWERLESS, sys.executable, "-c", CODE, "doctor", "--json"))
    assert found["privileges"]["state"] == "fail"
    assert "root is not enough here" in found["privileges"]["said"]


def test_root_mounts_what_is_only_missing_and_says_so():
    done = private(f"umount -l /sys/kernel/tracing || :; umount -l /sys/fs/bpf || :; {RINGTAPE} doctor --json; cat /proc/self/mounts >&2")
    found = findings(done)
    for name, where in (("tracefs", "/sys/kernel/tracing"), ("bpffs", "/sys/fs/bpf")):
        assert found[name]["state"] == "ok"
        assert found[name]["said"] == f"was missing; mounted now at {where}"
        assert f" {where} " in done.stderr


def test_an_ordinary_user_is_told_how_to_mount_and_the_command_does_it():
    nobody = " ".join(NOBODY)
    unmount = "umount -l /sys/kernel/tracing || :; umount -l /sys/fs/bpf || :;"
    found = json.loads(private(f"{unmount} {nobody} {RINGTAPE} doctor --json || :").stdout)["findings"]
    mends = {one["name"]: one["mend"] for one in found if one["name"] in ("tracefs", "bpffs")}
    assert mends == {"tracefs": "sudo mount -t tracefs tracefs /sys/kernel/tracing", "bpffs": "sudo mount -t bpf bpf /sys/fs/bpf"}
    typed = "; ".join(mend.removeprefix("sudo ") for mend in mends.values())
    after = json.loads(private(f"{unmount} {typed}; {nobody} {RINGTAPE} doctor --json || :").stdout)["findings"]
    assert {one["name"]: one["state"] for one in after if one["name"] in mends} == {"tracefs": "ok", "bpffs": "ok"}


def test_a_kernel_that_does_not_tell_its_types_is_named_as_the_reason():
    done = private(f"mount -t tmpfs none /sys/kernel/btf; {RINGTAPE} doctor --quiet")
    assert done.returncode == 1
    assert done.stdout == "the kernel does not tell its types: /sys/kernel/btf/vmlinux: No such file or directory.\n"


PACKAGES = Path("/usr/lib/python3/dist-packages")
needs_debian = pytest.mark.skipif(not PACKAGES.is_dir() or shutil.which("apt-get") is None, reason="the folders are Debian's")


@needs_debian
def test_bcc_that_is_not_installed_is_named_with_the_package_of_this_distribution():
    found = findings(private(f"mount -t tmpfs none {PACKAGES}; {RINGTAPE} doctor --json"))
    assert found["bcc"]["state"] == "fail"
    assert "is not installed" in found["bcc"]["said"]
    assert found["bcc"]["mend"] == "sudo apt-get install -y python3-bpfcc"


@needs_debian
def test_the_unrelated_bcc_of_pypi_is_recognised():
    foreign = f"mount -t tmpfs none {PACKAGES}; mkdir {PACKAGES}/bcc; echo 'x = 1' >{PACKAGES}/bcc/__init__.py"
    found = findings(private(f"{foreign}; {RINGTAPE} doctor --json"))
    assert "PyPI's unrelated package bcc" in found["bcc"]["said"]
    assert "pip uninstall bcc && sudo apt-get install -y python3-bpfcc" in found["bcc"]["mend"]


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ("ID=debian\nVERSION_ID=13", "sudo apt-get install -y python3-bpfcc"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"', "sudo apt-get install -y python3-bpfcc"),
        ("ID=fedora", "sudo dnf install -y python3-bcc"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "sudo dnf install -y python3-bcc"),
        ("ID=arch", "sudo pacman -S --needed python-bcc"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"', "sudo zypper install -y python3-bcc"),
        ("ID=plan9", "install the distribution's Python bindings of BCC (python3-bpfcc, python3-bcc or python-bcc)"),
        ("", "install the distribution's Python bindings of BCC (python3-bpfcc, python3-bcc or python-bcc)"),
    ],
)
def test_the_package_has_the_name_that_the_distribution_gives_it(monkeypatch, release, command):
    monkeypatch.setattr(doctor, "_read", lambda path: release)
    assert doctor._install_command() == command


def test_rings_that_a_killed_recorder_left_are_shown_with_the_command_that_recovers_them(tmp_path):
    if reason := why_no_bpf():
        pytest.skip(reason)
    trace_id = "0123456789abcdef0123456789abcdef"
    trace = tmp_path / "cut off.trace"
    pin = (
        f"from pathlib import Path; from ringtape.recorder.journal import Journal; Journal.create('{trace_id}', 0, 0).pin_path(Path('{trace}'), 0, 0)"
    )
    # A bpffs of its own: the journals of this machine's recordings are not in it.
    done = private(f'mount -t bpf bpf /sys/fs/bpf; {sys.executable} -c "{pin}"; cd /; {RINGTAPE} doctor --json')
    [note] = [one for one in json.loads(done.stdout)["findings"] if one["name"] == "journal"]
    assert note["state"] == "note"
    assert f"/sys/fs/bpf/ringtape/{trace_id}" in note["said"]
    assert f" recover '{trace}' " in note["mend"]
