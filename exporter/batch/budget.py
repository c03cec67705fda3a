"""What one account may be asked: requests spread evenly, and pauses that the service asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from exporter.errors import Throttled

MAX_PAUSE = 900.0
"""Seconds. A longer Retry-After is taken as this: it is checked again then."""

DEFAULT_PAUSE = 5.0
"""Seconds of pause where the service says "too many requests" and not for how long."""


class Budget:
    """The request budget of one account, shared by all its collectors.

    `requests_per_second`: requests start at least 1/rate seconds apart.
    `patience`: seconds that a request waits for the end of a pause; past it, Throttled.
    `on_pause`: called with the seconds by which a pause grew.
    """

    def __init__(
        self, requests_per_second: float, patience: float, on_pause: Callable[[float], None]
    ) -> None:
        self._gap = 1.0 / requests_per_second
        self._patience = patience
        self._on_pause = on_pause
        self._next = 0.0
        self._paused_until = 0.0

    async def acquire(self) -> None:
        """Wait for the moment at which one request may start."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            pause = self._paused_until - now
            if pause > self._patience:
                raise Throttled(f"the service asked for a pause; {pause:.0f} s of it are left")
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            start = max(self._next, now)
            self._next = start + self._gap
            if start <= now:
                return
            await asyncio.sleep(start - now)
            # The service may have asked for a pause meanwhile: look again, keeping the turn.
            if self._paused_until <= loop.time():
                return

    def pause(self, seconds: float | None) -> None:
        """Hold all requests back for `seconds` from now, as Retry-After asked."""
        now = asyncio.get_running_loop().time()
        asked = DEFAULT_PAUSE if seconds is None else min(max(seconds, 0.0), MAX_PAUSE)
        end = now + asked
        if end > self._paused_until:
            self._on_pause(end - max(now, self._paused_until))
            self._paused_until = end
