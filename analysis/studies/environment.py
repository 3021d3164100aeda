"""The machine on which a study is run, as far as it bears on its times."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ringtape.analysis.studies.noise import times
from ringtape.schemas.abi.syscalls import native_abi, number
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.host import cpu_model, read_line
from ringtape.version import VERSION

_GET_NEXT_ID = {"programs": 11, "links": 31}
"""BPF_PROG_GET_NEXT_ID and BPF_LINK_GET_NEXT_ID, include/uapi/linux/bpf.h."""
_TIMING = re.compile(
    r"(mitigations|no?spec|spec_|spectre|pti|nopti|retbleed|mds|tsx|tsa|l1tf|srbds|gather_data|reg_file|indirect_target|vmscape"
    r"|isolcpus|nohz|rcu|idle|intel_idle|cpuidle|haltpoll|processor|intel_pstate|amd_pstate|cpufreq|clocksource|tsc|highres|skew_tick"
    r"|nosmt|smt|maxcpus|nr_cpus|numa|threadirqs|preempt|sched|psi|hugepage|default_hugepage|transparent_hugepage|audit|lsm|security|selinux"
    r"|apparmor|init_on|slub_debug|page_poison|iommu|intel_iommu|amd_iommu|swiotlb)[\w.]*(=|$)"
)
"""Names of the kernel's parameters that bear on times (Documentation/admin-guide/kernel-parameters.txt of Linux)."""
_VERSIONS: Mapping[str, tuple[str, ...]] = {
    "strace": ("strace", "--version"),
    "perf": ("perf", "--version"),
    "bpftrace": ("bpftrace", "--version"),
}


def fingerprint(programs: Iterable[str] = ()) -> dict[str, Any]:
    """Return what is known of the machine now.

    Parameters
    ----------
    programs : iterable of str
        Programs of the workloads: their paths, sizes and times of change stand for their versions.

    Returns
    -------
    dict
        Texts and numbers for JSON; null where this machine does not say. ``steal`` is seconds since the machine was started.
    """
    return {
        "time": time.time(),
        "boot": read_line("/proc/sys/kernel/random/boot_id"),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "kernel_version": platform.version(),
        "command_line": _timing_parameters(read_line("/proc/cmdline")),
        "cpu": cpu_model(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "hypervisor": read_line("/sys/hypervisor/type") or _virtual(),
        "clock_source": read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "governor": _each("/sys/devices/system/cpu", "cpu[0-9]*/cpufreq/scaling_governor"),
        "turbo_off": read_line("/sys/devices/system/cpu/intel_pstate/no_turbo"),
        "smt": read_line("/sys/devices/system/cpu/smt/active"),
        "mitigations": {path.name: read_line(path) for path in sorted(Path("/sys/devices/system/cpu/vulnerabilities").glob("*"))},
        "randomize_va_space": read_line("/proc/sys/kernel/randomize_va_space"),
        "load": list(os.getloadavg()),
        "steal": times().steal,
        "bpf": {what: _count_bpf(command) for what, command in _GET_NEXT_ID.items()},
        "ringtape": VERSION,
        "python": platform.python_version(),
        "versions": {name: _said(line) for name, line in _VERSIONS.items() if shutil.which(line[0])},
        "programs": {name: _program(name) for name in sorted(set(programs))},
    }


def _timing_parameters(line: str | None) -> str | None:
    """Keep the parameters that bear on times: the others may name addresses and keys, and results of studies are published.

    >>> _timing_parameters("root=UUID=5a quiet mitigations=off nohz_full=2-7 -- --key secret")
    'mitigations=off nohz_full=2-7'
    """
    return None if line is None else " ".join(word for word in line.partition(" -- ")[0].split() if _TIMING.match(word))


def _each(folder: str, pattern: str) -> list[str]:
    return sorted({text for path in Path(folder).glob(pattern) if (text := read_line(path))})


def _virtual() -> str | None:
    flags = next((line for line in (read_line("/proc/cpuinfo") or "").splitlines() if line.startswith("flags")), "")
    return "virtual machine" if " hypervisor" in flags else None


def _said(line: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout or done.stderr).strip().split("\n")[0][:200]


def _program(name: str) -> dict[str, Any] | None:
    path = shutil.which(name)
    if path is None:
        return None
    real = Path(path).resolve()
    state = real.stat()
    return {"path": str(real), "size": state.st_size, "changed": state.st_mtime}


@cache
def _libc() -> Callable[..., int]:
    call: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
    return call


def _count_bpf(command: int) -> int | None:
    """Count what is loaded into the kernel by walking its numbers; None without the privilege, or where the call is not known."""
    try:
        bpf = number(native_abi(), "bpf")
    except RingtapeError:
        return None
    count, last = 0, 0
    while True:
        # union bpf_attr: start_id, next_id, open_flags
        attributes = (ctypes.c_uint32 * 3)(last, 0, 0)
        if _libc()(bpf, command, ctypes.byref(attributes), ctypes.sizeof(attributes)) < 0:
            return count if ctypes.get_errno() == 2 else None  # ENOENT: that was the last
        count, last = count + 1, attributes[1]
