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
        frame = frame.select(column for wanted in columns for column in frame.columns if column in (wanted, f"{wanted}_low", f"{wanted}_high"))
    content = cells(frame, analysis, wide=columns is not None, limit=top, origin=trace.header.attached_at if trace else 0)
    _tabled(content, caption, len(frame) - top)


def plain_table(frame: pl.DataFrame, units: dict[str, str] | None = None, *, top: int = 12, caption: str = "") -> None:
    """Show rows of any frame.

    Parameters
    ----------
    frame : DataFrame
        The rows.
    units : dict, optional
        Units of its columns: ns, bytes, share, count.
    top : int
        Rows that are shown.
    caption : str
        What is to be seen in it.
    """
    units = units or {}
    rows = [[cell(value, units.get(column, "")) for column, value in row.items()] for row in frame.head(top).iter_rows(named=True)]
    numeric = [column in units or frame.schema[column].is_numeric() for column in frame.columns]
    _tabled(Cells([column.replace("_", " ") for column in frame.columns], numeric, rows), caption, len(frame) - top)


def _tabled(content: Cells, caption: str, more: int) -> None:
    rest = f"{count(more, 'more row')}." if more > 0 else ""
    note = " ".join(part for part in (caption, rest) if part)
    text = "\n".join(" | ".join(" ".join(value.split()) for value in row) for row in (content.heads, *content.rows))
    below = f'<p class="note">{html(note)}</p>' if note else ""
    _show(Shown(f"{text}\n{note}".rstrip(), "text/html", f'<div class="table">{table_of(content)}</div>{below}'))


def picture(figure: Figure, caption: str) -> None:
    """Show a figure.

    Parameters
    ----------
    figure : Figure
        From `ringtape.analysis.plots`.
    caption : str
        What it shows, in a sentence: it stands below it, and for those who cannot see it.
    """
    data = base64.b64encode(png(figure)).decode()
    body = f'<figure><img alt="{html(caption)}" src="data:image/png;base64,{data}"><figcaption>{html(caption)}</figcaption></figure>'
    _show(Shown(f"[picture: {caption}]", "text/html", body))


def pictured(trace: Trace, analysis: str, which: str) -> None:
    """Show one of the pictures that an analysis brings.

    Parameters
    ----------
    trace : Trace
        The recording.
    analysis : str
        The analysis.
    which : str
        The picture's name, such as ``latency-heat-map``; `ringtape report --pictures` writes all under their names.
    """
    module = sys.modules[get(analysis).function.__module__]
    for found in module.pictures(trace):
        if found.name == which:
            picture(found.figure, found.caption)
            return
    say(f"There is nothing to draw for {name(which)} in this trace.")


def embedded(svg: str, caption: str, *, height: int = 500) -> None:
    """Show a picture that answers clicks, such as a flame graph; its script sees nothing of the rest of the page.

    Parameters
    ----------
    svg : str
        An SVG document that needs nothing from elsewhere.
    caption : str
        What it shows.
    height : int
        Height in pixels.
    """
    # A document of its own: inside the page's, its script would look for its boxes at the wrong root.
    data = base64.b64encode(svg.encode()).decode()
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
