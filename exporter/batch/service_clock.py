"""The service's clock, as the header Date of its answers shows it.

Times of jobs are of that clock, and changes are asked for by it. Our clock may be wrong, either may
be set, and a Date may be wrong for minutes. An offset is the service's time less ours, in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_SKEW = 300.0
"""Seconds by which clocks may differ. More is reported as the likely cause of a refusal."""

MAX_JUMP = 10.0
"""Seconds. An offset may change by more, but one answer is no proof of it."""

STEADY_AFTER = 300.0
"""Seconds for which answers must show a clock that is far from ours, if another was known."""


class ServiceClock:
    """What the answers so far show of it.

    `offset`: to compare our time with times of jobs. A Date that is wrong for some minutes does not
    move it.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """`now`: our Unix time."""
        self._now = now
        self._latest = 0.0
        self._believed = 0.0
        self._steady: float | None = None
        self._odd_since: float | None = None

    def note(self, offset: float) -> None:
        """Take the offset that an answer shows."""
        before, self._latest = self._latest, offset
        # One is believed that agrees with the known one, at first our own clock, or with the last.
        if min(abs(offset - before), abs(offset - self._believed)) > MAX_JUMP:
            return
        self._believed = offset
        known = self._steady
        if known is None or abs(offset) <= MAX_SKEW or abs(offset - known) <= MAX_JUMP:
            self._steady, self._odd_since = offset, None
        elif self._odd_since is None:
            self._odd_since = self._now()
        elif not 0 <= self._now() - self._odd_since < STEADY_AFTER:
            self._steady, self._odd_since = offset, None

    def trust_own(self) -> None:
        """Take ours for right, unless answers show for long that it is not."""
        if self._steady is None:
            self._steady = 0.0

    @property
    def offset(self) -> float:
        """Our time plus this is the service's."""
        return self._steady or 0.0

    @property
    def offset_for_changes(self) -> float:
        """For the time from which changes are asked for.

        A clock far ahead of ours is not believed here: if it is wrong, that time would be still to
        come, and no change would be found.
        """
        return self._believed if self._believed <= MAX_SKEW else 0.0

    @property
    def is_sure(self) -> bool:
        """Whether the latest answer was believed."""
        return abs(self._latest - self._believed) <= MAX_JUMP
