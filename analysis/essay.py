"""What the notebooks write with: sentences with numbers in them, tables in people's units, pictures with a text for those who cannot see them.

Everything is shown by IPython where it runs, and printed elsewhere, so that a notebook's cells also work in a script.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape as html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ringtape.analysis.page import facts_of, table_of
from ringtape.analysis.pictures import png
from ringtape.analysis.registry import Analysis, get
from ringtape.analysis.render import Cells, cell, cells, number, share
from ringtape.analysis.runs import open_trace
from ringtape.analysis.summary import facts
from ringtape.analysis.trace import Trace
from ringtape.schemas.escape import escape
from ringtape.schemas.units import format_duration, format_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "count",
    "duration",
    "embedded",
    "name",
    "name_list",
    "opened",
    "picture",
    "pictured",
    "plain_table",
    "recorded",
    "say",
    "share",
    "size",
    "table",
    "untold",
]


@dataclass(frozen=True)
class Shown:
    """One piece of an essay: as text, and as a notebook shows it."""

    text: str
    form: str
    content: str

    def _repr_mimebundle_(self, **_options: object) -> dict[str, str]:
        return {self.form: self.content, "text/plain": self.text}


def _show(piece: Shown) -> None:
    if "IPython" in sys.modules:
        from IPython import get_ipython
        from IPython.display import display

        if get_ipython() is not None:
            display(piece)
            return
    print(piece.text)


def say(text: str) -> None:
    """Show a paragraph.

    Parameters
    ----------
    text : str
        Markdown. What comes from a trace goes through `name` first.
    """
    text = " ".join(text.split()) if "\n\n" not in text and "\n-" not in text else text.strip()
    _show(Shown(text, "text/markdown", text))


def name(text: object) -> str:
    r"""Return a name from a trace as Markdown that shows it and does nothing else.

    >>> print(name("a`b<c>"))
    `a\x60b<c>`
    """
    return "`" + escape(str(text)).replace("`", "\\x60") + "`"


def name_list(texts: Sequence[object], most: int = 4) -> str:
    """Return names with commas and an "and"; of more than ``most`` the first, and how many more.

    >>> name_list(["a", "b", "c"]), name_list(["a", "b", "c"], most=2)
    ('`a`, `b` and `c`', '`a`, `b` and 1 more')
    """
    shown = [name(text) for text in texts[:most]]
    if len(texts) > most:
        shown.append(f"{len(texts) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"


def count(value: float, one: str = "", many: str = "") -> str:
    """Return a number with its noun.

    >>> count(1, "call"), count(1234, "call"), count(2, "process", "processes")
    ('1 call', '1,234 calls', '2 processes')
    """
    noun = (one if value == 1 else many or f"{one}s") if one else ""
    return f"{number(value)} {noun}".rstrip()


def duration(ns: float | None) -> str:
    """Return a time with three digits; "unknown" where there is none.

    >>> duration(1234567), duration(None)
    ('1.23 ms', 'unknown')
    """
    return format_duration(ns) if ns is not None else "unknown"


def size(value: float | None) -> str:
    """Return bytes with three digits; "unknown" where there is none."""
    return format_size(value) if value is not None else "unknown"


def opened(path: str | os.PathLike[str]) -> Trace:
    """Open a trace, and show what it is.

    Parameters
    ----------
    path : path
        The trace folder.

    Returns
    -------
    Trace
        The trace.
    """
    trace = open_trace(Path(path))
    pairs = [("trace", escape(trace.path.name)), *facts(trace.folder)]
    _show(Shown("\n".join(f"{key}: {value}" for key, value in pairs), "text/html", facts_of(pairs)))
    return trace


HOW = {
    "samples": "`ringtape record --profile 99 --offcpu-stacks`",
    "events": "`ringtape record --event CATEGORY:NAME`",
}


def recorded(trace: Trace, *tables: str) -> bool:
    """Return whether a trace has rows of these tables; if not, show what is missing and how it is recorded.

    Examples
    --------
    >>> recorded(getfixture("example_trace"), "syscalls")
    True
    >>> recorded(getfixture("example_trace"), "sched")
    The table sched of this trace holds no row: nothing of the kind happened while it was recorded.
    False
    """
    missing = [one for one in tables if one not in trace.tables]
    if missing:
        wanted = ",".join(["syscalls", "paths", "processes", *(one for one in missing if one not in ("syscalls", "paths", "processes"))])
        how = next((HOW[one] for one in missing if one in HOW), f"`ringtape record --tables {wanted}`")
        say(f"This trace has no table {' and no table '.join(missing)}: record with {how} to read this chapter.")
        return False
    if empty := [one for one in tables if not trace.rows(one)]:
        say(f"The table {' and the table '.join(empty)} of this trace holds no row: nothing of the kind happened while it was recorded.")
        return False
    return True


def table(
    frame: pl.DataFrame, kind: str | Analysis, columns: Sequence[str] | None = None, *, top: int = 10, caption: str = "", trace: Trace | None = None
) -> None:
    """Show rows of an analysis' result in people's units.

    Parameters
    ----------
    frame : DataFrame
        The result, or rows of it.
    kind : str or Analysis
        The analysis that made it: its name, or what describes the result of a comparison.
    columns : sequence of str, optional
        Which columns; bounds of quantiles come with theirs.
    top : int
        Rows that are shown.
    caption : str
        What is to be seen in it.
    trace : Trace, optional
        Times are shown from this recording's beginning on.
    """
    analysis = get(kind) if isinstance(kind, str) else kind
    if columns is not None:
        look = f'style="width:100%;height:{height}px;border:0"'
    frame = f'<iframe title="{html(caption)}" sandbox="allow-scripts" {look} src="data:image/svg+xml;base64,{data}"></iframe>'
    _show(Shown(f"[picture: {caption}]", "text/html", f"<figure>{frame}<figcaption>{html(caption)}</figcaption></figure>"))


def untold(trace: Trace) -> None:
    """Say what was lost, if anything was: how far to trust what follows."""
    lost: dict[str, Any] = {table: rows for table, rows in trace.lost().items() if rows}
    if not lost:
        say("Nothing was lost: recorded and attempted events are the same number.")
        return
    told = ", ".join(f"{count(rows, 'record')} of {table}" for table, rows in sorted(lost.items()))
    say(f"**Lost: {told}.** Counts and sums of calls include what was lost; a quantile that depends on it is shown with its bounds.")
