"""When to run which poll. It knows nothing of what a poll does.

Times are those of the running event loop, so a test can run hours of it in no time.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from exporter.batch.budget import TICKS_PER_SECOND, next_tick

Key = tuple[str, ...]

ROUNDING_ERROR = 1e-6
"""Seconds by which a computed time may be off."""


@dataclass(frozen=True)
class Poll:
    """Something to do again and again. Times in seconds.

    `run(key)`: raises nothing; returns the time to the poll's next turn where that is longer than
    the interval, which is rounded to whole intervals.
    `defer`: seconds that are added to the due time for the order of due polls.
    `in_background`: while other polls are late, such polls have a quarter of the concurrency.
    """

    key: Key
    interval: float
    run: Callable[[Key], Coroutine[Any, Any, float | None]]
    defer: float = 0.0
    in_background: bool = False


class PollObserver(Protocol):
    """Receives how late polls start, and how many turns they miss."""

    def poll_started(self, lag: float) -> None:
        """A poll started `lag` seconds after it was due."""

    def polls_skipped(self, count: int) -> None:
        """So many turns of a poll passed while it was still at its previous one."""


@dataclass(slots=True, eq=False)
class _Turn:
    """The next run of a poll, or the one that is going on.

    `period`: seconds between two turns: the interval, or longer where the poll asked for it.
    `earliest_next`: the turn after this one is not before that time; known when this one starts.
    """

    poll: Poll
    due: float
    period: float
    is_first: bool = False
    earliest_next: float = 0.0


class Scheduler:
    """Runs polls, each at its own interval.

    A poll's first turn is due at once. The others come at moments that depend on the poll's key
    and interval only, so that polls are spread over the interval whatever is added or removed.

    Of one key there is never a second run at the same time: one that is removed while it runs, and
    added again, waits for the end of that run.

    `max_concurrency`: how many run at once. Polls that are due wait in the order in which they fell
    due, each poll's `defer` added: the cheap ones come first. `name`: part of the phase, so that
    schedulers with other names poll at other moments.
    `first_round_done`: whether there was a moment at which every poll had run once, or was removed.
    """

    def __init__(self, max_concurrency: int, observer: PollObserver, name: str = "") -> None:
        self._max_concurrency = max_concurrency
        self._observer = observer
        self._name = name
        self._turns: dict[Key, _Turn] = {}
        # Both heaps keep replaced and removed turns until these reach the top.
        self._queue: list[tuple[float, int, _Turn]] = []
        self._due: list[tuple[float, int, _Turn]] = []
        self._due_in_background: list[tuple[float, int, _Turn]] = []
        self._count = 0
        self._running: set[Key] = set()
        self._running_in_background = 0
        self._wake = asyncio.Event()
        self._active_at = 0.0
        self._first_round: set[Key] = set()
        self.first_round_done = False

    @property
    def idle_since(self) -> float | None:
        """Since when polls have been due and none began or ended; None: none is due."""
        now = asyncio.get_running_loop().time()
        due = min((turn.due for turn in self._turns_due(now)), default=None)
        return None if due is None else max(due, self._active_at)

    @property
    def polls_per_second(self) -> float:
        """How many polls fall due in a second, those in the background excepted."""
        turns = self._turns.values()
        return math.fsum([1.0 / each.period for each in turns if not each.poll.in_background])

    @property
    def waiting(self) -> int:
        """Polls that are due and have not begun, those in the background excepted."""
        due = self._turns_due(asyncio.get_running_loop().time())
        return sum(not turn.poll.in_background for turn in due)

    def _turns_due(self, now: float) -> list[_Turn]:
        return [
            turn
            for key, turn in self._turns.items()
            if turn.due <= now and key not in self._running
        ]

    @property
    def first_round_left(self) -> int:
        """How many polls have not run yet since the first round began."""
        return len(self._first_round)

    def add(self, poll: Poll, *, at_once: bool = True) -> None:
        """Run a poll from now on.

        `at_once`: False where it ran before, under another rule for example: it has its next turn
        at its moment in the interval, and is no part of the first round.
        """
        now = asyncio.get_running_loop().time()
        if at_once and not self.first_round_done and not poll.in_background:
            self._first_round.add(poll.key)
        due = next_tick(now) if at_once else self._place(poll, poll.interval, now)
        self._plan(_Turn(poll, due, poll.interval, is_first=at_once))

    def remove(self, key: Key) -> None:
        """Stop running a poll. A run that is under way is finished."""
        self._turns.pop(key, None)
        self._leave_first_round(key)

    def hasten(self, key: Key) -> None:
        """Run a poll within its interval, if its next turn is later."""
        turn = self._turns.get(key)
        now = asyncio.get_running_loop().time()
        if turn is not None and key not in self._running and turn.due > now + turn.poll.interval:
            interval = turn.poll.interval
            self._plan(_Turn(turn.poll, self._place(turn.poll, interval, now), interval))

    def run_soon(self) -> None:
        """Run each poll as soon as there is room for it: what kept them from succeeding is over."""
        due = next_tick(asyncio.get_running_loop().time())
        for key, turn in list(self._turns.items()):
            if key not in self._running and turn.due > due:
                self._plan(_Turn(turn.poll, due, turn.period))

    def __contains__(self, key: Key) -> bool:
        return key in self._turns

    def polls(self) -> dict[Key, Poll]:
        """The polls that are run, by key."""
        return {key: turn.poll for key, turn in self._turns.items()}

    async def run(self) -> None:
        """Run polls as they fall due, until cancelled.

        It ends when all runs have ended, however often it is cancelled meanwhile: what begins after
        it must find none running.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as runs:
            while True:
                self._start_due(runs)
                self._wake.clear()
                timer = loop.call_at(self._queue[0][0], self._wake.set) if self._queue else None
                try:
                    await self._wake.wait()
                finally:
                    if timer is not None:
                        timer.cancel()

    async def run_once(self) -> None:
        """Run every poll once, those that others add meanwhile included, without waiting."""
        slots = asyncio.Semaphore(self._max_concurrency)
        seen: set[_Turn] = set()

        async def run(turn: _Turn) -> None:
            async with slots:
                if self._turns.get(turn.poll.key) is turn:  # not removed meanwhile
                    await turn.poll.run(turn.poll.key)
                    self._leave_first_round(turn.poll.key)

        while turns := [turn for turn in self._turns.values() if turn not in seen]:
            seen.update(turns)
            async with asyncio.TaskGroup() as group:
                for turn in turns:
                    group.create_task(run(turn))

    def _leave_first_round(self, key: Key) -> None:
        if key in self._first_round:
            self._first_round.discard(key)
            if not self._first_round:
                self.first_round_done = True
                self._first_round = set()  # one that was large keeps its memory

    def _plan(self, turn: _Turn) -> None:
        """This is the next turn of its poll."""
        key = turn.poll.key
        self._turns[key] = turn
        if key not in self._running:  # else it is planned when that run has ended
            self._count += 1
            heapq.heappush(self._queue, (turn.due, self._count, turn))
            if self._queue[0][2] is turn:
                self._wake.set()

    def _start_due(self, runs: asyncio.TaskGroup) -> None:
        """Start the polls that are due while there is room."""
        now = asyncio.get_running_loop().time()
        while self._queue and self._queue[0][0] <= now:
            due, number, turn = heapq.heappop(self._queue)
            heap = self._due_in_background if turn.poll.in_background else self._due
            heapq.heappush(heap, (due + turn.poll.defer, number, turn))
        share = max(1, self._max_concurrency // 4)
        while len(self._running) < self._max_concurrency:
            if self._due_in_background and (not self._due or self._running_in_background < share):
                heap = self._due_in_background
            elif self._due:
                heap = self._due
            else:
                break
            _, _, turn = heapq.heappop(heap)
            if self._turns.get(turn.poll.key) is turn:
                self._active_at = now
                self._running.add(turn.poll.key)
                self._running_in_background += turn.poll.in_background
                runs.create_task(self._run(turn, now))

    async def _run(self, turn: _Turn, started: float) -> None:
        poll, wait = turn.poll, None
        if not poll.in_background:
            self._observer.poll_started(max(0.0, started - turn.due))
        # The next turn is at least half an interval later, so it is the one nearest to a whole
        # interval. A first turn counts from its start: it may start late without a skipped turn.
        turn.earliest_next = (started if turn.is_first else turn.due) + poll.interval / 2
        try:
            wait = await poll.run(poll.key)
        except asyncio.CancelledError:
            # Else a part of the poll was cancelled, not the poll: it has its next turn.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
        finally:
            self._running.discard(poll.key)
            self._running_in_background -= poll.in_background
            now = self._active_at = asyncio.get_running_loop().time()
            if self._due or self._due_in_background:
                self._wake.set()
        planned = self._turns.get(poll.key)
        if planned is turn:
            self._leave_first_round(poll.key)
            self._plan(self._next_turn(turn, wait, now))
        elif planned is not None:  # removed and added again meanwhile
            planned.due = max(planned.due, next_tick(now))
            self._plan(planned)

    def _next_turn(self, turn: _Turn, wait: float | None, now: float) -> _Turn:
        poll = turn.poll
        period = poll.interval * max(1, math.floor((wait or 0.0) / poll.interval + 1e-6))
        on_time = self._place(poll, period, turn.earliest_next)
        due = self._place(poll, period, max(turn.earliest_next, now))
        if (skipped := round((due - on_time) / period)) and not poll.in_background:
            self._observer.polls_skipped(skipped)
        return _Turn(poll, due, period)

    def _place(self, poll: Poll, period: float, after: float) -> float:
        """The first moment from `after` on at which a poll of this period has a turn.

        The phase of a poll is the hash of its key, in ticks. It has turns at its phase plus whole
        periods. A longer period uses some of the same moments.
        """
        ticks = zlib.crc32("\n".join((self._name, *poll.key)).encode())
        phase = ticks % (period * TICKS_PER_SECOND) / TICKS_PER_SECOND
        periods = math.ceil((after - phase - ROUNDING_ERROR) / period)
        return next_tick(phase + periods * period)
