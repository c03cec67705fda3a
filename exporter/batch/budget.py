"""The request rate of one account, and the pauses that the service asks for."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from exporter.batch.errors import Throttled

MAX_PAUSE = 900.0
"""Seconds. During a longer pause one request is tried every PROBE_INTERVAL: the service may work
again before it said."""

PROBE_INTERVAL = 60.0
"""Seconds between two such requests."""

DEFAULT_PAUSE = 5.0
"""Seconds of a pause after "too many requests" without Retry-After."""

RETRIES = 20.0
"""Retries in a row while no request succeeds."""

RETRIES_EARNED = 0.125
"""Retries that a successful request earns. A service that is down gets few retries."""

BURST = 0.25
"""Seconds. After a quiet time, this many seconds' worth of requests may start at once."""

ROUNDING_ERROR = 1e-6
"""Tokens by which a sum of fractions may be wrong."""

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


class Budget:
    """The request budget of one account, shared by all its collectors: a token bucket.

    `requests_per_second`: the rate at which requests start, changed by `set_rate`. After a quiet
    time, a quarter of a second's worth starts at once. Queued requests start in order of arrival.
    `on_pause`: called with the seconds by which a pause grew.
    `started`: number of requests that started.
    """

    def __init__(self, requests_per_second: float, on_pause: Callable[[float], None]) -> None:
        self.requests_per_second = requests_per_second
        self._on_pause = on_pause
        self._tokens = self._burst
        self._filled_at = 0.0
        # Queued requests, and until when each may wait: a pause that ends later makes it fail.
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._paused_until = 0.0
        self._granted_at = 0.0
        # Whether there is a pause of more than MAX_PAUSE, and a request was tried during it.
        self._is_long = self._is_tried = False
        self._retries = RETRIES
        self.started = 0

    @property
    def _burst(self) -> float:
        """The size of the bucket. Less than one token plus those of a tick would lower the rate."""
        return max(self.requests_per_second * BURST, 1.0 + self.requests_per_second * TICK)

    @property
    def pause_left(self) -> float:
        """Seconds of a pause that are left."""
        return max(0.0, self._paused_until - asyncio.get_running_loop().time())

    @property
    def active_at(self) -> float:
        """When the last request started, or when the last pause ends, if that is later."""
        return max(self._granted_at, self._paused_until)

    def set_rate(self, requests_per_second: float) -> None:
        """Change the highest rate. A pause continues."""
        self._fill()
        self.requests_per_second = requests_per_second
        self._tokens = min(self._tokens, self._burst)
        self._set_timer()

    async def acquire(self, until: float) -> None:
        """Wait until one request may start.

        Throttled at once where the account is paused until after `until`, a time of the event loop.
        """
        loop = asyncio.get_running_loop()
        if self._paused_until > max(loop.time(), until):
            raise _throttled(self._paused_until - loop.time())
        granted: asyncio.Future[None] = loop.create_future()
        self._waiting.append((granted, until))
        if self._timer is None:  # no other request is queued
            self._start_waiting()
        try:
            await granted
        except asyncio.CancelledError:
            if not granted.cancelled() and granted.exception() is None:
                # The token was granted just before the cancellation: give it back.
                self._tokens += 1.0
            raise
        self.started += 1

    def _fill(self) -> None:
        now = asyncio.get_running_loop().time()
        if now > self._filled_at:
            more = (now - self._filled_at) * self.requests_per_second
            self._tokens = min(self._tokens + more, self._burst)
            self._filled_at = now

    def _may_start(self) -> bool:
        is_paused = self._paused_until > asyncio.get_running_loop().time()
        return not is_paused and self._tokens > 1.0 - ROUNDING_ERROR

    def _start_waiting(self) -> None:
        """Start as many queued requests as there are tokens, and set the timer for the others."""
        self._timer = None
        self._fill()
        while self._waiting and self._may_start():
            granted, _ = self._waiting.popleft()
            if not granted.done():  # cancelled
                self._tokens -= 1.0
                self._granted_at = asyncio.get_running_loop().time()
                granted.set_result(None)
                if self._is_long:
                    self._is_tried = True
                    self._hold(PROBE_INTERVAL)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            loop = asyncio.get_running_loop()
            filled_at = self._filled_at + max(0.0, 1.0 - self._tokens) / self.requests_per_second
            at = max(next_tick(max(filled_at, self._paused_until)), tick_after(loop.time()))
            self._timer = loop.call_at(at, self._start_waiting)

    def may_retry(self) -> bool:
        """Whether a failed attempt may be repeated. If so, the retry is counted."""
        if self._retries < 1.0:
            return False
        self._retries -= 1.0
        return True

    def succeeded(self) -> None:
        """Count a successful request. It ends a pause of more than MAX_PAUSE."""
        self._retries = min(RETRIES, self._retries + RETRIES_EARNED)
        if self._is_long and self._is_tried:
            self.end_pause()

    def end_pause(self) -> None:
        """Let requests start again, at the rate."""
        now = asyncio.get_running_loop().time()
        self._is_long = self._is_tried = False
        if self._paused_until > now:
            self._paused_until = self._filled_at = now
            self._set_timer()

    def pause(self, seconds: float | None) -> None:
        """Hold all requests back for `seconds` from now, as Retry-After asked.

        Of more than MAX_PAUSE one request is tried now and then, and the others are held back until
        it succeeds. Queued requests that may not wait so long fail at once, as Throttled.
        """
        asked = DEFAULT_PAUSE if seconds is None else max(seconds, 0.0)
        self._is_long, self._is_tried = asked > MAX_PAUSE, False
        self._hold(PROBE_INTERVAL if self._is_long else asked)

    def _hold(self, asked: float) -> None:
        now = asyncio.get_running_loop().time()
        end = now + asked
        if end <= self._paused_until:
            return
        self._on_pause(end - max(now, self._paused_until))
        self._paused_until = end
        # Queued requests start at the rate, not all at once. A short pause earns no token.
        self._fill()
        gained = (end - self._filled_at) * self.requests_per_second
        self._tokens, self._filled_at = min(1.0, self._tokens + gained), end
        for granted, until in self._waiting:
            if until < end and not granted.done():
                granted.set_exception(_throttled(asked))
        self._waiting = deque(each for each in self._waiting if not each[0].done())
        self._set_timer()


def _throttled(seconds: float) -> Throttled:
    return Throttled(f"the service asked for a pause; {seconds:.0f} s of it are left")
