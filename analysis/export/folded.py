"""Folded stacks, a line each, for flamegraph.pl, inferno and speedscope."""

from __future__ import annotations

from typing import IO

from ringtape.analysis import flamegraph
from ringtape.analysis.exporting import Choices
from ringtape.analysis.stacks import stacks
from ringtape.analysis.trace import Trace


def write(trace: Trace, file: IO[bytes], choices: Choices) -> list[str]:
    """Write the stacks; weights are ns."""
    found = stacks(trace, "offcpu" if choices.offcpu else "cpu", choices.symbols)
    file.write(flamegraph.folded(trace, found).encode())
    return [f"{found.unmapped:,} mappings were lost: functions may lack names"] if found.unmapped else []
