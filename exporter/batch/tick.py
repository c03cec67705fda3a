"""Rounds due times to ticks, so that one wake-up of the process serves many of them."""

from __future__ import annotations

import math

TICKS_PER_SECOND = 10

TICK = 1 / TICKS_PER_SECOND
"""Seconds. A wake-up costs more than the work of one poll, so due times are rounded to this."""


def next_tick(time: float) -> float:
    """`time`, in seconds of the event loop's clock, rounded up to a tick."""
    # A time that exceeds a tick only by a rounding error is that tick.
    return math.ceil(time * TICKS_PER_SECOND - 1e-6) / TICKS_PER_SECOND


def tick_after(time: float) -> float:
    """The first tick that is later than `time`."""
    return (math.floor(time * TICKS_PER_SECOND + 1e-6) + 1) / TICKS_PER_SECOND
