"""Which clients scrape, and what all of them have read."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

ACTIVE_FOR = 120.0
"""Seconds after a scrape for which its client is expected again."""

LONGEST = 60.0
"""Longest wait for a client, in seconds. A client may scrape only once a minute."""

CLIENTS = 200
"""Clients that are remembered, the latest ones."""

Client = tuple[str, str]
"""(address, User-Agent)."""


class Scrapes:
    """The latest scrape of each client. `now`: seconds of a clock that is never set."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._latest: OrderedDict[Client, float] = OrderedDict()

    def note(self, client: Client, taken_at: float) -> None:
        """A client has received what was exposed at `taken_at`."""
        self._latest[client] = max(taken_at, self._latest.get(client, taken_at))
        self._latest.move_to_end(client)
        if len(self._latest) > CLIENTS:
            self._latest.popitem(last=False)

    def read_until(self, now: float) -> float:
        """The moment before which all that was exposed counts as read.

        Each active client has read it, or it is so old that it waits no longer.
        """
        active = [taken_at for taken_at in self._latest.values() if taken_at > now - ACTIVE_FOR]
        return max(min(active, default=-math.inf), now - LONGEST)
