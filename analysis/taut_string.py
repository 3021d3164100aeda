"""The fewest modes that a distribution can have: the taut string through a band around its distribution function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mode:
    """A mode: bins from ``first`` up to ``end`` (the valleys), densest from ``top`` up to ``top_end``; ``density`` there and in the ``valley``."""

    first: int
    end: int
    top: int
    top_end: int
    density: float
    valley: float | None


def radius(n: int, level: float = 0.05) -> float:
    """Return the distance from the distribution function of n values within which the true one lies with probability 1 - level.

    Dvoretzky, Kiefer and Wolfowitz with the constant of Massart (1990, Annals of Probability 18:1269).
    """
    return float(np.sqrt(np.log(2 / level) / (2 * n))) if n else 1.0


def string(places: Floats, lower: Floats, upper: Floats) -> tuple[list[int], Floats]:
    """Return the knots of the shortest path between two boundaries, the first and last places among them, and its heights there.

    The ends of the path are those of the boundaries, which meet there. Between two knots the path is straight; it touches the upper boundary at
    a knot where it bends up, the lower one where it bends down.
    """
    knots, heights = [0], [float(lower[0])]
    last = len(places) - 1
    while knots[-1] < last:
        at, height = knots[-1], heights[-1]
        # The funnel of straight lines from the knot that stay between the boundaries, until it closes.
        least, most, low_at, high_at = -np.inf, np.inf, at + 1, at + 1
        closed = False
        for place in range(at + 1, last + 1):
            step = places[place] - places[at]
            low, high = (lower[place] - height) / step, (upper[place] - height) / step
            if low > most:
                knots.append(high_at)
                heights.append(float(upper[high_at]))
                closed = True
                break
            if high < least:
                knots.append(low_at)
                heights.append(float(lower[low_at]))
                closed = True
                break
            if low >= least:
                least, low_at = low, place
            if high <= most:
                most, high_at = high, place
        if not closed:
            knots.append(last)
            heights.append(float(lower[last]))
    return knots, np.asarray(heights)


def modes(counts: npt.NDArray[np.int64], widths: Floats, distance: float) -> list[Mode]:
    """Return the modes that every distribution has whose distribution function is nowhere farther away than ``distance``.

    Parameters
    ----------
    counts : array of int
        Values by bin.
    widths : array
        Widths of the bins.
    distance : float
        Half the height of the band around the distribution function.

    Returns
    -------
    list of Mode
        In order; at least one if there are values.

    Notes
    -----
    The taut string has the fewest local maxima of density of all functions in the band (Davies and Kovac 2001, Annals of Statistics 29:1;
    2004, 32:1093). If the band holds the true distribution function, there are in truth at least as many modes.
    """
    total = int(counts.sum())
    if not total:
        return []
    share = np.append(0.0, np.cumsum(counts) / total)
    places = np.append(0.0, np.cumsum(widths))
    lower, upper = np.clip(share - distance, 0, 1), np.clip(share + distance, 0, 1)
    lower[0] = upper[0] = 0.0
    lower[-1] = upper[-1] = 1.0
    knots, heights = string(places, lower, upper)
    slopes = np.diff(heights) / np.diff(places[knots])
    pieces = [at for at in range(len(slopes)) if at == 0 or not np.isclose(slopes[at], slopes[at - 1], rtol=1e-9, atol=0)]
    levels = slopes[pieces]
    begins = [knots[at] for at in pieces]
    ends = [*begins[1:], knots[-1]]
    tops = [at for at in range(len(levels)) if (at == 0 or levels[at - 1] < levels[at]) and (at == len(levels) - 1 or levels[at + 1] < levels[at])]
    found = []
    first = 0
    for number, top in enumerate(tops):
        if number + 1 < len(tops):
            low = min(range(top + 1, tops[number + 1]), key=lambda at: levels[at])
            # The valley lies in the emptiest bin of the lowest piece.
            inside = counts[begins[low] : ends[low]] / widths[begins[low] : ends[low]]
            bottom = np.flatnonzero(inside == inside.min())
            end, valley = begins[low] + int(bottom[len(bottom) // 2]), float(levels[low])
        else:
            end, valley = len(counts), None
        found.append(Mode(first, end, begins[top], ends[top], float(levels[top]), valley))
        first = end
    return found
