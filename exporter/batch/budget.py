"""What one account may be asked: requests spread evenly, and pauses that the service asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from exporter.batch.errors import Throttled

MAX_PAUSE = 900.0
"""Seconds. A longer Retry-After is taken as this: it is checked again then."""

DEFAULT_PAUSE = 5.0
"""Seconds of pause where the service says "too many requests" and not for how long."""


RETRIES = 20.0
"""Attempts that may be repeated in a row while none succeeds."""

RETRIES_EARNED = 0.125
"""By each request that succeeds: of a service that is down, few requests are repeated."""


class Budget:
    """The request budget of one account, shared by all its collectors.

    `requests_per_second`: requests start at least 1/rate seconds apart.
    `on_pause`: called with the seconds by which a pause grew.
    `started`: number of turns that were given, each to a request.
    """

    def __init__(self, requests_per_second: float, on_pause: Callable[[float], None]) -> None:
        self._gap = 1.0 / requests_per_second
        self._on_pause = on_pause
        self._next = 0.0
        self._paused_until = 0.0
        self._retries = RETRIES
        self.started = 0

    @property
    def requests_per_second(self) -> float:
        """The ceiling."""
        return 1.0 / self._gap

    @property
    def pause_left(self) -> float:
        """Seconds of a pause that are left."""
        return max(0.0, self._paused_until - asyncio.get_running_loop().time())

    def set_rate(self, requests_per_second: float) -> None:
        """Another ceiling from now on; a pause goes on."""
        self._gap = 1.0 / requests_per_second

    async def acquire(self, until: float) -> None:
        """Wait for the moment at which one request may start.

        Throttled where the account is paused past `until`, a time of the event loop.
        """
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            pause = self._paused_until - now
            if pause > 0 and self._paused_until > until:
                raise Throttled(f"the service asked for a pause; {pause:.0f} s of it are left")
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            start = max(self._next, now)
            self._next = start + self._gap
            self.started += 1
            if start <= now:
                return
            await asyncio.sleep(start - now)
            # The service may have asked for a pause meanwhile: look again, keeping the turn.
            if self._paused_until <= loop.time():
                return

    def may_retry(self) -> bool:
        """Whether an attempt may be repeated; if so, it counts as repeated."""
        if self._retries < 1.0:
            return False
        self._retries -= 1.0
        return True

    def succeeded(self) -> None:
        """A request was answered as it should be."""
        self._retries = min(RETRIES, self._retries + RETRIES_EARNED)

    def pause(self, seconds: float | None) -> None:
        """Hold all requests back for `seconds` from now, as Retry-After asked."""
        now = asyncio.get_running_loop().time()
        asked = DEFAULT_PAUSE if seconds is None else min(max(seconds, 0.0), MAX_PAUSE)
        end = now + asked
        if end > self._paused_until:
            self._on_pause(end - max(now, self._paused_until))
            self._paused_until = end
