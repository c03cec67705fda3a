"""Limits of the listener: for each client, for all clients, and for requests at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from exporter.web.server.web_config import RateLimit


@dataclass(frozen=True)
class Limits:
    """Limits of the listener; times in seconds.

    `max_requests`: answered at once, without health checks; 0 for no limit.
    `connections`: open at once. `header_timeout`: for a TLS handshake, and from the connection or
    the first byte of a request to its last header. `header_bytes`: of a request, its request line
    included. `idle_timeout`: between two requests of a connection. `write_timeout`: for a client
    to read the next 256 KiB of its answer. `least_rate`: bytes per second; a client that reads
    more slowly is cut off, because it holds the answer in memory.
    """

    max_requests: int = 40
    connections: int = 2000
    header_timeout: float = 30.0
    header_bytes: int = 72 * 1024  # 64 KiB of fields: sign-in proxies send many cookies
    idle_timeout: float = 330.0  # longer than any usable scrape interval
    write_timeout: float = 30.0
    least_rate: float = 64 * 1024


class RateLimiter:
    """A token bucket, full at first. `clock`: in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit = RateLimit()
        self._tokens = 0.0
        self._filled = 0.0

    def allow(self, limit: RateLimit) -> bool:
        """Whether one more request is within `limit`. A changed limit starts with a full bucket."""
        if not limit.interval:
            return True
        now = self._clock()
        if limit != self._limit:
            self._limit, self._tokens, self._filled = limit, float(limit.burst), now
        gained = (now - self._filled) / limit.interval
        self._tokens, self._filled = min(limit.burst, self._tokens + gained), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
