"""When to run which poll. It knows nothing of what a poll does.

Times are those of the running event loop, so a test can run hours of it in no time.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

Key = tuple[str, ...]

GOLDEN_RATIO = 2654435769 / 2**32
"""Very nearly, and in so few bits that to reckon with it makes no rounding errors."""


@dataclass(frozen=True)
class Poll:
    """Something to do again and again. Times in seconds.

    `run`: raises nothing, and gives the time that its next turn may take to come where that is
    longer than the interval; it is taken as whole intervals.
    `patience`: for so long it lets others go first that fell due after it.
    """

    key: Key
    interval: float
    run: Callable[[], Awaitable[float | None]]
    patience: float = 0.0


class PollObserver(Protocol):
    """Is told how well the timetable is kept."""

    def poll_started(self, lag: float) -> None:
        """A poll started `lag` seconds after it was due."""

    def polls_skipped(self, count: int) -> None:
        """So many turns of a poll passed while it was still at its previous one."""


class _Places:
    """Places in an interval, such that those which are taken are spread over it evenly.

    Place n is n golden ratios of an interval past its beginning, whole intervals left out: however
    many are taken, no two are much closer than others. What was given back is given out first, lest
    holes remain.
    """

    def __init__(self) -> None:
        self._count = 0
        self._free: list[int] = []

    def take(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        self._count += 1
        return self._count

    def give_back(self, place: int) -> None:
        heapq.heappush(self._free, place)


@dataclass(slots=True)
class _Turn:
    due: float
    number: int
    poll: Poll
    intervals: int = 1
    """From one turn to the next; more than one where the poll asked for it."""
    cancelled: bool = False
    is_running: bool = False


class Scheduler:
    """Runs polls, each at its own interval and never beside itself.

    `max_concurrency`: polls under way at once. Those that are due wait in the order in which they
    fell due, their patience added: after a pause the cheap ones come first. `offset`: the part of
    an interval, 0 to 1, at which the first poll has its turn; of schedulers side by side each has
    another, or the first polls of all would come at once.
    """

    def __init__(self, max_concurrency: int, observer: PollObserver, offset: float = 0.0) -> None:
        self._slots = asyncio.Semaphore(max_concurrency)
        self._observer = observer
        self._offset = offset
        self._places: defaultdict[float, _Places] = defaultdict(_Places)
        self._taken: dict[Key, tuple[float, int]] = {}
        self._slowed = 0
        self._turns: dict[Key, _Turn] = {}
        self._queue: list[tuple[float, int, _Turn]] = []
        self._ready: list[tuple[float, int, _Turn]] = []
        self._count = 0
        self._waiting: asyncio.Future[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._began_at = 0.0
        self._first_round: set[Key] = set()
        self._first_round_done = False

    @property
    def stuck_for(self) -> float:
        """Seconds for which a poll has been due and none has begun."""
        now = asyncio.get_running_loop().time()
        due = [turn.due for _, _, turn in self._ready if not turn.cancelled]
        due += [due for due, _, _ in self._queue[:1]]
        return max(0.0, now - max(min(due, default=now), self._began_at))

    @property
    def polls_per_second(self) -> float:
        """What the timetable asks for."""
        return math.fsum(
            [1.0 / (turn.poll.interval * turn.intervals) for turn in self._turns.values()]
        )

    @property
    def waiting(self) -> int:
        """Polls that are due and have not begun."""
        now = asyncio.get_running_loop().time()
        ready = [turn for _, _, turn in self._ready if not turn.cancelled]
        return len(ready) + sum(due <= now and not turn.cancelled for due, _, turn in self._queue)

    @property
    def first_round_done(self) -> bool:
        """Whether there was a moment at which every poll had run once, or was removed."""
        return self._first_round_done

    @property
    def first_round_left(self) -> int:
        """How many polls have not run yet since the first round began."""
        return len(self._first_round)

    def add(self, poll: Poll, *, at_once: bool = False) -> None:
        """Run a poll from now on.

        The first turn comes within an interval, at a moment at which few others have theirs: polls
        of one interval are spread over it evenly, though many came and went. One that is removed
        and added again may have its turn at another moment than before.
        """
        if not self._first_round_done:
            self._first_round.add(poll.key)
        due = asyncio.get_running_loop().time()
        if not at_once:
            place = self._places[poll.interval].take()
            self._taken[poll.key] = (poll.interval, place)
            phase = _fraction(place, self._offset)
            due = (math.ceil(due / poll.interval - phase) + phase) * poll.interval
        self._push(poll, due)

    def remove(self, key: Key) -> None:
        """Do not run a poll any more; one that is under way comes to its end."""
        self._ran(key)
        turn = self._turns.pop(key, None)
        if turn is not None:
            turn.cancelled = True
        if key in self._taken:
            interval, place = self._taken.pop(key)
            self._places[interval].give_back(place)

    def hasten(self, key: Key) -> None:
        """A poll whose next turn is further away than its interval comes within that."""
        turn = self._turns.get(key)
        now = asyncio.get_running_loop().time()
        if turn is not None and not turn.is_running and turn.due > now + turn.poll.interval:
            turn.cancelled = True
            interval = turn.poll.interval
            self._push(turn.poll, turn.due - (turn.due - now) // interval * interval)

    def __contains__(self, key: Key) -> bool:
        return key in self._turns

    def polls(self) -> dict[Key, Poll]:
        """The polls that are run, by key."""
        return {key: turn.poll for key, turn in self._turns.items()}

    async def run(self) -> None:
        """Run polls as they fall due, until cancelled."""
        try:
            while True:
                await self._slots.acquire()
                turn = await self._next_due()
                task = asyncio.create_task(self._take(turn))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def run_once(self) -> None:
        """Run every poll once, those that others add meanwhile included, without waiting."""
        done: set[int] = set()
        while pending := [turn for turn in self._turns.values() if turn.number not in done]:
            async with asyncio.TaskGroup() as group:
                for turn in pending:
                    done.add(turn.number)
                    await self._slots.acquire()
                    if turn.cancelled:  # removed meanwhile
                        self._slots.release()
                        continue
                    task = group.create_task(self._run_now(turn.poll))
                    task.add_done_callback(lambda _: self._slots.release())

    async def _run_now(self, poll: Poll) -> None:
        await poll.run()
        self._ran(poll.key)

    def _ran(self, key: Key) -> None:
        if key in self._first_round:
            self._first_round.discard(key)
            self._first_round_done = not self._first_round

    async def _next_due(self) -> _Turn:
        loop = asyncio.get_running_loop()
        while True:
            while self._queue and (self._queue[0][2].cancelled or self._queue[0][0] <= loop.time()):
                due, number, turn = heapq.heappop(self._queue)
                heapq.heappush(self._ready, (due + turn.poll.patience, number, turn))
            while self._ready:
                _, _, turn = heapq.heappop(self._ready)
                if not turn.cancelled:
                    return turn
            self._waiting = loop.create_future()
            timer = loop.call_at(self._queue[0][0], self._wake) if self._queue else None
            try:
                await self._waiting
            finally:
                self._waiting = None
                if timer is not None:
                    timer.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _take(self, turn: _Turn) -> None:
        loop = asyncio.get_running_loop()
        poll, wait = turn.poll, None
        turn.is_running = True
        self._began_at = loop.time()
        self._observer.poll_started(loop.time() - turn.due)
        try:
            wait = await poll.run()
        except asyncio.CancelledError:
            turn.cancelled = True  # the scheduler stops
            raise
        finally:
            self._slots.release()
            if not turn.cancelled:
                self._ran(poll.key)
                # The timetable does not drift: turns that have passed meanwhile are left out.
                missed = int(max(0.0, loop.time() - turn.due) / poll.interval)
                if missed:
                    self._observer.polls_skipped(missed)
                intervals = max(1, math.floor((wait or 0.0) / poll.interval + 1e-6))
                ahead = max(missed + 1, self._first_step(turn, intervals))
                self._push(poll, turn.due + ahead * poll.interval, intervals)

    def _first_step(self, turn: _Turn, intervals: int) -> int:
        """In how many intervals the next turn is, where from then on each is so many later.

        Of polls that slow down together not all come together again: they are dealt out to the
        intervals between two turns.
        """
        if intervals == turn.intervals:
            return intervals
        self._slowed += 1
        return 1 + math.floor(_fraction(self._slowed) * intervals)

    def _push(self, poll: Poll, due: float, intervals: int = 1) -> None:
        self._count += 1
        turn = _Turn(due, self._count, poll, intervals)
        self._turns[poll.key] = turn
        heapq.heappush(self._queue, (due, self._count, turn))
        if self._queue[0][2] is turn:
            self._wake()  # it is the next, and sooner than what is waited for


def _fraction(number: int, offset: float = 0.0) -> float:
    return (number * GOLDEN_RATIO + offset) % 1.0
