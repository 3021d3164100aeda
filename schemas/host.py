"""The machine, as a recording and a study describe it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def read_line(path: str | Path) -> str | None:
    """Return what a file of the kernel says, stripped, 4,000 characters at most; None where it is not there or may not be read."""
    try:
        return Path(path).read_text(errors="replace").strip()[:4000]
    except OSError:
        return None


def cpu_model() -> str | None:
    """Return the model of the first CPU; on arm64 its part number, as /proc/cpuinfo names no model there."""
    for line in (read_line("/proc/cpuinfo") or "").splitlines():
        if line.startswith(("model name", "CPU part")):
            return line.partition(":")[2].strip()
    return None


def describe_host() -> Mapping[str, object]:
    """Return what a reader needs to judge figures by."""
    system = os.uname()
    return {
        "name": system.nodename,
        "kernel": system.release,
        "build": system.version,
        "machine": system.machine,
        "cpu": cpu_model() or "unknown",
        "cpus": os.cpu_count(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "boot_id": read_line("/proc/sys/kernel/random/boot_id") or "unknown",
        "clocksource": read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown",
    }
