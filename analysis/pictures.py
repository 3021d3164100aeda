"""The pictures that the analyses of a trace bring, and their files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ringtape.analysis import registry
from ringtape.analysis.trace import Trace
from ringtape.schemas.errors import RingtapeError
from ringtape.schemas.escape import escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ringtape.analysis.plots.output import Form, Width


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
    from ringtape.analysis.plots.output import encoded

    return encoded(figure, "png")


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
    from ringtape.analysis.plots.output import encoded, fit

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
