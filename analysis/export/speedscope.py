"""Speedscope's JSON, for https://www.speedscope.app; one profile per command name."""

from __future__ import annotations

from typing import IO

from ringtape.analysis import flamegraph
from ringtape.analysis.exporting import Choices
from ringtape.analysis.stacks import stacks
from ringtape.analysis.summary import command_line
from ringtape.analysis.trace import Trace
from ringtape.analysis.verb import loss_sentence


def write(trace: Trace, file: IO[bytes], choices: Choices) -> list[str]:
    """Write the stacks; the title says what was lost."""
    found = stacks(trace, "offcpu" if choices.offcpu else "cpu", choices.symbols)
    lost = loss_sentence(trace)
    title = f"{'off' if choices.offcpu else 'on'} the CPU: {command_line(trace.folder)}" + (f" ({lost})" if lost else "")
    file.write(flamegraph.speedscope(trace, found, title).encode())
    return [f"{found.unmapped:,} mappings were lost: functions may lack names"] if found.unmapped else []
