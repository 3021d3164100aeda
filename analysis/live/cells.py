"""Lines of a screen: styled pieces of text that are exactly as wide as they are meant to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.color import ColorSystem
from rich.style import Style

from ringtape.schemas.escape import harmless

Piece = tuple[str, str]
"""A text and the name of its style; an empty name is plain."""
STYLES: Final = {
    "": Style(),
    "title": Style(bold=True, color="cyan"),
    "focus": Style(bold=True, color="cyan", reverse=True),
    "head": Style(bold=True),
    "sorted": Style(bold=True, underline=True),
    "dim": Style(dim=True),
    "bad": Style(bold=True, color="red"),
    "warn": Style(color="yellow"),
    "good": Style(color="green"),
    "cursor": Style(reverse=True),
    "key": Style(bold=True),
}
"""Only the eight colours that every terminal has, so that they are those of the user's own theme."""
_PLAIN_LETTERS: Final = str.maketrans({"µ": "u", "▼": "v", "▲": "^", "·": "-", "…": "~", "─": "-", "█": "#", "░": "."})


@dataclass(frozen=True)
class Painter:
    """Writes pieces for one kind of terminal.

    Parameters
    ----------
    colour : bool
        False leaves colours out (NO_COLOR); bold and reverse stay, or the cursor could not be seen.
    unicode : bool
        False writes ASCII in the place of what other letters the screen itself uses.
    plain : bool
        True leaves out every sequence: for what is no terminal.
    """

    colour: bool = True
    unicode: bool = True
    plain: bool = False
    _seen: dict[Piece, str] = field(default_factory=dict, repr=False, compare=False)

    def line(self, pieces: Iterable[Piece], width: int) -> str:
        """Return a line of at most this width, with the sequences of its styles; nothing else in it can steer a terminal."""
        out, left = [], width
        for text, style in pieces:
            if left <= 0:
                break
            shown = harmless(text)
            size = cell_len(shown)
            if size > left:
                shown, size = set_cell_size(shown, left), left
            left -= size
            out.append(self._styled(shown, style))
        return "".join(out)

    def _styled(self, text: str, name: str) -> str:
        if not self.unicode:
            text = text.translate(_PLAIN_LETTERS).encode("ascii", "replace").decode()
        if not name or not text or self.plain:
            return text
        style = _style(name, self.colour)
        return style.render(text, color_system=ColorSystem.STANDARD)


@lru_cache
def _style(name: str, colour: bool) -> Style:
    return STYLES[name] if colour else STYLES[name].without_color


def fit(text: str, width: int, right: bool = False) -> str:
    """Return a text in exactly so many cells: cut with an ellipsis, or filled with blanks on one side.

    >>> fit("openat", 4), fit("7", 3, right=True)
    ('ope…', '  7')
    """
    text = harmless(text)
    size = cell_len(text)
    if size == width:
        return text
    if size > width:
        return set_cell_size(text, width - 1) + "…" if width > 1 else set_cell_size(text, max(0, width))
    blanks = " " * (width - size)
    return blanks + text if right else text + blanks


def between(left: Sequence[Piece], right: Sequence[Piece], width: int) -> list[Piece]:
    """Return a line with pieces at its left and at its right end; where there is no room for both, the right ones give way."""
    used = sum(cell_len(harmless(text)) for text, _ in left)
    room = width - used - sum(cell_len(harmless(text)) for text, _ in right)
    if room < 1:
        return list(left)
    return [*left, (" " * room, ""), *right]
