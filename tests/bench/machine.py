"""The machine and the tools, as far as figures depend on them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from ringtape.recorder.compile import find_bcc
from ringtape.schemas.host import describe_host
from ringtape.version import VERSION
from tests.bench.figures import table
from tests.bench.workshop import ROOT


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "not told"


def _first_line(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "absent"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "not told"


def steal() -> float:
    """Return the seconds that the hypervisor has given this machine's CPUs to others since boot."""
    fields = _read("/proc/stat").splitlines()[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, str]:
    """Return what a reader needs to judge the figures by."""
    host = describe_host()
    memory = host["memory"]
    assert isinstance(memory, int)
    told = {
        "kernel": f"{host['kernel']} {host['machine']} ({host['build']})",
        "CPU": f"{host['cpu']}, {host['cpus']} CPUs" + (", a virtual machine" if " hypervisor " in _read("/proc/cpuinfo") else ""),
        "memory": f"{memory / 1e9:.1f} GB",
        "clock source": str(host["clocksource"]),
        "frequency governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "BPF JIT": {"0": "off", "1": "on", "2": "on, with trace"}.get(_read("/proc/sys/net/core/bpf_jit_enable"), "not told"),
    }
    for path in sorted(Path("/sys/devices/system/cpu/vulnerabilities").glob("*")):
        if (state := _read(str(path))) not in ("Not affected", "not told"):
            told[f"mitigation: {path.name}"] = state
    bcc = find_bcc()
    git = ("git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT))
    commit = _first_line(*git, "log", "-1", "--format=%h of %cs")
    if _first_line(*git, "status", "--porcelain", "--", "recorder", "schemas", "analysis", "src") not in ("not told", "absent"):
        commit += ", with changes that are not committed"
    told |= {
        "ringtape": f"{VERSION}, commit {commit}",
        "Python": f"{platform.python_version()}; "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "pyarrow", "polars")),
        "BCC": bcc.version if bcc else "absent",
        "perf": _first_line("perf", "--version"),
        "bpftrace": _first_line("bpftrace", "--version"),
        "strace": _first_line("strace", "--version"),
        "redis": _first_line("redis-server", "--version"),
        "C compiler": _first_line("cc", "--version"),
        "load average at the start": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }
    return told


def markdown(told: dict[str, str]) -> str:
    """Return the description as Markdown."""
    return "\n".join(["## The machine", "", *table(("what", "is"), list(told.items()))]) + "\n"
