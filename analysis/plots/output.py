"""Figures as files: forms, and sizes for where they are read."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ringtape.analysis.plots.style import STYLE

Form = Literal["png", "svg", "pdf"]
Width = Literal["column", "page", "slide"]
WIDTHS: Mapping[Width, tuple[float, float]] = {"column": (3.35, 0.68), "slide": (9.84, 1.35)}
"""Inches, and the share by which letters are scaled; a page is what the figures are drawn for."""
SMALLEST, LETTERS, NAME = 6.0, 44, 24
"""Points of the smallest letters; letters in a line of a title, and of a name beside an axis, in a column."""
ATTEMPTS, UPRIGHT = 5, 34
"""How often a figure is made higher; letters in a line beside an axis."""
PANELS, CELLS = 1.25, 10
"""How much higher several panels are in a column, so that what is written in them stays apart; cells in a row in which numbers have room."""


def encoded(figure: Figure, form: Form) -> bytes:
    """Return a picture in a form; the same picture gives the same bytes, with no date in them."""
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
    inches, letters = WIDTHS[width]
    was, height = figure.get_size_inches()
    factor = inches / was
    figure.set_size_inches(inches, height * (factor if factor > 1 else factor**0.75))
    if width == "column":
        _break_titles(figure)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontsize(max(SMALLEST, float(text.get_fontsize()) * letters))
    for axes in figure.axes:
        axes.tick_params(labelsize=max(SMALLEST, 9 * letters))
        if width == "column":
            _narrow(axes)
    if width == "column":
        _show_legends(figure)


def _break_titles(figure: Figure) -> None:
    """Break what stands above and below all panels into lines as wide as a column, and give the panels the height that they lose."""
    lines, over_all = 0, (figure.get_suptitle(), figure.get_supxlabel())
    for text in figure.texts:
        if text.get_text() and text.get_text() in over_all:
            broken = [part for line in text.get_text().split("\n") for part in textwrap.wrap(line, LETTERS)]
            text.set_text("\n".join(broken))
            lines += len(broken) - 1
    if figure.get_suptitle() and len(figure.axes) > 1:
        inches, height = figure.get_size_inches()
        figure.set_size_inches(inches, height * PANELS + 0.12 * lines)


def _show_legends(figure: Figure) -> None:
    """Make a figure higher until the legends below its axes lie inside of it: where axes are low, the layout puts them beyond its edge."""
    for _ in range(ATTEMPTS):
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
        legends = [legend for axes in figure.axes if (legend := axes.get_legend()) is not None]
        below = -min((legend.get_window_extent().y0 for legend in legends), default=0.0)
        if below <= 0:
            return
        inches, height = figure.get_size_inches()
        figure.set_size_inches(inches, height + below / figure.dpi + 0.05)


def _narrow(axes: Axes) -> None:
    """Fit axes into a column: a title in lines, few ticks, short names, the legend below instead of beside."""
    title = axes.get_title(loc="left")
    if title:
        axes.set_title("\n".join(textwrap.wrap(title, LETTERS)), fontsize=8, loc="left", parse_math=False)
    axes.set_ylabel("\n".join(textwrap.wrap(axes.get_ylabel(), UPRIGHT)))
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
    if axes.images:
        # Cells as high as the bar of their colours, and no numbers wider than a cell.
        axes.set_aspect("auto")
        low, high = axes.get_xlim()
        for text in axes.texts:
            text.set_visible(abs(high - low) <= CELLS)
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
