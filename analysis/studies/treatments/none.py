"""No tool: the workload alone, against which all others are held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ringtape.analysis.studies.treatments import Outcome, Tool


def _wrap(options: Sequence[str], output: Path, command: Sequence[str]) -> list[str]:  # noqa: ARG001
    return list(command)


TOOL = Tool("none", "The workload alone.", _wrap, lambda _output, _detailed: Outcome(), lambda: None)
