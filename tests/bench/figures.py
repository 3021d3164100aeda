"""What was measured, as figures over repeats, rows with targets, and sections of one Markdown table each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One quantity over repeats.

    Parameters
    ----------
    values : sequence of float
        One per repeat, in the order in which they were measured.
    more_is_better : bool
        Whether the best value is the greatest.
    """

    values: tuple[float, ...]
    more_is_better: bool = False

    @classmethod
    def of(cls, values: Sequence[float], more_is_better: bool = False) -> Figure:
        """Return a figure over these repeats."""
        return cls(tuple(values), more_is_better)

    @property
    def best(self) -> float:
        """The least disturbed repeat."""
        return max(self.values) if self.more_is_better else min(self.values)

    @property
    def median(self) -> float:
        """The middle of the repeats."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Pair:
    """A best and a median that come of two figures: a difference, or a ratio."""

    best: float
    median: float
    repeats: int


def difference(left: Figure, right: Figure) -> Pair:
    """Return left - right, of the best values and of the medians."""
    return Pair(left.best - right.best, left.median - right.median, min(len(left.values), len(right.values)))


def ratio(left: Pair, right: Pair) -> Pair:
    """Return left / right, of the best values and of the medians."""

    def divide(above: float, below: float) -> float:
        # A cost that is not above 0 was lost in the noise, and so is any ratio with it.
        return above / below if below > 0 and above > 0 else float("nan")

    return Pair(divide(left.best, right.best), divide(left.median, right.median), min(left.repeats, right.repeats))


def pair(figure: Figure) -> Pair:
    """Return the best and the median of a figure."""
    return Pair(figure.best, figure.median, len(figure.values))


@dataclass(frozen=True)
class Target:
    """A bound on a figure."""

    text: str
    holds: Callable[[float], bool]


def at_most(bound: float, text: str = "") -> Target:
    """Return the target of staying at or below a bound."""
    return Target(text or f"<= {bound:g}", lambda value: value <= bound)


def at_least(bound: float, text: str = "") -> Target:
    """Return the target of reaching a bound."""
    return Target(text or f">= {bound:g}", lambda value: value >= bound)


@dataclass(frozen=True)
class Row:
    """One line of a table. Without a target it is there to be read, not to be judged."""

    what: str
    measured: Pair
    show: Callable[[float], str]
    target: Target | None = None
    beside: str = ""

    @property
    def reached(self) -> str:
        """Whether the target is reached by the best value and by the median."""
        if self.target is None:
            return ""
        if math.isnan(self.measured.best) and math.isnan(self.measured.median):
            return "lost in noise"
        best, median = self.target.holds(self.measured.best), self.target.holds(self.measured.median)
        if best and median:
            return "yes"
        return "at its best only" if best else "by the median only" if median else "no"

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the line."""
        single = self.measured.repeats == 1
        median = "" if single else self.show(self.measured.median)
        target = self.target.text if self.target else ""
        return self.what, self.show(self.measured.best), median, str(self.measured.repeats), target, self.reached, self.beside


def said(what: str, beside: str) -> Row:
    """Return a line of words: something that is absent, or was not measured, and why."""
    return Row(what, Pair(float("nan"), float("nan"), 0), lambda _: "-", None, beside)


HEAD = ("what", "best", "median", "n", "target", "reached", "beside")


@dataclass
class Section:
    """A titled table with remarks on how it was measured, and the raw values."""

    name: str
    title: str
    remarks: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    raw: dict[str, object] = field(default_factory=dict)

    def markdown(self) -> str:
        """Return the section as Markdown."""
        lines = [f"## {self.title}", "", *self.remarks, *([""] if self.remarks else [])]
        lines += table(HEAD, [row.cells() for row in self.rows])
        return "\n".join(lines) + "\n"

    def json(self) -> dict[str, object]:
        """Return the section as data, raw values included."""
        rows = [
            {
                "what": row.what,
                "best": row.measured.best if row.measured.repeats else None,
                "median": row.measured.median if row.measured.repeats else None,
                "repeats": row.measured.repeats,
                "target": row.target.text if row.target else None,
                "reached": row.reached or None,
                "beside": row.beside,
            }
            for row in self.rows
        ]
        return {"name": self.name, "title": self.title, "remarks": self.remarks, "rows": rows, "raw": self.raw}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, padded so that it can be read as it is."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def nanoseconds(value: float) -> str:
    """Show ns."""
    return f"{value:,.1f} ns" if abs(value) < 1000 else f"{value:,.0f} ns"


def seconds(value: float) -> str:
    """Show s."""
    return f"{value:.3f} s"


def times(value: float) -> str:
    """Show a ratio."""
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def number(value: float) -> str:
    """Show a count."""
    return f"{value:,.0f}"


def share(value: float) -> str:
    """Show a share as a percentage."""
    return f"{100 * value:.2f} %"


def octets(value: float) -> str:
    """Show bytes per event."""
    return f"{value:.2f} B"


def megabytes(value: float) -> str:
    """Show bytes as MB (10**6)."""
    return f"{value / 1e6:,.1f} MB"
