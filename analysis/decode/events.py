"""Process events as text, and as the argument lists of the execve calls that caused them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringtape.analysis.decode.calls import ARGV, Text
from ringtape.analysis.decode.values import argv, quoted
from ringtape.schemas.abi.errors import signal_name

EXISTING, FORK, EXEC, EXIT, RENAME = range(5)
"""Codes of ``processes.kind``."""
CLONE_THREAD = 0x00010000
"""include/uapi/linux/sched.h"""
KINDS = ("existing", "fork", "exec", "exit", "rename")


def event(row: Mapping[str, Any]) -> str:
    """Return a row of ``processes`` as strace would announce it.

    >>> event({"kind": 3, "exit_signal": 0, "exit_code": 3})
    '+++ exited with 3 +++'
    """
    return f"+++ {_sentence(row)} +++"


def _sentence(row: Mapping[str, Any]) -> str:
    kind = row["kind"]
    if kind == EXIT:
        return f"killed by {signal_name(row['exit_signal'])}" if row["exit_signal"] else f"exited with {row['exit_code']}"
    if kind == FORK:
        what = "thread" if row["clone_flags"] & CLONE_THREAD else "process"
        return f"{what} created by {row['creator']}: {command(row)}"
    if kind == EXEC:
        before = f" (was thread {row['creator']})" if row["creator"] not in (0, row["tid"]) else ""
        return f"executes {quoted(row['file'])} {argv(row['argv'], bool(row['cut']))}{before}"
    if kind == RENAME:
        return f"renamed to {command(row)}"
    return f"running already: {command(row)}" if kind == EXISTING else f"event of unknown kind {kind}"


def command(row: Mapping[str, Any]) -> str:
    """Return the command name of a row in quotes."""
    return quoted(row["comm"].split(b"\0", 1)[0])


def exec_text(row: Mapping[str, Any]) -> Text | None:
    """Return the argument list of an exec event as the string that the call's ``argv`` pointed at.

    None for a script: the kernel put its interpreter, perhaps one argument, and the file's name in the place of the
    first word (fs/binfmt_script.c), which is not what the call was given.
    """
    if row["file"] in row["argv"].split(b"\0", 3)[1:3]:
        return None
    return Text(ARGV, row["argv"], bool(row["cut"]))
