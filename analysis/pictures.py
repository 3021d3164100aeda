"""Which pictures a report has, and their files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ringtape.analysis import plots
from ringtape.analysis.analyses.syscall_mix import syscall_mix
from ringtape.analysis.distributions import latency_ecdf, latency_over_time
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.escape import escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(trace: Trace) -> Mapping[str, Figure]:
    """Return the pictures of a trace by name; none if system calls were not recorded."""
    if "syscalls" not in trace.tables:
        return {}
    distribution = latency_ecdf(trace)
    lost = trace.lost().get("syscalls", 0)
    note = f"{lost:,} calls were lost and are not in the picture" if lost else ""
    return {
        "mix": plots.mix(syscall_mix(trace)),
        "percentiles": plots.percentiles(distribution, note=note),
        "ecdf": plots.ecdf(distribution, note=note),
        "ccdf": plots.ccdf(distribution, note=note),
        "heat-map": plots.heat_map(latency_over_time(trace), note=note),
    }


def png(figure: Figure) -> bytes:
    """Return a picture as PNG; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def save(drawn: Mapping[str, Figure], folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Write pictures into a folder, made if need be, and yield their paths.

    Raises
    ------
    RingtapeError
        If the folder cannot be made or written to.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            path = target / f"latency-{name}.png" if name != "mix" else target / "mix.png"
            path.write_bytes(png(figure))
            yield path
    except OSError as error:
        raise RingtapeError(f"{escape(str(target))}: {os.strerror(error.errno or 0).lower()}", "name a folder that can be written to") from None
