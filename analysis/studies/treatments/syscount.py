"""BCC's syscount: counts and times by system call, of the whole machine, kept in the kernel."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from ringtape.analysis.studies.tallying import NAMES, lines
from ringtape.analysis.studies.treatments import Outcome, Tally, Tool

_PROGRAMS = ("syscount-bpfcc", "syscount")
_ROW = re.compile(rb"(\w+|\[unknown: \d+\])\s+(\d{1,18})\s+(\d{1,15}\.\d{1,6})\s*\Z")
# It has no command to run: it is told to go on for as long as the command does, and counts from when it says so.
_SCRIPT = """{program} -L -T 1000 {options} > {output} &
tool=$!
while ! grep -q Tracing {output}; do kill -0 $tool || exit 1; sleep 0.05; done
{command}
status=$?
kill -INT $tool
wait $tool
exit $status
"""


def _program() -> str | None:
    return next((name for name in _PROGRAMS if shutil.which(name)), None)


def _wrap(options: Sequence[str], output: Path, command: Sequence[str]) -> list[str]:
    script = output.with_name("command.sh")
    text = _SCRIPT.format(
        program=f"PYTHONUNBUFFERED=1 {_program() or _PROGRAMS[0]}",
        options=shlex.join(options),
        output=shlex.quote(str(output)),
        command=shlex.join(command),
    )
    script.write_text(text, encoding="utf-8")
    return ["/bin/sh", str(script)]


def _outcome(output: Path, detailed: bool) -> Outcome:
    found: dict[str, Tally] = {}
    for line in lines(output):
        if (row := _ROW.match(line)) and len(found) < NAMES:
            found[row[1].decode()] = Tally(int(row[2]), None, round(float(row[3]) * 1000))
    return Outcome(sum(tally.count for tally in found.values()), None, output.stat().st_size, found if detailed else {})


def _missing() -> str | None:
    if _program() is None:
        return "syscount is not installed; it comes with the package bpfcc-tools (Debian, Ubuntu), bcc-tools (Fedora, Arch)"
    if os.geteuid():
        return "syscount runs as root only"
    headers = Path("/lib/modules") / os.uname().release / "build"
    if not headers.exists() and not Path("/sys/kernel/kheaders.tar.xz").exists():
        return "syscount needs the headers of the kernel that runs, and they are not installed"
    return None


TOOL = Tool("syscount", "BCC's syscount -L: counts and times of all calls of the machine, by system call.", _wrap, _outcome, _missing)
