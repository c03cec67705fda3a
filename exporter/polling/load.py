"""How busy the polls of an account are, against what it may be asked."""

from __future__ import annotations

from collections import deque
from typing import Annotated

import msgspec

WINDOW = 60
"""Seconds over which the rate of requests is taken."""


class Load(msgspec.Struct, frozen=True):
    """How busy the polls of an account are.

    `requests_per_second`: of the last minute; `budget_per_second`: what is allowed.
    `polls_per_second`: what the timetable asks for. `polls_waiting`: due and not begun.
    `lag_seconds`: how late the latest poll began. `pause_seconds`: left of a pause that the service
    asked for.
    """

    requests_per_second: float
    budget_per_second: float
    polls_per_second: float
    polls_waiting: Annotated[int, msgspec.Meta(ge=0)]
    lag_seconds: float
    pause_seconds: float


def as_measured(value: float) -> float:
    """A rate or time to about three digits, as far as it was measured."""
    return float(f"{value:.3g}") if value >= 1.0 else round(value, 3)


class RequestRate:
    """The rate of a count that only grows, over the last minute or since it began."""

    def __init__(self) -> None:
        self._noted: deque[tuple[float, int]] = deque(maxlen=WINDOW + 1)

    def note(self, now: float, count: int) -> None:
        """The count is this at the time `now`, in seconds; to be called once a second or so."""
        self._noted.append((now, count))

    @property
    def per_second(self) -> float:
        """The rate; 0 while too little is known."""
        if len(self._noted) < 2:
            return 0.0
        (start, before), (end, after) = self._noted[0], self._noted[-1]
        return (after - before) / (end - start) if end > start else 0.0
