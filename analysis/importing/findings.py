"""What an import has to say about its source: lines that were not understood, and what the source does not know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

SHOWN = 120
"""Characters of a line that an example shows."""


@dataclass
class Kind:
    """One kind of remark: how often, and where first."""

    count: int = 0
    where: str = ""
    example: str = ""


@dataclass
class Findings:
    """Counts what could not be taken over as it stood; nothing is left out without a place here.

    ``refused`` are lines of which nothing was taken, ``doubts`` are values that the source does not tell, ``notes`` hold for
    the whole import.
    """

    lines: int = 0
    calls: int = 0
    refused: dict[str, Kind] = field(default_factory=dict)
    doubts: dict[str, Kind] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def refuse(self, why: str, where: str, line: str) -> None:
        """Count a line of which nothing was taken."""
        _count(self.refused, why, where, line)

    def doubt(self, why: str, where: str, line: str) -> None:
        """Count a value that could not be known."""
        _count(self.doubts, why, where, line)

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def unread(self) -> int:
        """Lines of which nothing was taken."""
        return sum(kind.count for kind in self.refused.values())

    def text(self) -> Iterator[str]:
        """Yield a line for each remark."""
        for what, kinds in (("not imported", self.refused), ("not known", self.doubts)):
            for why, kind in kinds.items():
                number = f"{kind.count:,} {'line' if kind.count == 1 else 'lines'}"
                yield f"{what}: {number}: {why}; first at {kind.where}: {kind.example}"
        yield from self.notes


def _count(kinds: dict[str, Kind], why: str, where: str, line: str) -> None:
    kind = kinds.get(why)
    if kind is None:
        kind = kinds[why] = Kind(0, where, line.strip()[:SHOWN])
    kind.count += 1
