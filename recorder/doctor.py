"""Finds out by trying whether this machine can record, and what would mend it where it cannot."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import resource
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ringtape.recorder import bpf, journal, privileges, program
from ringtape.recorder.bpf import MapType
from ringtape.recorder.btf import VMLINUX, KernelTypes, read_kernel_types
from ringtape.recorder.compile import PYTHONS, find_bcc
from ringtape.recorder.kernel import MAX_RINGS, ring_bytes, slots_of
from ringtape.recorder.options import possible_cpus
from ringtape.schemas.errors import PrivilegeError, RecordingError
from ringtape.schemas.table import Table, tables
from ringtape.schemas.units import format_size

OLDEST = (5, 11)
"""Task storage for tracing programs, which pairs the enter of a call with its exit, came with Linux 5.11."""
TRACEFS = Path("/sys/kernel/tracing")
LOCKDOWN = Path("/sys/kernel/security/lockdown")
_CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
_FAMILIES = (
    (("debian", "ubuntu"), "sudo apt-get install -y python3-bpfcc"),
    (("fedora", "rhel", "centos"), "sudo dnf install -y python3-bcc"),
    (("arch",), "sudo pacman -S --needed python-bcc"),
    (("suse", "opensuse"), "sudo zypper install -y python3-bcc"),
    (("alpine",), "sudo apk add py3-bcc"),
)
# Runs under the distribution's python3: says where its bcc lies, whether it is BCC, and whether it can be loaded.
_LOOK = """
import importlib.util, json, os, sys, warnings
warnings.simplefilter("ignore")
spec = importlib.util.find_spec("bcc")
answer = {"python": sys.version.split()[0], "folder": None, "real": False, "version": "", "error": ""}
if spec and spec.origin:
    answer["folder"] = os.path.dirname(spec.origin)
    answer["real"] = os.path.exists(os.path.join(answer["folder"], "libbcc.py"))
    if answer["real"]:
        try:
            import bcc
            answer["version"] = bcc.__version__
        except Exception as error:
            answer["error"] = "%s: %s" % (type(error).__name__, error)
