"""Any other tool: a template of its command line, with {output} and {command} in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ringtape.analysis.studies.treatments import Outcome, Tool


def _wrap(options: Sequence[str], output: Path, command: Sequence[str]) -> list[str]:
    line: list[str] = []
    for word in options:
        if word == "{command}":
            line += command
        else:
            line.append(word.replace("{output}", str(output)))
    return line if "{command}" in options else [*line, *command]


def _outcome(output: Path, detailed: bool) -> Outcome:  # noqa: ARG001
    files = [output] if output.is_file() else sorted(output.rglob("*"))
    return Outcome(bytes=sum(path.stat().st_size for path in files if path.is_file()))


TOOL = Tool(
    "command", "A command line of your own, with {command} where the workload comes in and {output} for its files.", _wrap, _outcome, lambda: None
)
