"""Figures that stand in a finished trace: rows, losses, bytes, and what the recorder used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from ringtape.schemas.folder import TraceFolder


@dataclass(frozen=True)
class Facts:
    """What the parts and the footer of a trace say.

    ``cpu`` is the CPU time in s of the recorder process between the start of its drain and the last seal (the table
    ``recorder``), ``cpu_whole`` from its first instruction to the end of the merge (the footer).
    """

    rows: int
    lost: int
    attempted: int
    bytes_all: int
    bytes_calls: int
    cpu: float
    cpu_whole: float
    ring_peak: float
    ring_memory: float
    first: int


def facts(path: Path) -> Facts:
    """Read them with the strict reader."""
    folder = TraceFolder.open(path)
    footer = folder.footer
    if footer is None:
        raise RuntimeError(f"{path}: {folder.state}")
    cost = [folder.read(part) for part in folder.parts("recorder")]
    calls = folder.parts("syscalls")
    return Facts(
        rows=footer.rows["syscalls"],
        lost=sum(footer.lost.values()),
        attempted=sum(footer.attempted["syscalls"].values()),
        bytes_all=sum(folder.path_of(part).stat().st_size for name in folder.tables for part in folder.parts(name)),
        bytes_calls=sum(folder.path_of(part).stat().st_size for part in calls),
        cpu=sum(pc.sum(table[name]).as_py() for table in cost for name in ("utime", "stime")) / 1e9,
        cpu_whole=footer.cost["user_seconds"] + footer.cost["system_seconds"],
        ring_peak=max(pc.max(table["ring_peak"]).as_py() for table in cost) / 1000,
        ring_memory=footer.cost["ring_memory"],
        first=min(part.min_ts for part in calls),
    )
