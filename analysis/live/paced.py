"""Writes lines at the pace at which what they tell of happened."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable

from ringtape.analysis.live.play_clock import PlayClock

_LONGEST = 0.5
"""Seconds of sleep at most: Ctrl-C is then noticed wherever a signal does not cut a sleep short."""
_SHORTEST = 0.02
"""Lines whose times lie closer together are written at once: to sleep for each would be slower than the recording was."""


def write_paced(
    blocks: Iterable[tuple[list[int], list[str]]],
    clock: PlayClock,
    write: Callable[[list[str]], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write each line when the clock reaches its time.

    Parameters
    ----------
    blocks : iterable of (times, lines)
        In time order; times in ns.
    clock : PlayClock
        Set to where the replay begins.
    write : callable
        Takes the lines that are due.
    sleep : callable
        Waits some seconds.

    Examples
    --------
    >>> from itertools import count
    >>> seconds = count()
    >>> clock = PlayClock(0, 1, lambda: next(seconds))
    >>> write_paced([([0, 1_500_000_000, 5_000_000_000], ["a", "b", "c"])], clock, print, lambda seconds: None)
    ['a']
    ['b']
    ['c']
    """
    for times, lines in blocks:
        done = 0
        while done < len(lines):
            position = clock.read()
            due = bisect.bisect_right(times, position, done)
            if due > done:
                write(lines[done:due])
                done = due
            else:
                seconds = (times[done] - position) / 1e9 / clock.speed
                sleep(max(_SHORTEST, min(_LONGEST, seconds)))
