"""The clock of a replay: it runs at a speed, stands still, and is set."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SLOWEST: Final = 0.1
FASTEST: Final = 1000.0
SPEEDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""The speeds that keys step through."""
_SECOND: Final = 10**9


class PlayClock:
    """A time in ns that moves ``speed`` times as fast as the clock that it is given.

    Parameters
    ----------
    position : int
        Where it begins, in ns.
    speed : float
        How many seconds of the trace a second shows.
    now : callable
        The clock behind it, in seconds; only differences count.

    Examples
    --------
    >>> seconds = [0.0]
    >>> clock = PlayClock(0, 10, lambda: seconds[0])
    >>> seconds[0] = 2.0
    >>> clock.read()
    20000000000
    """

    def __init__(self, position: int, speed: float = 1.0, now: Callable[[], float] = time.monotonic) -> None:
        self._position, self._speed, self._now = position, speed, now
        self._since = now()
        self.paused = False

    def read(self) -> int:
        """Return where it is."""
        now = self._now()
        if not self.paused:
            # A clock that is set back stands still: time in a trace does not run backwards by itself.
            self._position += round(max(0.0, now - self._since) * self._speed * _SECOND)
        self._since = now
        return self._position

    @property
    def speed(self) -> float:
        """Seconds of the trace per second."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self.read()
        self._speed = min(FASTEST, max(SLOWEST, speed))

    def faster(self, by: int = 1) -> None:
        """Go to the next speed, or to the one before."""
        others = [speed for speed in SPEEDS if (speed > self._speed if by > 0 else speed < self._speed)]
        if others:
            self.speed = min(others) if by > 0 else max(others)

    def pause(self, paused: bool) -> None:
        """Stand still, or go on."""
        self.read()
        self.paused = paused

    def set(self, position: int) -> None:
        """Go to a time."""
        self.read()
        self._position = position
