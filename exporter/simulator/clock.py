"""Simulated time against real time."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta


class Clock:
    """Simulated now: `speed` simulated seconds to a real one, from `start` on.

    Speed 1 is real time, 0 is frozen: then it moves by `advance` alone.
    """

    def __init__(
        self,
        start: datetime,
        *,
        speed: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Run from `start` (aware), counting from this call; `monotonic` gives real seconds."""
        if speed < 0:
            raise ValueError("simulated time does not run backwards: speed must be 0 or more")
        self.speed = speed
        self._start = start
        self._monotonic = monotonic
        self._began = monotonic()

    def now(self) -> datetime:
        """Simulated time."""
        return self._start + timedelta(seconds=(self._monotonic() - self._began) * self.speed)

    def advance(self, seconds: float) -> None:
        """Move simulated time on by hand, on top of what passes by itself."""
        if seconds < 0:
            raise ValueError("simulated time does not run backwards")
        self._start += timedelta(seconds=seconds)