json.dump(answer, sys.stdout)
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    ``state`` is ``ok``, ``note`` (recording works all the same) or ``fail``; ``said`` a clause that stands by itself;
    ``mend`` the command that changes it, exactly as it is to be typed.
    """

    name: str
    state: Literal["ok", "note", "fail"]
    said: str
    mend: str = ""


def examine() -> list[Finding]:
    """Look at everything that recording needs; root's missing mounts are made on the way.

    Returns
    -------
    list of Finding
        Recording works if none of them has failed.
    """
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (_kernel, _privileges, _bcc, _tracefs, _bpffs, _memory, _journals)
    return [finding for check in checks for finding in check()]


def failures(findings: list[Finding]) -> list[Finding]:
    """Return the findings that keep this machine from recording, the one behind the others first."""
    return [finding for finding in findings if finding.state == "fail"]


# ---- the kernel


def _kernel() -> Iterator[Finding]:
    release, machine = platform.release(), platform.machine()
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if machine not in bpf.SYSCALL_BPF:
        yield Finding("kernel", "fail", f"{machine} is no architecture that ringtape records on (x86_64 and aarch64 are)")
    elif numbers < OLDEST:
        yield Finding(
            "kernel", "fail", f"Linux {release} is older than 5.11, which recording needs", "install a newer kernel of this distribution and restart"
        )
    else:
        yield Finding("kernel", "ok", f"Linux {release} on {machine}")
    try:
        types = _types()
    except RecordingError as error:
        mend = "" if Path("/sys/kernel").is_dir() else "sudo mount -t sysfs sysfs /sys"
        yield Finding("btf", "fail", f"the kernel does not tell its types: {error.what}", mend or (error.hint or ""))
        return
    missing = [name for name in ("sys_enter", "sys_exit", "task_newtask") if name not in types.tracepoints]
    if missing:
        yield Finding(
            "btf", "fail", f"this kernel has no typed tracepoint {' and no '.join(missing)}", "use a kernel built with CONFIG_FTRACE_SYSCALLS"
        )
    else:
        yield Finding("btf", "ok", f"{VMLINUX} names {len(types.tracepoints)} typed tracepoints")
    rings = [table for table in tables().values() if table.origin == "ring"]
    lacking = [f"{table.name}: {', '.join(reasons)}" for table in rings if (reasons := program.shortcomings(table, types))]
    if lacking:
        yield Finding("tables", "note", f"this kernel cannot supply all of {'; '.join(lacking)}. The rest is recorded")
    else:
        yield Finding("tables", "ok", f"this kernel supplies every probe of {', '.join(table.name for table in rings)}")


def _types() -> KernelTypes:
    return read_kernel_types(program.members([*tables()]))


# ---- what the kernel lets this process do


def _privileges() -> Iterator[Finding]:
    held = privileges.capabilities()["CapEff"]
    names = [name for name, number in _CAPABILITIES.items() if held >> number & 1]
    disabled = _read(Path("/proc/sys/kernel/unprivileged_bpf_disabled"))
    meaning = {"0": "anyone may load some kinds, none of those that record", "1": "only with privileges, until restart", "2": "only with privileges"}
    try:
        refusal = _try_bpf()
    except RecordingError as error:  # another architecture: the finding on the kernel says so
        yield Finding("privileges", "fail", error.what)
        return
    who = f"uid {os.geteuid()} with {', '.join(names) or 'none of ' + ', '.join(_CAPABILITIES)}"
    if not refusal:
        yield Finding("privileges", "ok", f"maps, programs and typed tracepoints were made for a try ({who})")
    elif "[confidentiality]" in _read(LOCKDOWN):
        yield Finding(
            "privileges", "fail", f"{refusal}: the kernel is locked down (confidentiality)", "disable Secure Boot's lockdown=confidentiality"
        )
    elif os.geteuid() != 0:
        yield Finding(
            "privileges", "fail", f"{refusal} ({who}): recording needs root, or CAP_BPF and CAP_PERFMON", f"sudo {_myself()} record -- COMMAND"
        )
    else:
        mend = "start the container with --privileged, or record outside of it"
        yield Finding("privileges", "fail", f"{refusal} ({who}): root is not enough here, as in a container", mend)
    if disabled:
        yield Finding("unprivileged BPF", "ok", f"kernel.unprivileged_bpf_disabled = {disabled}: {meaning.get(disabled, 'unknown')}")


def _try_bpf() -> str:
    """Do for a moment what a recording does, and return what was refused, or nothing."""
    opened: list[int] = []
    step = "make a BPF map"
    try:
        opened.append(bpf.create_map("doctor", MapType.ARRAY, 4, 4, 1).fd)
        step = "make a map that can be read through memory"
        opened.append(bpf.create_map("doctor", MapType.ARRAY, 4, 8, 512, bpf.MAP_MMAPABLE).fd)
        step = "make a ring buffer"
        opened.append(bpf.create_map("doctor", MapType.RINGBUF, 0, 0, os.sysconf("SC_PAGE_SIZE")).fd)
        step = "make task storage"
        opened.append(bpf.create_map("doctor", MapType.TASK_STORAGE, 4, 8, 0).fd)
        try:
            sys_enter = _types().tracepoints["sys_enter"][0]
        except (RecordingError, KeyError):
            return ""  # what the kernel lacks is said where its types are looked at
        step = "load a BPF program"
        # mov r0, 0; exit
        opened.append(
            bpf.load_program(
                "doctor", struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0), bpf.PROG_TYPE_TRACING, bpf.ATTACH_TRACE_RAW_TP, sys_enter
            )
        )
        step = "attach a typed tracepoint"
        opened.append(bpf.attach_raw_tracepoint(opened[-1]))
    except PrivilegeError:
        return f"the kernel does not let this process {step}"
    except RecordingError as error:
        if "is not supported" in error.what:
            raise
        return f"the kernel could not {step}: {error.what}"
    except OSError as error:
        return f"the kernel does not let this process {step}: {os.strerror(error.errno or 0).lower()}"
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return ""


# ---- BCC


def _bcc() -> Iterator[Finding]:
    foreign = importlib.util.find_spec("bcc")
    if foreign and foreign.origin and not Path(foreign.origin).with_name("libbcc.py").exists():
        said = f"the package bcc of {sys.executable} is PyPI's, which has nothing to do with BPF; it is not used"
        yield Finding("bcc from PyPI", "note", said, f"{sys.executable} -m pip uninstall bcc")
    package, python = find_bcc(), _python()
    answer = _ask(python) if python else None
    if python is None or answer is None:
        yield Finding("bcc", "fail", "no python3 of the distribution was found, under which BCC compiles the probes", _install_command())
        return
    if answer["real"] and not answer["error"]:
        yield Finding("bcc", "ok", f"BCC {answer['version']} in {answer['folder']}, seen by {python} ({answer['python']})")
        return
    if answer["folder"] and not answer["real"]:
        said = f"{python} finds PyPI's unrelated package bcc in {answer['folder']}" + (" before BCC's" if package else " and no BCC")
        mend = f"sudo {python} -m pip uninstall bcc" + ("" if package else f" && {_install_command()}")
    elif answer["real"]:
        said, mend = f"BCC in {answer['folder']} cannot be loaded by {python}: {answer['error']}", _install_command()
    elif package:
        said, mend = f"BCC {package.version} lies in {package.folder}, where {python} does not see it", _install_command()
    else:
        said, mend = f"BCC, which compiles the probes, is not installed ({python} has no module bcc)", _install_command()
    yield Finding("bcc", "fail", said, mend)


def _python() -> str | None:
    """Return the python3 under which the compiler runs: the first that is not this process's own (recorder.compile)."""
    own = Path(sys.executable).resolve()
    found = (path for name in PYTHONS if (path := shutil.which(name)))
    return next((path for path in found if Path(path).resolve() != own or path == "/usr/bin/python3"), None)


