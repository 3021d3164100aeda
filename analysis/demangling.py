"""C++ and Rust names as they were written, where a tool for it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable

from ringtape.schemas.escape import escape

TOOLS = ("c++filt", "llvm-cxxfilt")
PATIENCE = 20.0
"""Seconds after which names stay as they are."""
_MANGLED = re.compile(r"_(?:Z|R[A-Z])[\w.$@]{1,4000}", re.ASCII)


def demangled(names: Iterable[str]) -> dict[str, str]:
    """Return the names that mean something, with what they mean.

    A process of its own reads them: they come from files that may have been made to break it.

    >>> demangled(["main", "_Zbroken", "_Z3hot"]).get("main", "main")
    'main'
    """
    wanted = sorted({name for name in names if _MANGLED.fullmatch(name)})
    tool = next(filter(None, map(shutil.which, TOOLS)), None)
    if not wanted or tool is None:
        return {}
    try:
        told = subprocess.run([tool], input="\n".join(wanted) + "\n", capture_output=True, timeout=PATIENCE, check=True, encoding="utf-8")
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return {}
    meant = told.stdout.split("\n")[:-1]
    if len(meant) != len(wanted):
        return {}
    return {name: escape(text) for name, text in zip(wanted, meant, strict=True) if text and text != name}
