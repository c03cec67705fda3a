"""What is due when: the heap of a discrete-event simulation."""

import heapq
from collections.abc import Callable
from typing import Any

Event = Callable[..., object]


class Agenda:
    """Events in order of time, and of their making where the time is the same."""

    def __init__(self, now: int) -> None:
        """Start at tick `now` with nothing due."""
        self.now = now
        self._made = 0
        self._due: list[tuple[int, int, Event, tuple[Any, ...]]] = []

    def after(self, span: int, event: Event, *arguments: Any) -> None:
        """Call `event(*arguments)` `span` ticks from now."""
        self._made += 1
        heapq.heappush(self._due, (self.now + span, self._made, event, arguments))

    def run_until(self, tick: int, settle: Callable[[], None]) -> None:
        """Run every event due up to and at `tick`, `settle()` after each; then it is `tick`.

        A tick in the past changes nothing: simulated time never runs backwards.
        """
        due = self._due
        while due and due[0][0] <= tick:
            self.now, _, event, arguments = heapq.heappop(due)
            event(*arguments)
            settle()
        self.now = max(self.now, tick)