def _ask(python: str) -> dict[str, str] | None:
    try:
        # Both the compiler and this look run isolated: what a user's folder or PYTHONPATH holds does not count.
        done = subprocess.run(
            [python, "-I", "-c", _LOOK], capture_output=True, timeout=60, check=False, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        )
        return dict(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _install_command() -> str:
    fields = dict(line.split("=", 1) for line in _read(Path("/etc/os-release")).splitlines() if "=" in line)
    ids = " ".join(fields.get(name, "").strip("\"'") for name in ("ID", "ID_LIKE")).split()
    for family, command in _FAMILIES:
        if any(name.startswith(one) for name in ids for one in family):
            return command
    return "install the distribution's Python bindings of BCC (python3-bpfcc, python3-bcc or python-bcc)"


# ---- mounts


def _tracefs() -> Iterator[Finding]:
    yield _mounted("tracefs", "tracefs", TRACEFS, "only `record --event` needs it, which reads the descriptions of tracepoints there", None)


def _bpffs() -> Iterator[Finding]:
    yield _mounted("bpffs", "bpf", journal.BPFFS, "without it `ringtape recover` cannot help a recorder that was killed", journal.mount)


def _mounted(name: str, kind: str, where: Path, purpose: str, mount: Callable[[], bool] | None) -> Finding:
    def is_mounted() -> bool:
        return any(line.split()[1:3] == [str(where), kind] for line in _read(Path("/proc/self/mounts")).splitlines())

    command = f"mount -t {kind} {kind} {where}"
    if is_mounted():
        return Finding(name, "ok", f"mounted at {where}")
    if os.geteuid() == 0 and where.is_dir():
        if mount is not None:
            mount()
        else:
            subprocess.run(command.split(), capture_output=True, check=False)
        if is_mounted():
            return Finding(name, "ok", f"was missing; mounted now at {where}")
    return Finding(name, "note", f"not mounted at {where} ({purpose})", f"sudo {command}")


# ---- memory


def _memory() -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    limit = "unlimited" if soft == resource.RLIM_INFINITY else format_size(soft)
    yield Finding("memory lock limit", "ok", f"{limit}; BPF memory has not counted against it since Linux 5.11")
    shares = {table.name: _shares(table) for table in tables().values() if table.origin == "ring" and table.default}
    total = sum(rings * size for rings, size in shares.values())
    shown = ", ".join(f"{name} {rings} x {format_size(size)}" for name, (rings, size) in shares.items())
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    available = int(found[1]) << 10 if found else 0
    said = f"{format_size(total)} unless --ring-size says otherwise ({shown}); {format_size(available)} are available"
    if available and total > available // 2:
        smaller = ",".join(f"{name}={max(1, (rings * size) >> 22)}M" for name, (rings, size) in shares.items())
        yield Finding("ring memory", "note", said, f"{_myself()} record --ring-size {smaller} -- COMMAND")
    else:
        yield Finding("ring memory", "ok", said)


def _shares(table: Table) -> tuple[int, int]:
    """Return how many rings a table gets and the bytes of each, as a recording with default options would."""
    cpus = possible_cpus()
    if table.in_ring_buffer:
        rings = min(cpus, MAX_RINGS)
        return rings, ring_bytes(table.ring_size, rings)
    return cpus, slots_of(table, table.ring_size, cpus) * table.record_size


# ---- journals that were left behind


def _journals() -> Iterator[Finding]:
    for path in journal.left_behind():
        trace = journal.trace_of(path)
        name = str(trace) if trace else "a recording"
        said = f"the rings of {name} are pinned in {path}: it is being recorded, or its recorder was killed"
        remedy = f"{_myself()} recover {shlex.quote(str(trace)) if trace else 'TRACE'} (to give up what is in them: rm -r {path})"
        yield Finding("journal", "note", said, remedy)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _myself() -> str:
    """Return the command as it was called, in a form that sudo finds too."""
    called = Path(sys.argv[0])
    return shlex.quote(str(called.absolute())) if called.name == "ringtape" and called.exists() else "ringtape"
