"""The pictures that the analyses of a trace bring, and their files."""

from __future__ import annotations

import io
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ringtape.analysis import registry
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.escape import escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Form = Literal["png", "svg", "pdf"]
Width = Literal["column", "page", "slide"]
WIDTHS: Mapping[Width, tuple[float, float]] = {"column": (3.35, 0.68), "slide": (9.84, 1.35)}
"""Inches, and the share by which letters are scaled; a page is what the figures are drawn for."""
SMALLEST, LETTERS, NAME = 6.0, 44, 24
"""Points of the smallest letters; letters in a line of a title, and of a name beside an axis, in a column."""


@dataclass(frozen=True)
class Picture:
    """A picture: the stem of its file, what it shows in one sentence, and the figure."""

    name: str
    caption: str
    figure: Figure


def draw(trace: Trace) -> Mapping[str, tuple[Picture, ...]]:
    """Return the pictures of a trace by the analysis that brings them.

    An analysis brings pictures by a function ``pictures(trace)`` in its file, which yields `Picture`; it is asked if the
    tables of the analysis were recorded.
    """
    found = {}
    for name, analysis in registry.every().items():
        bring: Callable[[Trace], Iterable[Picture]] | None = getattr(sys.modules[analysis.function.__module__], "pictures", None)
        if bring is not None and set(analysis.tables) <= set(trace.tables):
            found[name] = tuple(bring(trace))
    return found


def png(figure: Figure) -> bytes:
    """Return a picture as PNG; the same picture gives the same bytes."""
    return encoded(figure, "png")


def encoded(figure: Figure, form: Form) -> bytes:
    """Return a picture in a form; the same picture gives the same bytes, with no date in them."""
    import matplotlib as mpl

    from ringtape.analysis.plots.style import STYLE

    buffer = io.BytesIO()
    nothing = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=form, dpi=150, metadata=nothing[form])
    return buffer.getvalue()


def fit(figure: Figure, width: Width) -> None:
    """Draw a figure for where it is read: a journal's column (85 mm), a page (as drawn), a slide (250 mm, large letters).

    Letters are scaled with it but never below 6 points, and long titles are broken.
    """
    if width == "page":
        return
    from matplotlib.text import Text

    inches, letters = WIDTHS[width]
    was, height = figure.get_size_inches()
    factor = inches / was
    figure.set_size_inches(inches, height * (factor if factor > 1 else factor**0.75))
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontsize(max(SMALLEST, float(text.get_fontsize()) * letters))
    for axes in figure.axes:
        axes.tick_params(labelsize=max(SMALLEST, 9 * letters))
        if width == "column":
            _narrow(axes)


def _narrow(axes: Axes) -> None:
    """Fit axes into a column: a title in lines, few ticks, short names, the legend below instead of beside."""
    title = axes.get_title(loc="left")
    if title:
        axes.set_title("\n".join(textwrap.wrap(title, LETTERS)), fontsize=8, loc="left", parse_math=False)
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        kind = type(axis.get_major_locator()).__name__
        if kind == "AutoLocator":
            axes.locator_params(axis=name, nbins=4)  # type: ignore[arg-type]
        elif kind == "LogLocator" and name == "x":
            low, high = sorted(axes.get_xlim())
            if low > 0 and high / low > 1e4:
                axes.set_xticks([10.0**power for power in range(-3, 16, 3) if low <= 10.0**power <= high])
        elif kind == "FixedLocator" and name == "y":
            names = [label.get_text() for label in axes.get_yticklabels()]
            if any(len(text) > NAME for text in names):
                axes.set_yticks(axes.get_yticks(), [text if len(text) <= NAME else "..." + text[3 - NAME :] for text in names], parse_math=False)
    legend, figure = axes.get_legend(), axes.get_figure(root=True)
    if legend is not None and figure is not None:
        names = [text.get_text() for text in legend.get_texts()]
        inches, height = figure.get_size_inches()
        below = axes.legend(
            [handle for handle in legend.legend_handles if handle is not None],
            names,
            loc="upper left",
            # Below the name of the axis, however high the axes are.
            bbox_to_anchor=(-0.1, -0.42 / (height * axes.get_position().height)),
            ncols=2 if max(map(len, names), default=0) > 14 else 3,
            fontsize=SMALLEST,
            handlelength=1.0,
            frameon=False,
        )
        for text in below.get_texts():
            text.set_parse_math(False)
        figure.set_size_inches(inches, height + 0.13 * -(-len(names) // 2))


def save(
    drawn: Mapping[str, tuple[Picture, ...]], folder: str | os.PathLike[str], forms: Sequence[Form] = ("png",), width: Width = "page"
) -> Iterator[Path]:
    """Write pictures into a folder, made if need be, and yield their paths.

    Parameters
    ----------
    drawn : mapping
        Result of `draw`.
    folder : path
        Where they go.
    forms : sequence of {"png", "svg", "pdf"}
        In which forms.
    width : {"column", "page", "slide"}
        Where they are read.

    Raises
    ------
    RingtapeError
        If the folder cannot be made or written to.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for picture in (picture for pictures in drawn.values() for picture in pictures):
            fit(picture.figure, width)
            for form in forms:
                path = target / f"{picture.name}.{form}"
                path.write_bytes(encoded(picture.figure, form))
                yield path
    except OSError as error:
        raise RingtapeError(f"{escape(str(target))}: {os.strerror(error.errno or 0).lower()}", "name a folder that can be written to") from None
